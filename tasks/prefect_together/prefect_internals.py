"""All that relies on what Prefect does not document, each piece with the versions it was seen in and what it gains.

Tried on 3.8.8 and 3.9.1 by `tests/prefect_internals/`. What relies on Prefect's server is where that server runs, in
`cli/local_server.py` and `cli/local_messages.py`: no run loads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from queue import Queue
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

import httpx
from prefect._internal.compatibility.async_dispatch import async_dispatch as async_dispatch
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.worker import EventsWorker, should_emit_events
from prefect.exceptions import PrefectException
from prefect.flows import Flow
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.utilities.annotations import quote
from prefect.utilities.asyncutils import run_coro_as_sync as run_coro_as_sync
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.theme import Theme

from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import TogetherVideoError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# `async_dispatch` and `run_coro_as_sync` give one method to `def` and `async def` flows, as Prefect's own blocks do
# (3.8.8, 3.9.1).

# Parameters and arguments


class VideoFlow(Flow[P, R]):
    """A flow whose parameters are stored as short texts: a DataFrame as `<DataFrame>`, not as all that is in it.

    `Flow.serialize_parameters` is called by the engine with what a flow is given (3.8.8, 3.9.1). Prefect's own puts a
    whole DataFrame into the database, and loads FastAPI for it.
    """

    show_progress: Callable[[Any], AbstractAsyncContextManager[None]] | None = None
    """Set by the command line that runs the flow: shows the run's Progress while it lasts."""
    show_ending: Callable[[object], Awaitable[None]] | None = None
    """Set with it: says how the run ended, as soon as the body of the flow knows, whatever Prefect's server does."""

    def with_options(self, *args: Any, **options: Any) -> VideoFlow[P, R]:
        """Prefect's own gives a plain Flow (3.8.8, 3.9.1), which would store all that is in a DataFrame."""
        changed = super().with_options(*args, **options)
        changed.__class__ = VideoFlow
        return cast("VideoFlow[P, R]", changed)

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {name: _stored(value) for name, value in parameters.items()}


def _stored(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | list | dict | BaseModel):
        return to_jsonable_python(value, fallback=lambda unknown: f"<{type(unknown).__name__}>")
    return f"<{type(value).__name__}>"


def unvisited(value: T) -> T:
    """A task's argument that the engine does not search for futures: it would, twice a task run, 2 ms for a large
    object (3.8.8)."""
    return cast("T", quote(value))


# Retries


def task_run_id() -> UUID | None:
    """The task run that is executing; it keeps its id when Prefect tries it again."""
    context = TaskRunContext.get()
    return None if context is None else context.task_run.id


def task_run_is_retried() -> bool:
    """Whether the task run that is executing has been tried before."""
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count > 1


def flow_run_is_retried() -> bool:
    """Whether the flow run that is executing, or one that it is a subflow of, is a retry, by its flow or from the UI.

    Resuming after a pause also raises `run_count`; only a retry has a type in `empirical_policy` (3.8.8, 3.9.1).
    """
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or (run.run_count <= 1 and run.parent_task_run_id is None):
        return False
    with get_client(sync_client=True) as client:
        while run.run_count <= 1 or client.read_flow_run(run.id).empirical_policy.retry_type is None:
            if run.parent_task_run_id is None:
                return False
            parent = client.read_task_run(run.parent_task_run_id).flow_run_id
            if parent is None:
                return False
            run = client.read_flow_run(parent)
    return True


# The process


def process_is_own() -> bool:
    """Whether this process is there for this flow run alone, and may be set up for it: log filters, signal handlers.

    So are those of our command line, and those that Prefect starts for a run of a deployment: a worker names the run in
    the variable PREFECT__FLOW_RUN_ID, `serve` runs the hooks of its run itself (3.8.8, 3.9.1). Somebody's own flow,
    notebook or worker is not.
    """
    context = FlowRunContext.get()
    if context is None:
        return False
    if isinstance(context.flow, VideoFlow) and context.flow.show_progress is not None:
        return True
    run, variables = context.flow_run, os.environ
    if run is None:
        return False
    is_served = variables.get("PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS") == "false"
    return variables.get("PREFECT__FLOW_RUN_ID") == str(run.id) or (is_served and run.parent_task_run_id is None)


def shown_progress(
    progress: T, *, elsewhere: Callable[[T], AbstractAsyncContextManager[None]]
) -> AbstractAsyncContextManager[None]:
    """Shows the run's Progress as the command line does that runs it, or as `elsewhere` does."""
    context = FlowRunContext.get()
    flow = None if context is None else context.flow
    if isinstance(flow, VideoFlow) and flow.show_progress is not None:
        return flow.show_progress(progress)
    return elsewhere(progress)


async def report_ending(result: object) -> None:
    """Hands what the run ended with to the command line that runs it; does nothing elsewhere."""
    context = FlowRunContext.get()
    flow = None if context is None else context.flow
    if isinstance(flow, VideoFlow) and flow.show_ending is not None:
        await flow.show_ending(result)


# Log lines

TASK_RUN_LINES = logging.getLogger("prefect.task_runs")
"""The logger of all task runs (3.8.8, 3.9.1)."""
RAISED = "Task run encountered an exception"
"""How the state of a task run begins whose error has just been logged (3.8.8, 3.9.1)."""
STOPPED = (
    "Execution was cancelled by the runtime environment",
    "Execution was aborted by an interrupt signal",
    "Execution was aborted by a termination signal",
)
"""Prefect's words, after "Crash detected!", for a flow that was stopped before or after its body: the first where its
loop was told, the others where the signal came between two of its steps (3.8.8, 3.9.1)."""

EVENT_LOGGERS = ("prefect.events.clients", "prefect._internal.concurrency")
"""They say that an event could not be sent, and quote the whole of it (3.8.8, 3.9.1)."""


