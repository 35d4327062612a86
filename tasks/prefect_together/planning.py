"""A plan held against the ledger of its output directory, if there is one. Reads only; no Prefect."""

from __future__ import annotations

from pathlib import Path

from prefect_together.ledger_reading import ledger_of, read_ledger
from prefect_together.outputs import status_of
from prefect_together.plan import Plan
from prefect_together.plan_report import Known, PlanReport, plan_report


async def report_on(
    plan: Plan, output_dir: str | None = None, ledger: str | None = None, max_in_flight: int = 20
) -> PlanReport:
    """Report on a plan, with what the ledger knows of its videos and of its models' times.

    Without a ledger, or where the output directory has none yet, all is new. Raises SettingsInvalid if a `ledger`
    that is named is not there, LedgerUnavailable if it cannot be read.
    """
    if ledger is None and not _has_ledger(output_dir):
        return plan_report(plan, max_in_flight=max_in_flight)
    view = await read_ledger(ledger_of(output_dir or ".", ledger))
    known = {
        key: Known(record.state, status_of(record), record.file)
        for key, record in view.records.items()
        if key in plan.videos
    }
    return plan_report(
        plan,
        known=known,
        taken_files=[record.file for record in view.records.values()],
        book=view.book(),
        max_in_flight=max_in_flight,
    )


def _has_ledger(output_dir: str | None) -> bool:
    return bool(output_dir) and Path(ledger_of(output_dir or "")).is_file()
