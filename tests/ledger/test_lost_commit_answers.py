"""A commit whose answer is lost: it is tried again, and is done once, with the same answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from database_proxy import Proxy
from ledger_rows import a_video
from postgres_server import throw_away_database
from prefect_together.api.jobs import VideoJob
from prefect_together.errors import AccountBlocked, BadParameter, FailureClass, JobFailed
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.shards.shared_plan import join, save_plan

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

Lossy = Callable[[Awaitable[Any]], Awaitable[Any]]


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    """A proxy in front of a database, and the database's URL by way of it."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    proxy = Proxy(port)
    async with await proxy.serve():
        yield proxy, url.replace(f":{port}/", f":{proxy.port}/")


async def whole_lives(ledger: Ledger, lossy: Lossy) -> tuple[list[object], dict[str, VideoRecord], float]:
    """Every transition at least once: what each returned, the records without their times, the dollars committed."""
    good, broken, refused, doubtful, blocked = videos = [a_video(name) for name in "abcde"]
    said: list[object] = [sorted(await lossy(ledger.plan(videos)))]
    for video in videos:
        said.append((await lossy(ledger.claim(video.key))).is_ours)
        if video is not blocked:
            said.append(await lossy(ledger.intend(video.key, estimate_usd=0.28, budget_usd=2.0)))
    await lossy(ledger.save_table(".", "a table", is_sandbox=False))

    job = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.25)
    await lossy(ledger.accepted(good.key, 1, job))
    await lossy(ledger.completed(good.key, job, generation_seconds=1.0, polls=3))
    await lossy(ledger.downloaded(good.key, file="videos/a.mp4", size_bytes=1, sha256="", clip={}))
    await lossy(ledger.file_missing(good.key, output_dir="."))

    await lossy(ledger.accepted(broken.key, 1, VideoJob("job-2")))
    lost = JobFailed("job-2", None, "gpu lost", FailureClass.UPSTREAM, cost_usd=0.1)
    await lossy(ledger.failed(broken.key, lost, again=True))
    said.append(await lossy(ledger.intend(broken.key, estimate_usd=0.28, budget_usd=2.0)))
    await lossy(ledger.accepted(broken.key, 2, VideoJob("job-3")))
    await lossy(ledger.failed(broken.key, replace_job(lost, "job-3"), again=False))
    before = (await ledger.records())[broken.key]
    said.append(
        (await lossy(ledger.claim(broken.key, resend_attempt=2, states=[State.FAILED]))).record.state,
    )
    restored = ledger.restore(broken.key, state=State.FAILED, error=str(before.error), failure_class=None)
    said.append(await lossy(restored))

    await lossy(ledger.not_accepted(refused.key, 1, BadParameter(422, None, "no", None), state=State.FAILED))
    await lossy(ledger.in_doubt(doubtful.key, 1, "HTTP 500"))
    said.append(await lossy(ledger.refused(blocked.key, AccountBlocked(402, None, "no credits", None))))
    await lossy(ledger.release(doubtful.key))
    another = replace(ledger.run, run_id="another")
    await lossy(ledger.transaction(partial(ledger_runs.begin, run=another, now=1.0)))
    await lossy(save_plan(ledger, "plan", videos, dict.fromkeys((video.key for video in videos), 0)))
    shared = await lossy(join(ledger, "plan", 1))
    said.append(sorted(shared.plan.videos))

    times = dict.fromkeys(("planned_at", "submitted_at", "completed_at", "downloaded_at"), 0.0)
    records = {key: replace(one, owner=None, **times) for key, one in (await ledger.records()).items()}
    return said, records, await ledger.committed_usd()


def replace_job(error: JobFailed, job_id: str) -> JobFailed:
    return JobFailed(job_id, error.code, error.message, error.failure_class, cost_usd=error.cost_usd)


async def test_a_lost_answer_to_a_commit_changes_neither_ledger_nor_answers(request: pytest.FixtureRequest) -> None:
    lost = 0

    async def usual(work: Awaitable[Any]) -> Any:
        return await work

    async with open_ledger(throw_away_database(request)) as ledger:
        expected = await whole_lives(ledger, usual)

    async with proxied(throw_away_database(request)) as (proxy, url), open_ledger(url) as ledger:

        async def lossy(work: Awaitable[Any]) -> Any:
            nonlocal lost
            proxy.lose_commit_answers = 1
            answer = await work
            assert proxy.lose_commit_answers == 0
            lost += 1
            return answer

        found = await whole_lives(ledger, lossy)

    assert found == expected
    assert lost > 25
