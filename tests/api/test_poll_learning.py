"""What a wait learns of its model's durations, and what it does not learn from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefect_together.errors import JobFailed, JobTimedOut
from virtual_wait import DONE, MISSED, VirtualWait, at


async def test_the_stamps_of_the_service_are_learned_before_the_looks() -> None:
    waiting = VirtualWait(at("queued"), replace(DONE, created_at=1000.0, completed_at=1090.0))

    job = await waiting.wait()

    assert waiting.statistics.observed == [(90.0, None)]
    assert job.generation_seconds == 90.0


async def test_without_stamps_the_looks_around_the_end_are_learned() -> None:
    waiting = VirtualWait(at("queued"), at("in_progress"), MISSED, DONE)

    job = await waiting.wait()

    _, second, _, last = waiting.asked_after
    [(seconds, earliest)] = waiting.statistics.observed
    assert (seconds, earliest) == (pytest.approx(last), pytest.approx(second))
    assert job.generation_seconds == pytest.approx(last)


async def test_of_a_job_of_less_than_a_second_the_looks_are_learned() -> None:
    waiting = VirtualWait(at("queued"), replace(DONE, created_at=1000.0, completed_at=1000.0))

    await waiting.wait()

    [(seconds, earliest)] = waiting.statistics.observed
    assert (seconds, earliest) == (pytest.approx(waiting.asked_after[1]), pytest.approx(waiting.asked_after[0]))


async def test_nothing_is_learned_from_a_job_that_ended_while_nobody_watched() -> None:
    waiting = VirtualWait(DONE)

    await waiting.wait(submitted_ago=86400.0)

    assert waiting.statistics.observed == []


async def test_nothing_is_learned_from_a_failure() -> None:
    waiting = VirtualWait(at("queued"), at("failed"))

    with pytest.raises(JobFailed):
        await waiting.wait()

    assert waiting.statistics.observed == []


async def test_the_model_that_is_known_is_looked_at_when_it_should_be_done() -> None:
    waiting = VirtualWait(at("in_progress"))
    waiting.statistics.load("m", [90.0] * 40)

    with pytest.raises(JobTimedOut):
        await waiting.wait(for_seconds=200.0)

    early = [asked for asked in waiting.asked_after if asked < 60.0]
    due = [asked for asked in waiting.asked_after if 80.0 <= asked <= 100.0]
    assert len(early) < len(due)
