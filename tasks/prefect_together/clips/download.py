"""Downloads one clip over HTTP: resumed, limited in size, checked, renamed to its final name only when complete."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from prefect_together.clips.http import (
    ClipResponse,
    DownloadSession,
    Interrupted,
    LinkDead,
    RangeRefused,
    get_clip,
    text_excerpt,
)
from prefect_together.clips.part_file import PartFile
from prefect_together.clock import SYSTEM_CLOCK, Clock, retry_after_seconds
from prefect_together.errors import ClipInvalid, ClipTooLarge, DownloadFailed, LinkExpired

if TYPE_CHECKING:
    from prefect_together.clips.inspection import MediaFacts

MAX_CLIP_BYTES = 1_000_000_000
FLUSH_BYTES = 1 << 20
OVERLAP_BYTES = 1 << 12
"""How much is requested again on resuming, to verify that it is still the same clip if the server sends no ETag."""

MAX_REQUESTS = 200
"""For a server that drops every connection after a few bytes: each byte of progress resets `attempts`."""

MAX_PAUSE_SECONDS = 30.0
FRESH_LINKS = 2
"""How many links in a row may be dead before the download fails as expired."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".webm", ".mkv"})
STILL_SUFFIXES = frozenset({".jpg", ".png", ".webp"})

# Two pools: writing and hashing must not queue behind a flush to a slow disk. Threads start with the first clip.
_WRITERS = ThreadPoolExecutor(4, thread_name_prefix="clip-write")
_FINISHERS = ThreadPoolExecutor(4, thread_name_prefix="clip-check")

Result = TypeVar("Result")


@dataclass(frozen=True)
class DownloadedClip:
    """A complete, checked clip on disk.

    `path` differs from the target where the container or another file of that name requires it; `warnings` then says
    why. `resumed_from` is the bytes of an earlier try, `links` the number of links used, `task_run_id` the Prefect task
    run that has downloaded it, if one has.
    """

    path: Path
    size_bytes: int
    sha256: str
    media: MediaFacts
    resumed_from: int
    links: int
    warnings: tuple[str, ...] = ()
    task_run_id: UUID | None = None


async def download_clip(
    session: DownloadSession,
    url: str,
    target: Path,
    *,
    refresh_link: Callable[[], Awaitable[str]] | None = None,
    max_bytes: int = MAX_CLIP_BYTES,
    stall_seconds: float = 60,
    attempts: int = 5,
    clock: Clock = SYSTEM_CLOCK,
    inspect: Callable[[Path], MediaFacts] | None = None,
) -> DownloadedClip:
    """Download `url` to `target`, whose directory must exist, resuming from `NAME.part` if an earlier try left one.

    After a dropped connection, 408, 429, 5xx or `stall_seconds` without a byte the download is resumed, up to
    `attempts` times without progress, with exponential backoff or the server's Retry-After. A dead link is replaced by
    the result of `refresh_link`. `inspect` checks what is no video: a still.

    The suffix follows the container (a WebM is saved as .webm), and no file that is not this clip is replaced: see
    `DownloadedClip.path`. Raises LinkExpired, ClipInvalid, ClipTooLarge, OutputUnwritable, DownloadFailed, and whatever
    `refresh_link` raises. On error the target is unchanged; the `.part` stays if a later try can resume from it.
    """
    part = await _in(_WRITERS, PartFile.open, target)
    download = _Download(
        session, url, part, target, refresh_link, max_bytes, stall_seconds, attempts, clock, inspect or _inspected
    )
    try:
        media, path = await download.run()
    finally:
        # A thread may still be writing when this task is cancelled: the file is closed after that.
        if not part.is_published:
            await asyncio.shield(_in(_WRITERS, part.close, download.is_bad))
    return DownloadedClip(
        path=path,
        size_bytes=part.size_bytes,
        sha256=part.sha256(),
        media=media,
        resumed_from=download.resumed_from,
        links=download.links,
        warnings=tuple(_name_warnings(target, path, media)),
    )


