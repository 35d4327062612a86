"""The sandbox's own routes under /sandbox: figures, requests, jobs, scripts and faults, for a process outside.

Not part of Together's API, and without a key: they only exist on 127.0.0.1.
"""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prefect_together.sandbox.answers import JsonAnswer
from prefect_together.sandbox.scripting import Order, carry_out
from prefect_together.sandbox.service import VideoService


def control_routes(service: VideoService) -> list[Route]:
    control = ControlRoutes(service)
    return [
        Route("/sandbox/stats", control.stats, methods=["GET"]),
        Route("/sandbox/state", control.state, methods=["GET"]),
        Route("/sandbox/requests", control.requests, methods=["GET", "DELETE"]),
        Route("/sandbox/script", control.script, methods=["POST"]),
        Route("/sandbox/faults", control.faults, methods=["POST", "DELETE"]),
        Route("/sandbox/expire-links", control.expire_links, methods=["POST"]),
    ]


class ControlRoutes:
    """What `Sandbox` does in Python, over HTTP."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def stats(self, request: Request) -> Response:
        return JsonAnswer(self._service.stats())

    async def state(self, request: Request) -> Response:
        return JsonAnswer({"jobs": self._service.job_list(), "faults": self._service.fault_list()})

    async def requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._service.recorder.clear()
        return JsonAnswer([one.as_dict() for one in self._service.recorder.requests])

    async def script(self, request: Request) -> Response:
        """`{"statuses": [...], "at_seconds"?: [...], "prompt"?, "code"?, "message"?}`."""
        return await self._carry_out(request, "script")

    async def faults(self, request: Request) -> Response:
        """`{"name", "endpoint"?, "rate"?, "count"?, "after"?, "prompt"?}`; DELETE ends all faults."""
        if request.method == "DELETE":
            self._service.faults.clear()
            return JsonAnswer({"ok": True})
        return await self._carry_out(request, "faults")

    async def _carry_out(self, request: Request, order: Order) -> Response:
        try:
            carry_out(self._service, order, _object(await request.body()))
        except (ValueError, TypeError, KeyError) as error:
            return JsonAnswer({"problem": f"{type(error).__name__}: {error}"}, 400)
        return JsonAnswer({"ok": True})

    async def expire_links(self, request: Request) -> Response:
        self._service.expire_links()
        return JsonAnswer({"ok": True})


def _object(raw: bytes) -> dict[str, Any]:
    body = json.loads(raw)
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return cast("dict[str, Any]", body)
