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

from prefect_together.asked_wait import asked_wait_seconds
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
    WrongAddress,
)

BAD_PARAMETER_STATUSES = frozenset({400, 404, 413, 422})
ACCOUNT_STATUSES = frozenset({401, 402, 403})
NO_SUCH_PLACE = frozenset({404, 405})
"""What servers of another kind answer: no such path, or nothing that can be posted to (RFC 9110, 15.5.6)."""

# The aiohttp transport reports a connection that the server closed *after* it got the request as httpx.ConnectTimeout
# (httpx-aiohttp 0.2.0 maps every ClientConnectionError to it), so there the aiohttp exception beneath decides.
# A proxy error is one of CONNECT (or SOCKS): the tunnel to the service was refused.
_NEVER_SENT_BY_AIOHTTP = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_NEVER_SENT_BY_HTTPX = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def classify_submission(
    error: Exception, *, secret: str = "", unproven_url: str | None = None
) -> SubmissionRefused | NeverSent | SubmissionInDoubt:
    """Say what an exception from the SDK's `videos.create` means for the job.

    Works for the SDK on httpx and on aiohttp. Whatever is not known to be safe is `SubmissionInDoubt`. `unproven_url`
    is the base URL as long as nothing shows that the service is there: then 404 and 405 can mean that it is not.
    """
    if isinstance(error, together.APIStatusError):
        return _classify_status(error, secret, unproven_url)
    if isinstance(error, together.APIConnectionError):
        cause = error.__cause__
        told = _beneath(cause or error)
        if cause is not None and was_never_sent(cause) and not _was_redirected(cause, error.request):
            return NeverSent(f"{type(told).__name__}: {told}".rstrip(": "))
        return SubmissionInDoubt(f"no answer: {type(told).__name__} {told}".strip()[:300])
    if isinstance(error, TimeoutError):
        return SubmissionInDoubt("no whole answer in the time that a call may take")
    return SubmissionInDoubt(f"answer not understood: {type(error).__name__} {error}".strip()[:300])


def was_never_sent(cause: BaseException) -> bool:
    """True if no connection to the service was made, so that no byte of the request left."""
    told = _beneath(cause)
    return isinstance(told, _NEVER_SENT_BY_AIOHTTP if isinstance(told, aiohttp.ClientError) else _NEVER_SENT_BY_HTTPX)


def _beneath(cause: BaseException) -> BaseException:
    """The aiohttp exception that httpx-aiohttp has given another name, or the cause itself."""
    return cause.__cause__ if isinstance(cause.__cause__, aiohttp.ClientError) else cause


def _was_redirected(cause: BaseException, request: httpx.Request) -> bool:
    """True if what failed was a later request: the first one had arrived, and was answered by a redirect."""
    try:
        return isinstance(cause, httpx.RequestError) and cause.request is not request
    except RuntimeError:  # httpx, for an error that was given no request
        return False


def _classify_status(
    error: together.APIStatusError, secret: str, unproven_url: str | None
) -> SubmissionRefused | SubmissionInDoubt:
    status = error.status_code
    code, message, param = error_fields(error.body, error.message, secret=secret)
    if status in ACCOUNT_STATUSES:
        return AccountBlocked(status, code, message, param)
    if status in NO_SUCH_PLACE and unproven_url is not None and not _is_about_request(error.body, code, message, param):
        return WrongAddress(status, message if isinstance(error.body, Mapping) else "", unproven_url)
    if status in BAD_PARAMETER_STATUSES:
        return BadParameter(status, code, message, param)
    if status == 429 or (status == 503 and _is_refusal(error.body)):
        return RateLimited(status, code, message, asked_wait_seconds(error.response.headers))
    return SubmissionInDoubt(f"HTTP {status} {message}".strip()[:300])


def _is_refusal(body: object) -> bool:
    """True for the service's own `{"error": ...}`; a gateway before it may answer 503 in JSON of another shape."""
    return isinstance(body, Mapping) and bool(cast("Mapping[str, Any]", body).get("error"))


def _is_about_request(body: object, code: str | None, message: str, param: str | None) -> bool:
    """Whether an error names a field or speaks of the model, as `model_not_available` does; a page does not."""
    return isinstance(body, Mapping) and (param is not None or "model" in f"{code} {message}".lower())


def error_fields(body: object, fallback: str, *, secret: str = "") -> tuple[str | None, str, str | None]:
    """Code, message and field of an error body `{"error": {"message", "type", "param", "code"}}`.

    A service that repeats the key in its message must not bring it into logs: `secret` is taken out.
    """

    def said(value: object, limit: int = 300) -> str:
        text = " ".join(str(value).split())
        return (text.replace(secret, "[key]") if secret else text)[:limit]

    if not isinstance(body, Mapping):
        return None, said(fallback), None
    outer = cast("Mapping[str, Any]", body)
    inner = outer.get("error", outer)
    if not isinstance(inner, Mapping):
        return None, said(cast("object", inner)), None
    fields = cast("Mapping[str, Any]", inner)
    code = fields.get("code") or fields.get("type")
    message, param = fields.get("message"), fields.get("param")
    return said(code) if code else None, said(message or fallback, 1000), said(param) if param else None