class FinishedTaskLines(logging.Filter):
    """Drops "Finished in state ..." of task runs everywhere: the line before it or the state says so.

    For readers: six lines a row would say what three do, and each failure would stand there twice.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        said_before = ("Finished in state Completed", *(f"Finished in state Failed({quote}{RAISED}" for quote in "'\""))
        return not message.startswith(said_before)


class ExpectedErrors(logging.Filter):
    """Makes an error of this package one line, the row first: its message says what happened and what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TogetherVideoError):
            from prefect_together.api.client import current_row  # with the SDK, which Prefect's server need not load

            row, error = current_row.get(), str(record.exc_info[1])
            record.msg, record.args = "%s", (f"{row}: {error}" if row else error,)
            record.exc_info = record.exc_text = None
        return True


class ShellLines(logging.Filter):
    """Keeps off the terminal what the progress display says better.

    That is: lines of task runs below WARNING, the run's URL a second time, the flow's final state, whose message is
    printed at the end, and that a stop is a crash. They still reach Prefect's UI. A server that is away is one line,
    not two of 2 kB an event.
    """

    _server_is_away = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in EVENT_LOGGERS and record.levelno >= logging.WARNING:
            record.msg, record.args = "Prefect's server cannot be reached: its UI will lack a part of this run", ()
            is_first, self._server_is_away = not self._server_is_away, True
            return is_first
        if record.name.startswith("prefect.task_runs"):
            return record.levelno >= logging.WARNING
        if record.name.startswith(("prefect.flow_runs", "prefect.engine")):
            message = record.getMessage()
            if any(words in message for words in STOPPED):
                return False
        if record.name.startswith("prefect.flow_runs"):
            if record.exc_info and isinstance(record.exc_info[1], httpx.HTTPError | PrefectException):
                return False  # the command line says it in a sentence
            return not record.getMessage().startswith(("View at", "Finished in state"))
        return True


def shorten_task_lines() -> None:
    """For a process of ours, see `process_is_own`; calling it again changes nothing."""
    for line_filter in (FinishedTaskLines(), ExpectedErrors()):
        if not any(type(known) is type(line_filter) for known in TASK_RUN_LINES.filters):
            TASK_RUN_LINES.addFilter(line_filter)


def shell_console() -> Console:
    """The console (on stderr) through which Prefect prints its log lines: what shares it is not garbled by them.

    Its theme gets rich's usual styles back, which Prefect leaves out. Without Prefect's handler: a console of its own.
    """
    setup_logging()  # before its first run Prefect 3.9.1 has no handlers; what is set up already stays as it is
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            if not any(isinstance(known, ShellLines) for known in handler.filters):
                lines = ShellLines()
                handler.addFilter(lines)
                for other in logging.getLogger("prefect._internal").handlers:  # it does not propagate
                    if type(other).__module__.startswith("prefect."):
                        other.addFilter(lines)
                handler.console.push_theme(Theme())
            return handler.console
    return Console(stderr=True)


def end_quietly() -> None:
    """For a program whose run has ended: it does not log what Prefect's threads fail to send from here on."""
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    logging.getLogger("APILogWorker").setLevel(logging.ERROR)
    logging.getLogger("prefect.events.utilities").setLevel(logging.CRITICAL)  # a last heartbeat comes too late


# Memory

MAX_WAITING = 4000
"""Events, 56 MB (14 kB each on 3.8.8), above which no new row is begun."""
STANDSTILL_SECONDS, MOST_SECONDS = 10.0, 60.0
"""Events that have not become fewer for so long are not waited for; nor are those that are many after a minute."""
PAUSE_SECONDS = 0.05


def events_waiting() -> int:
    """Events of this process that are not yet sent."""
    if not should_emit_events():
        return 0
    try:
        worker = EventsWorker.instance()
    except RuntimeError:  # at the interpreter's end; Prefect's own `emit_event` is silent on it too
        return 0
    queue = getattr(worker, "_queue", None)  # Prefect's own, and it may get another name
    return queue.qsize() if isinstance(queue, Queue) else 0


class EventBacklog:
    """Holds new rows of one run back while this process is far behind in sending events to Prefect's server.

    Prefect's client keeps each event, with all that its task run knew, until it is sent: eleven events a row. Where
    rows are quicker than the sending, that would be a gigabyte for 10,000 rows, and a UI that is minutes late. Rows
    that are under way continue; a server that stands still holds nothing up. `waiting` counts the events.
    """

    def __init__(self, *, waiting: Callable[[], int] = events_waiting, clock: Clock = SYSTEM_CLOCK) -> None:
        self._waiting, self._clock = waiting, clock
        self._stood_at: int | None = None

    async def until_short(self) -> None:
        """Wait until at most MAX_WAITING events wait to be sent: a minute at most, and not while nothing is sent."""
        fewest, since = self._waiting(), self._clock.monotonic()
        give_up_at = since + MOST_SECONDS
        while (now := self._waiting()) > MAX_WAITING:
            if self._stood_at is not None and now >= self._stood_at:
                return
            if now < fewest:
                fewest, since = now, self._clock.monotonic()
            if self._clock.monotonic() >= min(since + STANDSTILL_SECONDS, give_up_at):
                self._stood_at = now
                return
            await self._clock.sleep(PAUSE_SECONDS)
        self._stood_at = None


def forget_results() -> None:
    """Let go of the states that Prefect keeps to tell, later in the flow, which task a value came from.

    They stay until the flow ends: three task runs a row are 8 kB and 17 entries (3.8.8), 80 MB in 10,000 rows. For
    flows whose tasks take nothing that Prefect is to trace, see `unvisited`.
    """
    context = FlowRunContext.get()
    if context is not None:
        context.run_results.clear()