@dataclass(eq=False)
class _Download:
    """The state of one `download_clip`: its arguments, and its progress."""

    session: DownloadSession
    url: str
    part: PartFile
    target: Path
    refresh_link: Callable[[], Awaitable[str]] | None
    max_bytes: int
    stall_seconds: float
    attempts: int
    clock: Clock
    inspect: Callable[[Path], MediaFacts]
    total_bytes: int | None = None
    validator: str | None = None
    requests: int = 0
    failures: int = 0
    dead_links: int = 0
    links: int = 1
    is_bad: bool = False

    def __post_init__(self) -> None:
        self.resumed_from = self.part.size_bytes

    async def run(self) -> tuple[MediaFacts, Path]:
        """Fetch, check and publish; if a clip from several tries or links is invalid, fetch it once more as a whole."""
        await self._fetch_whole()
        is_patched = self.resumed_from > 0 or self.links > 1
        try:
            return await self._publish()
        except ClipInvalid:
            if not is_patched:
                raise
        await self._restart()
        await self._fetch_whole()
        return await self._publish()

    async def _publish(self) -> tuple[MediaFacts, Path]:
        try:
            return await _in(_FINISHERS, self._check_and_rename)
        except ClipInvalid:
            self.is_bad = True
            raise

    def _check_and_rename(self) -> tuple[MediaFacts, Path]:
        media = self.part.check(self.inspect)
        return media, self.part.publish(_with_suffix_of(media.container, self.target))

    async def _restart(self) -> None:
        await _in(_WRITERS, self.part.restart)
        self.total_bytes, self.validator = None, None
        self.resumed_from = 0
        self.is_bad = False

    async def _fetch_whole(self) -> None:
        """Send requests until the clip is complete. Raises DownloadFailed when the attempts are used up."""
        while True:
            before_bytes = self.part.size_bytes
            try:
                await self._fetch()
            except LinkDead as error:
                self._note_request(before_bytes)
                await self._renew_link(error.http_status)
            except RangeRefused as error:
                self._note_request(before_bytes)
                self._note_failure(error.reason)
                await self._restart()
            except Interrupted as error:
                self._note_request(before_bytes)
                self._note_failure(error.reason)
                await self._pause(retry_after_seconds(error.headers, now_unix_seconds=self.clock.time()) or 0.0)
            else:
                return

    def _note_request(self, before_bytes: int) -> None:
        self.requests += 1
        if self.part.size_bytes > before_bytes:
            self.failures = self.dead_links = 0

    def _note_failure(self, reason: str) -> None:
        """Raises DownloadFailed if no attempt remains."""
        self.failures += 1
        if self.failures >= self.attempts or self.requests >= MAX_REQUESTS:
            times = "1 request" if self.requests == 1 else f"{self.requests} requests"
            kept = f"; {self.part.size_bytes} bytes are kept for the next try" if self.part.size_bytes else ""
            raise DownloadFailed(f"{reason}, given up after {times}{kept}")

    async def _pause(self, retry_after_seconds: float = 0.0) -> None:
        backoff_seconds = min(MAX_PAUSE_SECONDS, 2.0 ** max(0, self.failures - 1)) * random.uniform(0.5, 1.0)
        await self.clock.sleep(max(backoff_seconds, retry_after_seconds))

    async def _renew_link(self, http_status: int) -> None:
        self.dead_links += 1
        if self.refresh_link is None or self.dead_links > FRESH_LINKS:
            raise LinkExpired(f"the link to the clip has expired (HTTP {http_status})")
        if self.dead_links > 1:
            await self._pause()
        self.url = await self.refresh_link()
        self.validator = None
        self.links += 1

    async def _fetch(self) -> None:
        """One request for the missing bytes. Returns when the clip is complete."""
        part = self.part
        overlap_bytes = min(OVERLAP_BYTES, (part.size_bytes + 1) // 2)
        tail = await _in(_WRITERS, part.tail, overlap_bytes) if overlap_bytes else b""
        try:
            async with get_clip(
                self.session,
                self.url,
                start_bytes=part.size_bytes - len(tail),
                validator=self.validator,
                stall_seconds=self.stall_seconds,
            ) as response:
                self._compare_size(response)
                await self._receive(response, tail if response.start_bytes else b"")
        except RangeRefused as error:
            if error.total_bytes == part.size_bytes:
                return
            raise
        if self.total_bytes is not None and part.size_bytes < self.total_bytes:
            raise Interrupted(f"{response.host} sent {part.size_bytes} of {self.total_bytes} bytes")

    def _compare_size(self, response: ClipResponse) -> None:
        total_bytes = response.total_bytes
        if total_bytes is not None and total_bytes > self.max_bytes:
            raise self._too_large(f"{total_bytes:,}")
        if response.start_bytes and total_bytes is not None:
            known_bytes = self.total_bytes
            if total_bytes < self.part.size_bytes or known_bytes not in (None, total_bytes):
                raise RangeRefused(f"{response.host} has another clip of {total_bytes} bytes now")
        self.total_bytes = total_bytes
        self.validator = response.validator

    def _too_large(self, size: str) -> ClipTooLarge:
        self.is_bad = True
        return ClipTooLarge(
            f"the clip has {size} bytes, the limit is {self.max_bytes:,}: raise max_clip_megabytes"
            " (of the download_video task: max_bytes)"
        )

    async def _receive(self, response: ClipResponse, tail: bytes) -> None:
        """Append the body; when it resumes a part, its first bytes must be `tail`."""
        spool = _Spool(self.part)
        size_bytes = self.part.size_bytes if response.start_bytes else 0
        is_begun = response.start_bytes > 0
        try:
            async for chunk, _ in response.content.iter_chunks():
                if tail:
                    known, chunk = chunk[: len(tail)], chunk[len(tail) :]
                    if not tail.startswith(known):
                        raise RangeRefused(f"{response.host} has another clip now")
                    tail = tail[len(known) :]
                if not chunk:
                    continue
                if not is_begun:
                    await self._begin(chunk)
                    is_begun = True
                size_bytes += len(chunk)
                if size_bytes > self.max_bytes:
                    raise self._too_large("more")
                await spool.put(chunk)
        finally:
            await spool.drain()
        if not is_begun:
            raise Interrupted(f"{response.host} sent an empty response")

    async def _begin(self, head: bytes) -> None:
        """Restart the clip at its first byte, unless it is an error page: the bytes received so far are then kept."""
        words = text_excerpt(head)
        if words is not None:
            raise ClipInvalid(f'the host sent text in place of the clip: "{words}"')
        if self.part.size_bytes:
            await _in(_WRITERS, self.part.restart)
            self.resumed_from = 0


class _Spool:
    """Passes chunks to the part in blocks; one block is written while the next is received."""

    def __init__(self, part: PartFile) -> None:
        self._part = part
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._writing: asyncio.Future[None] | None = None

    async def put(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        if self._size_bytes >= FLUSH_BYTES:
            await self._write()

    async def drain(self) -> None:
        """Wait until everything is written."""
        await self._write()
        await self._write()

    async def _write(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing
        if self._chunks:
            self._writing = _in(_WRITERS, self._part.append, self._chunks)
            self._chunks, self._size_bytes = [], 0


def _inspected(path: Path) -> MediaFacts:
    from prefect_together.clips.inspection import inspect_clip  # libav is loaded with the first clip, in a thread

    return inspect_clip(path)


def _in(pool: ThreadPoolExecutor, work: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
    return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


def _with_suffix_of(container: str, target: Path) -> Path:
    is_other = target.suffix.lower() in (VIDEO_SUFFIXES | STILL_SUFFIXES) - {f".{container}"}
    return target.with_suffix(f".{container}") if is_other else target


def _name_warnings(target: Path, path: Path, media: MediaFacts) -> Iterator[str]:
    """Why a clip has another name than it was to have."""
    wanted = _with_suffix_of(media.container, target)
    if wanted != target:
        expected = target.suffix[1:].upper()
        yield f"the service sent {media.container.upper()} in place of {expected}: saved as {path.name}"
    if path != wanted:
        yield f"another file is named {wanted.name}: the clip is saved as {path.name}"
