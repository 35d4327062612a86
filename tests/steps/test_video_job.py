"""The job block in somebody's own flow: what it sends, what it keeps, and what it never does twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import SecretStr, ValidationError

from prefect_server import PrefectServer
from prefect_together.credentials import TogetherCredentials
from prefect_together.errors import JobFailed, RetryRefused
from prefect_together.steps.video_job import TogetherVideoJob, TogetherVideoRun
from table_of_prompts import MODEL, PRICE_USD, Harness

BLOCK_KEY = "tgp_v1_key-of-the-block-that-nobody-may-see"


def a_job(harness: Harness, tmp_path: Path, **fields: Any) -> TogetherVideoJob:
    credentials = TogetherCredentials(api_key=SecretStr(BLOCK_KEY), base_url=harness.api.base_url)
    given: dict[str, Any] = {"model": MODEL, "prompt": "A paper boat", "target": str(tmp_path / "boat.mp4"), **fields}
    return TogetherVideoJob(credentials=credentials, **given)


@pytest.mark.slow
def test_saved_and_loaded_it_makes_one_clip_in_a_def_flow_with_the_key_of_its_credentials(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    monkeypatch.delenv("TOGETHER_BASE_URL")
    block = a_job(harness, tmp_path, parameters={"seed": 7})

    @flow(name="somebodys-own", persist_result=False)
    def own() -> list[Any]:
        job: Any = TogetherVideoJob  # its methods are typed for `async def`
        run = job.load("paper-boat").trigger()
        return [run.wait_for_completion(), run.fetch_result(), run.wait_for_completion(), run.fetch_result()]

    async def work() -> list[Any]:
        await block.asave("paper-boat", overwrite=True)
        return await asyncio.to_thread(own)

    done, clip, *again = harness.prefect.run(work)

    assert (done.is_completed, done.cost_usd) == (True, PRICE_USD)
    assert clip.path == tmp_path / "boat.mp4"
    assert clip.path.stat().st_size == clip.size_bytes
    assert again == [done, clip]
    assert harness.api.accepted() == 1
    assert harness.api.calls("download") == 1
    (sent,) = [one for one in harness.api.requests if one.endpoint == "create"]
    assert sent.headers["authorization"] == f"Bearer {BLOCK_KEY}"


def test_each_trigger_is_a_job_of_its_own_and_a_run_is_found_again_by_its_id(harness: Harness, tmp_path: Path) -> None:
    block = a_job(harness, tmp_path)

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> tuple[str, str, Path]:
        first, second = await block.atrigger(), await block.atrigger()
        clip = await block.run_of(first.job_id).afetch_result()
        return first.job_id, second.job_id, clip.path

    first, second, path = harness.prefect.run(own)

    assert first != second
    assert path.is_file()
    assert harness.api.accepted() == 2


def test_awaited_in_an_async_flow_the_plain_names_are_coroutines_as_those_of_prefects_own_blocks(
    harness: Harness, tmp_path: Path
) -> None:
    block: Any = a_job(harness, tmp_path)

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> Any:
        run = await block.trigger()
        await run.wait_for_completion()
        clip = await run.fetch_result()
        clip.path.unlink()
        return run, await run.fetch_result()

    run, clip = harness.prefect.run(own)

    assert isinstance(block, JobBlock)
    assert isinstance(run, JobRun)
    assert clip.path.is_file()
    assert harness.api.accepted() == 1


def test_what_calls_it_pays_once_when_prefect_tries_it_again(harness: Harness, tmp_path: Path) -> None:
    block = a_job(harness, tmp_path)

    @task(retries=1)
    async def of_a_task() -> None:
        await block.atrigger()
        raise ConnectionError("what came after the trigger")

    @flow(name="somebodys-own", persist_result=False)
    async def tasks_are_tried_again() -> None:
        await of_a_task()

    @flow(name="somebodys-own-again", persist_result=False, retries=1)
    async def the_flow_is_tried_again() -> None:
        await block.atrigger()
        raise ConnectionError("what came after the trigger")

    for number, own in enumerate((tasks_are_tried_again, the_flow_is_tried_again), start=1):
        with pytest.raises(RetryRefused):
            harness.prefect.run(own)

        assert harness.api.calls("create") == number


def test_a_job_that_fails_says_so_each_time_it_is_waited_for(harness: Harness, tmp_path: Path) -> None:
    harness.api.fault("job-moderated", prompt="boat")
    block = a_job(harness, tmp_path)

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> list[str]:
        run: TogetherVideoRun = await block.atrigger()
        said: list[str] = []
        for method in (run.await_for_completion, run.afetch_result):
            with pytest.raises(JobFailed) as raised:
                await method()
            said.append(str(raised.value))
        return said

    first, second = harness.prefect.run(own)

    assert first == second
    assert harness.api.calls("create") == 1


def test_a_wrong_parameter_is_named_before_the_block_is_saved() -> None:
    with pytest.raises(ValidationError, match="did you mean seconds"):
        TogetherVideoJob(model=MODEL, prompt="x", parameters={"secnds": 5})


def test_its_key_is_neither_shown_nor_stored_in_clear(prefect_server: PrefectServer) -> None:
    credentials = TogetherCredentials(api_key=SecretStr(BLOCK_KEY))
    block = TogetherVideoJob(credentials=credentials, model=MODEL, prompt="A boat")

    async def save_and_load() -> TogetherVideoJob:
        await credentials.asave("of-the-job", overwrite=True)
        await block.asave("job-at-rest", overwrite=True)
        nested = TogetherVideoJob(
            credentials=await TogetherCredentials.aload("of-the-job"), model=MODEL, prompt="A boat"
        )
        await nested.asave("nested-job-at-rest", overwrite=True)
        return await TogetherVideoJob.aload("nested-job-at-rest")

    loaded = prefect_server.run(save_and_load)

    assert loaded.credentials is not None
    assert loaded.credentials.api_key.get_secret_value() == BLOCK_KEY
    assert BLOCK_KEY not in repr(loaded) + str(loaded) + loaded.model_dump_json()
    stored = [file for file in prefect_server.home.rglob("*") if file.is_file()]
    assert any(b"nested-job-at-rest" in file.read_bytes() for file in stored)
    assert not any(BLOCK_KEY.encode() in file.read_bytes() for file in stored)


def test_prefect_finds_it_by_an_entry_point_which_does_not_load_the_sdk() -> None:
    (entry,) = entry_points(group="prefect.collections", name="prefect_together_job")

    assert entry.load().TogetherVideoJob is TogetherVideoJob
    program = "import sys, prefect_together.steps.video_job; print({'together', 'aiohttp'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
