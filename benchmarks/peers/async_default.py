"""(b) asyncio over the SDK's default client, all rows at once; downloads by httpx."""

from __future__ import annotations

import asyncio

import httpx
from stopwatch import POLL_SECONDS, body, output_directory, read_prompts
from together import AsyncTogether


async def main() -> None:
    directory = output_directory()
    async with AsyncTogether() as client, httpx.AsyncClient(follow_redirects=True, timeout=60) as http:

        async def generate(row: dict[str, str]) -> None:
            job = await client.videos.create(prompt=row["prompt"], model=row["model"], width=1366, height=768)
            while job.status != "completed":
                await asyncio.sleep(POLL_SECONDS)
                job = await client.videos.retrieve(job.id)
                if job.status == "failed":
                    raise RuntimeError(job.id)
            with (directory / f"{row['id']}.mp4").open("wb") as file:
                assert job.outputs is not None
                async with http.stream("GET", job.outputs.video_url) as answer:
                    async for chunk in answer.aiter_bytes():
                        file.write(chunk)

        await asyncio.gather(*(generate(row) for row in read_prompts()))


with body():
    asyncio.run(main())
