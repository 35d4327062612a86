"""A Prefect server that does not answer holds up neither polls nor downloads, and has every record in the end."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from batch_run import wait_until
from prefect_together.request.form import Limits
from table_of_prompts import Harness, prompts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 40


def clips(output_dir: Path) -> int:
    return len(list((output_dir / "videos").glob("*.mp4")))


def test_while_the_server_stands_still_jobs_are_created_polled_and_downloaded(harness: Harness) -> None:
    seen: list[int] = []

    def stop_the_server_from_the_first_job_to_the_last_clip() -> None:
        wait_until(lambda: harness.api.accepted() > 0, seconds=60)
        os.kill(harness.prefect.pid, signal.SIGSTOP)
        try:
            seen.append(clips(harness.output_dir))
            wait_until(lambda: clips(harness.output_dir) == ROWS, seconds=60)
            seen.append(clips(harness.output_dir))
        finally:
            os.kill(harness.prefect.pid, signal.SIGCONT)

    watch = threading.Thread(target=stop_the_server_from_the_first_job_to_the_last_clip)
    watch.start()
    ended = harness.run(prompts(*(f"A paper boat, take {row}" for row in range(ROWS))), limits=Limits(max_in_flight=4))
    watch.join()

    before, meanwhile = seen
    assert before < ROWS
    assert meanwhile == ROWS
    assert ended.statuses == ["downloaded"] * ROWS
    runs = harness.prefect.task_runs(ended.run_id, count=3 * ROWS, seconds=60)
    assert Counter(run.state.type.value for run in runs) == {"COMPLETED": 3 * ROWS}
    assert harness.prefect.flow_run(ended.run_id).state.is_completed()
