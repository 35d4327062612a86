"""What a run shows on a terminal: its progress without garbling Prefect's log lines, and how it ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from shutil import get_terminal_size

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from prefect_together.cli.printing import film_lines, wrapped
from prefect_together.clock import SYSTEM_CLOCK, in_background
from prefect_together.errors import TogetherVideoError
from prefect_together.execution.signals import Stopped
from prefect_together.flows.prefect_ui import progress_text
from prefect_together.prefect_internals import shell_console
from prefect_together.problems import MISTAKES
from prefect_together.results.outcome import RowsFailed, RunOutcome, advice, as_typed
from prefect_together.results.outputs import RESULTS_FILE, VIDEOS_FILE
from prefect_together.results.plan_report import PlanReport
from prefect_together.results.progress import Progress
from prefect_together.results.text import counted, duration, state_counts

LIVE_REFRESH_SECONDS = 0.25
MOST_COLUMNS = 120
"""Of a line of text. Where there is no terminal lines have as many."""
BAR_COLUMNS = 40


@asynccontextmanager
async def live(
    render: Callable[[], RenderableType],
    line: Callable[[], str],
    *,
    console: Console,
    line_seconds: float = 10.0,
) -> AsyncGenerator[None]:
    """On a terminal a live display of `render()`; elsewhere `line()` every `line_seconds` if it has changed, and at the
    end, unless it is empty. Both are called in the running loop, never from another thread."""
    if console.is_terminal:
        with Live(render(), console=console, auto_refresh=False, redirect_stdout=True, redirect_stderr=True) as live:
            async with _repeated(lambda: live.update(render(), refresh=True), LIVE_REFRESH_SECONDS):
                yield
            live.update(render(), refresh=True)
        return
    printed: list[str] = []

    def print_line() -> None:
        text = line()
        if text and printed != [text]:
            printed[:] = [text]
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        async with _repeated(print_line, line_seconds):
            yield
    finally:
        print_line()


def _repeated(action: Callable[[], None], seconds: float) -> AbstractAsyncContextManager[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            action()

    return in_background(repeat())


def show_progress(progress: Progress) -> AbstractAsyncContextManager[None]:
    """Shows the progress of a run for as long as the context lasts."""

    def line() -> str:
        if not progress.total:
            return ""
        return progress_text(progress, progress.seconds_left(SYSTEM_CLOCK.time()))

    console = shell_console()
    return live(lambda: _panel(progress, console.width), line, console=console)


def _panel(progress: Progress, columns: int) -> Group:
    """For a terminal: a bar with what is finished and the time left, the states, the dollars.

    Nothing until the videos are known.
    """
    if not progress.total:
        return Group()
    now = SYSTEM_CLOCK.time()
    said = Text(f"  {progress.finished:,} of {progress.total:,} videos")
    said.append(f"  {duration(now - progress.started_at)}", style="dim")
    if left := progress.seconds_left(now):
        said.append(f"  about {duration(left)} left", style="dim")
    width = max(min(BAR_COLUMNS, columns - len(said)), 0)
    filled = round(progress.finished / progress.total * width)
    bar = Text.assemble(("━" * filled, "green"), ("━" * (width - filled), "dim"), said)
    counts, money = state_counts(progress.by_status), progress.money
    one_line = f"{counts}  ·  {money}"
    below = [one_line] if len(one_line) <= columns else [counts, money]
    return Group(bar, *(Text(line) for line in below))


def print_ending(result: object) -> int:
    """Say how the run ended, and return the exit code."""
    if isinstance(result, RowsFailed):
        result = result.outcome
    if isinstance(result, RunOutcome):
        _print_line(result.headline)
        _print_lines([*result.named, *([f"{result.more}, in {RESULTS_FILE}"] if result.more else []), *result.notes])
        _print_lines(film_lines(result.films, _near(result.output_dir)))
        print(f"  {_near(result.page)}   each clip beside its prompt")
        print(f"  {_near(result.output_dir)}/{RESULTS_FILE}  the table with status, file and cost of each row")
        if any(len(row.takes) > 1 for row in result.rows):
            print(f"  {_near(result.output_dir)}/{VIDEOS_FILE}   a line for each video")
        found = advice(result.rows, only_stills=result.only_stills)
        _print_lines(f"{counted(len(one.rows), 'row')}: {one.what}. {as_typed(one.to_do)}" for one in found)
        return result.exit_code
    if isinstance(result, Stopped):
        print(result.advice, file=sys.stderr)
        return result.exit_code
    if isinstance(result, PlanReport):
        print(result.summary)
        return 0
    if isinstance(result, TogetherVideoError):
        print(result, file=sys.stderr)
    return 2 if isinstance(result, MISTAKES) else 1


def _print_lines(texts: Iterable[str]) -> None:
    """Each text below the headline, in lines that a terminal need not break."""
    for text in texts:
        _print_line(text, indent="  ")


def _print_line(text: str, *, indent: str = "") -> None:
    columns = min(get_terminal_size().columns, MOST_COLUMNS) if sys.stdout.isatty() else MOST_COLUMNS
    print(wrapped(text, columns, first=indent, rest="    "))


def _near(location: str) -> str:
    """A path below the working directory as it would be typed; anything else as it is."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else location
