"""The HTTP side: create, retrieve, models, whoami, the sandbox's own routes under /sandbox, and the server.

The routes under /sandbox are not part of Together's API and need no key: they exist on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Generator
from socket import socket
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from prefect_together.sandbox.answers import (
    JsonAnswer,
    LateAnswer,
    caller_refusal,
    fault_answer,
    half_json,
    job_body,
    json_object,
    refusal,
    refusal_answer,
)
from prefect_together.sandbox.downloads import download_routes
from prefect_together.sandbox.faults import ANSWERS, ODD_COSTS, ODD_IDS, Command, carry_out
from prefect_together.sandbox.images import ImageRoutes
from prefect_together.sandbox.jobs import MISSING, ClipPlan, Job, is_completed
from prefect_together.sandbox.models import facts_of, model_list, refusal_of
from prefect_together.sandbox.service import VideoService

MARK = (b"x-together-sandbox", b"prefect-together")
WHOAMI = {
    "type": "project_api_key",
    "api_key": {"id": "sandbox-key"},
    "organization": {"id": "sandbox-organization", "name": "Sandbox"},
    "project": {"id": "sandbox-project", "name": "Sandbox", "slug": "sandbox"},
}


def sandbox_app(service: VideoService) -> Starlette:
    """The ASGI application over one service."""
    api = VideoRoutes(service)
    routes = [
        Route("/v2/videos", api.create, methods=["POST"]),
        Route("/v2/videos/{id}", api.retrieve, methods=["GET"]),
        Route("/v1/images/generations", ImageRoutes(service).generate, methods=["POST"]),
        Route("/v1/models", api.models, methods=["GET"]),
        Route("/v3/whoami", api.whoami, methods=["GET"]),
        *download_routes(service),
        *control_routes(service),
    ]
    marks = [Middleware(_Marked)] if service.settings.is_marked else []
    return Starlette(routes=routes, middleware=marks, exception_handlers={404: _no_such_route, 405: _no_such_route})


class _Marked:
    """Says in each answer's headers that it is the sandbox's: nothing is billed, whatever the cost in the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], MARK]}
            await send(message)

        await self._app(scope, receive, send_marked)


