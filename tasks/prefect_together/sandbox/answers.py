"""What a fault looks like on the wire: error bodies, error pages, closed and reset connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from prefect_together.sandbox.shapes import error_body

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


def fault_answer(name: str, *, retry_after_seconds: float) -> Response:
    """The answer that a fault of `faults.ANSWERS` (without `-after`) gives in place of the real one."""
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


def half_json(body: dict[str, Any]) -> Response:
    """200 with the first half of a JSON body, and a Content-Length to match: only a parser can tell."""
    whole = JsonAnswer(body).body
    return Response(bytes(whole[: len(whole) // 2]), media_type="application/json")


def _page(status: int) -> Response:
    title, text = _PAGES[status]
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    return HTMLResponse(html, status)
