"""What goes over the wire: jobs in the three documented response shapes, error bodies and pages, broken
connections; and the record of what was asked and answered.

Source of the shapes: together-api.md, 2 (November 2026).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
import zlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from prefect_together.sandbox.jobs import MISSING, Failure, Job, has_ended, is_completed, without_long_texts
from prefect_together.sandbox.models import Refusal
from prefect_together.sandbox.settings import Shape

_MESSAGES = {
    400: ("Invalid request.", "invalid_request_error", "invalid_parameter"),
    401: ("Invalid API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("Credit limit exceeded, please add credits.", "insufficient_quota", "credits_exhausted"),
    403: ("Access to this resource is forbidden.", "forbidden", None),
    404: ("Resource not found.", "not_found", None),
    408: ("Request timed out.", "timeout", None),
    409: ("Conflict.", "conflict", None),
    410: ("Gone.", "not_found", None),
    413: ("Request body too large.", "invalid_request_error", "request_too_large"),
    422: ("Unprocessable request.", "invalid_request_error", "invalid_parameter"),
    429: ("You have reached the rate limit of this model.", "rate_limit", "rate_limit_exceeded"),
    500: ("Internal server error.", "server_error", None),
    503: ("The server is overloaded, please try again later.", "overloaded", "service_unavailable"),
    529: ("The server is overloaded.", "overloaded", None),
}
_PAGES = {
    200: ("Just a moment...", "Checking your browser before accessing the site."),
    502: ("502 Bad Gateway", "nginx"),
    503: ("503 Service Temporarily Unavailable", "nginx"),
    504: ("504 Gateway Time-out", "nginx"),
    524: ("524: A timeout occurred", "The origin web server timed out responding to this request."),
}


class JsonAnswer(Response):
    """A JSON body, compact."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


class DroppedConnection(Response):
    """No answer: the connection is closed (FIN), or reset (RST)."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hang_up(scope, receive, reset=self._reset)


async def hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection after what was sent so far, and return when it is gone."""
    transport: asyncio.Transport = scope["state"]["transport"]
    if reset:
        linger = struct.pack("ii", 1, 0)
        connection: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.close()
    await wait_for_disconnect(receive)


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def pause(receive: Receive, seconds: float) -> bool:
    """Wait `seconds`, or less if the client goes away: then True. The request's body must have been read."""
    try:
        await asyncio.wait_for(wait_for_disconnect(receive), seconds)
    except TimeoutError:
        return False
    return True


