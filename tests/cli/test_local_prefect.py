"""Local runs are clean: which server is used, how signals end a run, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm

from prefect_together.cli.local_prefect import LocalPrefect, api_is_configured
from prefect_together.errors import NotConfigured
from prefect_together.execution.signals import Stopped, stop_signals, until_stopped

SCRIPT = """
from prefect_together.cli.local_prefect import as_program, prepare_prefect, signals_raised
if __name__ == "__main__":
    LOCAL = prepare_prefect()
import asyncio, os, sys, urllib.request
from prefect import flow, task
from prefect.states import Cancelled
from prefect_together.prefect_internals import shell_console, shorten_task_lines
from prefect_together.execution.signals import Stopped, until_stopped

@task
async def step(seconds: float) -> None:
    await asyncio.sleep(seconds)

async def rows(count: int, seconds: float) -> None:
    print("body", flush=True)
    await asyncio.gather(*(step(seconds) for _ in range(count)))

@flow
async def example(count: int, seconds: float):
    shorten_task_lines()
    shell_console()
    try:
        await until_stopped(rows(count, seconds))
    except Stopped as stop:
        return Cancelled(message=str(stop), data=stop.exit_code)
    return 0

def main() -> int:
    if LOCAL is not None:
        LOCAL.wait_until_ready()
        LOCAL.wait_at_exit = True
        print("ui", LOCAL.ui_url, flush=True)
        page = urllib.request.Request(LOCAL.ui_url + "/runs", headers={"Accept": "text/html"})
        print("page", urllib.request.urlopen(page).read(15), flush=True)
    count, seconds = int(sys.argv[1]), float(sys.argv[2])

    async def run() -> int:
        state = await example(count, seconds, return_state=True)
        return await state.aresult(raise_on_failure=False)

    with signals_raised():
        return asyncio.run(run())

if __name__ == "__main__":
    as_program(main)
"""

PROBE = """
from prefect_together.cli.local_prefect import prepare_prefect
import json, os, sys
local = prepare_prefect()
print(json.dumps([local is None, "prefect" in sys.modules, {k: v for k, v in os.environ.items() if "PREFECT" in k}]))
"""


def environment(home: Path, **extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect"), **extra}


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    script = home / "example_flow.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines_until_body(process: subprocess.Popen[str]) -> list[str]:
    """What the script prints until its flow's body is reached. Raises AssertionError with its errors if it ends."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or "body" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    return lines


