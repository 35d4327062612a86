"""Runs one of the flows from a command line: options from the flow's own signature, live progress, exit codes.

0: every row downloaded. 1: some row is not. 2: the table or a setting is invalid, nothing was sent. 130, 143: stopped.
Prefect is imported, and a server started, once the command line, the table and the key are found right.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from inspect import BoundArguments
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, NoReturn

from cyclopts import App, CycloptsError
from cyclopts import ValidationError as WrongOption
from pydantic import ValidationError

from prefect_together.cli.local_prefect import (
    LocalPrefect,
    as_program,
    needs_local_server,
    prefect_problem,
    prepare_prefect,
    raised_gc_thresholds,
    signals_raised,
    team_is_configured,
)
from prefect_together.errors import NotConfigured
from prefect_together.flows import functions
from prefect_together.flows.prompts import PlannedPrompts, plan_prompts
from prefect_together.problems import MISTAKES, SettingsInvalid
from prefect_together.request.fields import WRONG_VALUE
from prefect_together.request.form import Limits, VideoLocations

if TYPE_CHECKING:
    from prefect_together.flows.team_settings import TeamDefaults
    from prefect_together.table.plan import Plan

FlowFunction = Callable[..., Any]
INVALID = 2
"""The exit code where the command line, the table or a setting is invalid and nothing was sent."""
STOPPED = (130, 143)
"""The exit codes of a run that was stopped: who stops it does not wait for Prefect's server to record the rest."""
MISTAKES_SHOWN = 1000
PREFECT_ADVICE = "Start it, or correct PREFECT_API_URL; without one a run starts a server of its own"
NOT_RECORDED = "the end of this run is missing in Prefect's UI; its videos, results.csv and index.html are complete"


def flow_script(name: str) -> NoReturn:
    """The whole of a flow script: parse its command line, run the flow of that name, end the process."""
    as_program(lambda: run_command_line(name, sys.argv[1:]))


def with_standard_input(argv: Sequence[str]) -> list[str]:
    """The argv with "-", standard input, as a path: the parser takes it for an option."""
    return ["/dev/stdin" if word == "-" else word for word in argv]


def is_flow_function(function: FlowFunction) -> bool:
    """Whether a function is one that `run_flow` runs as a flow."""
    return function.__module__ == functions.__name__


def run_command_line(name: str, argv: Sequence[str]) -> int:
    """Run a flow with the options that `argv` are; return the exit code."""
    function: FlowFunction = getattr(functions, name)
    app = App(name=f"python flows/{name}.py", version_flags=[], error_formatter=option_error)
    app.default(function)
    try:
        called, bound, _ = app.parse_args(with_standard_input(argv), exit_on_error=False, print_error=True)
    except CycloptsError:
        return INVALID
    if called is not function:  # --help
        called(*bound.args, **bound.kwargs)
        return 0
    return run_flow(name, bound)


def option_error(error: CycloptsError) -> str:
    """What is wrong with the command line, in a sentence for each option."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(cause if isinstance(cause, ValueError) and isinstance(error, WrongOption) else error)
    argument = error.argument.name if error.argument else ""
    reasons: dict[str, None] = {}
    for found in cause.errors():
        if found["type"] == WRONG_VALUE:
            reasons[found["msg"]] = None
        elif found["type"] != "none_required":
            name = f"--{str(found['loc'][0]).replace('_', '-')}" if argument == "*" else argument
            reasons[f'Invalid value "{found["input"]}" for {name}: {found["msg"]}'] = None
    return "; ".join(reasons)


def run_flow(name: str, bound: BoundArguments) -> int:
    """Check the options and the table, run the flow with them, say how it ended; return the exit code."""
    bound.apply_defaults()
    given = dict(bound.arguments)
    try:
        _check_ledger(given)
        plan = _plan_of(given) if "prompts" in given else None
        if plan is not None:
            if given.get("dry_run"):
                return _print_plan(plan, given)
            given["prompts"] = PlannedPrompts.of(given["prompts"], plan)
        _check_key(given)
        _check_shards(given)
        _check_output_dir(given)
    except MISTAKES as error:
        _print_mistakes(error)
        return INVALID
    local = prepare_prefect()
    try:
        with signals_raised():
            code = _run(name, given, local)
    except (NotConfigured, SettingsInvalid) as error:  # Prefect's server or a team's setting cannot be used
        _print_mistakes(error)
        return INVALID
    if local is not None:
        local.wait_at_exit = code not in STOPPED
    return code


def _plan_of(given: Mapping[str, Any]) -> Plan:
    names = ("prompts", "model", "prompt_template", "parameters", "limits", "locations")
    with said_if_slow("reading the table"):
        return plan_prompts(**{name: given[name] for name in names})


@contextmanager
def said_if_slow(text: str, *, seconds: float = 1.0) -> Generator[None]:
    """Prints the text on stderr once this has lasted so long: a large table, one behind a URL, standard input."""
    timer = Timer(seconds, print, [text], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def team_defaults() -> TeamDefaults | None:
    """The team's settings where there are any: only then is Prefect imported for them. Raises SettingsInvalid."""
    if not team_is_configured(os.environ, Path.cwd()):
        return None
    from prefect_together.flows.team_settings import TeamDefaults

    return TeamDefaults()


