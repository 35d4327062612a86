"""A Prefect server that cannot be used: one sentence before anything is sent; nothing lost in mid-run."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.client.orchestration import get_client

from batch_run import wait_until
from prefect_server import PrefectServer, running_prefect
from shell import in_shell, in_shell_started
from table_of_prompts import KEY, MODEL, opened_harness, prompts, read_results

ROWS = 6


@contextmanager
def answering(status: int) -> Generator[str]:
    """The address of a server that answers every request with this status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/api"
        finally:
            server.shutdown()


def assert_refused(home: Path, api_url: str, reason: str) -> None:
    words = ("prompt\nA cat\n", "--model", MODEL, "--sandbox")
    done = in_shell(home, *words, PREFECT_API_URL=api_url)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert reason in line
    assert line.startswith("nothing was sent: Prefect's server at ")
    assert "secret" not in line
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "answers 500"), (401, "answers 401 (PREFECT_API_KEY or PREFECT_API_AUTH_STRING is")]
)
def test_a_prefect_server_that_answers_an_error_ends_with_2_and_one_sentence(
    tmp_path: Path, status: int, reason: str
) -> None:
    with answering(status) as api_url:
        assert_refused(tmp_path, api_url, reason)


def test_a_prefect_server_that_is_not_there_ends_with_2_and_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unheard:  # bound, and nobody listens
        unheard.bind(("127.0.0.1", 0))
        assert_refused(tmp_path, f"http://127.0.0.1:{unheard.getsockname()[1]}/api", "cannot be reached")


def delete_flow_runs(server: PrefectServer) -> None:
    async def delete() -> None:
        async with get_client() as client:
            for run in await client.read_flow_runs():
                await client.delete_flow_run(run.id)

    server.run(delete)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loss", ["killed", "stopped", "run deleted"])
def test_a_run_whose_prefect_is_lost_is_complete_says_so_first_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    (tmp_path / "server").mkdir()
    with (
        running_prefect(tmp_path / "server", listener) as prefect,
        opened_harness(prefect, tmp_path / "out", monkeypatch) as harness,
    ):
        harness.api.script("in_progress", "completed", at_seconds=(0, 4), prompt="boat")
        table = prompts(*(f"A paper boat, take {take}" for take in range(ROWS)))
        environment = {"PREFECT_API_URL": prefect.api_url, "TOGETHER_BASE_URL": harness.api.base_url}
        run = in_shell_started(tmp_path, table, "--model", MODEL, TOGETHER_API_KEY=KEY, **environment)
        wait_until(lambda: harness.api.accepted() == ROWS, seconds=120)
        if loss == "run deleted":
            delete_flow_runs(prefect)
        else:
            os.kill(prefect.pid, signal.SIGKILL if loss == "killed" else signal.SIGSTOP)
        out, err = run.communicate(timeout=300)
        if loss == "stopped":
            os.kill(prefect.pid, signal.SIGKILL)

    assert run.returncode == 0
    assert [row["status"] for row in read_results(tmp_path / "out")] == ["downloaded"] * ROWS
    assert out.startswith(f"{ROWS} downloaded of {ROWS} rows")
    assert "Traceback" not in err
    assert err.count("the end of this run is missing in Prefect's UI") == 1
    assert "the end of this run is missing in Prefect's UI" in err.splitlines()[-1]
    noise = [line for line in err.splitlines() if "| WARNING |" in line or "| ERROR " in line]
    assert [line for line in noise if "Prefect's server cannot be reached: its UI will lack" not in line] == []
    assert len(noise) <= 1
