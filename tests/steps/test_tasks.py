"""Each of the three tasks alone, in somebody's own small flow: no session, no ledger, no table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.context import FlowRunContext

from prefect_together.api.jobs import VideoJob
from prefect_together.clips.download import DownloadedClip
from prefect_together.credentials import TogetherCredentials
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    ClipTooLarge,
    JobFailed,
    JobTimedOut,
    NotConfigured,
    RetryRefused,
    SubmissionInDoubt,
)
from prefect_together.prefect_internals import forget_results
from prefect_together.request.request import VideoRequest
from prefect_together.steps.tasks import create_video, download_video, wait_for_video
from table_of_prompts import KEY, MODEL, Harness

REQUEST = VideoRequest(model=MODEL, prompt="A paper boat in the rain")


def in_own_flow(harness: Harness, body: Callable[[], Awaitable[Any]]) -> Any:
    """What `body` returns inside a flow that knows nothing of this package's own."""

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> Any:
        return await body()

    return harness.prefect.run(own)


def a_minute_ago() -> float:
    """For jobs that are done at once: their first look is then due."""
    return time.time() - 60


def test_create_wait_and_download_make_a_clip(harness: Harness, tmp_path: Path) -> None:
    async def body() -> tuple[VideoJob, VideoJob, DownloadedClip]:
        job = await create_video(REQUEST)
        done = await wait_for_video(job, submitted_at=a_minute_ago())
        return job, done, await download_video(done, tmp_path / "boat.mp4")

    job, done, clip = in_own_flow(harness, body)

    assert done.id == job.id
    assert done.cost_usd == 0.28
    assert clip.path.read_bytes()[4:8] == b"ftyp"
    assert clip.size_bytes == clip.path.stat().st_size
    assert harness.api.accepted() == 1


def test_a_job_is_taken_up_by_its_id_alone(harness: Harness, tmp_path: Path) -> None:
    async def create() -> VideoJob:
        return await create_video(REQUEST)

    job_id = in_own_flow(harness, create).id

    async def collect() -> tuple[VideoJob, DownloadedClip]:
        done = await wait_for_video(job_id, submitted_at=a_minute_ago())
        return done, await download_video(job_id, str(tmp_path / "boat.mp4"))

    done, clip = in_own_flow(harness, collect)

    assert done.is_completed
    assert clip.media.duration_seconds
    assert harness.api.calls("create") == 1


