"""A batch over a real ledger, with a service and a download that a test scripts: what becomes of each video."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from sqlalchemy.exc import OperationalError

from batch_harness import (
    BatchHarness,
    Service,
    Session,
    T,
    some,
    working,
)
from ledger_rows import a_video
from prefect_together.api.jobs import VideoJob
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.clips.store import LocalStore
from prefect_together.errors import OutputUnwritable, SubmissionInDoubt
from prefect_together.ledger.engine import LedgerEngine, LedgerUnavailable, Operation, open_engine
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.problems import SettingsInvalid
from table_of_prompts import Harness, paid_calls, prompts


def test_every_video_comes_to_its_file(batch_harness: BatchHarness) -> None:
    ended = batch_harness.run(some(5), Service())

    assert ended.states == {"downloaded": 5}
    assert len(list((batch_harness.folder / "out" / "videos").iterdir())) == 5
    assert ended.progress.spent_usd == pytest.approx(5 * 0.28)


def test_an_error_nobody_foresaw_in_one_create_call_is_in_doubt_and_loses_no_other_row(
    batch_harness: BatchHarness,
) -> None:
    service = Service()

    async def odd_at_first() -> None:
        if len(service.created) == 1:
            raise OverflowError("int too large to convert to float")

    service.on_create = odd_at_first

    ended = batch_harness.run(some(12), service, max_in_flight=1)

    assert ended.states == {"downloaded": 11, "in_doubt": 1}
    assert ended.totals.in_doubt_usd == pytest.approx(0.28)


def broken(*job_ids: str) -> type[Session]:
    """Downloads of these jobs, or of all, end by an error that nobody foresees."""

    class Broken(Session):
        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            if job.id in job_ids or not job_ids:
                raise ZeroDivisionError(job.id)
            return await super().download(job, target, max_bytes=max_bytes)

    return Broken


def test_rows_that_nobody_foresaw_to_fail_lose_no_other_row(batch_harness: BatchHarness) -> None:
    batch_harness.session = broken("job-1", "job-2")

    ended = batch_harness.run(some(36), Service(), max_in_flight=1)

    assert ended.states == {"downloaded": 34, "completed": 2}
    assert "2 sub-exceptions" in str(ended.error)


def test_a_clip_that_cannot_be_fetched_is_counted_as_results_csv_counts_it(batch_harness: BatchHarness) -> None:
    class Unwritable(Session):
        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            if job.id == "job-1":
                raise OutputUnwritable("no space left on device")
            return await super().download(job, target, max_bytes=max_bytes)

    batch_harness.session = Unwritable

    ended = batch_harness.run(some(2), Service(), max_in_flight=1)

    assert ended.states == {"downloaded": 1, "completed": 1}
    assert ended.progress.by_status == {"downloaded": 1, "failed": 1}


def test_the_ledger_names_the_file_that_the_clip_was_saved_as(batch_harness: BatchHarness) -> None:
    class OtherContainer(Session):
        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            return await super().download(job, target.with_suffix(".webm"), max_bytes=max_bytes)

    batch_harness.session = OtherContainer
    video = a_video("cat")

    ended = batch_harness.run([video], Service())

    assert (ended.of(video).state, ended.of(video).file) == (State.DOWNLOADED, "videos/cat.webm")


def test_a_fault_in_every_row_is_not_paid_for_hundreds_of_times(batch_harness: BatchHarness) -> None:
    batch_harness.session = broken()

    ended = batch_harness.run(some(20), service := Service(), max_in_flight=1)

    assert 3 <= len(service.created) <= 6
    assert ended.states == {"completed": len(service.created), "planned": 20 - len(service.created)}


def test_a_fault_in_what_earlier_runs_have_paid_stops_no_new_row(batch_harness: BatchHarness) -> None:
    left, new = [a_video(f"left{number}") for number in range(4)], some(3)
    for number, video in enumerate(left):
        batch_harness.buy(video, f"job-left-{number}")
    batch_harness.session = broken(*(f"job-left-{number}" for number in range(4)))

    ended = batch_harness.run([*left, *new], Service(), max_in_flight=1)

    assert ended.states == {"completed": 4, "downloaded": 3}


def test_a_finished_clip_is_recorded_before_all_other_downloads_are_through(batch_harness: BatchHarness) -> None:
    all_want_one, first_is_recorded = asyncio.Event(), asyncio.Event()

    class OneAtATime(Session):
        wanted = begun = 0

        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.download_slots = asyncio.Semaphore(1)

        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            self.wanted += 1
            if self.wanted == 6:
                all_want_one.set()
            async with self.download_slots:
                await all_want_one.wait()
                self.begun += 1
                if self.begun == 6:
                    await asyncio.wait_for(first_is_recorded.wait(), timeout=50)
                return await super().download(job, target, max_bytes=max_bytes)

    class Noticing(LocalStore):
        async def publish(self, name: str, *, replaces: bool = False) -> str:
            used = await super().publish(name, replaces=replaces)
            first_is_recorded.set()
            return used

    batch_harness.session = OneAtATime

    ended = batch_harness.run(some(6), Service(), store=Noticing(batch_harness.folder / "out"))

    assert ended.states == {"downloaded": 6}


def test_two_overlapping_runs_told_to_send_again_send_each_doubtful_row_once(batch_harness: BatchHarness) -> None:
    videos = some(2)

    async def leave_in_doubt(ledger: Ledger) -> None:
        await ledger.plan(videos)
        for video in videos:
            await ledger.claim(video.key)
            attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
            await ledger.in_doubt(video.key, attempt, "HTTP 500")

    async def no_answer() -> None:
        raise SubmissionInDoubt("HTTP 500")

    batch_harness.ledger(leave_in_doubt)
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
    store = BothHaveBegun(batch_harness.folder / "out")

    ended = batch_harness.run(videos, service, store=store, at_once=2, resubmit_in_doubt=True)

    assert len(service.created) == 2
    assert ended.states == {"in_doubt": 2}


def test_a_stuck_service_gets_no_more_than_twice_what_may_be_in_flight(timeless_place: BatchHarness) -> None:
    ended = timeless_place.run(some(12), service := Service(working), max_in_flight=4)

    assert 4 <= len(service.created) <= 4 + 4
    assert ended.states == {"submitted": len(service.created), "refused": 12 - len(service.created)}
    reasons = {record.error for record in ended.records.values() if record.state == State.REFUSED}
    assert reasons == {"not sent: 4 jobs in a row were not done in time; run again later"}


def test_jobs_left_by_earlier_runs_that_time_out_do_not_stop_a_healthy_run(timeless_place: BatchHarness) -> None:
    left, new = [a_video(f"left{number}") for number in range(4)], some(8)
    for number, video in enumerate(left):
        timeless_place.buy(video, f"job-left-{number}")
    service = Service(answers={f"job-left-{number}": working for number in range(4)})

    ended = timeless_place.run([*left, *new], service, max_in_flight=4)

    assert ended.states == {"submitted": 4, "downloaded": 8}


def test_one_slow_job_at_a_time_does_not_stop_the_run(timeless_place: BatchHarness) -> None:
    service = Service(answers={"job-1": working, "job-2": working})

    ended = timeless_place.run(some(5), service, max_in_flight=1)

    assert ended.states == {"submitted": 2, "downloaded": 3}


class Breaking:
    """A database that is gone from a moment on."""

    def __init__(self, engine: LedgerEngine) -> None:
        self._engine, self.is_gone = engine, False

    async def run(self, work: Operation[T]) -> T:
        if self.is_gone:
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk I/O error"))
        return await self._engine.run(work)

    async def checkpoint(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.timeout(120)
def test_a_ledger_that_fails_ends_the_run_as_itself_and_nothing_more_is_sent(timeless_place: BatchHarness) -> None:
    service = Service()
    database: list[Breaking] = []

    class Opened:
        """An open ledger whose database can break."""

        def __init__(self, url: str) -> None:
            self._ledger, self._engine = open_ledger(url), open_engine(url)

        async def __aenter__(self) -> Ledger:
            ledger, engine = await self._ledger.__aenter__(), await self._engine.__aenter__()
            database.append(Breaking(engine))
            engine_of_it = LedgerEngine(database[0], "x", timeless_place.clock)
            return Ledger(engine_of_it, ledger.run, timeless_place.clock)

        async def __aexit__(self, *error: Any) -> None:
            await self._engine.__aexit__(*error)
            await self._ledger.__aexit__(*error)

    async def break_at_the_third() -> None:
        database[0].is_gone = len(service.created) >= 3

    service.on_create = break_at_the_third
    timeless_place.opened = Opened

    ended = timeless_place.run(some(40), service, max_in_flight=1)

    assert isinstance(ended.error, LedgerUnavailable)
    assert "job-3 was accepted, is paid, and could not be written" in str(ended.error)
    assert len(service.created) == 3
    assert ended.states["planned"] == 37
    known, _ = ended.progress.last_known()
    before = {key: record for key, record in ended.records.items() if record.state != State.SUBMITTING}
    assert {key: _lasting(known[key]) for key in before} == {key: _lasting(one) for key, one in before.items()}
    (unsaved,) = known.keys() - before.keys()
    assert (known[unsaved].state, known[unsaved].job_id, known[unsaved].jobs) == (State.SUBMITTED, "job-3", 1)


def _lasting(record: VideoRecord) -> tuple[object, ...]:
    """What results.csv has of a record."""
    facts = (record.state, record.status, record.job_id, record.file, record.cost_usd, record.jobs, record.error)
    return (*facts, record.size_bytes, record.sha256, record.clip, record.generation_seconds)


def test_a_run_without_the_sandbox_does_not_go_into_the_sandboxs_directory(harness: Harness) -> None:
    harness.run(prompts("A cat"))
    calls = paid_calls(harness)

    ended = harness.run(prompts("A cat", "A dog"), sandbox=True)

    assert ended.state.is_failed()
    assert isinstance(ended.result, SettingsInvalid)
    assert "choose another output directory for the sandbox" in ended.state.message
    assert paid_calls(harness) == calls
    assert ended.statuses == ["downloaded"], "results.csv of the real videos is left as it was"


def test_a_clip_renamed_in_a_bucket_is_said(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    bucket = f"memory://bucket/{tmp_path.name}"
    files = cast("Any", MemoryFileSystem())
    files.pipe_file(f"/bucket/{tmp_path.name}/videos/r1.mp4", b"somebody's own")

    ended = harness.run(prompts("A cat"), output_dir=bucket)

    assert ended.state.is_completed(), ended.state.message
    said = "r1: another file is named videos/r1.mp4: the clip is saved as videos/r1-2.mp4"
    assert said in [record.getMessage() for record in caplog.records]
    assert files.cat_file(f"/bucket/{tmp_path.name}/videos/r1.mp4") == b"somebody's own"
