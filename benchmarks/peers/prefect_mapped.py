"""(d) The loop as a plain Prefect flow with mapped sync tasks, as most would write it; the SDK's default client."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, task
from stopwatch import POLL_SECONDS, body, output_directory, read_prompts
from together import Together

client = Together()


@task
def create(row: dict[str, str]) -> str:
    return client.videos.create(prompt=row["prompt"], model=row["model"], width=1366, height=768).id


@task
def wait(job_id: str) -> str:
    while True:
        job = client.videos.retrieve(job_id)
        if job.status == "completed":
            assert job.outputs is not None
            return job.outputs.video_url
        if job.status == "failed":
            raise RuntimeError(job_id)
        time.sleep(POLL_SECONDS)


@task
def download(url: str, target: Path) -> None:
    with target.open("wb") as file, httpx.stream("GET", url, follow_redirects=True, timeout=60) as answer:
        for chunk in answer.iter_bytes():
            file.write(chunk)


@flow
def generate() -> None:
    with body():
        rows, directory = read_prompts(), output_directory()
        jobs = create.map(rows)
        urls = wait.map(jobs)
        clips: Any = download.map(urls, [directory / f"{row['id']}.mp4" for row in rows])
        clips.result()


generate()
