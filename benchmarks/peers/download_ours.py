"""Ours: the I/O layer's download with its checks, SHA-256, flush and rename, 16 at once as in a run."""

from __future__ import annotations

import asyncio
import sys

from stopwatch import body, output_directory

from prefect_together.api.session import MAX_DOWNLOADS
from prefect_together.clips.download import download_clip
from prefect_together.clips.http import open_download_session


async def main() -> None:
    directory, urls = output_directory(), sys.argv[3:]
    slots = asyncio.Semaphore(MAX_DOWNLOADS)
    async with open_download_session(base_url=urls[0]) as session:

        async def fetch(number: int, url: str) -> None:
            async with slots:
                await download_clip(session, url, directory / f"{number}.mp4")

        await asyncio.gather(*(fetch(number, url) for number, url in enumerate(urls)))


with body():
    asyncio.run(main())
