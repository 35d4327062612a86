"""Keeps Python's garbage collector from looking through the whole program again and again: at its start, in its run."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

THRESHOLDS = (20_000, 5, 5)
"""New objects before the youngest are looked at, and how many such looks before the older ones are. Python's own are
700 (2,000 since 3.13), 10 and 10. What is not part of a cycle is freed at once in any case."""

_thresholds_before: list[tuple[int, int, int]] = []
"""One entry for each run that goes on in this process."""


def collect_seldom() -> None:
    """For a program of ours, first thing: what imports make stays for good, and is looked at less often meanwhile.

    Looked at in the usual way, it costs a fifth of the time to the first row (measured on Python 3.11).
    """
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def seldom_collected() -> Generator[None]:
    """Around a run of many rows: what is there already (the engine's modules above all) is not looked at again, and
    new objects are looked at less often. All is as before when the last of this process's runs has ended.

    A row makes thousands of objects; looked for in the usual way, the garbage among them costs a quarter of a run's
    processor time (measured on Python 3.11, see benchmarks/README.md).
    """
    _thresholds_before.append(_thresholds_before[0] if _thresholds_before else gc.get_threshold())
    if len(_thresholds_before) == 1:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        before = _thresholds_before.pop()
        if not _thresholds_before:
            gc.set_threshold(*before)
            gc.unfreeze()
