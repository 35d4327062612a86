"""The garbage collector during a run: less often, and as before in the end."""

from __future__ import annotations

import gc
import weakref

import pytest

from prefect_together.cli.local_prefect import THRESHOLDS, raise_gc_thresholds, raised_gc_thresholds


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def test_the_collector_is_as_before_after_the_run() -> None:
    before = gc.get_threshold()

    with raised_gc_thresholds():
        during = gc.get_threshold()

    assert (during, gc.get_threshold()) == (THRESHOLDS, before)
    assert gc.get_freeze_count() == 0


def test_a_run_that_fails_leaves_the_collector_as_before() -> None:
    before = gc.get_threshold()

    with pytest.raises(RuntimeError), raised_gc_thresholds():
        raise RuntimeError

    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_garbage_made_during_the_run_is_still_found() -> None:
    with raised_gc_thresholds():
        seen = weakref.ref(Cycle())
        cycles = [Cycle() for _ in range(THRESHOLDS[0] + 1000)]

    assert cycles
    assert seen() is None


def test_a_program_that_collects_seldom_from_its_start_still_does_after_a_run() -> None:
    before = gc.get_threshold()
    try:
        raise_gc_thresholds()
        with raised_gc_thresholds():
            pass
        after = gc.get_threshold()
    finally:
        gc.set_threshold(*before)

    assert after == THRESHOLDS
