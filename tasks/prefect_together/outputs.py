"""What a run leaves behind besides the videos: results.csv and index.html, made from the plan and the ledger alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect_together.ledger import VideoRecord
from prefect_together.ledger_schema import State
from prefect_together.page import PageSummary, results_page
from prefect_together.plan import Plan, PlannedVideo
from prefect_together.results import RowResult, Status, TakeResult, results_csv
from prefect_together.storage import OutputStore
from prefect_together.wording import dollars

RESULTS_FILE = "results.csv"
PAGE_FILE = "index.html"


def row_results(plan: Plan, records: Mapping[str, VideoRecord], store: OutputStore) -> tuple[RowResult, ...]:
    """The table's rows in the table's order, with what the ledger knows of their videos."""
    takes = {key: _take(video, records.get(key), store) for key, video in plan.videos.items()}
    return tuple(
        RowResult(
            number=row.number,
            cells=row.cells,
            takes=tuple(takes[key] for key in row.keys),
            shared_with=row.shared_with,
        )
        for row in plan.rows
    )


async def write_outputs(store: OutputStore, plan: Plan, rows: tuple[RowResult, ...], summary: PageSummary) -> None:
    """Write results.csv and index.html, each whole or not at all. Raises OutputUnwritable."""
    page = results_page(rows, title=Path(plan.source).stem or "Videos", summary=summary)
    await store.write_bytes(RESULTS_FILE, results_csv(plan.columns, rows))
    await store.write_bytes(PAGE_FILE, page.encode())


def status_of(record: VideoRecord) -> Status:
    """The word of results.csv for a ledger state. A paid clip that could not be downloaded counts as failed."""
    if record.state == State.SUBMITTING:
        return "in_doubt" if record.owner is None else "submitted"
    if record.state == State.COMPLETED:
        return "failed" if record.error else "submitted"
    return record.state.value


def counts_by_status(records: Iterable[VideoRecord]) -> Mapping[Status, int]:
    """How many videos results.csv would call each."""
    return Counter(status_of(record) for record in records)


def _take(video: PlannedVideo, record: VideoRecord | None, store: OutputStore) -> TakeResult:
    if record is None:
        parameters = video.request.parameters(with_prompt=False)
        parameters.pop("model", None)
        return TakeResult(
            row_id=video.row_id,
            take=video.take,
            status="planned",
            model=video.request.model,
            prompt=video.request.prompt,
            parameters=parameters,
            estimate_usd=video.estimate_usd,
        )
    parameters = json.loads(record.parameters)
    parameters.pop("model", None)
    clip: dict[str, Any] = json.loads(record.clip) if record.clip else {}
    is_there = record.state == State.DOWNLOADED
    return TakeResult(
        row_id=video.row_id,
        take=video.take,
        status=status_of(record),
        model=record.model,
        prompt=record.prompt,
        parameters=parameters,
        job_id=record.job_id,
        file=record.file if is_there else None,
        file_url=store.uri(record.file) if is_there and not store.is_local else None,
        cost_usd=record.cost_usd,
        estimate_usd=video.estimate_usd if record.estimate_usd is None else record.estimate_usd,
        attempts=record.jobs,
        error=_error(record),
        failure_class=record.failure_class,
        duration_seconds=clip.get("duration_seconds"),
        fps=clip.get("fps"),
        width=clip.get("width"),
        height=clip.get("height"),
        has_audio=clip.get("has_audio"),
        size_bytes=record.size_bytes,
        sha256=record.sha256,
        generation_seconds=record.generation_seconds,
    )


def _error(record: VideoRecord) -> str | None:
    if record.state == State.COMPLETED and record.error:
        return f"paid, but not downloaded: {record.error}; run again to fetch it"
    if status_of(record) == "in_doubt":
        price = "an unknown price" if record.estimate_usd is None else dollars(record.estimate_usd)
        return f"possibly billed, {price}: {record.error or 'the run that sent it ended before the answer came'}"
    return record.error
