"""The three steps of a video as Prefect tasks: create, wait, download. Each is usable alone in anybody's flow.

Retries by Prefect are only where they are safe: none of `create_video`, which costs money and has no idempotency key,
whatever options it is given, unless its call was certainly not accepted; not on `wait_for_video`, whose loop takes a
failed poll as a missed one; on `download_video`, twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.tasks import Task
from together import AsyncTogether

from prefect_together.api.client import current_row, open_client
from prefect_together.api.jobs import VideoJob, shown_status
from prefect_together.api.poll import wait
from prefect_together.api.session import VideoSession, open_session
from prefect_together.api.submit import Journal, NoJournal, submit
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.credentials import TogetherCredentials
from prefect_together.errors import (
    ClipTooLarge,
    DownloadFailed,
    NeverSent,
    NoLink,
    OutputUnwritable,
    RetryRefused,
    SubmissionInDoubt,
    SubmissionRefused,
)
from prefect_together.prefect_internals import flow_run_is_retried, task_run_id
from prefect_together.request.catalogue import Estimate, estimate_usd
from prefect_together.request.request import VideoRequest

RATE_LIMIT_MINUTES = 30.0

R = TypeVar("R")
P = ParamSpec("P")


class NotAwaited(Coroutine[Any, Any, Any]):
    """What a task of ours gives where no event loop runs: a coroutine that says what to write when it is used as the
    task's result."""

    def __init__(self, call: Coroutine[Any, Any, Any], name: str) -> None:
        self._call, self._name = call, name

    def send(self, value: Any) -> Any:
        return self._call.send(value)

    def throw(self, *error: Any) -> Any:
        return self._call.throw(*error)

    def close(self) -> None:
        self._call.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._call.__await__()

    def __getattr__(self, attribute: str) -> Any:
        function = self._name.replace("-", "_")
        raise AttributeError(
            f"no {attribute!r} yet: {function} is async and was not awaited. In a `def` flow write"
            f" {function}.submit(...).result(), in an `async def` flow await {function}(...)"
        )


class AsyncTask(Task[P, R]):
    """A task over an async function, see `NotAwaited`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        call = cast("Any", super().__call__)(*args, **options)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return NotAwaited(call, self.name)
        return call


def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Prefect's `@task`, as an `AsyncTask`."""
    return lambda function: AsyncTask(function, **options)


NOT_ACCEPTED = (SubmissionRefused, NeverSent)
_sent: dict[UUID, VideoJob | SubmissionInDoubt] = {}
"""What became of the create calls of this process's task runs: the job, or that one may have been accepted."""


async def submitted_once(
    create: Callable[[], Awaitable[VideoJob]],
    estimate: Estimate | None,
    *,
    session: VideoSession,
    journal: Journal | None,
    give_up_at: float | None,
) -> VideoJob:
    """The job of a create call of this price; what Prefect runs again, by retries of the task or of its flow, is not
    sent again.

    A retry of a task run whose job was accepted (its result could not be stored, say) gets that job. Raises
    SubmissionInDoubt if an earlier try of this task run may have been accepted, RetryRefused in a retry of the flow run
    unless a ledger knows what is paid for.
    """
    run_id = task_run_id()
    earlier = None if run_id is None else _sent.get(run_id)
    if isinstance(earlier, VideoJob):
        return earlier
    if earlier is not None:
        raise SubmissionInDoubt(*earlier.args)
    if journal is None and flow_run_is_retried():
        raise RetryRefused
    try:
        job = await submit(
            create,
            pacer=session.pacer,
            journal=journal or NoJournal(estimate_usd=None if estimate is None else estimate.high_usd),
            give_up_at=give_up_at or session.clock.time() + RATE_LIMIT_MINUTES * 60,
            clock=session.clock,
        )
    except NOT_ACCEPTED:
        raise
    except BaseException as error:  # also a timeout of the task, or its cancellation, before or in the call
        if run_id is not None:
            in_doubt = SubmissionInDoubt(f"the call ended by {type(error).__name__}")
            _sent[run_id] = error if isinstance(error, SubmissionInDoubt) else in_doubt
        raise
    if run_id is not None and journal is None:
        _sent[run_id] = job
    return job


def was_not_accepted(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(_error_of(state), NOT_ACCEPTED)


def _error_of(state: State[Any]) -> object:
    return state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None)


@task(
    name="create-video",
    task_run_name="create {row}",
    cache_policy=NO_CACHE,
    retries=0,
    retry_condition_fn=was_not_accepted,
    persist_result=False,
)
async def create_video(
    request: VideoRequest,
    *,
    row: str = "video",
    credentials_block: str | None = None,
    session: VideoSession | None = None,
    journal: Journal | None = None,
    give_up_at: float | None = None,
) -> VideoJob:
    """Create a job (`POST /v2/videos`) and return it as accepted. Costs money; creates at most one job.

    Sent again only what was refused for rate (429, 503 with a JSON error) or never left this machine, also where the
    task has retries. In a retry of a flow run it sends nothing: without a ledger it cannot know what is paid for.

    Args:
        request: What to generate.
        row: How the row is called in task names and logs.
        credentials_block: Name of a TogetherCredentials block; without one the key is TOGETHER_API_KEY.
        session: Shared parts of a run of many rows, from `open_session`; without one the task opens its own.
        journal: Where the intent and the answer are written; a run over a ledger passes one.
        give_up_at: Until when a request refused for rate is sent again, unix seconds. Default: 30 minutes from now.

    Raises:
        BadParameter, AccountBlocked: the service refused it; nothing is billed.
        WrongAddress: there is no video API at the base URL.
        RateLimited, NeverSent: not accepted, and the tries are over; nothing is billed.
        SubmissionInDoubt: no usable answer; a job may exist and be billed. Never send it again unasked.
        RetryRefused: the flow run is a retry, and there is no journal.
    """
    logger = logger_for(row)  # first: nothing may fail between the payment and the return of the job's id
    async with open_or_shared(session, credentials_block) as parts:
        create = partial(parts.api.create, request)
        job = await submitted_once(create, estimate_usd(request), session=parts, journal=journal, give_up_at=give_up_at)
    logger.info("%s: job %s created", row, job.id)
    return job


