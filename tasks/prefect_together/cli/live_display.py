"""Log lines and a live display in one shell without garbling each other. Knows nothing of rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console, RenderableType
from rich.live import Live
from rich.theme import Theme

LIVE_REFRESH_SECONDS = 0.25
STOPPED = "Execution was cancelled by the runtime environment"
"""Prefect's words, after "Crash detected!", for a flow that was stopped before or after its body."""


class EngineChatter(logging.Filter):
    """Keeps off the shell what the display says better.

    That is: lines of task runs below WARNING, the run's URL a second time, the flow's final state, whose message is
    printed at the end, and that a stop is a crash. They still reach Prefect's UI.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("prefect.task_runs"):
            return record.levelno >= logging.WARNING
        if record.name.startswith(("prefect.flow_runs", "prefect.engine")) and STOPPED in record.getMessage():
            return False
        if record.name.startswith("prefect.flow_runs"):
            return not record.getMessage().startswith(("View at", "Finished in state"))
        return True


def shell_console() -> Console:
    """The console (on stderr) through which Prefect prints its log lines: what shares it is not garbled by them.

    Its theme gets rich's usual styles back, which Prefect leaves out. Without Prefect's handler: a console of its own.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            if not any(isinstance(known, EngineChatter) for known in handler.filters):
                handler.addFilter(EngineChatter())
                handler.console.push_theme(Theme())
            return handler.console
    return Console(stderr=True)


@asynccontextmanager
async def progress(
    render: Callable[[], RenderableType],
    line: Callable[[], str],
    *,
    console: Console,
    line_seconds: float = 10.0,
) -> AsyncGenerator[None]:
    """On a terminal a live display of `render()`; elsewhere `line()` every `line_seconds` if it has changed, and at the
    end. Both are called in the running loop, never from another thread."""
    if console.is_terminal:
        with Live(render(), console=console, auto_refresh=False, redirect_stdout=True, redirect_stderr=True) as live:
            async with _repeated(lambda: live.update(render(), refresh=True), LIVE_REFRESH_SECONDS):
                yield
            live.update(render(), refresh=True)
        return
    printed: list[str] = []

    def print_line() -> None:
        text = line()
        if printed != [text]:
            printed[:] = [text]
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        async with _repeated(print_line, line_seconds):
            yield
    finally:
        print_line()


@asynccontextmanager
async def _repeated(action: Callable[[], None], seconds: float) -> AsyncGenerator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            action()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
