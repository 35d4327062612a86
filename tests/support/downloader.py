"""A clip server, a session and a target to download to, as the download tests share them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from clip_files import make_clip
from clip_server import ClipServer, serving
from fake_clock import FakeClock
from prefect_together.clips.download import DownloadedClip, download_clip
from prefect_together.clips.http import DownloadSession, open_download_session

CLIP = make_clip()
SHA256 = hashlib.sha256(CLIP).hexdigest()
OTHER_CLIP = make_clip(seconds=2)
OTHER_SHA256 = hashlib.sha256(OTHER_CLIP).hexdigest()


class Options(TypedDict, total=False):
    """What `download_clip` can be reported."""

    refresh_link: Callable[[], Awaitable[str]]
    max_bytes: int
    stall_seconds: float
    attempts: int


@dataclass
class Downloader:
    """Where a test downloads from and to."""

    server: ClipServer
    session: DownloadSession
    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def target(self) -> Path:
        return self.directory / "a.mp4"

    @property
    def part(self) -> Path:
        return self.directory / "a.mp4.part"

    async def fetch(self, link: str = "/a", *, name: str = "a.mp4", **options: Unpack[Options]) -> DownloadedClip:
        """Download a path of the server, or a whole URL."""
        url = link if ":" in link else self.server.url + link
        return await download_clip(self.session, url, self.directory / name, clock=self.clock, **options)

    def files(self) -> dict[str, bytes]:
        """All that is in the directory."""
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def leave(self, *, part: bytes | None = None, target: bytes | None = None) -> None:
        """Put there what an earlier run left."""
        if part is not None:
            self.part.write_bytes(part)
        if target is not None:
            self.target.write_bytes(target)


@asynccontextmanager
async def open_downloader(directory: Path) -> AsyncGenerator[Downloader]:
    """A downloader with a running server that has CLIP."""
    async with serving(CLIP) as server, open_download_session(base_url=server.url) as session:
        yield Downloader(server, session, directory)
