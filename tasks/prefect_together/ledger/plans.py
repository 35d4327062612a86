"""A plan as the text that the ledger keeps, so that a run without the table can collect and report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from prefect_together.ledger.records import VideoRecord
from prefect_together.problems import Problem
from prefect_together.request.request import VideoRequest
from prefect_together.stills.request import StillRequest
from prefect_together.table.plan import Plan, PlannedRow, PlannedVideo


def to_text(plan: Plan, *, budget_usd: float | None = None) -> str:
    """The table's columns and cells, which videos, film and still each row has, its warnings, and the run's budget."""
    rows = [
        [row.number, list(row.cells.values()), row.row_id, row.keys, row.shared_with, row.film, row.still_key]
        for row in plan.rows
    ]
    cells = list(plan.rows[0].cells) if plan.rows else []
    content = {
        "source": plan.source,
        "columns": plan.columns,
        "cells": cells,
        "rows": rows,
        "sources": {key: video.sources for key, video in plan.videos.items() if video.sources},
        "warnings": [str(warning) for warning in plan.warnings],
        "budget_usd": budget_usd,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str, records: Mapping[str, VideoRecord]) -> Plan:
    """The plan again, with the videos as the ledger knows them: enough to collect and show, not to send."""
    content: dict[str, Any] = json.loads(text)
    names: list[str] = content["cells"]
    rows = tuple(
        PlannedRow(number, dict(zip(names, cells, strict=True)), row_id, tuple(keys), shared_with, film, still)
        for number, cells, row_id, keys, shared_with, film, still in content["rows"]
        if all(key in records for key in (*keys, still) if key)  # a run that was killed before it had entered its rows
    )
    sources: dict[str, list[str]] = content["sources"]
    keys = (key for row in rows for key in (row.still_key, *row.keys) if key is not None)
    videos = {key: video_of(records[key], sources.get(key, ())) for key in keys}
    warnings = tuple(Problem(text) for text in content["warnings"])
    return Plan(content["source"], tuple(content["columns"]), rows, videos, warnings)


def budget_in(text: str) -> float | None:
    """The budget of the run that stored this plan."""
    return json.loads(text)["budget_usd"]


def video_of(record: VideoRecord, sources: Iterable[str] = ()) -> PlannedVideo:
    """A video of which only the ledger's record is left. Its request has the seed alone and must not be sent."""
    seed = json.loads(record.parameters).get("seed")
    kind = StillRequest if record.kind == "still" else VideoRequest
    return PlannedVideo(
        key=record.video_key,
        row_id=record.row_id,
        take=record.take,
        fingerprint=record.fingerprint,
        request=kind.model_validate({"model": record.model, "prompt": record.prompt, "seed": seed}),
        low_usd=record.estimate_usd,
        estimate_usd=record.estimate_usd,
        sources=tuple(sources),
        kind=record.kind,
    )
