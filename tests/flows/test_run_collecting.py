"""What earlier runs have paid is collected, by whatever run comes next, and by none of another directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from batch_harness import (
    BatchHarness,
    Service,
    Session,
    done,
    gave_up,
    unknown,
)
from ledger_rows import a_video
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import NOT_VISIBLE_SECONDS
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.clips.store import LocalStore
from prefect_together.errors import FailureClass, JobFailed
from prefect_together.execution.batch import MAX_COLLECTED
from prefect_together.execution.video import GONE_SECONDS
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.table.plan import PlannedVideo


def test_a_row_taken_out_of_the_table_is_collected(batch_harness: BatchHarness) -> None:
    old, new = a_video("old"), a_video("new")
    batch_harness.buy(old, "job-old")

    ended = batch_harness.run([new], service := Service())

    assert ended.states == {"downloaded": 2}
    assert len(service.created) == 1


def test_a_row_taken_out_of_the_table_is_never_bought_again(batch_harness: BatchHarness) -> None:
    old, new = a_video("old", prompt="old"), a_video("new", prompt="new")
    batch_harness.buy(old, "job-old")

    ended = batch_harness.run([new], service := Service(answers={"job-old": gave_up()}), retry_failed=True)

    assert (ended.of(old).state, ended.of(new).state) == (State.FAILED, State.DOWNLOADED)
    assert service.created == ["new"]


def test_output_directories_of_one_ledger_do_not_collect_each_others_videos(batch_harness: BatchHarness) -> None:
    one, two = a_video("one"), a_video("two")
    batch_harness.buy(one, "job-one", output_dir="first")

    ended = batch_harness.run([two], Service(), output_dir="second", out="second")

    assert (ended.of(one).state, ended.of(two).state) == (State.SUBMITTED, State.DOWNLOADED)
    assert [path.name for path in (batch_harness.folder / "second" / "videos").iterdir()] == ["two.mp4"]
    collected = batch_harness.run([], Service(), output_dir="first", out="first")
    assert collected.of(one).state == State.DOWNLOADED
    assert (batch_harness.folder / "first" / "videos" / "one.mp4").is_file()


def test_a_job_that_answers_404_for_long_stays_submitted_and_a_later_run_collects_it(
    timeless_place: BatchHarness,
) -> None:
    video = a_video()
    timeless_place.buy(video, "job-real")

    lost = timeless_place.run([video], wrong := Service(unknown))
    found = timeless_place.run([video], Service())

    assert (lost.of(video).state, lost.of(video).job_id) == (State.SUBMITTED, "job-real")
    assert "right key and address" in (lost.of(video).error or "")
    assert timeless_place.clock.monotonic() >= NOT_VISIBLE_SECONDS
    assert wrong.created == []
    assert (found.of(video).state, found.totals.committed_usd) == (State.DOWNLOADED, pytest.approx(0.28))


def test_a_job_that_answers_404_days_later_is_given_up_where_another_job_is_known(timeless_place: BatchHarness) -> None:
    video, service = a_video(), Service(unknown)
    service.has_shown = True
    timeless_place.buy(video, "job-gone", submitted_ago=GONE_SECONDS)

    ended = timeless_place.run([video], service)

    assert (ended.of(video).state, ended.of(video).failure_class) == (State.FAILED, "not_found")


def test_where_no_job_is_known_at_all_none_is_given_up_for_the_address_may_be_wrong(
    timeless_place: BatchHarness,
) -> None:
    video = a_video()
    timeless_place.buy(video, "job-real", submitted_ago=GONE_SECONDS)

    wrong = timeless_place.run([video], Service(unknown))
    right = timeless_place.run([video], Service())

    assert (wrong.of(video).state, wrong.of(video).job_id) == (State.SUBMITTED, "job-real")
    assert right.of(video).state == State.DOWNLOADED


def leave_completed(place: BatchHarness, left: list[PlannedVideo]) -> None:
    """A run that ended when all its jobs were done and no clip was downloaded."""

    async def complete(ledger: Ledger, video: PlannedVideo) -> None:
        await ledger.claim(video.key)
        attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
        job = done()(f"job-{video.row_id}")
        await ledger.accepted(video.key, attempt, job)
        await ledger.completed(video.key, job, generation_seconds=60.0, polls=1)

    async def leave(ledger: Ledger) -> None:
        await ledger.plan(left)
        await asyncio.gather(*(complete(ledger, video) for video in left))

    place.ledger(leave)


def test_the_link_of_an_earlier_run_is_asked_for_anew(batch_harness: BatchHarness) -> None:
    """It may have expired; and a sandbox has another port each time."""
    links = list[str | None]()

    class Seen(Session):
        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            links.append(job.video_url)
            return await super().download(job, target, max_bytes=max_bytes)

    leave_completed(batch_harness, [video := a_video()])
    batch_harness.session = Seen

    ended = batch_harness.run([video], Service())

    assert (ended.of(video).state, links) == (State.DOWNLOADED, [None])


def test_clips_that_only_want_fetching_are_taken_up_some_at_a_time_and_hold_up_no_new_row(
    batch_harness: BatchHarness,
) -> None:
    left, new = [a_video(f"left{number}") for number in range(MAX_COLLECTED + 4)], a_video("new")
    at_work = list[str]()
    is_new_there = asyncio.Event()

    class UntilTheNewOne(Session):
        async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
            if job.id == "job-1":
                is_new_there.set()
            else:
                at_work.append(job.id)
                most.append(len(at_work))
                await is_new_there.wait()
            clip = await super().download(job, target, max_bytes=max_bytes)
            at_work[:] = [other for other in at_work if other != job.id]
            return clip

    most = [0]
    leave_completed(batch_harness, left)
    batch_harness.session = UntilTheNewOne

    ended = batch_harness.run([*left, new], Service(), max_in_flight=1)

    assert ended.states == {"downloaded": len(left) + 1}
    assert max(most) <= MAX_COLLECTED


def test_only_collecting_never_buys(batch_harness: BatchHarness) -> None:
    bought, failing, wanted = a_video("bought"), a_video("failing"), a_video("wanted")
    batch_harness.buy(bought, "job-a")
    batch_harness.buy(failing, "job-b")

    service = Service(answers={"job-b": gave_up()})
    ended = batch_harness.run([bought, failing, wanted], service, collect_only=True)

    assert service.created == []
    assert [ended.of(video).state for video in (bought, failing, wanted)] == ["downloaded", "failed", "planned"]


def test_only_collecting_does_not_buy_what_another_run_has_planned_anew_meanwhile(batch_harness: BatchHarness) -> None:
    video = a_video()
    batch_harness.buy(video, "job-1")
    service = Service()

    class Meanwhile(LocalStore):
        async def sizes(self, names: Any) -> dict[str, int]:
            error = JobFailed("job-1", None, "gpu lost", FailureClass.UPSTREAM)
            async with open_ledger(batch_harness.url) as other:
                await other.failed(video.key, error, again=True)
            return await super().sizes(names)

    store = Meanwhile(batch_harness.folder / "out")
    ended = batch_harness.run([video], service, store=store, collect_only=True)

    assert service.created == []
    assert ended.of(video).state == State.PLANNED
