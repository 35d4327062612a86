"""What a run would do, by the ledger as it is now. Sends and writes nothing, and imports no Prefect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prefect_together.clips.remote_store import output_name
from prefect_together.ledger.ledger import HERE
from prefect_together.ledger.records import Known, sent_unasked
from prefect_together.ledger.states import State
from prefect_together.ledger.view import ledger_of, read_ledger
from prefect_together.problems import Problem, SettingsInvalid
from prefect_together.request.images import is_file
from prefect_together.results.already_paid import downloaded_takes, paid_under_other_ids, rebuy_problem
from prefect_together.results.plan_report import PlanReport, plan_report
from prefect_together.table.plan import Kind, Plan

MADE_BY_THE_SANDBOX = "the sandbox made what is there: real videos need another output directory, and are all new"


async def report_on(
    plan: Plan,
    output_dir: str,
    ledger: str | None = None,
    max_in_flight: int = 20,
    *,
    budget_usd: float | None = None,
    sends: Callable[[State, Kind], bool] = sent_unasked,
) -> PlanReport:
    """Report on a plan, with what the ledger knows of its videos and of its models' times.

    Videos that are paid for under another id are a warning. Without a ledger, or where the output directory has none
    yet, all is new. Raises SettingsInvalid if a `ledger` that is named is not there, LedgerUnavailable if it cannot be
    read.
    """
    if ledger is None and not is_file(Path(ledger_of(output_dir))):
        return plan_report(plan, max_in_flight=max_in_flight, budget_usd=budget_usd, sends=sends)
    name = HERE if ledger is None else output_name(output_dir)
    view = await read_ledger(ledger_of(output_dir, ledger))
    known = {key: Known.of(record) for key, record in view.records.items() if key in plan.videos}
    paid = paid_under_other_ids(plan, view.records, output_dir=name)
    found = [rebuy_problem(paid)] if paid else []
    if view.is_sandbox:
        found.append(Problem(MADE_BY_THE_SANDBOX))
    plan = replace(plan, warnings=(*plan.warnings, *found))
    return plan_report(
        plan,
        known=known,
        taken_files=[record.file for record in view.records.values()],
        there=downloaded_takes(view.records, output_dir=name),
        durations=view.statistics(),
        max_in_flight=max_in_flight,
        budget_usd=budget_usd,
        committed_usd=view.totals.committed_usd,
        sends=sends,
    )


async def dry_run(
    plan: Plan, output_dir: str, ledger: str | None, *, budget_usd: float | None, sends: Callable[[State, Kind], bool]
) -> str:
    """What a run with these settings would ask for, and what the ledger warns of. Raises LedgerUnavailable."""
    try:
        report = await report_on(plan, output_dir, ledger, budget_usd=budget_usd, sends=sends)
    except SettingsInvalid:  # there is no such ledger yet: it would be the first run
        report = plan_report(plan, budget_usd=budget_usd, sends=sends)
    of_ledger = [warning for warning in report.warnings if warning not in map(str, plan.warnings)]
    warnings = [f"warning: {one}" for one in of_ledger]
    return "\n".join([f"{report.line}; nothing was sent", *report.notes, *warnings])
