"""Holds new rows back while this process is far behind in telling Prefect's server what happened.

Prefect's client keeps each event, with all that its task run knew, until it is sent: 14 kB an event, eleven events a
row. Where rows are quicker than the sending, that would be a gigabyte for 10,000 rows, and a UI that is minutes late.
Rows that are under way go on; a server that stands still holds nothing up.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from pathlib import Path
from queue import Queue
from typing import Any, NoReturn, ParamSpec, TypeVar

from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker, should_emit_events
from prefect.filesystems import WritableFileSystem
from prefect.flows import Flow
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from prefect_together.api.client import current_row
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import TogetherVideoError

P = ParamSpec("P")
R = TypeVar("R")


class VideoFlow(Flow[P, R]):
    """A flow whose parameters are stored as short texts: a DataFrame as `<DataFrame>`, not as all that is in it.

    `Flow.serialize_parameters` is called by the engine with what a flow is given (3.8.8, 3.9.1). Prefect's own puts a
    whole DataFrame into the database, and loads FastAPI for it.
    """

    show_progress: Callable[[Any], AbstractAsyncContextManager[None]] | None = None
    """Set by the command line that runs the flow: shows the run's Tally while it lasts."""

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {name: _stored(value) for name, value in parameters.items()}


def _stored(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | list | dict | BaseModel):
        return to_jsonable_python(value, fallback=lambda unknown: f"<{type(unknown).__name__}>")
    return f"<{type(value).__name__}>"


def process_is_own() -> bool:
    """Whether this process is there for this flow run alone, and may be set up for it: log filters, signal handlers.

    So are those of our command line, and those that Prefect starts for a run of a deployment: it names the run in the
    variable PREFECT__FLOW_RUN_ID (3.8.8, 3.9.1). Somebody's own flow, notebook or worker is not.
    """
    context = FlowRunContext.get()
    if context is None:
        return False
    if isinstance(context.flow, VideoFlow) and context.flow.show_progress is not None:
        return True
    return context.flow_run is not None and os.environ.get("PREFECT__FLOW_RUN_ID") == str(context.flow_run.id)


def shown_progress(tally: object) -> AbstractAsyncContextManager[None]:
    """Shows the run's Tally where the command line runs it; nothing elsewhere."""
    context = FlowRunContext.get()
    flow = None if context is None else context.flow
    if isinstance(flow, VideoFlow) and flow.show_progress is not None:
        return flow.show_progress(tally)
    return nullcontext()


RAISED = "Task run encountered an exception"
"""How the state of a task run begins whose error has just been logged."""


class FinishedTaskLines(logging.Filter):
    """Drops "Finished in state ..." of task runs everywhere: the line before it or the state says so.

    Each costs 0.4 ms.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not message.startswith(("Finished in state Completed", f"Finished in state Failed('{RAISED}"))


class ForeseenErrors(logging.Filter):
    """Makes an error of this package one line, the row first: its message says what happened and what now."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TogetherVideoError):
            row, error = current_row.get(), str(record.exc_info[1])
            record.msg, record.args = "%s", (f"{row}: {error}" if row else error,)
            record.exc_info = record.exc_text = None
        return True


def shorten_task_lines() -> None:
    """For a process of ours, see `process_is_own`; calling it again changes nothing."""
    logger = logging.getLogger("prefect.task_runs")
    for line_filter in (FinishedTaskLines(), ForeseenErrors()):
        if not any(type(known) is type(line_filter) for known in logger.filters):
            logger.addFilter(line_filter)


MAX_WAITING = 4000
"""Events, 56 MB, above which no new row is begun."""
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
    """Of one run; `waiting` counts the events."""

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


class Nowhere(WritableFileSystem):
    """A result storage for tasks that store nothing: a key stays what it is, no path is looked up for it."""

    _block_type_slug = "together-video-nowhere"

    async def read_path(self, path: str) -> NoReturn:
        """Nothing is ever here."""
        raise FileNotFoundError(path)

    async def write_path(self, path: str, content: bytes) -> NoReturn:
        """Nothing is to come here."""
        raise PermissionError(f"{path}: results of these tasks are not stored")


@contextmanager
def results_not_stored() -> Generator[None]:
    """Around tasks with `persist_result=False`, in a flow run; outside of one nothing changes.

    The engine makes a key for each result all the same, and with the usual storage two absolute paths for it, with all
    links followed: 0.3 ms a task run (measured on 3.8.8).
    """
    context = FlowRunContext.get()
    if context is None:
        yield
        return
    store = context.result_store.model_copy(update={"result_storage": Nowhere()})
    with context.model_copy(update={"result_store": store}):
        yield
