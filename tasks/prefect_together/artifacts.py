"""The run in Prefect's UI: a progress artifact while it goes on, a results table and a summary at its end."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.exceptions import PrefectException

from prefect_together.results import RowResult, Totals
from prefect_together.tally import Tally
from prefect_together.wording import dollars, duration, markdown_cell, state_counts

TABLE_ROWS = 200
"""Rows in the results artifact, what went wrong first: Prefect's page draws all of them, seconds for a thousand. The
whole table is in results.csv."""


@contextmanager
def quiet_about_the_server(
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    what: str = "the run's artifacts could not be written",
) -> Generator[None]:
    """What is shown in the UI must not end a run that goes well: a server that cannot be reached is a warning."""
    try:
        yield
    except (httpx.HTTPError, OSError, PrefectException) as error:
        logger.warning("%s: %s", what, error)


async def create_progress(tally: Tally) -> UUID:
    """The run's progress bar."""
    return await acreate_progress_artifact(
        progress=0.0, key="together-video-progress", description=progress_text(tally, None)
    )


async def update_progress(artifact_id: UUID, tally: Tally, now: float) -> None:
    share = 100.0 * tally.finished / tally.total if tally.total else 100.0
    await aupdate_progress_artifact(
        artifact_id=artifact_id, progress=share, description=progress_text(tally, tally.seconds_left(now))
    )


def progress_text(tally: Tally, seconds_left: float | None) -> str:
    """One line: counts by state, dollars so far and projected, time left."""
    parts = [
        state_counts({str(state): count for state, count in tally.by_state.items()}),
        f"{dollars(tally.spent_usd)} so far, {dollars(tally.projected_usd)} projected",
    ]
    if seconds_left:
        parts.append(f"about {duration(seconds_left)} left")
    return " · ".join(parts)


async def publish_results(rows: Sequence[RowResult], totals: Totals, *, message: str, output_dir: str) -> None:
    """The results table and the summary of a finished run."""
    ordered = sorted(rows, key=lambda row: (row.status == "downloaded", row.number))
    table = [_line(row) for row in ordered[:TABLE_ROWS]]
    left_out = len(ordered) - len(table)
    note = f"{left_out} more rows are in results.csv." if left_out else ""
    await acreate_table_artifact(table=table, key="together-video-results", description=note)
    await acreate_markdown_artifact(
        markdown=summary_markdown(rows, totals, message=message, output_dir=output_dir),
        key="together-video-summary",
    )


def summary_markdown(rows: Sequence[RowResult], totals: Totals, *, message: str, output_dir: str) -> str:
    """What came out of the run, what it cost by model against the estimate, and what to do about the rest."""
    lines = [
        f"# {message}",
        "",
        f"- Videos, results.csv and index.html: `{output_dir}`",
        f"- Spent: **{dollars(totals.spent_usd)}**, estimated {dollars(totals.estimated_usd)}",
    ]
    if totals.in_doubt_usd:
        lines.append(f"- In doubt (possibly billed, no clip): {dollars(totals.in_doubt_usd)}")
    if totals.failed_usd:
        lines.append(f"- Failed jobs whose cost was not told: up to {dollars(totals.failed_usd)}")
    lines += ["", "| model | videos | downloaded | spent | drift |", "|---|---|---|---|---|"]
    for model in totals.models:
        drift = "" if model.drift is None else f"{model.drift:+.0%}"
        lines.append(f"| {model.model} | {model.videos} | {model.downloaded} | {dollars(model.spent_usd)} | {drift} |")
    unfinished = [row for row in rows if row.status != "downloaded"]
    if unfinished:
        lines += ["", "## Not downloaded", "", "| row | id | status | error |", "|---|---|---|---|"]
        for row in unfinished[:50]:
            error = next((take.error for take in row.takes if take.error), "") or ""
            lines.append(
                f"| {row.number} | {markdown_cell(row.takes[0].row_id)} | {row.status} | {markdown_cell(error)[:200]} |"
            )
        if len(unfinished) > 50:
            lines.append(f"\n{len(unfinished) - 50} more are in results.csv.")
        lines += ["", _advice({row.status for row in unfinished})]
    return "\n".join(lines)


def _advice(statuses: set[str]) -> str:
    advice = {
        "submitted": "**submitted**: still generating; run again to fetch them, nothing is bought twice.",
        "in_doubt": "**in_doubt**: possibly billed; run with `resubmit_in_doubt` to send them again.",
        "refused": "**refused**: not sent because of the budget, the account or its canary; mend that and run again.",
        "failed": "**failed**: mend the row, or run with `retry_failed` to send it again as it is.",
        "planned": "**planned**: not sent; run again.",
    }
    return "\n".join(f"- {text}" for status, text in advice.items() if status in statuses)


def _line(row: RowResult) -> dict[str, object]:
    first = row.takes[0]
    return {
        "row": row.number,
        "id": first.row_id,
        "status": row.status,
        "model": first.model,
        "prompt": (first.prompt or "")[:200],
        "cost_usd": sum(take.cost_usd or 0.0 for take in row.takes),
        "file": ", ".join(take.file_url or take.file or "" for take in row.takes),
        "job_id": ", ".join(take.job_id or "" for take in row.takes),
        "error": ("; ".join(take.error for take in row.takes if take.error))[:300],
    }