def refusal(
    status: int,
    *,
    message: str | None = None,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An answer with the service's error body."""
    usual = _MESSAGES.get(status, ("Error.", "server_error", None))
    body = error_body(message or usual[0], kind=kind or usual[1], code=code if message else usual[2], param=param)
    return JsonAnswer(body, status, headers)


def refusal_answer(found: Refusal) -> Response:
    """The answer to a body that is refused."""
    return refusal(found.http_status, message=found.message, kind=found.kind, code=found.code, param=found.param)


KEYS_REFUSED = {"invalid": 401, "no-credits": 402, "forbidden": 403}
"""API keys that are answered with an error; every other key is taken."""
MAX_BODY_BYTES = 100_000_000


def caller_refusal(request: Request, body: bytes = b"") -> Response | None:
    """What is wrong with the caller rather than with the request: no user agent, the key, too long a body."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not request.headers.get("user-agent", "").strip():
        return refusal(403, message="A User-Agent is required.", kind="forbidden")
    if scheme.lower() != "bearer" or not key.strip():
        return refusal(401, message="Missing API key.", kind="invalid_request_error", code="missing_api_key")
    if key.strip() in KEYS_REFUSED:
        return refusal(KEYS_REFUSED[key.strip()])
    return refusal(413) if len(body) > MAX_BODY_BYTES else None


def json_object(raw: bytes) -> dict[str, Any] | None:
    """The body as a JSON object; None for what is none, which is refused."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def fault_answer(name: str, *, retry_after_seconds: float, authorization: str = "") -> Response:
    """The answer that a fault of `faults.ANSWERS` (without `-after`) gives in place of the real one."""
    if name == "echo":
        return PlainTextResponse(f"You sent Authorization: {authorization}")
    if name == "401-echo":
        return refusal(401, message=f"Invalid API key: {authorization}", code="invalid_api_key")
    if name == "huge":
        return Response(_huge(), media_type="application/json", headers={"content-encoding": "gzip"})
    if name == "503-text":
        return JsonAnswer({"error": "upstream connect error"}, 503)
    if name in ("drop", "reset"):
        return DroppedConnection(reset=name == "reset")
    if name == "html":
        return _page(200)
    status = int(name.partition("-")[0])
    seconds = f"{retry_after_seconds:g}"
    if name == "429":
        return refusal(429, headers={"x-ratelimit-reset": seconds, "x-ratelimit-remaining": "0"})
    if name == "429-retry-after":
        return refusal(429, headers={"retry-after": seconds})
    if name.endswith("-html") or (status in _PAGES and name != "503"):
        return _page(status)
    return refusal(status)


class LateAnswer(JsonAnswer):
    """An answer that comes when most clients have given up."""

    def __init__(self, body: dict[str, Any], seconds: float) -> None:
        super().__init__(body)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await pause(receive, self._seconds):
            await super().__call__(scope, receive, send)


@cache
def _huge() -> bytes:
    packer = zlib.compressobj(wbits=31)
    blank = b" " * 1_000_000
    return b"".join([packer.compress(b'{"id": "job"'), *(packer.compress(blank) for _ in range(200)), packer.flush()])


def half_json(body: dict[str, Any]) -> Response:
    """200 with the first half of a JSON body, and a Content-Length to match: only a parser can tell."""
    whole = JsonAnswer(body).body
    return Response(bytes(whole[: len(whole) // 2]), media_type="application/json")


def _page(status: int) -> Response:
    title, text = _PAGES[status]
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    return HTMLResponse(html, status)


_UNEXPLAINED = Failure("internal_error", "The upstream provider failed to generate this video.")
_SPEC_STATUSES = {"queued": "in_progress", "cancelled": "failed"}


def job_body(
    job: Job, *, shape: Shape, status: str | None, now: float, link: str | None, send_cost: bool
) -> dict[str, Any]:
    """The answer to create and retrieve. `link` is the video's URL, None while there is none."""
    ended_at = job.ended_at(now) if has_ended(status) else None
    failure = None
    if has_ended(status) and not is_completed(status):
        failure = job.failure or (_UNEXPLAINED if status == "failed" else None)
    if status == "cancelled":
        failure = Failure("cancelled", "The job was cancelled.")
    outputs: dict[str, Any] | None = None
    if is_completed(status):
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


DROPPED = "dropped"


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it came in, headers in lower case. `answer` is the HTTP status, or "dropped".

    `endpoint` is create, retrieve, images, link (the short link), download, models or whoami.
    """

    endpoint: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    answer: str
    fault: str | None
    at: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Recorder:
    """Counts by endpoint and answer, and the last `keep` requests."""

    def __init__(self, keep: int) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.requests: deque[RecordedRequest] = deque(maxlen=keep)

    def note(
        self,
        request: Request,
        endpoint: str,
        answer: Response,
        *,
        at: float,
        body: object = None,
        fault: str | None = None,
    ) -> None:
        """Keep a request with its answer. Inline images are left out of its body."""
        outcome = DROPPED if isinstance(answer, DroppedConnection) else str(answer.status_code)
        path, headers, kept = request.url.path, dict(request.headers), without_long_texts(body)
        self.answers[endpoint, outcome] += 1
        self.requests.append(RecordedRequest(endpoint, request.method, path, headers, kept, outcome, fault, at))

    def calls(self, endpoint: str) -> int:
        return sum(count for (place, _), count in self.answers.items() if place == endpoint)

    def by_endpoint(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for (endpoint, answer), count in sorted(self.answers.items()):
            counts.setdefault(endpoint, {})[answer] = count
        return counts

    def clear(self) -> None:
        self.answers.clear()
        self.requests.clear()