def test_a_key_comes_from_a_saved_block_given_by_name(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    monkeypatch.delenv("TOGETHER_BASE_URL")
    block = TogetherCredentials.model_validate({"api_key": "key-of-the-block", "base_url": harness.api.base_url})

    async def body() -> DownloadedClip:
        await block.asave("team-video", overwrite=True)
        job = await create_video(REQUEST, credentials_block="team-video")
        done = await wait_for_video(job, submitted_at=a_minute_ago(), credentials_block="team-video")
        return await download_video(done, tmp_path / "boat.mp4", credentials_block="team-video")

    clip = in_own_flow(harness, body)

    keys = {one.headers.get("authorization") for one in harness.api.requests if one.endpoint in ("create", "retrieve")}
    assert clip.path.is_file()
    assert keys == {"Bearer key-of-the-block"}


def test_without_a_key_nothing_is_sent_and_the_ways_to_give_one_are_named(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")

    async def body() -> VideoJob:
        return await create_video(REQUEST)

    with pytest.raises(NotConfigured, match=r"TOGETHER_API_KEY.*credentials_block"):
        in_own_flow(harness, body)

    assert harness.api.requests == []


@pytest.mark.parametrize(
    "fault", ["500", *(pytest.param(name, marks=pytest.mark.slow) for name in ("500-after", "drop-after", "html"))]
)
def test_a_create_call_of_unknown_outcome_is_made_exactly_once(harness: Harness, fault: str) -> None:
    harness.api.fault(fault, endpoint="create", count=None)

    async def body() -> VideoJob:
        return await create_video(REQUEST)

    with pytest.raises(SubmissionInDoubt, match=r"possibly billed, \$0\.28"):
        in_own_flow(harness, body)

    assert harness.api.calls("create") == 1


@pytest.mark.parametrize(("fault", "error"), [("400", BadParameter), ("402", AccountBlocked)])
def test_a_refusal_is_raised_as_what_it_is(harness: Harness, fault: str, error: type[Exception]) -> None:
    harness.api.fault(fault, endpoint="create", count=None)

    async def body() -> VideoJob:
        return await create_video(REQUEST)

    with pytest.raises(error):
        in_own_flow(harness, body)

    assert harness.api.calls("create") == 1


def test_a_failed_job_is_raised_with_its_class_and_not_polled_again(harness: Harness) -> None:
    harness.api.script("failed", code="InvalidParameter", message="fps out of range")

    async def body() -> VideoJob:
        return await wait_for_video(await create_video(REQUEST), submitted_at=a_minute_ago())

    with pytest.raises(JobFailed, match="fps out of range") as caught:
        in_own_flow(harness, body)

    assert caught.value.failure_class == "bad_parameter"
    assert harness.api.calls("retrieve") == 1


def test_a_wait_past_its_deadline_names_the_job_which_goes_on(harness: Harness) -> None:
    harness.api.script("in_progress", prompt="boat")

    async def body() -> VideoJob:
        job = await create_video(REQUEST)
        return await wait_for_video(job, submitted_at=a_minute_ago(), max_wait_minutes=0)

    with pytest.raises(JobTimedOut) as caught:
        in_own_flow(harness, body)

    assert caught.value.job_id == harness.api.jobs()[0]["id"]
    assert caught.value.last_status == "in_progress"


def test_a_download_that_is_cut_goes_on_and_uses_no_second_job(harness: Harness, tmp_path: Path) -> None:
    harness.api.fault("cut", endpoint="download", count=1)

    async def body() -> DownloadedClip:
        done = await wait_for_video(await create_video(REQUEST), submitted_at=a_minute_ago())
        return await download_video(done, tmp_path / "boat.mp4")

    clip = in_own_flow(harness, body)

    assert clip.path.is_file()
    assert (harness.api.calls("create"), harness.api.calls("download")) == (1, 2)


def test_a_clip_above_the_limit_is_not_asked_for_again(harness: Harness, tmp_path: Path) -> None:
    async def body() -> DownloadedClip:
        done = await wait_for_video(await create_video(REQUEST), submitted_at=a_minute_ago())
        return await download_video(done, tmp_path / "boat.mp4", max_bytes=100)

    with pytest.raises(ClipTooLarge):
        in_own_flow(harness, body)

    assert harness.api.calls("download") == 1
    assert list(tmp_path.glob("boat*")) == []


def test_a_task_called_in_a_plain_flow_says_what_to_write_and_sends_nothing(harness: Harness) -> None:
    @flow(name="somebodys-plain", persist_result=False)
    def plain() -> str:
        job: Any = create_video(REQUEST)
        try:
            return job.id
        finally:
            job.close()

    with (
        harness.prefect.used(),
        pytest.raises(AttributeError, match=r"write create_video\.submit\(\.\.\.\)\.result\(\)"),
    ):
        plain()

    assert harness.api.requests == []


def test_a_plain_flow_may_run_a_task_in_a_loop_of_its_own(harness: Harness) -> None:
    @flow(name="somebodys-plain", persist_result=False)
    def plain() -> VideoJob:
        return asyncio.run(create_video(REQUEST))

    with harness.prefect.used():
        job = plain()

    assert harness.api.jobs()[0]["id"] == job.id


def test_prefect_repeats_downloads_only() -> None:
    assert (create_video.retries, wait_for_video.retries, download_video.retries) == (0, 0, 2)


def test_many_rows_of_an_own_flow_run_side_by_side(harness: Harness, tmp_path: Path) -> None:
    requests = [VideoRequest(model=MODEL, prompt=f"{REQUEST.prompt}, take {take}") for take in range(4)]

    async def one(number: int, request: VideoRequest) -> DownloadedClip:
        job = await create_video(request, row=f"take {number}")
        done = await wait_for_video(job, row=f"take {number}", submitted_at=a_minute_ago())
        return await download_video(done, tmp_path / f"{number}.mp4", row=f"take {number}")

    async def body() -> list[DownloadedClip]:
        return await asyncio.gather(*(one(number, request) for number, request in enumerate(requests)))

    clips = in_own_flow(harness, body)

    assert [clip.path.name for clip in clips] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert KEY not in repr(clips)


def test_a_flow_of_many_rows_can_let_go_of_what_prefect_keeps_of_each_result(harness: Harness) -> None:
    async def body() -> tuple[int, int]:
        context = FlowRunContext.get()
        assert context is not None
        await create_video(REQUEST)
        kept = len(context.run_results)
        forget_results()
        return kept, len(context.run_results)

    kept, left = in_own_flow(harness, body)

    assert kept > 0
    assert left == 0


def again_whatever_happens(*_: object) -> bool:
    return True


RETRYING: list[dict[str, Any]] = [
    {"retries": 3},
    {"retries": 3, "retry_condition_fn": again_whatever_happens},
    {"retries": 3, "retry_condition_fn": again_whatever_happens, "timeout_seconds": 1.0},
]


@pytest.mark.parametrize("fault", ["500-after", "drop-after"])
@pytest.mark.parametrize("options", RETRYING)
def test_a_retried_create_task_never_repeats_a_call_that_may_have_been_accepted(
    harness: Harness, options: dict[str, Any], fault: str
) -> None:
    harness.api.fault(fault, endpoint="create", count=None)

    async def body() -> Any:
        return await create_video.with_options(**options)(REQUEST)

    with pytest.raises(SubmissionInDoubt):
        in_own_flow(harness, body)

    assert harness.api.accepted() == 1


def test_a_create_task_cut_off_by_its_own_time_limit_is_not_sent_again(harness: Harness) -> None:
    harness.api.fault("late", endpoint="create", count=None)

    async def body() -> Any:
        options: dict[str, Any] = {"retries": 2, "retry_condition_fn": again_whatever_happens, "timeout_seconds": 1.0}
        return await create_video.with_options(**options)(REQUEST)

    with pytest.raises(SubmissionInDoubt, match="ended by"):
        in_own_flow(harness, body)

    assert harness.api.accepted() == 1


def test_a_create_task_whose_result_cannot_be_stored_pays_once(harness: Harness) -> None:
    async def body() -> Any:
        options: dict[str, Any] = {"retries": 3, "retry_condition_fn": again_whatever_happens, "persist_result": True}
        return await create_video.with_options(**options, result_storage_key="../outside")(REQUEST)

    with pytest.raises(ValueError, match="outside of the base path"):
        in_own_flow(harness, body)

    assert harness.api.accepted() == 1


@pytest.mark.parametrize("call", ["submit", "map"])
def test_submitted_and_mapped_create_tasks_with_retries_pay_once_each(harness: Harness, call: str) -> None:
    harness.api.fault("500-after", endpoint="create", count=None)
    requests = [REQUEST, REQUEST.model_copy(update={"prompt": "A paper boat in the snow"})]

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> list[bool]:
        create: Any = create_video.with_options(retries=3, retry_condition_fn=again_whatever_happens)
        futures = create.map(requests) if call == "map" else [create.submit(request) for request in requests]
        return [isinstance(future.result(raise_on_failure=False), SubmissionInDoubt) for future in futures]

    assert harness.prefect.run(own) == [True, True]
    assert harness.api.accepted() == 2


def test_a_retried_flow_without_a_ledger_sends_nothing_again_and_says_why(harness: Harness) -> None:
    tries: list[str] = []

    async def own() -> Any:
        try:
            await create_video(REQUEST)
        except RetryRefused as error:
            tries.append(str(error))
            raise
        tries.append("accepted")
        raise ValueError("a later step of the flow")

    with pytest.raises(RetryRefused, match="generate_videos, which has a ledger"):
        harness.prefect.run(flow(name="somebodys-own", retries=2, persist_result=False)(own))

    assert tries[0] == "accepted"
    assert len(tries) == 3
    assert harness.api.accepted() == 1


def test_a_subflow_of_a_retried_flow_sends_nothing_again(harness: Harness) -> None:
    @flow(name="part", persist_result=False)
    async def part() -> None:
        await create_video(REQUEST)
        raise ValueError("a later step of the subflow")

    @flow(name="whole", retries=1, persist_result=False)
    async def whole() -> None:
        await part()

    with pytest.raises(RetryRefused):
        harness.prefect.run(whole)

    assert harness.api.accepted() == 1
