"""The answers to a create call: accepted, refused for rate or for good, never sent, unknown. No I/O, no Prefect.

A create call costs money and has no idempotency key, no list and no cancel (Together's API, November 2026). So only
what provably did not reach the service, or was refused by it, may be sent again. Everything else is "possibly billed".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import aiohttp
import httpx
import together

from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
)
from prefect_together.pacing import ratelimit_delay

BAD_PARAMETER_STATUSES = frozenset({400, 404, 413, 422})
ACCOUNT_STATUSES = frozenset({401, 402, 403})

# The aiohttp transport reports a connection that the server closed *after* it got the request as httpx.ConnectTimeout
# (httpx-aiohttp 0.2.0 maps every ClientConnectionError to it), so there the aiohttp exception beneath decides.
_NEVER_SENT_BY_AIOHTTP = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_NEVER_SENT_BY_HTTPX = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def classify_submission(error: Exception) -> SubmissionRefused | NeverSent | SubmissionInDoubt:
    """Say what an exception from the SDK's `videos.create` means for the job.

    Works for the SDK on httpx and on aiohttp. Whatever is not known to be safe is `SubmissionInDoubt`.
    """
    if isinstance(error, together.APIStatusError):
        return _classify_status(error)
    if isinstance(error, together.APIConnectionError):
        cause = error.__cause__
        if cause is not None and was_never_sent(cause):
            return NeverSent(f"{type(cause).__name__}: {cause}".rstrip(": "))
        name = type(cause or error).__name__
        return SubmissionInDoubt(f"no answer: {name} {cause or error}".strip())
    return SubmissionInDoubt(f"answer not understood: {type(error).__name__} {error}".strip()[:300])


def was_never_sent(cause: BaseException) -> bool:
    """True if no connection to the service was made, so that no byte of the request left."""
    beneath = cause.__cause__
    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, _NEVER_SENT_BY_AIOHTTP)
    if isinstance(beneath, aiohttp.ClientError):
        return isinstance(beneath, _NEVER_SENT_BY_AIOHTTP)
    return isinstance(cause, _NEVER_SENT_BY_HTTPX)


def _classify_status(error: together.APIStatusError) -> SubmissionRefused | SubmissionInDoubt:
    status = error.status_code
    code, message, param = error_fields(error.body, error.message)
    if status in ACCOUNT_STATUSES:
        return AccountBlocked(status, code, message, param)
    if status in BAD_PARAMETER_STATUSES:
        return BadParameter(status, code, message, param)
    if status == 429 or (status == 503 and isinstance(error.body, Mapping)):
        return RateLimited(status, code, message, ratelimit_delay(error.response.headers))
    return SubmissionInDoubt(f"HTTP {status} {message}".strip()[:300])


def error_fields(body: object, fallback: str) -> tuple[str | None, str, str | None]:
    """Code, message and field of an error body `{"error": {"message", "type", "param", "code"}}`."""
    if not isinstance(body, Mapping):
        return None, " ".join(fallback.split())[:300], None
    outer = cast("Mapping[str, Any]", body)
    inner = outer.get("error", outer)
    if not isinstance(inner, Mapping):
        return None, str(inner)[:300], None
    fields = cast("Mapping[str, Any]", inner)
    code = fields.get("code") or fields.get("type")
    message = fields.get("message")
    param = fields.get("param")
    return (
        str(code) if code else None,
        str(message)[:1000] if message else " ".join(fallback.split())[:300],
        str(param) if param else None,
    )
