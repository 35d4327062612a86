"""Starts a Prefect worker, and stops it in good order: its runs first, which then put the ledger right.

    python deployments/worker.py --pool together-video [options of `prefect worker start`]

Prefect's own (3.8.8) kills its runs when it is stopped: in Prefect they stay Running, and the ledger takes two minutes
to see that they are gone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

import psutil

STOP_SECONDS = 45.0
"""Less than the minute that systemd and compose wait before they kill."""


def stop_runs(worker: psutil.Process, *, seconds: float) -> None:
    """SIGTERM each run of the worker once, also those that it starts meanwhile, and wait until none is left."""
    deadline = time.monotonic() + seconds
    asked: set[psutil.Process] = set()
    try:
        while (runs := worker.children()) and time.monotonic() < deadline:
            for run in set(runs) - asked:
                asked.add(run)
                with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                    run.terminate()
            psutil.wait_procs(runs, timeout=0.2)
    except psutil.NoSuchProcess:
        return


def main() -> int:
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped:
            return
        stopped.append(number)
        print("ending the runs, then the worker", flush=True)
        try:
            stop_runs(psutil.Process(worker.pid), seconds=STOP_SECONDS)
        except psutil.NoSuchProcess:
            return
        worker.terminate()

    # Before it starts: a child has default signals in their place, and a worker that ignores SIGINT never stops.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    words = [sys.executable, "-m", "prefect", "worker", "start", *sys.argv[1:]]
    worker = subprocess.Popen(words, start_new_session=True)  # a terminal's Ctrl-C reaches this process alone
    code = worker.wait()
    return 0 if stopped else code


if __name__ == "__main__":
    sys.exit(main())
