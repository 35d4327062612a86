"""The clips behind their short links: redirects, ranges, expiry, and everything that goes wrong with downloads."""

from __future__ import annotations

import random

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from prefect_together.sandbox.answers import (
    DroppedConnection,
    fault_answer,
    hang_up,
    pause,
    refusal,
)
from prefect_together.sandbox.faults import ANSWERS
from prefect_together.sandbox.files import BLOCK_BYTES, ByteRange, ServedFile, parse_range
from prefect_together.sandbox.jobs import Job
from prefect_together.sandbox.recorder import DROPPED, RecordedRequest
from prefect_together.sandbox.service import VideoService


def download_routes(service: VideoService) -> list[Route]:
    """`/shrt/TOKEN` redirects to `/files/TOKEN.mp4`. Neither looks at a key."""
    clips = ClipRoutes(service)
    return [
        Route("/shrt/{token}", clips.redirect, methods=["GET"]),
        Route("/files/{name}", clips.file, methods=["GET"]),
    ]


class ClipRoutes:
    """The two steps to a clip."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def redirect(self, request: Request) -> Response:
        token: str = request.path_params["token"]
        job, holds = self._service.linked_job(token)
        if job is None:
            answer: Response = refusal(404)
        elif not holds:
            answer = refusal(self._service.settings.expired_status, message="The link has expired.", kind="expired")
        else:
            answer = RedirectResponse(f"{self._service.file_url}/files/{token}{job.plan.suffix}", 302)
        self._record(request, "link", answer, None)
        return answer

    async def file(self, request: Request) -> Response:
        token, _, _ = request.path_params["name"].partition(".")
        job, holds = self._service.linked_job(token)
        fault = self._service.faults.draw("download", job.prompt) if job else None
        answer = await self._file(request, job if holds else None, fault)
        self._record(request, "download", answer, fault)
        return answer

    async def _file(self, request: Request, job: Job | None, fault: str | None) -> Response:
        settings = self._service.settings
        if fault == "410":
            return refusal(410, message="The link has expired.", kind="expired")
        if fault in ANSWERS:
            return fault_answer(fault, retry_after_seconds=settings.retry_after_seconds)
        if job is None:
            return refusal(settings.expired_status, message="The link has expired.", kind="expired")
        clip = await self._service.clip(job)
        if clip is None:
            return refusal(404)
        job.downloads += 1
        return self._served(request, clip, fault)

    def _served(self, request: Request, clip: ServedFile, fault: str | None) -> Response:
        settings = self._service.settings
        etag = clip.etag if settings.etags and fault != "no-etag" else None
        part = None
        if settings.ranges and fault not in ("no-range", "truncated", "too-large", "endless"):
            if_range = request.headers.get("if-range")
            if if_range is None or if_range == etag:
                try:
                    part = parse_range(request.headers.get("range"), clip.size_bytes)
                except ValueError:
                    return Response(status_code=416, headers={"content-range": f"bytes */{clip.size_bytes}"})
        return ClipAnswer(
            clip,
            part=part,
            etag=etag,
            accept_ranges=settings.ranges and fault != "no-range",
            send_length=settings.content_lengths and fault not in ("no-length", "endless"),
            fault=fault,
            wait_seconds=settings.late_seconds if fault == "late" else settings.stall_seconds,
            too_large_bytes=settings.too_large_bytes,
        )

    def _record(self, request: Request, endpoint: str, answer: Response, fault: str | None) -> None:
        outcome = DROPPED if isinstance(answer, DroppedConnection) else str(answer.status_code)
        headers = dict(request.headers)
        now = self._service.clock.time()
        self._service.recorder.add(
            RecordedRequest(endpoint, request.method, request.url.path, headers, None, outcome, fault, now)
        )


class ClipAnswer(Response):
    """A clip or a part of it, sent in blocks, with one fault at most."""

    def __init__(
        self,
        clip: ServedFile,
        *,
        part: ByteRange | None,
        etag: str | None,
        accept_ranges: bool,
        send_length: bool,
        fault: str | None,
        wait_seconds: float,
        too_large_bytes: int,
    ) -> None:
        span = part or ByteRange(0, clip.size_bytes)
        if fault == "truncated":
            span = ByteRange(0, clip.size_bytes // 2)
        headers = {"content-type": clip.media_type}
        if accept_ranges:
            headers["accept-ranges"] = "bytes"
        if etag is not None:
            headers["etag"] = etag
        if part is not None:
            headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{clip.size_bytes}"
        if fault in ("too-large", "endless"):
            span = ByteRange(0, max(too_large_bytes, clip.size_bytes))
        if send_length:
            headers["content-length"] = str(span.stop - span.start)
        self.status_code = 200 if part is None else 206
        self.background = None
        self.body = b""
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._clip, self._span, self._fault = clip, span, fault
        self._wait_seconds = wait_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault, span = self._fault, self._span
        if fault == "late" and await pause(receive, self._wait_seconds):
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        breaks = fault in ("cut", "cut-reset", "stall")
        stop = (span.start + span.stop) // 2 if breaks else span.stop
        for start in range(span.start, stop, BLOCK_BYTES):
            block = self._block(start, min(start + BLOCK_BYTES, stop))
            await send({"type": "http.response.body", "body": block, "more_body": True})
        if fault == "stall" and await pause(receive, self._wait_seconds):
            return
        if breaks:
            await hang_up(scope, receive, reset=fault == "cut-reset")
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _block(self, start: int, stop: int) -> bytes:
        if self._fault == "garbage":
            return random.Random(start).randbytes(stop - start)
        size = self._clip.size_bytes
        block = self._clip.read(start, min(stop, size)) if start < size else b""
        if self._fault == "corrupt":
            damaged = range(max(start, size // 4), min(stop, size * 3 // 4))
            if damaged:
                block = block[: damaged.start - start] + bytes(len(damaged)) + block[damaged.stop - start :]
        return block + bytes(stop - start - len(block))