def recorded(home: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(home / "prefect" / "prefect.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def servers_of(home: Path) -> list[int]:
    import psutil

    found: list[int] = []
    for process in psutil.process_iter(["cmdline"]):
        if "prefect_together.cli.local_server" in " ".join(process.info["cmdline"] or []):
            try:
                if process.environ().get("PREFECT_HOME") == str(home / "prefect"):
                    found.append(process.pid)
            except psutil.Error:
                continue
    return found


def wait_until_no_server(home: Path, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while servers_of(home):
        assert time.monotonic() < deadline, "the local server is still there"
        time.sleep(0.1)


def test_no_api_url_is_found_in_an_empty_home(tmp_path: Path) -> None:
    assert not api_is_configured({"PREFECT_HOME": str(tmp_path)}, tmp_path)


def test_an_api_url_in_the_environment_is_found(tmp_path: Path) -> None:
    assert api_is_configured({"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://x/api"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "PREFECT_API_URL=http://x/api\n"),
        ("prefect.toml", '[api]\nurl = "http://x/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x/api"\n'),
        ("profiles.toml", 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://x/api"\n'),
    ],
)
def test_an_api_url_in_a_file_that_prefect_reads_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert api_is_configured({"PREFECT_HOME": str(tmp_path)}, tmp_path)


def test_only_the_active_profile_counts(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(
        'active = "here"\n[profiles.here]\n[profiles.there]\nPREFECT_API_URL = "http://x/api"\n'
    )
    home = {"PREFECT_HOME": str(tmp_path)}

    assert not api_is_configured(home, tmp_path)
    assert api_is_configured({**home, "PREFECT_PROFILE": "there"}, tmp_path)


def test_a_broken_settings_file_is_left_to_prefect_to_complain_about(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text("[[[")

    assert not api_is_configured({"PREFECT_HOME": str(tmp_path)}, tmp_path)


def probe(home: Path, *arguments: str, **extra: str) -> tuple[bool, bool, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env=environment(home, **extra),
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return tuple(json.loads(done.stdout))


def test_with_an_api_url_set_nothing_is_changed(tmp_path: Path) -> None:
    nothing, prefect_imported, variables = probe(tmp_path, PREFECT_API_URL="http://127.0.0.1:1/api")

    assert nothing
    assert not prefect_imported
    assert variables == {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": "http://127.0.0.1:1/api"}


def test_a_server_that_cannot_start_is_said_with_its_log(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = int(closed.getsockname()[1])
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as process:
        local = LocalPrefect(port=port, process=process, log_path=tmp_path / "server.log")

        with pytest.raises(NotConfigured, match=r"server\.log"):
            local.wait_until_ready(timeout_seconds=5)

        local.close(wait_seconds=5)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_cancels_the_work_lets_it_clean_up_and_raises_stopped(
    number: signal.Signals, exit_code: int
) -> None:
    before = signal.getsignal(number)
    seen: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    with pytest.raises(Stopped) as stopped:
        await until_stopped(work())

    assert seen == ["cleaned up"]
    assert stopped.value.exit_code == exit_code
    assert signal.getsignal(number) is before


async def test_a_signal_whose_exception_by_prefects_handler_is_lost_stops_the_work() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def work() -> None:
        with capture_sigterm():
            with contextlib.suppress(TerminationSignal):
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Stopped) as stopped:
        await until_stopped(work())

    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


async def test_asyncio_logs_no_stack_trace_of_the_exception_of_prefects_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        with capture_sigterm():
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Stopped):
        await until_stopped(work())

    assert [record.name for record in caplog.records if record.name == "asyncio"] == []
    assert asyncio.get_running_loop().get_exception_handler() is None


async def test_another_error_in_a_callback_is_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(0)

    await until_stopped(work())

    assert "no number" in caplog.text


async def test_a_signal_is_for_the_innermost_work_alone() -> None:
    outer: list[signal.Signals] = []
    inner: list[signal.Signals] = []
    stopped = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        inner.append(number)
        stopped.set()

    with stop_signals(outer.append):
        with stop_signals(stop):
            os.kill(os.getpid(), signal.SIGTERM)
            await stopped.wait()
            await asyncio.sleep(0)  # the loop's own notice comes in the same turn as the handler's

        assert (outer, inner) == ([], [signal.SIGTERM])


async def test_work_that_ends_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await until_stopped(work()) == 7


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    waiting = asyncio.Event()

    async def work() -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(until_stopped(work()))
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_run_shows_its_ui_ends_cleanly_and_leaves_complete_records(tmp_path: Path) -> None:
    process = start(tmp_path, "100", "0.1")

    out, err = process.communicate(timeout=200)

    assert process.returncode == 0, err
    assert "page b'<!DOCTYPE html>'" in out
    assert re.search(r"View at http://127\.0\.0\.1:\d+/v2/runs/flow-run/", err)
    assert "Traceback" not in err
    assert "Task run" not in err
    assert recorded(tmp_path, "select state_type, count(*) from task_run group by 1") == [("COMPLETED", 100)]
    assert recorded(tmp_path, "select count(*) from task_run_state") == [(300,)]
    assert servers_of(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_the_run_cancelled_and_without_a_trace(tmp_path: Path, number: signal.Signals, said: str) -> None:
    process = start(tmp_path, "50", "60")
    lines_until_body(process)

    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=200)  # left to itself the engine tries again for longer
    wait_until_no_server(tmp_path)

    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert "Crash" not in err
    assert recorded(
        tmp_path, "select r.state_type, s.message from flow_run r join flow_run_state s on s.id = r.state_id"
    ) == [("CANCELLED", f"stopped by {said}")]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_database_of_a_newer_prefect_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('f00000000000')")
        database.commit()

    table = "id,prompt,model\ncat,A cat,minimax/video-01-director\n"
    done = subprocess.run(
        [sys.executable, "-m", "prefect_together", "generate", table, "--sandbox"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 2
    assert "a newer Prefect has written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_server_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    process = start(tmp_path, "20", "60")
    (url,) = [line.split()[1] for line in lines_until_body(process) if line.startswith("ui ")]
    assert urllib.request.urlopen(f"{url}/api/health", timeout=60).status == 200  # noqa: S310  our own server

    process.kill()
    process.communicate(timeout=100)

    wait_until_no_server(tmp_path)
