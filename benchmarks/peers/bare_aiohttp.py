"""(e) The floor: bare aiohttp, all rows at once. No SDK, no engine, no ledger, no checks.

The third argument, if given, bounds the jobs in flight.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import aiohttp
from stopwatch import POLL_SECONDS, body, output_directory, read_prompts

VIDEOS = f"{os.environ['TOGETHER_BASE_URL']}/v2/videos"
HEADERS = {"Authorization": f"Bearer {os.environ['TOGETHER_API_KEY']}"}


async def main() -> None:
    directory, rows = output_directory(), read_prompts()
    slots = asyncio.Semaphore(int(sys.argv[3]) if len(sys.argv) > 3 else len(rows))
    async with aiohttp.ClientSession(headers=HEADERS) as api, aiohttp.ClientSession() as http:

        async def call(method: str, url: str, **kwargs: Any) -> dict[str, Any]:
            async with api.request(method, url, **kwargs) as answer:
                answer.raise_for_status()
                return await answer.json()

        async def generate(row: dict[str, str]) -> None:
            async with slots:
                wanted = {"model": row["model"], "prompt": row["prompt"], "width": 1366, "height": 768}
                job = await call("POST", VIDEOS, json=wanted)
                while job["status"] != "completed":
                    await asyncio.sleep(POLL_SECONDS)
                    job = await call("GET", f"{VIDEOS}/{job['id']}")
                    if job["status"] == "failed":
                        raise RuntimeError(job["id"])
            with (directory / f"{row['id']}.mp4").open("wb") as file:
                async with http.get(job["outputs"]["video_url"]) as answer:
                    async for chunk in answer.content.iter_any():
                        file.write(chunk)

        await asyncio.gather(*(generate(row) for row in rows))


with body():
    asyncio.run(main())
