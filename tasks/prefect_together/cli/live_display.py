"""A run's progress and Prefect's log lines on one terminal, without garbling each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.flows.prefect_ui import progress_text
from prefect_together.results.progress import Tally
from prefect_together.results.text import dollars, duration, state_counts

LIVE_REFRESH_SECONDS = 0.25
STOPPED = "Execution was cancelled by the runtime environment"
"""Prefect's words, after "Crash detected!", for a flow that was stopped before or after its body."""


class ShellLines(logging.Filter):
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
            if not any(isinstance(known, ShellLines) for known in handler.filters):
                handler.addFilter(ShellLines())
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


def show_progress(tally: Tally) -> AbstractAsyncContextManager[None]:
    """Shows the progress of a run for as long as the context lasts."""

    def line() -> str:
        return progress_text(tally, tally.seconds_left(SYSTEM_CLOCK.time()))

    return progress(lambda: _panel(tally), line, console=shell_console())


def _panel(tally: Tally) -> Table:
    """Two lines for a terminal: a bar with what is finished and the time left, the states and the dollars."""
    now = SYSTEM_CLOCK.time()
    left = tally.seconds_left(now)
    share = tally.finished / tally.total if tally.total else 1.0
    width = 40
    filled = round(share * width)
    bar = Text.assemble(("━" * filled, "green"), ("━" * (width - filled), "dim"))
    bar.append(f"  {tally.finished:,} of {tally.total:,} videos")
    bar.append(f"  {duration(now - tally.started_at)}", style="dim")
    if left:
        bar.append(f"  about {duration(left)} left", style="dim")
    counts = state_counts(tally.by_status)
    money = f"{dollars(tally.spent_usd)} so far, {dollars(tally.projected_usd)} projected"
    grid = Table.grid()
    grid.add_row(bar)
    grid.add_row(Text(f"{counts}  ·  {money}"))
    return grid
