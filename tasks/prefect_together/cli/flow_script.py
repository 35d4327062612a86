"""Runs a flow over a table from the command line: options from the flow's own signature, live progress, exit codes.

0: every row downloaded. 1: some row is not. 2: the table or a setting is invalid, nothing was sent. 130, 143: stopped.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import fields
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from cyclopts import App, CycloptsError
from prefect.exceptions import TerminationSignal
from prefect.flows import Flow
from pydantic_core import to_jsonable_python
from rich.table import Table
from rich.text import Text

from prefect_together.api.client import NO_KEY, key_is_set
from prefect_together.cli.live_display import progress, shell_console
from prefect_together.cli.local_prefect import LocalPrefect, run_script, seldom_collected
from prefect_together.cli.precheck import INVALID, FirstLook, plan_or_say
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import NotConfigured, SettingsInvalid, TableInvalid, TogetherVideoError
from prefect_together.execution.settings import NO_SERVER
from prefect_together.execution.signals import Stopped, until_stopped
from prefect_together.flows.prefect_ui import progress_text
from prefect_together.flows.table_run import display, plan_line, planned
from prefect_together.results.outcome import RowsFailed, RunOutcome, advice, as_typed
from prefect_together.results.outputs import RESULTS_FILE
from prefect_together.results.plan_report import PlanReport
from prefect_together.results.progress import Tally
from prefect_together.results.text import counted, duration, state_counts
from prefect_together.table.plan import Plan
from prefect_together.table.prompt_table import TableToPlan

BELOW = TextWrapper(120, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
"""How texts below the headline are set; a path or URL stays in one piece."""


def run_from_shell(flow: Flow[..., Any], *, local: LocalPrefect | None, looked: FirstLook | None = None) -> None:
    """Parse the command line, run the flow, print where the videos are, and end the process with the exit code.

    `local` is the Prefect server of this run if it has one of its own, `looked` the plan of its table if there is one.
    """
    run_script(lambda: shell_run(flow, sys.argv[1:], local=local, looked=looked), local=local)


def shell_run(
    flow: Flow[..., Any], words: Sequence[str], *, local: LocalPrefect | None, looked: FirstLook | None = None
) -> int:
    """The same, but returns the exit code."""
    app = App(name=f"python flows/{Path(sys.argv[0]).name}", help=flow.fn.__doc__, version_flags=[])
    app.default(flow.fn)
    try:
        command, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=True)
    except CycloptsError:
        return INVALID
    if command is not flow.fn:  # --help
        command(*bound.args, **bound.kwargs)
        return 0
    bound.apply_defaults()
    given: dict[str, Any] = dict(bound.arguments)
    if given.get("shards", 1) > 1 and local is not None and not given.get("dry_run"):
        print(NO_SERVER, file=sys.stderr)
        return INVALID
    found = _plan_of(given, looked)
    if isinstance(found, int):
        return found
    if local is not None:
        local.wait_until_ready()
        print(f"Prefect's UI while this runs: {local.ui_url}", file=sys.stderr)
    try:
        with seldom_collected():
            return asyncio.run(_run(flow, given, plan=found))
    except TerminationSignal as ended:  # by Prefect's handler of SIGTERM, until the flow's body sets its own
        return report(Stopped(signal.Signals(ended.signal)))


def _plan_of(given: Mapping[str, Any], looked: FirstLook | None) -> Plan | int | None:
    """The plan of the table, if there is a table; the exit code if that is all: mistakes, a dry run, no key."""
    if "prompts" not in given:
        return _key_problem(given)
    table = TableToPlan(**{field.name: given[field.name] for field in fields(TableToPlan)})
    plan = looked.plan if looked is not None and looked.table == table else plan_or_say(table)
    if plan is None:
        return INVALID
    if not given.get("dry_run"):
        return _key_problem(given) or plan
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{plan_line(plan, given.get('budget_usd'))}; nothing was sent")
    return 0


def _key_problem(given: Mapping[str, Any]) -> int | None:
    needs_key = "credentials_block" in given  # plan_videos sends nothing and takes none
    if not needs_key or given.get("sandbox") or given.get("credentials_block") or key_is_set():
        return None
    print(NO_KEY, file=sys.stderr)
    return INVALID


async def _run(flow: Flow[..., Any], given: Mapping[str, Any], *, plan: Plan | None) -> int:
    shell_console()  # from the first line on
    display.set(_show)
    planned.set(plan)
    quick = copy(flow)
    quick.serialize_parameters = serialized
    try:
        state = await until_stopped(quick(**given, return_state=True))
    except Stopped as stop:  # before or after the flow's body, which sees to its own stop
        return report(stop)
    return report(await state.aresult(raise_on_failure=False))


def serialized(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the server keeps them. Prefect's own way loads the whole of FastAPI for it (3.8.8)."""
    return {name: to_jsonable_python(value) for name, value in parameters.items()}


def report(result: object) -> int:
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
        return INVALID
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


def _near(place: str) -> str:
    """A path below the working directory as it would be typed; anything else as it is."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else place


def _show(tally: Tally) -> AbstractAsyncContextManager[None]:
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
    grid = Table.grid()
    grid.add_row(bar)
    grid.add_row(Text(f"{counts}  ·  {tally.money}"))
    return grid
