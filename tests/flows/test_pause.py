"""Pause and resume, as Prefect's UI sets them on a run that is sending: nothing is sent in between, nothing twice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.states import Paused

from batch_run import wait_until
from prefect_together.request.form import Limits
from table_of_prompts import FLOWS, MODEL, Harness, load_script, prompts, read_results

ROWS = 12
NAME = "a-run-to-be-paused"
THE_RUN = FlowRunFilter(name=FlowRunFilterName(any_=[NAME]))


class Says(logging.Handler):
    """Sets an event of this loop when a line that begins so is logged."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text, self.said = text, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._text):
            self.said.set()


@pytest.mark.slow
def test_a_paused_run_collects_but_sends_nothing_until_it_is_resumed(harness: Harness) -> None:
    flow = load_script(FLOWS / "generate_videos.py").generate_videos
    generate_videos = flow.with_options(flow_run_name=NAME)
    table = prompts(*(f"A boat, take {number}" for number in range(ROWS)))

    async def work() -> tuple[int, bool, Any]:
        says_paused = Says("paused: nothing more is sent")
        run = asyncio.create_task(
            generate_videos(
                table,
                model=MODEL,
                output_dir=str(harness.output_dir),
                limits=Limits(max_in_flight=1),
                return_state=True,
            )
        )
        async with get_client() as client:
            assert await asyncio.to_thread(wait_until, lambda: harness.api.accepted() >= 2, seconds=60)
            logging.getLogger("prefect.flow_runs").addHandler(says_paused)  # Prefect has set its own by now
            (running,) = await client.read_flow_runs(flow_run_filter=THE_RUN)
            await client.set_flow_run_state(running.id, Paused(timeout_seconds=300))
            await says_paused.said.wait()
            logging.getLogger("prefect.flow_runs").removeHandler(says_paused)
            sent = harness.api.accepted()
            more = await asyncio.to_thread(wait_until, lambda: harness.api.accepted() > sent, seconds=3.0)
            await client.resume_flow_run(running.id)
        return sent, more, await run

    sent, is_more_sent, state = harness.prefect.run(work)

    assert sent < ROWS
    assert not is_more_sent
    assert state.is_completed(), state.message
    assert [row["status"] for row in read_results(harness.output_dir)] == ["downloaded"] * ROWS
    assert harness.api.accepted() == ROWS
