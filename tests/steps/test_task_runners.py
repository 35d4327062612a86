"""The three tasks under each of Prefect's task runners, which hand them to threads and to other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from prefect_server import PrefectServer
from prefect_together.sandbox import SandboxProcess
from prefect_together.steps.tasks import create_video, download_video, wait_for_video

SUBMITS = """
import sys
from pathlib import Path
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect_together import VideoRequest, create_video, download_video, wait_for_video

def task_runner(name):
    if name == "threads":
        return ThreadPoolTaskRunner()
    if name == "processes":
        return ProcessPoolTaskRunner(max_workers=1)
    from prefect_dask import DaskTaskRunner
    return DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None})

@flow(persist_result=False)
def submits(target: Path):
    job = create_video.submit(VideoRequest(model="minimax/video-01-director", prompt="A paper boat in the rain"))
    done = wait_for_video.submit(job)
    return download_video.submit(done, target).result()

if __name__ == "__main__":
    clip = submits.with_options(task_runner=task_runner(sys.argv[1]))(Path(sys.argv[2]))
    print(clip.path, clip.media.width)
"""


@pytest.mark.parametrize("task", [create_video, wait_for_video, download_video], ids=lambda task: task.name)
def test_a_task_is_the_same_after_pickling(task: Any) -> None:
    again = cloudpickle.loads(cloudpickle.dumps(task))  # pyright: ignore[reportUnknownMemberType]

    assert (again.name, again.retries, again.fn.__name__) == (task.name, task.retries, task.fn.__name__)


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_a_plain_flow_makes_a_clip_by_submitting_the_tasks(
    runner: str, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    script, target = tmp_path / "submits.py", tmp_path / "boat.mp4"
    script.write_text(SUBMITS)
    with SandboxProcess(speed=50) as api:
        own = {"TOGETHER_API_KEY": "sandbox", "TOGETHER_BASE_URL": api.base_url}
        done = subprocess.run(
            [sys.executable, str(script), runner, str(target)],
            env={**os.environ, **own, "PREFECT_API_URL": prefect_server.api_url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        jobs = api.control.jobs()

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))
    assert target.read_bytes()[4:8] == b"ftyp"
    assert [job["status"] for job in jobs] == ["completed"]
