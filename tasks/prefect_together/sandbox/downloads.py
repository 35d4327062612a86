"""Clips and pictures behind their short links: redirects, ranges, padding, expiry, and faults of a download."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from prefect_together.sandbox.answers import (
    fault_answer,
    hang_up,
    pause,
    refusal,
)
from prefect_together.sandbox.faults import ANSWERS
from prefect_together.sandbox.images import Picture
from prefect_together.sandbox.jobs import Job

if TYPE_CHECKING:
    from prefect_together.sandbox.service import VideoService


def download_routes(service: VideoService) -> list[Route]:
    """`/shrt/TOKEN` redirects to `/files/TOKEN.mp4` (.webm, .jpg, .png). Neither checks a key."""
    clips = ClipRoutes(service)
    return [
        Route("/shrt/{token}", clips.redirect, methods=["GET"]),
        Route("/files/{name}", clips.file, methods=["GET"]),
    ]


class ClipRoutes:
    """The two steps to a clip or a picture."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def redirect(self, request: Request) -> Response:
        token: str = request.path_params["token"]
        linked, is_fresh = self._service.linked(token)
        if linked is None:
            answer: Response = refusal(404)
        elif not is_fresh:
            answer = refusal(self._service.settings.expired_status, message="The link has expired.", kind="expired")
        else:
            answer = RedirectResponse(f"{self._service.file_url}/files/{token}{linked.suffix}", 302)
        self._service.recorder.note(request, "link", answer, at=self._service.clock.time())
        return answer

    async def file(self, request: Request) -> Response:
        token, _, _ = request.path_params["name"].partition(".")
        linked, is_fresh = self._service.linked(token)
        fault = self._service.faults.draw("download", linked.prompt) if linked else None
        answer = await self._file(request, linked if is_fresh else None, fault)
        self._service.recorder.note(request, "download", answer, fault=fault, at=self._service.clock.time())
        return answer

    async def _file(self, request: Request, linked: Job | Picture | None, fault: str | None) -> Response:
        settings = self._service.settings
        if fault == "410":
            return refusal(410, message="The link has expired.", kind="expired")
        if fault in ANSWERS:
            return fault_answer(fault, retry_after_seconds=settings.retry_after_seconds)
        if linked is None:
            return refusal(settings.expired_status, message="The link has expired.", kind="expired")
        if isinstance(linked, Job):
            file = await self._service.clip(linked)
        else:
            file = ServedFile.of(await asyncio.to_thread(linked.content))
        if file is None:
            return refusal(404)
        linked.downloads += 1
        return self._served(request, file, fault)

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


class ClipAnswer(Response):
    """A file or a part of it, sent in blocks, with one fault at most."""

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


_PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
_ZEROS = bytes(1 << 18)
BLOCK_BYTES = len(_ZEROS)


@dataclass(frozen=True)
class ServedFile:
    """`content` (bytes or a file), then zeros up to `size_bytes`. `etag` changes with the content."""

    content: bytes | Path
    content_bytes: int
    size_bytes: int
    etag: str
    media_type: str

    @classmethod
    def of(cls, content: bytes | Path, *, pad_to_bytes: int = 0) -> ServedFile:
        """An MP4 is padded by a `free` box of zeros, which players skip; other files are served as they are."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        head = content[:16] if isinstance(content, bytes) else _first_bytes(content)
        is_mp4 = head[4:8] == b"ftyp"
        if isinstance(content, bytes):
            mark = hashlib.sha256(content).hexdigest()[:16]
        else:
            mark = f"{content.stat().st_mtime_ns:x}-{size:x}"
        padding = pad_to_bytes - size
        if is_mp4 and padding >= 16:
            content = (content if isinstance(content, bytes) else content.read_bytes()) + _free_box(padding)
            size, total = len(content), pad_to_bytes
        else:
            total = size
        media_type = next((kind for start, kind in _PICTURES.items() if head.startswith(start)), "video/webm")
        return cls(content, size, total, f'"{mark}-{total:x}"', "video/mp4" if is_mp4 else media_type)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, `stop` being at most `size_bytes`."""
        own_stop = min(stop, self.content_bytes)
        own = b""
        if start < own_stop:
            if isinstance(self.content, bytes):
                own = self.content[start:own_stop]
            else:
                with self.content.open("rb") as file:
                    file.seek(start)
                    own = file.read(own_stop - start)
        zeros = stop - max(start, own_stop)
        if zeros <= 0:
            return own
        filling = _ZEROS if zeros == BLOCK_BYTES else bytes(zeros)
        return own + filling if own else filling


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _free_box(size_bytes: int) -> bytes:
    """The header of a box of `size_bytes`, in the long form from 4 GB on."""
    if size_bytes < 1 << 32:
        return size_bytes.to_bytes(4) + b"free"
    return (1).to_bytes(4) + b"free" + size_bytes.to_bytes(8)


@dataclass(frozen=True)
class ByteRange:
    """A part of a file: from `start` up to, not including, `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range of a Range header; None for no header, and for what a server may ignore (several, nonsense).

    Raises ValueError for a range that begins behind the end (416).
    """
    unit, _, wanted = (header or "").partition("=")
    first, dash, last = wanted.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in wanted:
        return None
    if not (first + last).isdigit():
        return None
    if not first:
        return ByteRange(max(0, size_bytes - int(last)), size_bytes)
    start = int(first)
    stop = min(int(last) + 1, size_bytes) if last else size_bytes
    if start >= size_bytes or stop <= start:
        raise ValueError(f"range {header} is outside of {size_bytes} bytes")
    return ByteRange(start, stop)
