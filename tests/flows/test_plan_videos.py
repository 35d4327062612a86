"""plan_videos: every row in the artifacts, every mistake in the state, and no key needed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from deployment_calls import run_program
from prefect_server import PrefectServer
from prefect_together.problems import TableInvalid
from repository import ROOT
from table_of_prompts import MODEL, load_script, prompts


def plan_table(server: PrefectServer, table: str) -> Any:
    flow = load_script(ROOT / "flows" / "plan_videos.py").plan_videos

    async def work() -> Any:
        return await flow(table, model=MODEL, return_state=True)

    return server.run(work)


@pytest.mark.slow
def test_plan_videos_publishes_every_row_and_ends_completed(prefect_server: PrefectServer) -> None:
    state = plan_table(prefect_server, prompts("A cat asleep on a drum", "A harbour at dawn"))

    artifacts = prefect_server.artifacts(state.state_details.flow_run_id)
    assert state.is_completed()
    assert "2 rows, 2 videos: $0.56" in state.message
    assert "videos/r2.mp4" in str(artifacts["together-video-plan"].data)
    assert "$0.56" in str(artifacts["together-video-plan-summary"].data)


@pytest.mark.slow
def test_plan_videos_ends_failed_with_every_mistake(prefect_server: PrefectServer) -> None:
    state = plan_table(prefect_server, "prompt,seconds,widht\nA cat,ten,\nA dog,99,\n")

    artifacts = prefect_server.artifacts(state.state_details.flow_run_id)
    assert state.is_failed()
    assert "row 2, column seconds" in state.message
    assert "row 3, column seconds" in state.message
    assert "99 is not a length" in str(artifacts["together-video-plan"].data)
    assert "## 1 warning\n\n- column widht" in str(artifacts["together-video-plan-summary"].data)
    with pytest.raises(TableInvalid):
        asyncio.run(state.aresult())


@pytest.mark.slow
def test_plan_videos_needs_no_key_in_a_shell(prefect_server: PrefectServer) -> None:
    said = run_program(prefect_server, sys.executable, "flows/plan_videos.py", "examples/prompts.csv")

    assert "3 rows, 3 videos: $0.78" in said