def _print_plan(plan: Plan, given: Mapping[str, Any]) -> int:
    from prefect_together.execution.settings import RunSettings  # with the ledger, which no --help waits for
    from prefect_together.flows.preview import dry_run

    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    output_dir, budget_usd = given["output_dir"], given["budget_usd"]
    if team := team_defaults():
        output_dir, budget_usd = team.output_dir(output_dir), team.budget_usd(budget_usd)
        team.print_note()
    sends, ledger = RunSettings.of(given["limits"]).sends, given["locations"].ledger
    print(asyncio.run(dry_run(plan, output_dir, ledger, budget_usd=budget_usd, sends=sends)))
    return 0


def _check_key(given: Mapping[str, Any]) -> None:
    """Raises NotConfigured if the flow sends something and has no key for it."""
    locations = given["locations"]
    if not isinstance(locations, VideoLocations) or locations.credentials_block:  # plan_videos sends nothing
        return
    if given["sandbox"] or given.get("dry_run") or team_is_configured(os.environ, Path.cwd()):
        return  # the team may name a block: the flow knows once Prefect is imported
    from prefect_together.api.client import NO_KEY, key_is_set

    if not key_is_set():
        raise NotConfigured(NO_KEY)


def _check_ledger(given: Mapping[str, Any]) -> None:
    """Raises SettingsInvalid for a ledger URL that cannot be one or has a password: Prefect would store it."""
    ledger: str | None = getattr(given["locations"], "ledger", None)
    if ledger and "://" in ledger:
        from prefect_together.ledger.engine import parse_ledger_url  # with SQLAlchemy, which only a URL needs here

        parse_ledger_url(ledger)


def _check_shards(given: Mapping[str, Any]) -> None:
    limits = given["limits"]
    if isinstance(limits, Limits) and limits.shards > 1 and needs_local_server():
        from prefect_together.execution.settings import NO_SERVER

        raise NotConfigured(NO_SERVER)


def _check_output_dir(given: Mapping[str, Any]) -> None:
    """Raises SettingsInvalid for a local output directory that cannot be made or written. Makes nothing."""
    output_dir = str(given.get("output_dir") or "")
    if not output_dir or "://" in output_dir:
        return
    existing = Path(output_dir).absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        reason = f"{existing} is not a directory"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = f"{existing} is not writable"
    else:
        return
    raise SettingsInvalid.of(f"cannot write {output_dir}: {reason}", column="output_dir")


def _print_mistakes(error: Exception) -> None:
    lines = str(error).splitlines()
    print("\n".join(lines[:MISTAKES_SHOWN]), file=sys.stderr)
    if len(lines) > MISTAKES_SHOWN:
        print(f"  ... and {len(lines) - MISTAKES_SHOWN:,} more", file=sys.stderr)


def _run(name: str, given: Mapping[str, Any], local: LocalPrefect | None) -> int:
    import httpx
    from prefect.exceptions import PrefectException, TerminationSignal

    from prefect_together.cli.terminal import print_ending, show_progress
    from prefect_together.execution.signals import Stopped, until_stopped
    from prefect_together.flows import entrypoints
    from prefect_together.prefect_internals import shell_console

    flow = copy(getattr(entrypoints, name))
    codes: list[int] = []

    async def show_ending(result: object) -> None:
        codes.append(print_ending(result))
        if problem := await prefect_problem():
            _leave(codes[0], problem)

    flow.show_progress, flow.show_ending = show_progress, show_ending

    team_defaults()  # what is wrong with them is said before the flow begins

    async def run() -> object:
        if problem := await prefect_problem():
            raise NotConfigured(f"nothing was sent: {problem}. {PREFECT_ADVICE}")
        try:
            state = await until_stopped(flow(**given, return_state=True))
        except Stopped as stop:  # before or after the flow's body, which sees to its own stop
            return stop
        except (httpx.HTTPError, OSError, PrefectException) as error:
            text = str(error).partition("\n")[0]
            problem = text if text not in ("", "None") else type(error).__name__
            said = f"warning: {NOT_RECORDED}" if codes else "Prefect ended the run; the same command continues it"
            print(f"{said} ({problem})", file=sys.stderr)
            return None
        return await state.aresult(raise_on_failure=False)

    if local is not None:
        local.wait_until_ready()
        print(f"Prefect's UI while this runs: {local.ui_url}", file=sys.stderr)
    shell_console()  # from the first line on
    try:
        with raised_gc_thresholds():
            ended = asyncio.run(run())
    except TerminationSignal as terminated:  # by Prefect's handler of SIGTERM, until the flow's body sets its own
        ended = Stopped(signal.Signals(terminated.signal))
    return codes[0] if codes else print_ending(ended)


def _leave(code: int, problem: str) -> NoReturn:
    """End the process at once: all else has been written and said, and Prefect would try for minutes to reach its
    server, with stack traces."""
    print(f"warning: {NOT_RECORDED} ({problem})", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
