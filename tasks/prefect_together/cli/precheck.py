"""The table named in a flow script's command line, checked before Prefect is imported or a server started.

A mistake is so said within a second. What the words mean besides the table is for the flow's signature, see `shell`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cyclopts import App, CycloptsError

from prefect_together.errors import SettingsInvalid, TableInvalid
from prefect_together.execution.signals import end_at_signals
from prefect_together.request.form import ForAllRows
from prefect_together.table.plan import Plan
from prefect_together.table.prompt_table import TableToPlan

INVALID = 2
"""The exit code where the table or a setting is invalid and nothing was sent."""
MISTAKES_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class FirstLook:
    """A table and the plan that was made of it."""

    table: TableToPlan
    plan: Plan


def first_look(words: Sequence[str] | None = None) -> FirstLook | None:
    """Plan the table that `words`, by default those of the command line, begin with; no row's mistake comes later.

    Ends the process with 2 and all mistakes printed if there are any. None where only the flow's signature tells which
    word is the table (an option comes first), and where an option is wrong or help is asked for: that is said later.
    """
    end_at_signals(with_a_word=True)
    table = table_in(sys.argv[1:] if words is None else words)
    if table is None:
        return None
    plan = plan_or_say(table)
    if plan is None:
        sys.exit(INVALID)
    return FirstLook(table, plan)


def table_in(words: Sequence[str]) -> TableToPlan | None:
    """The table and the options that bear on it, if the first word is the table and these options are right."""

    def table(
        prompts: str,
        *,
        model: str | None = None,
        parameters: ForAllRows = None,
        catalogue_checks: bool = True,
        image_directory: str | None = None,
    ) -> TableToPlan:
        return TableToPlan(prompts, model, parameters, catalogue_checks, image_directory)

    if not words or words[0].startswith("-") or {"--help", "-h"}.intersection(words):
        return None
    app = App(help_flags=[], version_flags=[])
    app.default(table)
    try:
        command, bound, _, _ = app.parse_known_args(words)
    except CycloptsError:
        return None
    return command(*bound.args, **bound.kwargs)


def plan_or_say(table: TableToPlan) -> Plan | None:
    """The plan; None if the table has mistakes, which are then on stderr."""
    try:
        return table.plan()
    except (TableInvalid, SettingsInvalid) as error:
        lines = str(error).splitlines()
    print("\n".join(lines[:MISTAKES_SHOWN]), file=sys.stderr)
    if len(lines) > MISTAKES_SHOWN:
        print(f"  ... and {len(lines) - MISTAKES_SHOWN:,} more", file=sys.stderr)
    return None
