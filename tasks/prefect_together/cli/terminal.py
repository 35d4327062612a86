"""What a run shows on a terminal: its progress without garbling Prefect's log lines, and how it ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from textwrap import TextWrapper

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import NotConfigured, SettingsInvalid, TableInvalid, TogetherVideoError
from prefect_together.execution.signals import Stopped
from prefect_together.flows.prefect_ui import progress_text
from prefect_together.prefect_internals import shell_console
from prefect_together.results.outcome import RowsFailed, RunOutcome, advice, as_typed
from prefect_together.results.outputs import RESULTS_FILE
from prefect_together.results.plan_report import PlanReport
from prefect_together.results.progress import Progress
from prefect_together.results.text import counted, dollars, duration, state_counts

LIVE_REFRESH_SECONDS = 0.25
BELOW = TextWrapper(120, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
"""How texts below the headline are set; a path or URL stays in one piece."""


@asynccontextmanager
async def live(
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


def show_progress(progress: Progress) -> AbstractAsyncContextManager[None]:
    """Shows the progress of a run for as long as the context lasts."""

    def line() -> str:
        return progress_text(progress, progress.seconds_left(SYSTEM_CLOCK.time()))

    return live(lambda: _panel(progress), line, console=shell_console())


def _panel(progress: Progress) -> Table:
    """Two lines for a terminal: a bar with what is finished and the time left, the states and the dollars."""
    now = SYSTEM_CLOCK.time()
    left = progress.seconds_left(now)
    part = progress.finished / progress.total if progress.total else 1.0
    width = 40
    filled = round(part * width)
    bar = Text.assemble(("━" * filled, "green"), ("━" * (width - filled), "dim"))
    bar.append(f"  {progress.finished:,} of {progress.total:,} videos")
    bar.append(f"  {duration(now - progress.started_at)}", style="dim")
    if left:
        bar.append(f"  about {duration(left)} left", style="dim")
    counts = state_counts(progress.by_status)
    money = f"{dollars(progress.spent_usd)} so far, {dollars(progress.projected_usd)} projected"
    grid = Table.grid()
    grid.add_row(bar)
    grid.add_row(Text(f"{counts}  ·  {money}"))
    return grid


def print_ending(result: object) -> int:
    """Say how the run ended, and return the exit code."""
    if isinstance(result, RowsFailed):
        result = result.outcome
    if isinstance(result, RunOutcome):
        print(result.headline)
        _print_lines([*result.named, *([f"{result.more}, in {RESULTS_FILE}"] if result.more else []), *result.notes])
        print(f"  {_near(result.page)}   each clip beside its prompt")
        print(f"  {_near(result.output_dir)}/{RESULTS_FILE}  the table with status, file and cost of each row")
        found = advice(result.rows)
        _print_lines(f"{counted(len(one.rows), 'row')}: {one.what}. {as_typed(one.to_do)}" for one in found)
        return result.exit_code
    if isinstance(result, Stopped):
        print(result.advice, file=sys.stderr)
        return result.exit_code
    if isinstance(result, TableInvalid | SettingsInvalid | NotConfigured):
        print(result, file=sys.stderr)
        return 2
    if isinstance(result, PlanReport):
        print(result.summary)
        return 0
    if isinstance(result, TogetherVideoError):
        print(result, file=sys.stderr)
    return 1


def _print_lines(texts: Iterable[str]) -> None:
    """Each text below the headline, in lines that a terminal need not break."""
    for text in texts:
        print(BELOW.fill(text))


def _near(location: str) -> str:
    """A path below the working directory as it would be typed; anything else as it is."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else location
