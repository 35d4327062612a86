"""The plan of a table as Prefect shows it: a table of its rows, a summary, a final state. Sends nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from prefect_together.errors import TogetherVideoError
from prefect_together.flows.preview import report_on
from prefect_together.problems import Problem, TableInvalid
from prefect_together.results.plan_report import CHAINS_SHOWN, PlanLine, PlanReport
from prefect_together.results.text import (
    MESSAGE_CHARACTERS,
    counted,
    dollars,
    duration_range,
    markdown_cell,
    markdown_table,
)
from prefect_together.table.plan import Plan

ROWS_KEY, SUMMARY_KEY = "together-video-plan", "together-video-plan-summary"
TABLE_ROWS = 1000
WARNINGS_SHOWN = 100


async def run_planning(
    planning: Awaitable[Plan],
    *,
    output_dir: str,
    ledger: str | None,
    max_in_flight: int,
    budget_usd: float | None,
) -> State[Any]:
    """Report on the plan that `planning` gives and return the state that the flow ends in.

    Completed, with the PlanReport as its result; Failed, with TableInvalid and all its mistakes, if there are any.
    """
    logger = get_run_logger()
    try:
        report = await report_on(await planning, output_dir, ledger, max_in_flight, budget_usd=budget_usd)
    except TableInvalid as error:
        await _publish_mistakes(error)
        logger.error("%s", error)
        return Failed(message=str(error)[:MESSAGE_CHARACTERS], data=error)
    except TogetherVideoError as error:
        return Failed(message=str(error)[:MESSAGE_CHARACTERS], data=error)
    await _publish(report)
    logger.info("%s", report.summary)
    return Completed(message=report.summary, data=report)


async def _publish(report: PlanReport) -> None:
    ordered = sorted(report.lines, key=lambda line: (not line.problems, line.row))
    left_out = len(ordered) - TABLE_ROWS
    note = f"{left_out:,} more rows are not shown." if left_out > 0 else ""
    rows = [_cells(line) for line in ordered[:TABLE_ROWS]]
    await acreate_table_artifact(table=rows, key=ROWS_KEY, description=f"{report.summary}. {note}".strip())
    await acreate_markdown_artifact(markdown=plan_markdown(report), key=SUMMARY_KEY)


async def _publish_mistakes(error: TableInvalid) -> None:
    rows = [_problem_cells(problem) for problem in error.problems[:TABLE_ROWS]]
    head = str(error).partition("\n")[0]
    await acreate_table_artifact(table=rows, key=ROWS_KEY, description=head)
    cells = [[markdown_cell(str(cell)) for cell in row.values()] for row in rows]
    lines = [f"# {markdown_cell(head)}", "", *markdown_table(("row", "id", "column", "what is wrong"), cells)]
    lines += _warnings([str(warning) for warning in error.warnings])
    await acreate_markdown_artifact(markdown="\n".join(lines), key=SUMMARY_KEY)


def plan_markdown(report: PlanReport) -> str:
    """The plan's sums by model, and what is worth a warning."""
    lines = [
        f"# {report.price}",
        "",
        f"- {report.counts}: {report.to_send:,} to be sent, {report.row_price} a row",
        f"- Time: about {duration_range(report.low_seconds, report.high_seconds)}",
    ]
    if report.unlearned_models:
        lines.append(f"- No times are known yet of {report.unlearned_models} of {len(report.models)} models")
    lines += [f"- {markdown_cell(note)}" for note in report.notes]
    if report.shared_rows:
        lines.append(f"- {report.shared_rows:,} rows repeat an earlier row and share its video")
    if report.budget_usd is not None:
        verdict = "may not be enough" if report.budget_may_end else "is enough"
        lines.append(f"- The budget of {dollars(report.budget_usd)} {verdict}")
    if len(report.chains) > CHAINS_SHOWN:
        lines.append(f"- {report.chains_in_short}")
    models = [(markdown_cell(one.model), f"{one.videos:,}", f"{one.to_send:,}", one.price) for one in report.models]
    lines += ["", *markdown_table(("model", "videos", "to be sent", "dollars"), models)]
    if 0 < len(report.chains) <= CHAINS_SHOWN:
        chains = [(markdown_cell(name), *cells) for name, *cells in report.chain_cells]
        lines += ["", *markdown_table(("chain", "videos", "to be sent", "dollars", "time"), chains)]
    return "\n".join([*lines, *_warnings(report.all_warnings)])


def _warnings(warnings: Sequence[str]) -> list[str]:
    if not warnings:
        return []
    lines = ["", f"## {counted(len(warnings), 'warning')}", ""]
    lines += [f"- {markdown_cell(warning)}" for warning in warnings[:WARNINGS_SHOWN]]
    if len(warnings) > WARNINGS_SHOWN:
        lines.append(f"- {len(warnings) - WARNINGS_SHOWN:,} more")
    return lines


def _cells(line: PlanLine) -> dict[str, object]:
    return {
        "row": line.row,
        "id": line.id,
        "model": line.model,
        "prompt": line.prompt[:200],
        "file": ", ".join(line.files[:10]),
        "seed": line.seeds,
        "low_usd": line.low_usd,
        "high_usd": line.high_usd,
        "state": line.state,
        "problems": "; ".join(line.problems)[:500],
    }


def _problem_cells(problem: Problem) -> dict[str, object]:
    row = "" if problem.row is None else problem.row
    return {"row": row, "id": problem.row_id or "", "column": problem.column or "", "problem": problem.message}
