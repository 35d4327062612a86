"""Kills this process as it enters or leaves a function, without touching the function: by Python's profile hook."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

KILL_AT = "TESTS_KILL_AT"
"""Environment variable: `enter` or `leave`, the end of a path, names of functions (a|b), and the how-manieth time."""


def arm() -> None:
    """Do what the environment says, if it does."""
    if not (words := os.environ.get(KILL_AT)):
        return
    moment, file, function, times = words.split()
    event, remaining = {"enter": "call", "leave": "return"}[moment], [int(times)]

    def look(frame: FrameType, happened: str, _argument: object) -> None:
        if happened != event or frame.f_code.co_name not in function.split("|"):
            return
        if frame.f_code.co_filename.endswith(file):
            remaining[0] -= 1
            if remaining[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(look)
    sys.setprofile(look)
