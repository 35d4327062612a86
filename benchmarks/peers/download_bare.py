"""Bare aiohttp: each chunk is written as it comes. No checks, no hash, no flush, no resume."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from stopwatch import body, output_directory

AT_ONCE = 16


async def main() -> None:
    directory, urls = output_directory(), sys.argv[3:]
    slots = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def fetch(number: int, url: str) -> None:
            async with slots, session.get(url) as answer:
                answer.raise_for_status()
                with (directory / f"{number}.mp4").open("wb") as file:
                    async for chunk in answer.content.iter_any():
                        file.write(chunk)

        await asyncio.gather(*(fetch(number, url) for number, url in enumerate(urls)))


with body():
    asyncio.run(main())
