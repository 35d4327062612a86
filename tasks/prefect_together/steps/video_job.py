"""One video as a Prefect job block: `trigger`, `wait_for_completion`, `fetch_result` over the three tasks.

Prefect's server imports this module at its start, to know the block's type: the SDK is imported where it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field, model_validator

from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.credentials import TogetherCredentials
from prefect_together.errors import RetryRefused
from prefect_together.prefect_internals import async_dispatch, run_coro_as_sync, task_run_is_retried, unvisited
from prefect_together.request.request import VideoRequest

if TYPE_CHECKING:
    from prefect_together.api.jobs import VideoJob
    from prefect_together.api.session import VideoSession
    from prefect_together.clips.download import DownloadedClip


class TogetherVideoJob(JobBlock[Any]):
    """A video to be made by Together AI, as often as it is triggered. Each `trigger` is a new job and costs money.

    Example:
        Save a job once, then run it by its name:
        ```python
        from prefect import flow
        from prefect_together import TogetherCredentials, TogetherVideoJob

        TogetherVideoJob(
            credentials=TogetherCredentials.load("team-video"),
            model="minimax/video-01-director",
            prompt="A paper boat in heavy rain",
            target="boat.mp4",
        ).save("paper-boat")

        @flow
        def make_boat():
            run = TogetherVideoJob.load("paper-boat").trigger()  # one job, which costs money
            run.wait_for_completion()
            return run.fetch_result().path
        ```
        In an `async def` flow the same three calls are awaited.
    """

    _block_type_name: ClassVar[str | None] = "Together Video Job"
    _block_type_slug: ClassVar[str | None] = "together-video-job"
    _logo_url: ClassVar[str | None] = "https://www.together.ai/favicon.ico"  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]
    _documentation_url: ClassVar[str | None] = "https://docs.together.ai/docs/videos-overview"  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]

    credentials: TogetherCredentials | None = Field(
        default=None, title="Credentials", description="The key. Empty: TOGETHER_API_KEY of the process that runs it."
    )
    model: str = Field(title="Model", description="For example minimax/video-01-director.")
    prompt: str | None = Field(default=None, title="Prompt", description="What the video shows.")
    parameters: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        title="Parameters",
        description='Other parameters of the API, such as {"seconds": "5", "ratio": "16:9"}.',
    )
    target: str = Field(default="video.mp4", title="Target", description="The file to write. Its directory must exist.")
    max_wait_minutes: float = Field(
        default=60.0, gt=0, title="Longest wait", description="Minutes from the creation of the job."
    )

    @model_validator(mode="after")
    def _is_a_request(self) -> Self:
        if twice := sorted({"model", "prompt"} & self.parameters.keys()):
            raise ValueError(f"parameters holds {', '.join(twice)}, which are fields of their own")
        _ = self.request
        return self

    @property
    def request(self) -> VideoRequest:
        """What is sent."""
        return VideoRequest.model_validate({"model": self.model, "prompt": self.prompt, **self.parameters})

    async def atrigger(self) -> TogetherVideoRun:
        """Create one job (`POST /v2/videos`), which costs money. Raises what `create_video` raises.

        In a retry of a task or flow that calls it, it sends nothing: the earlier try may have paid.
        """
        from prefect_together.steps.tasks import create_video

        if task_run_is_retried():
            raise RetryRefused
        async with self.session() as session:
            job = await create_video(self.request, row=self.row, session=unvisited(session))
        return TogetherVideoRun(self, job, SYSTEM_CLOCK.time())

    @async_dispatch(atrigger)
    def trigger(self) -> TogetherVideoRun:  # pyright: ignore[reportIncompatibleMethodOverride]  # as Prefect's own are
        """`atrigger`, awaited where no event loop runs."""
        return run_coro_as_sync(self.atrigger())

    def run_of(self, job_id: str, *, submitted_at: float | None = None) -> TogetherVideoRun:
        """The run of a job that was created earlier, by its id; nothing is sent. `submitted_at` in unix seconds."""
        from prefect_together.api.jobs import VideoJob

        job = VideoJob(job_id, model=self.model)
        return TogetherVideoRun(self, job, SYSTEM_CLOCK.time() if submitted_at is None else submitted_at)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[VideoSession]:
        """A session with the block's key."""
        from prefect_together.api.client import open_client
        from prefect_together.api.session import open_session

        client = open_client() if self.credentials is None else self.credentials.open_client()
        async with open_session(client) as session:
            yield session

    @property
    def row(self) -> str:
        """How the video is called in task names and logs."""
        return Path(self.target).stem


class TogetherVideoRun(JobRun[Any]):
    """One job of a `TogetherVideoJob`. Its methods cost nothing and can be called again."""

    def __init__(self, block: TogetherVideoJob, job: VideoJob, submitted_at: float) -> None:
        self._block, self._job, self._submitted_at = block, job, submitted_at
        self._clip: DownloadedClip | None = None

    @property
    def job_id(self) -> str:
        """The job's id at Together, with which `TogetherVideoJob.run_of` finds it again."""
        return self._job.id

    async def await_for_completion(self) -> VideoJob:
        """Wait until the job is completed. Raises what `wait_for_video` raises: JobFailed, JobTimedOut ..."""
        from prefect_together.steps.tasks import wait_for_video

        if not self._job.is_completed:
            async with self._block.session() as session:
                self._job = await wait_for_video(
                    self._job,
                    row=self._block.row,
                    submitted_at=self._submitted_at,
                    deadline=self._submitted_at + self._block.max_wait_minutes * 60,
                    session=unvisited(session),
                )
        return self._job

    @async_dispatch(await_for_completion)
    def wait_for_completion(self) -> VideoJob:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`await_for_completion`, awaited where no event loop runs."""
        return run_coro_as_sync(self.await_for_completion())

    async def afetch_result(self) -> DownloadedClip:
        """Download the clip, waiting for the job if need be. Raises DownloadFailed, and what waiting raises.

        Called again it returns the same clip, and downloads it again only if the file is no longer there.
        """
        from prefect_together.steps.tasks import download_video

        job = await self.await_for_completion()
        if self._clip is None or not await asyncio.to_thread(self._clip.path.is_file):
            async with self._block.session() as session:
                self._clip = await download_video(
                    job, self._block.target, row=self._block.row, session=unvisited(session)
                )
        return self._clip

    @async_dispatch(afetch_result)
    def fetch_result(self) -> DownloadedClip:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`afetch_result`, awaited where no event loop runs."""
        return run_coro_as_sync(self.afetch_result())
