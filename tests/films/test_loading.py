"""PyAV is loaded when it is first needed, which may be in two threads at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

TWO_THREADS = """
import importlib
import sys
import threading
import time

first, second = sys.argv[1:]
blocking_on = importlib._bootstrap._blocking_on
errors = []


def load(module):
    try:
        importlib.import_module(module)
    except Exception as error:
        errors.append(repr(error))


def meet(event, details):
    "While the first thread is within PyAV, let the second come to where it must wait for it."
    if event == "import" and details[0].startswith("av.") and other.ident is None:
        other.start()
        while other.is_alive() and not blocking_on.get(other.ident):
            time.sleep(0.001)


other = threading.Thread(target=load, args=[second])
sys.addaudithook(meet)
load(first)
other.join()
print(errors)
"""


@pytest.mark.parametrize("second", ["films.frames", "films.join", "results.recovery", "clips.inspection"])
def test_a_thread_may_load_pyav_while_another_does(second: str) -> None:
    modules = ("prefect_together.clips.inspection", f"prefect_together.{second}")
    ended = subprocess.run(
        [sys.executable, "-c", TWO_THREADS, *modules], capture_output=True, text=True, check=True, timeout=60
    )

    assert ended.stdout == "[]\n"
