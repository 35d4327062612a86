"""One shell for log lines and the progress display."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.text import Text

from prefect_together.api.client import current_row
from prefect_together.cli.live_display import ShellLines, progress
from prefect_together.errors import SubmissionInDoubt
from prefect_together.prefect_internals import RAISED, FinishedTaskLines, ForeseenErrors, shorten_task_lines


def record(name: str, level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, None, None)


async def test_without_a_terminal_a_line_is_printed_at_the_end() -> None:
    shell = io.StringIO()
    done = ["1 of 2"]

    async with progress(lambda: Text("live"), lambda: done[0], console=Console(file=shell), line_seconds=60):
        done[0] = "2 of 2 [row:7]"

    assert shell.getvalue() == "2 of 2 [row:7]\n"


async def test_the_last_line_is_printed_when_the_work_fails() -> None:
    shell = io.StringIO()

    with pytest.raises(OSError, match="disk"):
        async with progress(lambda: Text("live"), lambda: "1 of 2", console=Console(file=shell), line_seconds=60):
            raise OSError("disk")

    assert shell.getvalue() == "1 of 2\n"


async def test_on_a_terminal_the_display_ends_with_the_final_state() -> None:
    shell = io.StringIO()
    done = ["half"]
    console = Console(file=shell, force_terminal=True, width=40)

    async with progress(lambda: Text(done[0]), lambda: "plain", console=console):
        console.print("a log line")
        done[0] = "all"

    text = shell.getvalue()
    assert "a log line" in text
    assert "plain" not in text
    assert text.rindex("all") > text.rindex("half")


def test_lines_of_task_runs_stay_off_the_shell_unless_they_warn() -> None:
    lines = ShellLines()

    assert not lines.filter(record("prefect.task_runs", logging.INFO, "row 7: queued"))
    assert lines.filter(record("prefect.task_runs", logging.WARNING, "row 7: a missed poll"))
    assert not lines.filter(record("prefect.flow_runs", logging.INFO, "View at http://127.0.0.1:1/runs"))
    assert not lines.filter(record("prefect.flow_runs", logging.ERROR, "Finished in state Failed('x')"))
    assert lines.filter(record("prefect.engine", logging.INFO, "View at http://127.0.0.1:1/runs"))


def test_the_engines_lines_that_repeat_what_is_known_are_dropped() -> None:
    lines = FinishedTaskLines()

    assert not lines.filter(record("prefect.task_runs", logging.INFO, "Finished in state Completed()"))
    assert not lines.filter(record("prefect.task_runs", logging.ERROR, f"Finished in state Failed('{RAISED} X')"))
    assert lines.filter(record("prefect.task_runs", logging.ERROR, "Finished in state Failed('x')"))
    assert lines.filter(record("prefect.task_runs", logging.INFO, "row 7: downloaded"))


def test_an_error_of_ours_is_one_line_with_its_row_first() -> None:
    line = record("prefect.task_runs", logging.ERROR, "Task run failed with exception: SubmissionInDoubt()")
    error = SubmissionInDoubt("no answer", 0.28)
    line.exc_info = (type(error), error, None)
    current_row.set("cat-on-drum")

    ForeseenErrors().filter(line)

    assert logging.Formatter().format(line) == "cat-on-drum: in doubt (no answer): possibly billed, $0.28"


def test_dropping_those_lines_twice_adds_one_filter() -> None:
    logger = logging.getLogger("prefect.task_runs")
    before = list(logger.filters)

    shorten_task_lines()
    shorten_task_lines()

    added = [known for known in logger.filters if isinstance(known, FinishedTaskLines)]
    assert len(added) == 1
    logger.filters[:] = before
