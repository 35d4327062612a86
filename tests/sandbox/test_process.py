"""The sandbox as a child process: it starts, is scripted from outside, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from prefect_together.sandbox import SandboxFailed, SandboxProcess

MODEL = "minimax/video-01-director"
KEY = {"authorization": "Bearer key"}
LEAN = ("--clip", "tiny", "--generation-seconds", "0")


def post(base_url: str, prompt: str = "a lighthouse") -> httpx.Response:
    return httpx.post(f"{base_url}/v2/videos", json={"model": MODEL, "prompt": prompt}, headers=KEY)


def wait_until_gone(pid: int, *, seconds: float = 10) -> bool:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


async def test_a_child_serves_until_the_context_ends() -> None:
    async with SandboxProcess(arguments=LEAN) as sandbox:
        pid = sandbox.pid
        answer = post(sandbox.base_url)

    assert answer.status_code == 200
    assert pid is not None
    assert wait_until_gone(pid)
    with pytest.raises(httpx.ConnectError):
        post(sandbox.base_url)


def test_a_child_is_scripted_and_read_over_http() -> None:
    with SandboxProcess(arguments=LEAN) as sandbox:
        control = sandbox.control
        control.script("failed", code="InvalidParameter")
        control.fault("500", endpoint="create", count=1, prompt="storm")
        codes = [post(sandbox.base_url, prompt).status_code for prompt in ("storm", "storm", "calm")]
        control.clear_faults()
        control.expire_links()
        stats = control.stats()

        assert codes == [500, 200, 200]
        assert stats["requests"]["create"] == {"200": 2, "500": 1}
        assert stats["faults_met"] == {"create:500": 1}
        assert sorted(job["status"] for job in control.jobs()) == ["completed", "failed"]
        assert [request["body"]["prompt"] for request in control.requests()] == ["storm", "storm", "calm"]
        with pytest.raises(ValueError, match="no fault"):
            control.fault("fire")


def test_jobs_and_clips_are_found_again_after_a_kill(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with SandboxProcess(state_dir=state, arguments=LEAN) as first:
        job_id = post(first.base_url).json()["id"]
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)

    with SandboxProcess(state_dir=state, arguments=LEAN) as second:
        job = httpx.get(f"{second.base_url}/v2/videos/{job_id}", headers=KEY).json()
        clip = httpx.get(job["outputs"]["video_url"], follow_redirects=True)

    assert (job["status"], clip.status_code) == ("completed", 200)


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path, way: signal.Signals) -> None:
    program = (
        "import time\n"
        "from prefect_together.sandbox import SandboxProcess\n"
        "sandbox = SandboxProcess().start()\n"
        "print(sandbox.pid, sandbox.base_url, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid, base_url = parent.stdout.readline().split()
        post(base_url)
        family = [int(pid), *(child.pid for child in psutil.Process(int(pid)).children())]
        parent.send_signal(way)

    assert all(wait_until_gone(member) for member in family)
    assert list(tmp_path.glob("together-sandbox-*")) == []


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, way: signal.Signals) -> None:
    command = [sys.executable, "-m", "prefect_together.sandbox", *LEAN]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        process.send_signal(way)
        rest, said = process.stdout.read(), process.stderr.read()

    assert ready.startswith("sandbox ready on http://127.0.0.1:")
    assert (process.returncode, rest, said) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_it_listens_on_the_loopback_only() -> None:
    with SandboxProcess(arguments=LEAN) as sandbox:
        assert sandbox.pid is not None
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(sandbox.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]

    assert listening == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--generation-seconds", "soon"), "generation time"),
        (("--generation-seconds", "lognormal:0:1"), "positive"),
        (("--fault", "fire=0.1"), "no fault 'fire'"),
        (("--fault", "429=2"), "not between 0 and 1"),
        (("--shape", "round"), "invalid choice"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SandboxFailed, match=words):
        SandboxProcess(arguments=arguments).start()


def test_a_taken_port_is_named() -> None:
    with SandboxProcess(arguments=LEAN) as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])

        with pytest.raises(SandboxFailed, match="in use"):
            SandboxProcess(port=port).start()


def test_it_starts_without_importing_the_engine() -> None:
    check = (
        "import sys, prefect_together.sandbox.__main__, prefect_together.sandbox.app; print('prefect' in sys.modules)"
    )
    imported = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert imported.stdout.strip() == "False"