class VideoRoutes:
    """The endpoints that need a key."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Response()
        body = json_object(raw)
        prompt = str((body or {}).get("prompt") or "")
        fault = self._service.faults.draw("create", prompt)
        answer = caller_refusal(request, raw) or await self._create(request, body, fault)
        self._service.recorder.note(request, "create", answer, body=body, fault=fault, at=self._service.clock.time())
        return answer

    async def retrieve(self, request: Request) -> Response:
        job_id: str = request.path_params["id"]
        job = self._service.jobs.get(job_id)
        if job is None and self._service.settings.answer_unknown_ids:
            job = self._job_nobody_made(job_id)
        completed = job is not None and self._service.shows_completed(job)
        fault = self._service.faults.draw("retrieve", job.prompt if job else "", is_completed=completed)
        answer = caller_refusal(request) or self._retrieve(request, job, fault)
        self._service.recorder.note(request, "retrieve", answer, fault=fault, at=self._service.clock.time())
        return answer

    async def models(self, request: Request) -> Response:
        return self._fixed(request, "models", model_list())

    async def whoami(self, request: Request) -> Response:
        return self._fixed(request, "whoami", WHOAMI)

    def _fixed(self, request: Request, endpoint: str, content: object) -> Response:
        answer = caller_refusal(request) or JsonAnswer(content)
        self._service.recorder.note(request, endpoint, answer, at=self._service.clock.time())
        return answer

    async def _create(self, request: Request, body: dict[str, Any] | None, fault: str | None) -> Response:
        seconds = self._service.settings.retry_after_seconds
        authorization = request.headers.get("authorization", "")
        if fault in ANSWERS:
            return fault_answer(fault, retry_after_seconds=seconds, authorization=authorization)
        facts = facts_of(str((body or {}).get("model")), accept_unknown=self._service.settings.accept_unknown_models)
        if wrong := refusal_of(body, facts):
            return refusal_answer(wrong)
        assert body is not None
        assert facts is not None
        limit = self._service.limit
        if limit is not None and (wait := limit.take(self._service.clock.monotonic())) is not None:
            return refusal(429, headers={"x-ratelimit-reset": f"{wait:.3f}", "x-ratelimit-remaining": "0"})
        job = await self._service.accept(body, facts, fault)
        if fault is not None and fault.endswith("-after"):
            name = fault.removesuffix("-after")
            return fault_answer(name, retry_after_seconds=seconds, authorization=authorization)
        status = job.script.statuses[0] if job.script and job.script.at_seconds else "queued"
        return self._answer(request, job, MISSING if fault == "no-status" else status, fault)

    def _retrieve(self, request: Request, job: Job | None, fault: str | None) -> Response:
        if fault in ANSWERS:
            authorization = request.headers.get("authorization", "")
            seconds = self._service.settings.retry_after_seconds
            return fault_answer(fault, retry_after_seconds=seconds, authorization=authorization)
        if job is None or job.hidden_reads > 0:
            if job is not None:
                job.hidden_reads -= 1
            return refusal(404, message="Video job not found.", kind="not_found", code="not_found", param="id")
        status = self._service.read(job)
        odd = {"no-status": MISSING, "null-status": None, "odd-status": "post_processing"}
        return self._answer(request, job, odd.get(fault, status) if fault else status, fault)

    def _answer(self, request: Request, job: Job, status: str | None, fault: str | None) -> Response:
        settings = self._service.settings
        body = job_body(
            job,
            shape=settings.shape,
            status=status,
            now=self._service.clock.time(),
            link=None if fault == "no-url" else self._service.link(job) if is_completed(status) else None,
            send_cost=settings.send_cost and fault != "no-cost",
        )
        if fault == "no-id":
            del body["id"]
        if fault is not None and fault in ODD_IDS:
            body["id"] = ODD_IDS[fault]
        if fault in ("same-id", "other-id"):
            body["id"] = next((other for other in self._service.jobs if other != job.id), job.id[::-1])
        if fault is not None and fault in ODD_COSTS:
            body["outputs"]["cost"] = ODD_COSTS[fault]
        if fault == "half-json":
            return half_json(body)
        if fault == "late":
            return LateAnswer(body, settings.late_seconds)
        return JsonAnswer(body)

    def _job_nobody_made(self, job_id: str) -> Job:
        plan = ClipPlan(width=1366, height=768, seconds=5, fps=25)
        now = self._service.clock.time()
        return Job(job_id, {"model": "model"}, plan, now - 10, 1.0, 1.0, clip_ready_at=now - 9)


async def _no_such_route(request: Request, error: Exception) -> Response:
    message = f"{request.method} {request.url.path} is not part of the sandbox."
    return refusal(404, message=message, kind="not_found")


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
        return JsonAnswer(
            {
                "jobs": self._service.job_list(),
                "images": self._service.image_list(),
                "faults": self._service.fault_list(),
            }
        )

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

    async def _carry_out(self, request: Request, order: Command) -> Response:
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


TURNS_OF_A_CONNECTION = 6
"""Turns of the loop after which a connection that has just been accepted is known here, or one that is aborted is
closed: two or three each in asyncio."""


class SandboxProtocol(H11Protocol):
    """HTTP/1.1 whose requests find their transport in `scope["state"]["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}


class SandboxServer(uvicorn.Server):
    """Serves until `stop`, then drops every connection. Leaves signals to the process."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """To be called on the server's own event loop."""
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        self._on_started()
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        # First no more are accepted: asyncio leaks the socket of one that comes in while its server is closed.
        for listener in sockets or []:
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(TURNS_OF_A_CONNECTION):
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
