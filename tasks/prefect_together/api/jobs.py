"""A job as the service describes it, read from any of its three documented response shapes.

Source: Together's OpenAPI document (April 2026), its docs (November 2026) and their older form (`info`, `inputs`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from prefect_together.api.foreign_text import ForeignText
from prefect_together.errors import FailureClass

COMPLETED_STATUSES = frozenset({"completed", "complete", "succeeded", "success", "done", "finished"})
CANCELLED_STATUSES = frozenset({"cancelled", "canceled"})
FAILED_STATUSES = CANCELLED_STATUSES | {"failed", "failure", "error", "expired", "rejected"}
"""Words that end a job, in lower case. Documented (November 2026) are completed, failed and cancelled; the others are
what comparable services say. Every other word is waited for."""
WAITING_STATUSES = frozenset({"queued", "in_progress"})
MAX_COST_USD = 10_000.0
"""For one clip. A larger `outputs.cost` is an error of the service, and above 9e12 it would fit no database."""

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
    """One job as last seen. Its texts are clean: see `foreign_text`.

    `status` is the service's own word (queued, in_progress, completed, failed, cancelled), or None if it sent none.
    Times are unix seconds as the service stamped them, `cost_usd` what it charged; each is None when not sent.
    `cost_problem` is what it sent in place of a cost that can be one.
    `polls` and `observed_seconds` say what waiting for it took here: polls, and seconds from submit to the
    first poll that saw it completed.
    """

    id: str
    status: str | None = None
    model: str | None = None
    video_url: str | None = None
    cost_usd: float | None = None
    cost_problem: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    created_at: float | None = None
    completed_at: float | None = None
    polls: int = 0
    observed_seconds: float | None = None

    @property
    def is_completed(self) -> bool:
        """Completed, in whatever word. It may still have no link."""
        return self.status is not None and self.status.lower() in COMPLETED_STATUSES

    @property
    def is_failed(self) -> bool:
        """Given up by the service: failed, cancelled, expired, rejected."""
        return self.status is not None and self.status.lower() in FAILED_STATUSES

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


def parse_job(body: object, texts: ForeignText | None = None) -> VideoJob | None:
    """Read a job from a decoded JSON body; None if it is no job (no usable id): an HTML page, an error, a list."""
    texts = texts or ForeignText()
    if not isinstance(body, Mapping):
        return None
    fields = cast("Mapping[str, Any]", body)
    job_id = texts.job_id(fields.get("id"))
    if job_id is None:
        return None

    def clean(value: object, limit: int = 300) -> str | None:
        return texts.clean(value, limit) or None if isinstance(value, str) else None

    outputs = mapping(fields.get("outputs"))
    code, message = _error_of(fields)
    cost_usd, cost_problem = _cost(outputs)
    return VideoJob(
        id=job_id,
        status=clean(fields.get("status"), 60),
        model=clean(fields.get("model")),
        video_url=clean(outputs.get("video_url"), 10_000),
        cost_usd=cost_usd,
        cost_problem=clean(cost_problem),
        error_code=clean(code, 100),
        error_message=clean(message, 1000),
        created_at=_unix_seconds(fields.get("created_at")),
        completed_at=_unix_seconds(fields.get("completed_at") or fields.get("done_at")),
    )


def shown_status(status: str | None) -> str:
    """A status for people: one that nobody has documented is shown as unknown."""
    if status is None:
        return "without a status"
    known = COMPLETED_STATUSES | FAILED_STATUSES | WAITING_STATUSES
    return status if status.lower() in known else f"unknown status '{status}'"


def classify_failure(status: str | None, code: str | None, message: str | None) -> FailureClass:
    """Say what kind of failure a finished job had; see `FailureClass`.

    No moderation payload is documented (November 2026); the words are those that other clients look for. What was
    `rejected` without a reason counts as `bad_parameter`, which is not sent again unasked.
    """
    word = (status or "").lower()
    if word in CANCELLED_STATUSES:
        return FailureClass.CANCELLED
    if code and code.lower() in BAD_PARAMETER_CODES:
        return FailureClass.BAD_PARAMETER
    text = f"{code or ''} {message or ''}"
    if _MODERATION.search(text):
        return FailureClass.MODERATION
    if word == "rejected" or _PARAMETER.search(text):
        return FailureClass.BAD_PARAMETER
    return FailureClass.UPSTREAM


def _error_of(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """`error.message`, else `info.errors[0].message`, else `info.errors` as it stands."""
    raw_error = fields.get("error")
    error = mapping(raw_error)
    if error:
        return _text(error.get("code")), _text(error.get("message"))
    if isinstance(raw_error, str) and raw_error:
        return None, raw_error
    first = first_item(mapping(fields.get("info")).get("errors"))
    entry = mapping(first)
    if entry:
        return _text(entry.get("code")), _text(entry.get("message")) or str(entry)
    return None, str(first) if first else None


def first_item(value: object) -> object:
    """The first item of a list; anything else as it is."""
    return next(iter(cast("list[object]", value)), None) if isinstance(value, list) else value


def mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _cost(outputs: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """Dollars, and what was sent instead if that can be none: a text, null, NaN, below 0 or above any price."""
    if "cost" not in outputs:
        return None, None
    value = outputs["cost"]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_COST_USD:
        return float(value), None
    return None, "null" if value is None else repr(value)


def _number(value: object) -> float | None:
    """A finite number of seconds from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1e11 else None


def _unix_seconds(value: object) -> float | None:
    """Unix seconds from a number or an ISO 8601 text."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return _number(value)
