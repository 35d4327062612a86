"""(c) asyncio over the SDK's aiohttp transport, all rows at once; downloads by aiohttp too.

The best that can be had without engine, ledger and checks.
"""

from __future__ import annotations

import asyncio

import aiohttp
from stopwatch import POLL_SECONDS, body, output_directory, read_prompts
from together import AsyncTogether, DefaultAioHttpClient


async def main() -> None:
    directory = output_directory()
    async with AsyncTogether(http_client=DefaultAioHttpClient()) as client, aiohttp.ClientSession() as http:

        async def generate(row: dict[str, str]) -> None:
            job = await client.videos.create(prompt=row["prompt"], model=row["model"], width=1366, height=768)
            while job.status != "completed":
                await asyncio.sleep(POLL_SECONDS)
                job = await client.videos.retrieve(job.id)
                if job.status == "failed":
                    raise RuntimeError(job.id)
            with (directory / f"{row['id']}.mp4").open("wb") as file:
                assert job.outputs is not None
                async with http.get(job.outputs.video_url) as answer:
                    async for chunk in answer.content.iter_any():
                        file.write(chunk)

        await asyncio.gather(*(generate(row) for row in read_prompts()))


with body():
    asyncio.run(main())
