"""A job as JSON, in the three response shapes that Together documents. Source: together-api.md, 2 (November 2026)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from prefect_together.sandbox.jobs import MISSING, Failure, Job
from prefect_together.sandbox.settings import Shape

_UNEXPLAINED = Failure("internal_error", "The upstream provider failed to generate this video.")
_SPEC_STATUSES = {"queued": "in_progress", "cancelled": "failed"}


def job_body(
    job: Job, *, shape: Shape, status: str | None, now: float, link: str | None, send_cost: bool
) -> dict[str, Any]:
    """The answer to create and retrieve. `link` is the video's URL, None while there is none."""
    ended = status in ("completed", "failed", "cancelled")
    ended_at = job.ended_at(now) if ended else None
    failure = (job.failure or (job.script and job.script.failure) or _UNEXPLAINED) if status == "failed" else None
    if status == "cancelled":
        failure = Failure("cancelled", "The job was cancelled.")
    outputs: dict[str, Any] | None = None
    if status == "completed":
        outputs = {"cost": job.cost_usd} if send_cost else {}
        if link is not None:
            outputs["video_url"] = link
    make = {"spec": _spec, "iso": _iso, "legacy": _legacy}[shape]
    body = make(job, status, ended_at, failure, outputs)
    if status == MISSING:
        del body["status"]
    return body


def billed_usd(cost_usd: float, shape: Shape) -> float:
    """What a job costs in this shape: the OpenAPI document has `cost` as an integer, so whole dollars there."""
    return float(math.ceil(cost_usd)) if shape == "spec" else round(cost_usd, 6)


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, the shape of every refusal."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _spec(
    job: Job, status: str | None, ended_at: float | None, failure: Failure | None, outputs: dict[str, Any] | None
) -> dict[str, Any]:
    body = _common(job, _SPEC_STATUSES.get(status or "", status)) | {"created_at": job.created_at}
    if ended_at is not None:
        body["completed_at"] = ended_at
    if failure is not None:
        body["error"] = {"code": failure.code, "message": failure.message}
    if outputs is not None:
        cost = outputs.get("cost")
        body["outputs"] = outputs | ({"cost": math.ceil(cost)} if cost is not None else {})
    return body


def _iso(
    job: Job, status: str | None, ended_at: float | None, failure: Failure | None, outputs: dict[str, Any] | None
) -> dict[str, Any]:
    return _common(job, status) | {
        "created_at": _iso_time(job.created_at),
        "completed_at": _iso_time(ended_at),
        "error": None if failure is None else {"code": failure.code, "message": failure.message},
        "outputs": outputs,
    }


def _legacy(
    job: Job, status: str | None, ended_at: float | None, failure: Failure | None, outputs: dict[str, Any] | None
) -> dict[str, Any]:
    errors = None if failure is None else [{"code": failure.code, "message": failure.message}]
    started = status not in ("queued", None, MISSING)
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": status,
        "info": {"user_id": "sandbox-user", "errors": errors},
        "inputs": {name: value for name, value in job.request.items() if name not in ("model", "media")},
        "outputs": outputs,
        "created_at": _iso_time(job.created_at),
        "claimed_at": _iso_time(job.created_at) if started else None,
        "done_at": _iso_time(ended_at),
    }


def _common(job: Job, status: str | None) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": status,
        "size": f"{job.plan.width}x{job.plan.height}",
        "seconds": f"{job.plan.seconds:g}",
    }


def _iso_time(unix_seconds: float | None) -> str | None:
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
