"""The command line is parsed once, and its table checked before Prefect is imported or a server started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from prefect_together.cli.run_flow import run_command_line
from repository import MISTAKES
from table_of_prompts import FLOWS, MODEL, Harness, prompts

TABLE = str(MISTAKES)
RUN_AND_LIST_MODULES = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    print(json.dumps([ended.code, "prefect" in sys.modules]))
"""


@pytest.mark.parametrize("flow", ["generate_videos", "plan_videos"])
def test_mistakes_are_said_without_prefect_and_without_a_server(tmp_path: Path, flow: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, str(FLOWS / f"{flow}.py"), str(MISTAKES), "--model", MODEL],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert json.loads(done.stdout) == [2, False]
    assert "mistakes, nothing was sent" in done.stderr
    assert "row 3 (id m02), column seconds: 'ten' is not a length" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("--sandbox", str(MISTAKES)), ("--prompts", str(MISTAKES)), (str(MISTAKES), "--canary")]
)
def test_the_table_is_found_wherever_it_stands_among_the_options(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command_line("generate_videos", words)

    assert code == 2
    assert "mistakes, nothing was sent" in capsys.readouterr().err


class OneTable(BaseHTTPRequestHandler):
    """Gives a table to each GET, and counts them."""

    gets = 0

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        type(self).gets += 1
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        content = prompts("A cat", "A dog").encode()
        self.send_response(200)
        self.send_header("content-type", "text/csv")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_table_is_read_once_and_the_server_gets_its_name(harness: Harness) -> None:
    with HTTPServer(("127.0.0.1", 0), OneTable) as server, harness.prefect.used():
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/table.csv"
        code = run_command_line("generate_videos", [url, "--output-dir", str(harness.output_dir), "--model", MODEL])
        server.shutdown()

    assert code == 0
    assert OneTable.gets == 1
    assert harness.api.accepted() == 2
    assert stored_parameters(harness)["prompts"] == url


def stored_parameters(harness: Harness) -> dict[str, Any]:
    """The parameters of the last flow run as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    async def read() -> dict[str, Any]:
        async with get_client() as client:
            (run,) = await client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)
            return run.parameters

    return harness.prefect.run(read)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("generate", ("generate", str(MISTAKES))),
        ("video", ("video", "")),
        ("collect", ("collect", "--max-wait-minutes", "x")),
    ],
)
def test_the_installed_command_runs_the_same_flows(program: str, words: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect_together", *words],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
