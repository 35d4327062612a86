"""The dollars of a whole run: who is refused for the budget, and what a row has cost."""

from __future__ import annotations

import asyncio

import pytest

from batch_harness import (
    BatchHarness,
    Service,
    done,
    gave_up,
    some,
)
from ledger_rows import a_video
from prefect_together.ledger.states import State


def test_refusals_by_the_budget_wait_for_what_the_jobs_in_flight_cost(batch_harness: BatchHarness) -> None:
    ended = batch_harness.run(some(10), Service(done(0.05)), max_in_flight=10, budget_usd=0.84)

    assert ended.states == {"downloaded": 10}
    assert ended.totals.committed_usd == pytest.approx(0.5)


def test_a_budget_that_is_used_up_refuses_the_rest_and_is_not_passed(batch_harness: BatchHarness) -> None:
    ended = batch_harness.run(some(6), service := Service(), max_in_flight=10, budget_usd=0.84)

    assert ended.states == {"downloaded": 3, "refused": 3}
    assert len(service.created) == 3
    assert ended.totals.committed_usd == pytest.approx(0.84)


def test_a_budget_of_just_what_the_table_costs_sends_all_rows_at_once(batch_harness: BatchHarness) -> None:
    """Each is answered when all are under way: a row whose call is under way counts once."""
    service, all_under_way = Service(), asyncio.Event()

    async def answer_all_together() -> None:
        if len(service.created) == 8:
            all_under_way.set()
        await all_under_way.wait()

    service.on_create = answer_all_together
    ended = batch_harness.run(some(8), service, max_in_flight=8, budget_usd=8 * 0.28)

    assert ended.states == {"downloaded": 8}


def test_what_the_budget_refuses_are_the_last_rows_of_the_table(batch_harness: BatchHarness) -> None:
    videos = some(60)

    ended = batch_harness.run(videos, Service(), max_in_flight=20, budget_usd=25 * 0.28)

    assert [ended.of(video).state for video in videos] == [State.DOWNLOADED] * 25 + [State.REFUSED] * 35


def test_a_row_that_waits_for_the_budget_is_not_overtaken_by_a_cheaper_one(batch_harness: BatchHarness) -> None:
    videos = [a_video("first", usd=0.5), a_video("dear", usd=0.6), *some(5, usd=0.1)]

    ended = batch_harness.run(videos, Service(done(0.1)), max_in_flight=5, budget_usd=1.0)

    assert ended.of(videos[1]).state == State.DOWNLOADED
    assert ended.states == {"downloaded": 7}


def test_a_row_that_alone_passes_the_budget_holds_up_no_other(batch_harness: BatchHarness) -> None:
    videos = [a_video("dear", usd=2.0), *some(3)]

    ended = batch_harness.run(videos, Service(), budget_usd=1.0)

    assert [ended.of(video).state for video in videos] == [State.REFUSED] + [State.DOWNLOADED] * 3


def test_a_charged_job_that_failed_stays_in_the_cost_of_its_row(batch_harness: BatchHarness) -> None:
    ended = batch_harness.run([video := a_video()], Service(done(0.25), {"job-1": gave_up(0.2)}))

    assert (ended.of(video).state, ended.of(video).jobs) == (State.DOWNLOADED, 2)
    assert ended.of(video).cost_usd == ended.progress.spent_usd == ended.totals.paid_usd == pytest.approx(0.45)
