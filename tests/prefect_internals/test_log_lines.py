"""Log lines of the engine, shortened where the process is a run's own: words and loggers are those of each version."""

from __future__ import annotations

import asyncio
import logging
import signal

import pytest
from prefect import flow, task
from prefect.exceptions import TerminationSignal
from prefect.states import exception_to_crashed_state

from prefect_server import PrefectServer
from prefect_together.api.client import current_row
from prefect_together.errors import SubmissionInDoubt
from prefect_together.prefect_internals import (
    RAISED,
    TASK_RUN_LINES,
    ExpectedErrors,
    FinishedTaskLines,
    ShellLines,
    shorten_task_lines,
)


def record(name: str, level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, None, None)


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
    with_apostrophe = 'Failed("' + RAISED + " JobFailed: the provider's moderation\")"
    assert not lines.filter(record("prefect.task_runs", logging.ERROR, f"Finished in state {with_apostrophe}"))
    assert lines.filter(record("prefect.task_runs", logging.ERROR, "Finished in state Failed('x')"))
    assert lines.filter(record("prefect.task_runs", logging.INFO, "row 7: downloaded"))


def test_an_error_of_ours_is_one_line_with_its_row_first() -> None:
    line = record("prefect.task_runs", logging.ERROR, "Task run failed with exception: SubmissionInDoubt()")
    error = SubmissionInDoubt("no answer", 0.28)
    line.exc_info = (type(error), error, None)
    token = current_row.set("cat-on-drum")

    ExpectedErrors().filter(line)
    current_row.reset(token)

    assert logging.Formatter().format(line) == "cat-on-drum: in doubt (no answer): possibly billed, $0.28"


def test_dropping_those_lines_twice_adds_one_filter() -> None:
    logger = logging.getLogger("prefect.task_runs")
    before = list(logger.filters)

    shorten_task_lines()
    shorten_task_lines()

    added = [known for known in logger.filters if isinstance(known, FinishedTaskLines)]
    assert len(added) == 1
    logger.filters[:] = before


@pytest.mark.parametrize("reason", ["no answer", "the provider's gateway gave none"])
def test_a_finished_and_a_failed_task_run_are_said_in_one_line_each(
    prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    @task
    async def step(fails: bool) -> None:
        if fails:
            raise SubmissionInDoubt(reason, 0.28)

    @flow(name="steps", persist_result=False)
    async def steps() -> None:
        await step(False)
        with pytest.raises(SubmissionInDoubt):
            await step(True)

    before = list(TASK_RUN_LINES.filters)
    shorten_task_lines()
    try:
        prefect_server.run(steps)
    finally:
        TASK_RUN_LINES.filters[:] = before

    lines = [line for line in caplog.records if line.name == TASK_RUN_LINES.name]
    assert [line.getMessage() for line in lines] == [f"in doubt ({reason}): possibly billed, $0.28"]
    assert lines[0].exc_info is None


STOPS = [asyncio.CancelledError(), KeyboardInterrupt(), TerminationSignal(signal.SIGTERM)]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: type(stop).__name__)
async def test_a_stopped_flow_is_said_in_the_words_that_are_kept_off_the_terminal(stop: BaseException) -> None:
    state = await exception_to_crashed_state(stop)

    for message in (f"Crash detected! {state.message}", f"Finished in state {state}"):
        assert not ShellLines().filter(record("prefect.engine", logging.ERROR, message))


def test_a_cancelled_flow_says_so_under_a_logger_that_is_filtered(
    prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(name="waits", persist_result=False)
    async def waits() -> None:
        raise asyncio.CancelledError

    async def work() -> None:
        await asyncio.gather(waits(), return_exceptions=True)

    prefect_server.run(work)

    said = [line for line in caplog.records if "Crash detected!" in line.getMessage()]
    assert {line.name for line in said} == {"prefect.flow_runs"}
    assert not any(ShellLines().filter(line) for line in said)
