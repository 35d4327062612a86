"""Spans of the calls to the service below Prefect's own, where an OpenTelemetry SDK is set up; none where none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_server import PrefectServer
from prefect_together.api.client import call_span, is_traced
from prefect_together.sandbox import Sandbox
from repository import SUPPORT
from table_of_prompts import KEY, MODEL, PRICE_USD, prompts

PROGRAM = SUPPORT / "traced_run.py"


def test_without_an_sdk_there_is_no_span() -> None:
    assert not is_traced()

    with call_span("create_video", model=MODEL) as span:
        assert not span.is_recording()


def traced_run(server: PrefectServer, sandbox: Sandbox, table: str, output_dir: Path) -> list[dict[str, Any]]:
    """The spans of a run, oldest end first."""
    environment = os.environ | {
        "PREFECT_API_URL": server.api_url,
        "TOGETHER_API_KEY": KEY,
        "TOGETHER_BASE_URL": sandbox.base_url,
    }
    words = [sys.executable, str(PROGRAM), table, str(output_dir)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_call_is_a_span_below_the_task_run_that_made_it(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        sandbox.fault("job-moderated", prompt="harbour")
        spans = traced_run(prefect_server, sandbox, prompts("A cat on a drum", "A harbour at dawn"), tmp_path / "out")

    parents = {span["id"]: span for span in spans}
    ours = [span for span in spans if span["name"] in ("create_video", "retrieve_video", "download_video")]
    of_cat = [span for span in ours if span["attributes"]["together_video.row"] == "r1"]
    below = {(span["name"], parents[span["parent"]]["name"]) for span in of_cat}
    assert below == {
        ("create_video", "create r1"),
        ("retrieve_video", "wait for r1"),
        ("download_video", "download r1"),
    }
    (create,) = [span for span in of_cat if span["name"] == "create_video"]
    (download,) = [span for span in of_cat if span["name"] == "download_video"]
    last_look = [span for span in of_cat if span["name"] == "retrieve_video"][-1]
    assert create["attributes"]["together_video.model"] == MODEL
    assert last_look["attributes"]["together_video.status"] == "completed"
    assert last_look["attributes"]["together_video.cost_usd"] == PRICE_USD
    assert download["attributes"]["together_video.size_bytes"] > 0
    assert len({span["attributes"]["together_video.job_id"] for span in of_cat}) == 1
    assert {span["name"] for span in ours if span["attributes"]["together_video.row"] == "r2"} == {
        "create_video",
        "retrieve_video",
    }
    assert parents[next(span["id"] for span in spans if span["name"] == "wait for r2")]["status"] == "ERROR"
    assert KEY not in json.dumps(spans)
