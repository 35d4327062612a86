"""Ctrl-C and SIGTERM before the flow's body has begun: a sentence and an exit code, no word of a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_server import PrefectServer
from stalling_gateway import PATIENCE_SECONDS, Gateway, stalling_gateway
from table_of_prompts import FLOWS, KEY, MODEL, prompts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def stopped_when_held(gateway: Gateway, number: signal.Signals, home: Path, table: str, api_url: str) -> str:
    """Run the flow's script until the gateway holds a call, send the signal; what was said, if it ended so."""
    run = subprocess.Popen(
        [sys.executable, str(FLOWS / "generate_videos.py"), table, "--model", MODEL],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": api_url,
            "TOGETHER_API_KEY": KEY,
        },
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.is_held.wait(PATIENCE_SECONDS)
        run.send_signal(number)
        out, err = run.communicate(timeout=PATIENCE_SECONDS)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 128 + number, err
    return out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_table_is_read(prefect_server: PrefectServer, tmp_path: Path, number: signal.Signals) -> None:
    with stalling_gateway(prefect_server.api_url, held_path="/table.csv") as gateway:
        said = stopped_when_held(gateway, number, tmp_path, f"{gateway.url}/table.csv", prefect_server.api_url)

    assert said.count("stopped by") == 1
    assert said.endswith("the same command continues where this run stopped\n")
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("held_path", ["/flow_runs/", "/set_state"])
def test_while_prefect_is_told_of_the_run(
    prefect_server: PrefectServer, tmp_path: Path, number: signal.Signals, held_path: str
) -> None:
    with stalling_gateway(prefect_server.api_url, held_path=held_path) as gateway:
        said = stopped_when_held(gateway, number, tmp_path, prompts("A cat"), gateway.url)

    assert said.count("stopped by") == 1
    assert said.endswith("the same command continues where this run stopped\n")
    assert "Traceback" not in said
    assert "Crash" not in said
    assert not (tmp_path / "out").exists()