@task(
    name="wait-for-video",
    task_run_name="wait for {row}",
    cache_policy=NO_CACHE,
    retries=0,
    persist_result=False,
)
async def wait_for_video(
    job: VideoJob | str,
    *,
    row: str = "video",
    model: str | None = None,
    submitted_at: float | None = None,
    max_wait_minutes: float = 60.0,
    deadline: float | None = None,
    credentials_block: str | None = None,
    session: VideoSession | None = None,
) -> VideoJob:
    """Wait until a job is completed and has a link; return it with the link and what it cost.

    A job that is completed for minutes and has no link is returned without one: `download_video` asks for it again.

    Args:
        job: The job, or its id alone.
        row: How the row is called in task names and logs.
        model: The model, whose learned durations say when to poll. Default: the job's own.
        submitted_at: When it was created, unix seconds. Default: now.
        max_wait_minutes: How long to wait from now, if no deadline is given.
        deadline: Until when to wait, unix seconds, absolute: a restart does not extend it.
        credentials_block: Name of a TogetherCredentials block; without one the key is TOGETHER_API_KEY.
        session: Shared parts of a run of many rows, from `open_session`; without one the task opens its own.

    Raises:
        JobFailed: failed or cancelled, with the failure class.
        JobTimedOut: the deadline passed; the job continues and can be collected later.
        JobNotFound: the service does not know the job, for more than a minute.
        AccountBlocked: the key is refused.
    """
    job_id = job if isinstance(job, str) else job.id
    logger = logger_for(row)

    def on_change(before: str | None, status: str | None) -> None:
        if status != "completed":  # has a line of its own below: each costs 0.7 ms on its way to the server
            logger.info("%s: job %s: %s -> %s", row, job_id, before or "created", shown_status(status))

    async with open_or_shared(session, credentials_block) as parts:
        now = parts.clock.time()
        done = await wait(
            parts.api,
            job_id,
            model=model or (None if isinstance(job, str) else job.model) or "",
            submitted_at=now if submitted_at is None else submitted_at,
            deadline=now + max_wait_minutes * 60 if deadline is None else deadline,
            durations=parts.durations,
            poll_budget=parts.poll_budget,
            on_change=on_change,
            clock=parts.clock,
        )
    cost = "cost not reported" if done.cost_usd is None else f"${done.cost_usd:.4g}"
    if done.cost_problem is not None:
        logger.warning("%s: job %s: cost not reported: outputs.cost is %s", row, done.id, done.cost_problem)
    logger.info("%s: job %s completed after %.0f s, %s", row, done.id, done.generation_seconds or 0.0, cost)
    return done


def download_can_be_repeated(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """A failed download is free to repeat, unless the reason would be the same again."""
    error = _error_of(state)
    return isinstance(error, DownloadFailed) and not isinstance(error, ClipTooLarge | NoLink | OutputUnwritable)


@task(
    name="download-video",
    task_run_name="download {row}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=download_can_be_repeated,
)
async def download_video(
    job: VideoJob | str,
    target: Path | str,
    *,
    row: str = "video",
    credentials_block: str | None = None,
    session: VideoSession | None = None,
    max_bytes: int = MAX_CLIP_BYTES,
) -> DownloadedClip:
    """Download the clip of a completed job, check it, and put it under its final name.

    Free and safe to repeat: a cut download continues where it stopped, an expired link is renewed.

    Args:
        job: The completed job, or its id alone.
        target: The file to write, for example "videos/sunset.mp4". Its directory must exist.
        row: How the row is called in task names and logs.
        credentials_block: Name of a TogetherCredentials block; without one the key is TOGETHER_API_KEY.
        session: Shared parts of a run of many rows, from `open_session`; without one the task opens its own.
        max_bytes: The largest clip to accept.

    Raises:
        DownloadFailed: LinkExpired, NoLink, ClipInvalid, ClipTooLarge, OutputUnwritable; the target is left unchanged.
    """
    known = VideoJob(id=job) if isinstance(job, str) else job
    logger = logger_for(row)
    async with open_or_shared(session, credentials_block) as parts:
        clip = await parts.download(known, Path(target), max_bytes=max_bytes)
    logger.info("%s: job %s downloaded to %s, %d bytes", row, known.id, clip.path, clip.size_bytes)
    for warning in clip.warnings:
        logger.warning("%s: %s", row, warning)
    return replace(clip, task_run_id=task_run_id())


def logger_for(row: str) -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, with `row` named in errors from here on; outside of a run (`create_video.fn`) an ordinary one.

    A function of its own, since cloudpickle copies a task's function with all that it names, and cannot copy the
    context variable `current_row`; other functions it takes by their names.
    """
    current_row.set(row)
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


async def client_of(credentials_block: str | None) -> AbstractAsyncContextManager[AsyncTogether]:
    """The client with the key of the named block, or with the environment's."""
    if credentials_block is None:
        return open_client()
    return (await TogetherCredentials.aload(credentials_block)).open_client()


@asynccontextmanager
async def open_or_shared(session: VideoSession | None, credentials_block: str | None) -> AsyncGenerator[VideoSession]:
    """The shared session, or one for this task alone."""
    if session is not None:
        yield session
        return
    async with open_session(await client_of(credentials_block)) as own:
        yield own
