"""How a run ended, in lines for a terminal, and the exit code that says the same. See `run_flow` for the codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import TextWrapper

from prefect_together.errors import NotConfigured, SettingsInvalid, TableInvalid, TogetherVideoError
from prefect_together.execution.signals import Stopped
from prefect_together.results.outcome import RowsFailed, RunOutcome, advice, as_typed
from prefect_together.results.outputs import RESULTS_FILE
from prefect_together.results.plan_report import PlanReport
from prefect_together.results.text import counted

BELOW = TextWrapper(120, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
"""How texts below the headline are set; a path or URL stays in one piece."""


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
        _print_lines(f"{counted(len(one.rows), 'row')} {one.what}. {as_typed(one.to_do)}" for one in found)
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
