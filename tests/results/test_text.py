"""How dollars, durations and counts are said."""

from __future__ import annotations

import pytest

from prefect_together.ledger.states import Status
from prefect_together.results.text import dollars, duration, reserved, state_counts


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0.00"),
        (0.28, "$0.28"),
        (0.01, "$0.01"),
        (0.0042, "$0.0042"),
        (0.00004, "$0.0000"),
        (1234.5, "$1,234.50"),
        (0.285, "$0.28"),
    ],
)
def test_dollars(usd: float, text: str) -> None:
    assert dollars(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_name_the_statuses_that_occur_the_most_finished_first() -> None:
    counts: dict[Status, int] = {"refused": 1, "planned": 0, "in_doubt": 2, "failed": 3, "downloaded": 1200}

    assert state_counts(counts) == "1,200 downloaded, 3 failed, 2 in doubt, 1 refused"


@pytest.mark.parametrize("counts", [{}, {"downloaded": 0}])
def test_no_counts_are_nothing_to_do(counts: dict[Status, int]) -> None:
    assert state_counts(counts) == "nothing to do"


@pytest.mark.parametrize(
    ("in_doubt_usd", "failed_usd", "text"),
    [
        (0.0, 0.0, ""),
        (0.0, 3.2, "$3.20 held for failed jobs without a reported cost"),
        (0.28, 3.2, "$0.28 held for requests in doubt and $3.20 held for failed jobs without a reported cost"),
    ],
)
def test_dollars_that_a_budget_counts_and_nobody_may_charge_are_named(
    in_doubt_usd: float, failed_usd: float, text: str
) -> None:
    assert reserved(in_doubt_usd, failed_usd) == text
