"""Several flows on one account under a global concurrency limit of a real Prefect server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prefect_server import PrefectServer
from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import Limits
from prefect_together.steps.global_limit import LimitUnavailable, open_limit
from repository import FLOWS
from table_of_prompts import MODEL, Harness, load_script, opened_harness, paid_calls, prompts, read_results

LIMIT = 3


@pytest.fixture
def account(prefect_server: PrefectServer) -> Generator[str]:
    """A limit of 3 slots."""
    name = "together-account"

    async def make() -> None:
        async with get_client() as client:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=LIMIT))

    async def delete() -> None:
        async with get_client() as client:
            await client.delete_global_concurrency_limit_by_name(name)

    prefect_server.run(make)
    yield name
    prefect_server.run(delete)


def slots_in_use(server: PrefectServer, name: str) -> int:
    async def read() -> int:
        async with get_client() as client:
            return (await client.read_global_concurrency_limit_by_name(name)).active_slots

    return server.run(read)


def most_at_once(harness: Harness) -> int:
    """The most jobs that the provider had at once, each from its creation until its end was seen."""
    jobs = harness.api.jobs()
    return max(sum(other["created_at"] <= job["created_at"] < other["seen_final_at"] for other in jobs) for job in jobs)


@pytest.mark.slow
def test_two_flows_at_once_never_have_more_jobs_at_the_provider_than_the_limit(
    prefect_server: PrefectServer, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_harness(prefect_server, tmp_path / "out", monkeypatch, generation_seconds=0.5) as harness:
        run_two_flows(harness, account)


def run_two_flows(harness: Harness, account: str) -> None:
    flow = load_script(FLOWS / "generate_videos.py").generate_videos
    outputs = [harness.output_dir, harness.output_dir.with_name("other")]

    async def run(output: Path, tag: str) -> Any:
        table = prompts(*(f"{tag} film {number}" for number in range(6)))
        limits = Limits(concurrency_limit=account, max_in_flight=6)
        return await flow(table, model=MODEL, output_dir=str(output), limits=limits, return_state=True)

    async def both() -> list[Any]:
        return await asyncio.gather(*(run(output, output.name) for output in outputs))

    states = harness.prefect.run(both)

    assert all(state.is_completed() for state in states), states
    assert [row["status"] for output in outputs for row in read_results(output)] == ["downloaded"] * 12
    assert most_at_once(harness) == LIMIT
    assert slots_in_use(harness.prefect, account) == 0


def test_a_limit_that_is_not_there_is_a_mistake_before_anything_is_sent(harness: Harness) -> None:
    ended = harness.run(prompts("A cat"), limits=Limits(concurrency_limit="no-such-limit"))

    assert isinstance(ended.result, SettingsInvalid)
    assert "prefect gcl create no-such-limit" in str(ended.result)
    assert paid_calls(harness) == 0


@pytest.mark.slow
def test_a_job_that_is_at_the_provider_already_does_not_wait_for_a_slot(harness: Harness, account: str) -> None:
    harness.api.script("in_progress", "completed", at_seconds=[0, 3])
    first = harness.run(prompts("A cat"), limits=Limits(concurrency_limit=account, max_wait_minutes=0.01))

    async def take_all() -> None:
        async with get_client() as client:
            await client.increment_concurrency_slots_with_lease([account], LIMIT, "concurrency", 60)

    harness.prefect.run(take_all)
    ended = harness.run(prompts("A cat"), limits=Limits(concurrency_limit=account))

    assert (first.statuses, ended.statuses) == (["submitted"], ["downloaded"])
    assert harness.api.accepted() == 1


async def test_without_a_server_a_job_that_is_there_goes_on_and_a_new_one_is_given_up_unsent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with AsyncExitStack() as stack:
        away: dict[Any, Any] = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
        stack.enter_context(temporary_settings(away))
        opened = open_limit("account", patience_seconds=0.0, logger=logging.getLogger("a-run"))
        limit = await stack.enter_async_context(opened)
        await stack.enter_async_context(limit.slot(already_there=True))

        with pytest.raises(LimitUnavailable, match="'account': Prefect's server cannot be reached"):
            await stack.enter_async_context(limit.slot())

    (said,) = [record.message for record in caplog.records if record.name == "a-run"]
    assert said.endswith("Nothing is sent until it does; what is paid for is collected")
