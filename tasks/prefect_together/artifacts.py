"""The run in Prefect's UI: a progress artifact while it goes on, a results table and a summary at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.exceptions import PrefectException

from prefect_together.errors import NoPoster, OutputUnwritable
from prefect_together.outcome import RunOutcome
from prefect_together.results import RowResult
from prefect_together.storage import OutputStore
from prefect_together.summary import Shown, summary_markdown
from prefect_together.tally import Tally
from prefect_together.wording import dollars, duration, state_counts

TABLE_ROWS = 200
"""Rows in the results artifact, what went wrong first: Prefect's page draws all of them, seconds for a thousand. The
whole table is in results.csv."""
POSTERS, POSTER_WIDTH_PX, POSTER_BYTES = 12, 208, 10_000
"""As text in the summary they are a third longer: 160 KB at most."""
POSTERS_SECONDS = 8.0
"""What is not there by then (clips that have to be fetched from afar) is left out."""


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


async def create_progress(tally: Tally, *, budget_usd: float | None = None) -> UUID:
    """The run's progress bar."""
    return await acreate_progress_artifact(
        progress=0.0, key="together-video-progress", description=progress_text(tally, None, budget_usd=budget_usd)
    )


async def update_progress(
    artifact_id: UUID, tally: Tally, seconds_left: float | None, *, budget_usd: float | None = None
) -> None:
    """Write the tally's share and words into the artifact of `create_progress`. Raises what Prefect's client raises."""
    share = 100.0 * tally.finished / tally.total if tally.total else 0.0
    text = progress_text(tally, seconds_left, budget_usd=budget_usd)
    await aupdate_progress_artifact(artifact_id=artifact_id, progress=share, description=text)


def progress_text(tally: Tally, seconds_left: float | None, *, budget_usd: float | None = None) -> str:
    """One line: counts by state, dollars so far, projected and the cap, time left."""
    if not tally.total:
        return "starting"
    cap = "" if budget_usd is None else f", cap {dollars(budget_usd)}"
    parts = [
        state_counts(tally.by_status),
        f"{dollars(tally.spent_usd)} so far, {dollars(tally.projected_usd)} projected{cap}",
    ]
    if seconds_left:
        parts.append(f"about {duration(seconds_left)} left")
    return " · ".join(parts)


async def publish_results(outcome: RunOutcome, shown: Shown, store: OutputStore) -> None:
    """The results table and the summary, with pictures, of a run that has ended, in whatever way."""
    ordered = sorted(outcome.rows, key=lambda row: (row.status == "downloaded", row.number))
    table = [_line(row) for row in ordered[:TABLE_ROWS]]
    left_out = len(ordered) - len(table)
    note = f" {left_out:,} more rows are in results.csv." if left_out else ""
    await acreate_table_artifact(
        table=table, key="together-video-results", description=f"{outcome.counts}. What is not there comes first.{note}"
    )
    shown = replace(shown, posters=await posters_of(outcome.rows, store))
    await acreate_markdown_artifact(
        markdown=summary_markdown(outcome, shown),
        key="together-video-summary",
        description=f"{outcome.counts}, {dollars(outcome.totals.spent_usd)}: clips, cost by model, what to do",
    )


async def posters_of(rows: Sequence[RowResult], store: OutputStore) -> dict[str, bytes]:
    """JPEGs of the first clips, by their file. A clip of which none can be made is left out."""
    from prefect_together.posters import poster  # libav and Pillow, which no run waits for at its start

    files = [take.file for row in rows for take in row.takes if take.file is not None]
    found: dict[str, bytes] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(POSTERS_SECONDS):
            for file in list(dict.fromkeys(files))[:POSTERS]:
                with suppress(NoPoster, OutputUnwritable):
                    clip = Path(store.uri(file)) if store.is_local else await store.read_bytes(file)
                    if clip is not None:
                        found[file] = await asyncio.to_thread(
                            poster, clip, width_px=POSTER_WIDTH_PX, max_bytes=POSTER_BYTES
                        )
    return found


def _line(row: RowResult) -> dict[str, object]:
    first = row.takes[0]
    costs = [take.cost_usd for take in row.takes if take.cost_usd is not None]
    return {
        "row": row.number,
        "id": first.row_id,
        "status": row.status,
        "cost_usd": round(sum(costs), 6) if costs else "",
        "model": first.model,
        "error": ("; ".join(take.error for take in row.takes if take.error))[:300],
        "prompt": (first.prompt or "")[:200],
        "file": ", ".join(take.file_url or take.file or "" for take in row.takes),
        "job_id": ", ".join(take.job_id or "" for take in row.takes),
    }
