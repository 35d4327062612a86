"""A batch over a real ledger, with a service and a download that a test scripts: what becomes of each video."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from prefect import flow
from sqlalchemy.exc import OperationalError

from fake_clock import FakeClock
from prefect_server import PrefectServer
from prefect_together.batch import Batch
from prefect_together.client import VideoApi
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.errors import JobFailed, JobNotFound, SettingsInvalid, SubmissionInDoubt
from prefect_together.jobs import VideoJob
from prefect_together.ledger import HERE, Ledger, LedgerTotals, VideoRecord, open_ledger
from prefect_together.ledger_engine import LedgerEngine, LedgerUnavailable, Operation, open_engine
from prefect_together.ledger_schema import State
from prefect_together.media import MediaFacts
from prefect_together.pacing import SubmitPacer
from prefect_together.plan import Plan, PlannedVideo
from prefect_together.poll_budget import PollBudget
from prefect_together.requests import VideoRequest
from prefect_together.schedule import DurationBook
from prefect_together.session import VideoSession
from prefect_together.storage import LocalStore
from prefect_together.tally import Tally
from prefect_together.video_run import GONE_SECONDS, RunSettings
from prefect_together.wait import NOT_VISIBLE_SECONDS
from table_of_prompts import Desk, prompts
from test_ledger import a_video

T = TypeVar("T")

CLIP = b"clip"
FACTS = MediaFacts("mp4", 1.0, 24.0, 16, 16, False, "h264")
Answer = Callable[[str], VideoJob]


def done(cost_usd: float | None = 0.28) -> Answer:
    return lambda job_id: VideoJob(job_id, "completed", video_url=f"https://x/{job_id}", cost_usd=cost_usd)


def gave_up(cost_usd: float | None = None) -> Answer:
    return lambda job_id: VideoJob(job_id, "failed", error_message="gpu lost", cost_usd=cost_usd)


def working(job_id: str) -> VideoJob:
    return VideoJob(job_id, "in_progress")


def unknown(job_id: str) -> VideoJob:
    raise JobNotFound(job_id)


class Service(VideoApi):
    """Takes every job; `answers` says what a job is when it is looked at, by its id, else `usual`."""

    def __init__(self, usual: Answer | None = None, answers: Mapping[str, Answer] | None = None) -> None:
        self.usual, self.answers = usual or done(), dict(answers or {})
        self.created: list[str | None] = []
        self.on_create: Callable[[], Awaitable[None]] | None = None

    async def create(self, request: VideoRequest) -> VideoJob:
        self.created.append(request.prompt)
        number = len(self.created)
        if self.on_create is not None:
            await self.on_create()
        return VideoJob(f"job-{number}", "queued")

    async def retrieve(self, job_id: str) -> VideoJob:
        return self.answers.get(job_id, self.usual)(job_id)


class Session(VideoSession):
    """Downloads nothing: a clip is four bytes."""

    async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
        await asyncio.to_thread(target.write_bytes, CLIP)
        return DownloadedClip(target, len(CLIP), "ab", FACTS, 0, 1)


@dataclass
class Ended:
    """What a run left in the ledger, and what it raised."""

    error: BaseException | None
    records: dict[str, VideoRecord]
    totals: LedgerTotals
    tally: Tally

    @property
    def states(self) -> Counter[str]:
        return Counter(record.state.value for record in self.records.values())

    def of(self, video: PlannedVideo) -> VideoRecord:
        return self.records[video.key]


OpenLedger = Callable[[str], AbstractAsyncContextManager[Ledger]]


@dataclass
class Place:
    """A ledger and output directories from which batches run, inside a flow as tasks want it."""

    prefect: PrefectServer
    folder: Path
    clock: Clock = SYSTEM_CLOCK
    opened: OpenLedger = field(default=lambda url: open_ledger(url))

    @property
    def url(self) -> str:
        return str(self.folder / "ledger.db")

    def ledger(self, work: Callable[[Ledger], Awaitable[T]]) -> T:
        """What some other run does in the ledger."""

        async def main() -> T:
            async with open_ledger(self.url) as ledger:
                return await work(ledger)

        return asyncio.run(main())

    def buy(self, video: PlannedVideo, job_id: str, *, output_dir: str = HERE, submitted_ago: float = 0.0) -> None:
        """A run that ended before its job was done."""

        async def work(ledger: Ledger) -> None:
            await ledger.plan([video], output_dir=output_dir)
            await ledger.claim(video.key)
            attempt = await ledger.intend(video.key, estimate_usd=video.estimate_usd, budget_usd=None)
            await ledger.accepted(video.key, attempt, VideoJob(job_id))

        self.ledger(work)
        with sqlite3.connect(self.url) as connection:
            connection.execute("UPDATE videos SET submitted_at = ?", (self.clock.time() - submitted_ago,))
        connection.close()

    def run(
        self,
        videos: list[PlannedVideo],
        service: VideoApi,
        *,
        output_dir: str = HERE,
        out: str = "out",
        **settings: Any,
    ) -> Ended:
        """One batch over these videos."""

        @flow(name="a-batch", persist_result=False)
        async def work() -> Ended:
            return await self._run(videos, service, RunSettings(**settings), output_dir, LocalStore(self.folder / out))

        return self.prefect.run(work)

    async def _run(
        self, videos: list[PlannedVideo], service: VideoApi, settings: RunSettings, output_dir: str, store: LocalStore
    ) -> Ended:
        clock = self.clock
        soon = DurationBook(min_seconds=0.01, max_seconds=0.05) if clock is SYSTEM_CLOCK else DurationBook()
        session = Session(service, cast(Any, None), SubmitPacer(clock), PollBudget(clock=clock), soon, clock)
        tally, error = Tally(clock.time()), None
        await store.prepare()
        async with self.opened(self.url) as ledger:
            batch = Batch(
                Plan("table.csv", (), (), {video.key: video for video in videos}, ()),
                ledger=ledger,
                session=session,
                store=store,
                settings=settings,
                tally=tally,
                logger=logging.getLogger(__name__),
                output_dir=output_dir,
            )
            try:
                async with asyncio.timeout(40):
                    await batch.run()
            except (LedgerUnavailable, BaseExceptionGroup) as raised:
                error = raised
        async with open_ledger(self.url) as ledger:
            return Ended(error, await ledger.records(), await ledger.totals(), tally)


@pytest.fixture
def place(prefect_server: PrefectServer, tmp_path: Path) -> Place:
    return Place(prefect_server, tmp_path)


@pytest.fixture
def timeless(prefect_server: PrefectServer, tmp_path: Path) -> Place:
    """Hours pass in moments."""
    return Place(prefect_server, tmp_path, FakeClock())


def some(count: int, *, usd: float = 0.28) -> list[PlannedVideo]:
    return [a_video(f"r{number}", prompt=f"take {number}", usd=usd) for number in range(count)]


def test_every_video_comes_to_its_file(place: Place) -> None:
    ended = place.run(some(5), Service())

    assert ended.states == {"downloaded": 5}
    assert len(list((place.folder / "out" / "videos").iterdir())) == 5
    assert ended.tally.spent_usd == pytest.approx(5 * 0.28)


def test_a_row_taken_out_of_the_table_is_collected(place: Place) -> None:
    old, new = a_video("old"), a_video("new")
    place.buy(old, "job-old")

    ended = place.run([new], service := Service())

    assert ended.states == {"downloaded": 2}
    assert len(service.created) == 1


def test_a_row_taken_out_of_the_table_is_never_bought_again(place: Place) -> None:
    old, new = a_video("old", prompt="old"), a_video("new", prompt="new")
    place.buy(old, "job-old")

    ended = place.run([new], service := Service(answers={"job-old": gave_up()}), retry_failed=True)

    assert (ended.of(old).state, ended.of(new).state) == (State.FAILED, State.DOWNLOADED)
    assert service.created == ["new"]


def test_output_directories_of_one_ledger_do_not_collect_each_others_videos(place: Place) -> None:
    one, two = a_video("one"), a_video("two")
    place.buy(one, "job-one", output_dir="first")

    ended = place.run([two], Service(), output_dir="second", out="second")

    assert (ended.of(one).state, ended.of(two).state) == (State.SUBMITTED, State.DOWNLOADED)
    assert [path.name for path in (place.folder / "second" / "videos").iterdir()] == ["two.mp4"]
    collected = place.run([], Service(), output_dir="first", out="first")
    assert collected.of(one).state == State.DOWNLOADED
    assert (place.folder / "first" / "videos" / "one.mp4").is_file()


def test_a_job_that_answers_404_for_long_stays_submitted_and_a_later_run_collects_it(timeless: Place) -> None:
    video = a_video()
    timeless.buy(video, "job-real")

    lost = timeless.run([video], wrong := Service(unknown))
    found = timeless.run([video], Service())

    assert (lost.of(video).state, lost.of(video).job_id) == (State.SUBMITTED, "job-real")
    assert "right key and address" in (lost.of(video).error or "")
    assert timeless.clock.monotonic() >= NOT_VISIBLE_SECONDS
    assert wrong.created == []
    assert (found.of(video).state, found.totals.committed_usd) == (State.DOWNLOADED, pytest.approx(0.28))


def test_a_job_that_answers_404_days_later_is_given_up(timeless: Place) -> None:
    video = a_video()
    timeless.buy(video, "job-gone", submitted_ago=GONE_SECONDS)

    ended = timeless.run([video], Service(unknown))

    assert (ended.of(video).state, ended.of(video).failure_class) == (State.FAILED, "not_found")


def test_an_error_nobody_foresaw_in_one_create_call_is_in_doubt_and_loses_no_other_row(place: Place) -> None:
    service = Service()

    async def odd_at_first() -> None:
        if len(service.created) == 1:
            raise OverflowError("int too large to convert to float")

    service.on_create = odd_at_first

    ended = place.run(some(12), service, max_in_flight=1)

    assert ended.states == {"downloaded": 11, "in_doubt": 1}
    assert ended.totals.in_doubt_usd == pytest.approx(0.28)


def test_two_overlapping_runs_told_to_send_again_send_each_doubtful_row_once(place: Place) -> None:
    videos = some(2)

    async def leave_in_doubt(ledger: Ledger) -> None:
        await ledger.plan(videos)
        for video in videos:
            await ledger.claim(video.key)
            attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
            await ledger.in_doubt(video.key, attempt, "HTTP 500")

    async def no_answer() -> None:
        raise SubmissionInDoubt("HTTP 500")

    place.ledger(leave_in_doubt)
    service = Service()
    service.on_create = no_answer

    class BothHaveBegun(LocalStore):
        async def sizes(self, names: Any) -> dict[str, int]:
            begun.append(self)
            if len(begun) == 2:
                both_have.set()
            await both_have.wait()
            return await super().sizes(names)

    begun, both_have = list[LocalStore](), asyncio.Event()
    settings, store = RunSettings(resubmit_in_doubt=True), BothHaveBegun(place.folder / "out")

    @flow(name="two-batches", persist_result=False)
    async def both() -> list[Ended]:
        runs = (place._run(videos, service, settings, HERE, store) for _ in range(2))  # pyright: ignore[reportPrivateUsage]
        return list(await asyncio.gather(*runs))

    ended = place.prefect.run(both)

    assert len(service.created) == 2
    assert ended[0].states == {"in_doubt": 2}


def test_refusals_by_the_budget_wait_for_what_the_jobs_in_flight_cost(place: Place) -> None:
    ended = place.run(some(10), Service(done(0.05)), max_in_flight=10, budget_usd=0.84)

    assert ended.states == {"downloaded": 10}
    assert ended.totals.committed_usd == pytest.approx(0.5)


def test_a_budget_that_is_used_up_refuses_the_rest_and_is_not_passed(place: Place) -> None:
    ended = place.run(some(6), service := Service(), max_in_flight=10, budget_usd=0.84)

    assert ended.states == {"downloaded": 3, "refused": 3}
    assert len(service.created) == 3
    assert ended.totals.committed_usd == pytest.approx(0.84)


def test_what_the_budget_refuses_are_the_last_rows_of_the_table(place: Place) -> None:
    videos = some(60)

    ended = place.run(videos, Service(), max_in_flight=20, budget_usd=25 * 0.28)

    assert [ended.of(video).state for video in videos] == [State.DOWNLOADED] * 25 + [State.REFUSED] * 35


def test_a_row_that_waits_for_the_budget_is_not_overtaken_by_a_cheaper_one(place: Place) -> None:
    videos = [a_video("first", usd=0.5), a_video("dear", usd=0.6), *some(5, usd=0.1)]

    ended = place.run(videos, Service(done(0.1)), max_in_flight=5, budget_usd=1.0)

    assert ended.of(videos[1]).state == State.DOWNLOADED
    assert ended.states == {"downloaded": 7}


def test_a_row_that_alone_passes_the_budget_holds_up_no_other(place: Place) -> None:
    videos = [a_video("dear", usd=2.0), *some(3)]

    ended = place.run(videos, Service(), budget_usd=1.0)

    assert [ended.of(video).state for video in videos] == [State.REFUSED] + [State.DOWNLOADED] * 3


def test_a_stuck_service_gets_no_more_than_twice_what_may_be_in_flight(timeless: Place) -> None:
    ended = timeless.run(some(12), service := Service(working), max_in_flight=2)

    assert 2 <= len(service.created) <= 2 + 2
    assert ended.states == {"submitted": len(service.created), "refused": 12 - len(service.created)}
    reasons = {record.error for record in ended.records.values() if record.state == State.REFUSED}
    assert reasons == {"not sent: 2 jobs in a row were not done in time; run again later"}


def test_only_collecting_never_buys(place: Place) -> None:
    bought, failing, wanted = a_video("bought"), a_video("failing"), a_video("wanted")
    place.buy(bought, "job-a")
    place.buy(failing, "job-b")

    service = Service(answers={"job-b": gave_up()})
    ended = place.run([bought, failing, wanted], service, collect_only=True)

    assert service.created == []
    assert [ended.of(video).state for video in (bought, failing, wanted)] == ["downloaded", "failed", "planned"]


def test_only_collecting_does_not_buy_what_another_run_has_planned_anew_meanwhile(place: Place) -> None:
    video = a_video()
    place.buy(video, "job-1")
    service = Service()

    class Meanwhile(LocalStore):
        async def sizes(self, names: Any) -> dict[str, int]:
            error = JobFailed("job-1", None, "gpu lost", "upstream")
            async with open_ledger(place.url) as other:
                await other.failed(video.key, error, again=True)
            return await super().sizes(names)

    @flow(name="a-batch", persist_result=False)
    async def work() -> Ended:
        settings, store = RunSettings(collect_only=True), Meanwhile(place.folder / "out")
        return await place._run([video], service, settings, HERE, store)  # pyright: ignore[reportPrivateUsage]

    ended = place.prefect.run(work)

    assert service.created == []
    assert ended.of(video).state == State.PLANNED


def test_a_charged_job_that_failed_stays_in_the_cost_of_its_row(place: Place) -> None:
    ended = place.run([video := a_video()], Service(done(0.25), {"job-1": gave_up(0.2)}))

    assert (ended.of(video).state, ended.of(video).jobs) == (State.DOWNLOADED, 2)
    assert ended.of(video).cost_usd == ended.tally.spent_usd == ended.totals.paid_usd == pytest.approx(0.45)


class Breaking:
    """A database that is gone from a moment on."""

    def __init__(self, engine: LedgerEngine) -> None:
        self._engine, self.is_gone = engine, False

    async def run(self, work: Operation[T]) -> T:
        if self.is_gone:
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk I/O error"))
        return await self._engine.run(work)

    async def close(self) -> None: ...


@pytest.mark.timeout(120)
def test_a_ledger_that_fails_ends_the_run_as_itself_and_nothing_more_is_sent(timeless: Place) -> None:
    service = Service()
    database: list[Breaking] = []

    class Opened:
        """An open ledger whose database can break."""

        def __init__(self, url: str) -> None:
            self._ledger, self._engine = open_ledger(url), open_engine(url)

        async def __aenter__(self) -> Ledger:
            ledger, engine = await self._ledger.__aenter__(), await self._engine.__aenter__()
            database.append(Breaking(engine))
            return Ledger(LedgerEngine(database[0], "x"), ledger.run, timeless.clock)

        async def __aexit__(self, *error: Any) -> None:
            await self._engine.__aexit__(*error)
            await self._ledger.__aexit__(*error)

    async def break_at_the_third() -> None:
        database[0].is_gone = len(service.created) >= 3

    service.on_create = break_at_the_third
    timeless.opened = Opened

    ended = timeless.run(some(40), service, max_in_flight=1)

    assert isinstance(ended.error, LedgerUnavailable)
    assert "job-3 was accepted, is paid, and could not be written" in str(ended.error)
    assert len(service.created) == 3
    assert ended.states["planned"] == 37


def test_a_run_without_the_sandbox_does_not_go_into_the_sandboxs_directory(desk: Desk) -> None:
    desk.run(prompts("A cat"))
    calls = len(desk.api.requests)

    ended = desk.run(prompts("A cat", "A dog"), sandbox=True)

    assert ended.state.is_failed()
    assert isinstance(ended.result, SettingsInvalid)
    assert "choose another output directory for the sandbox" in ended.state.message
    assert len(desk.api.requests) == calls
    assert ended.statuses == ["downloaded"], "results.csv of the real videos is left as it was"
