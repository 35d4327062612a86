"""What the service says of a job, read from any of its three documented response shapes. No I/O, no Prefect.

Source: Together's OpenAPI document (April 2026), its docs (November 2026) and their older form (`info`, `inputs`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from prefect_together.errors import FailureClass

BAD_PARAMETER_CODES = frozenset(
    {
        "unsupportedparameter",
        "invalidduration",
        "missingframeimagesforimagetovideomodel",
        "invalidparameter",
        "invalid_parameter",
        "invalid_request_error",
        "model_not_available",
    }
)
_MODERATION = re.compile(r"nsfw|safety|moderat|policy|content|sensitive|prohibited", re.IGNORECASE)
_PARAMETER = re.compile(r"unsupported|invalid|missing|parameter|must be|not allowed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VideoJob:
    """One job as last seen.

    `status` is the service's own word (queued, in_progress, completed, failed, cancelled), or None if it sent none.
    Times are unix seconds as the service stamped them, `cost_usd` what it charged; each is None when not sent.
    `polls` and `observed_seconds` say what waiting for it took here: looks, and seconds from submit to the last look.
    """

    id: str
    status: str | None = None
    model: str | None = None
    video_url: str | None = None
    cost_usd: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    created_at: float | None = None
    completed_at: float | None = None
    polls: int = 0
    observed_seconds: float | None = None

    @property
    def is_completed(self) -> bool:
        """Completed *and* with a link: `completed` without a `video_url` is not done yet."""
        return self.status == "completed" and self.video_url is not None

    @property
    def is_failed(self) -> bool:
        """Given up by the service: `failed` or `cancelled`."""
        return self.status in ("failed", "cancelled")

    @property
    def stamped_seconds(self) -> float | None:
        """Seconds from created to completed by the service's own clock."""
        if self.created_at is None or self.completed_at is None or self.completed_at < self.created_at:
            return None
        return self.completed_at - self.created_at

    @property
    def generation_seconds(self) -> float | None:
        """`stamped_seconds`, else as observed here."""
        return self.observed_seconds if self.stamped_seconds is None else self.stamped_seconds


def parse_job(body: object) -> VideoJob | None:
    """Read a job from a decoded JSON body; None if it is no job (no id): an HTML page, an error, a list."""
    if not isinstance(body, Mapping):
        return None
    fields = cast("Mapping[str, Any]", body)
    job_id = fields.get("id")
    if not isinstance(job_id, str) or not job_id:
        return None
    outputs = _mapping(fields.get("outputs"))
    code, message = _error_of(fields)
    return VideoJob(
        id=job_id,
        status=_text(fields.get("status")),
        model=_text(fields.get("model")),
        video_url=_text(outputs.get("video_url")),
        cost_usd=_number(outputs.get("cost")),
        error_code=code,
        error_message=message,
        created_at=_unix_seconds(fields.get("created_at")),
        completed_at=_unix_seconds(fields.get("completed_at") or fields.get("done_at")),
    )


def classify_failure(status: str | None, code: str | None, message: str | None) -> FailureClass:
    """Say what kind of failure a finished job had; see `FailureClass`.

    No moderation payload is documented (November 2026); the words are those that other clients look for.
    """
    if status == "cancelled":
        return FailureClass.CANCELLED
    if code and code.lower() in BAD_PARAMETER_CODES:
        return FailureClass.BAD_PARAMETER
    text = f"{code or ''} {message or ''}"
    if _MODERATION.search(text):
        return FailureClass.MODERATION
    if _PARAMETER.search(text):
        return FailureClass.BAD_PARAMETER
    return FailureClass.UPSTREAM


def _error_of(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """`error.message`, else `info.errors[0].message`, else `info.errors` as it stands."""
    raw_error = fields.get("error")
    error = _mapping(raw_error)
    if error:
        return _text(error.get("code")), _text(error.get("message"))
    if isinstance(raw_error, str) and raw_error:
        return None, raw_error
    first = _first(_mapping(fields.get("info")).get("errors"))
    entry = _mapping(first)
    if entry:
        return _text(entry.get("code")), _text(entry.get("message")) or str(entry)
    return None, str(first) if first else None


def _first(value: object) -> object:
    """The first item of a list; anything else as it is."""
    return next(iter(cast("list[object]", value)), None) if isinstance(value, list) else value


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _unix_seconds(value: object) -> float | None:
    """Unix seconds from a number or an ISO 8601 text."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return _number(value)
