"""When a run stops sending, and when it does not: each reason by itself."""

from __future__ import annotations

import pytest

from prefect_together.errors import (
    AccountBlocked,
    CanaryFailed,
    RateLimited,
    ServiceStuck,
    ServiceUnreachable,
    TogetherVideoError,
    UnforeseenErrors,
    WrongAddress,
)
from prefect_together.execution.circuit_breaker import (
    LEAST_TIMED_OUT,
    UNFORESEEN_ERRORS,
    UNREACHED_ROWS,
    CircuitBreaker,
)


@pytest.mark.parametrize("error", [AccountBlocked(402, None, "no credits"), WrongAddress(404, "", "http://x")])
def test_a_blocked_account_and_a_wrong_address_stop_everything_and_the_first_reason_stays(
    error: TogetherVideoError,
) -> None:
    breaker = CircuitBreaker()

    breaker.refused(error)
    breaker.refused(AccountBlocked(401, None, "later"))

    assert breaker.refusal("any/model") is breaker.reason is error
    with pytest.raises(type(error)):
        breaker.check()


def test_a_refusal_for_rate_stops_nothing() -> None:
    breaker = CircuitBreaker()

    breaker.refused(RateLimited(429, None, "later"))

    assert breaker.refusal("any/model") is None
    breaker.check()


def test_a_failed_canary_stops_its_model_only() -> None:
    breaker, error = CircuitBreaker(), CanaryFailed("model/one", "r1", "moderated")

    breaker.canary_failed(error)

    assert breaker.refusal("model/one") is error
    assert breaker.refusal("model/two") is None
    assert list(breaker.stopped_models) == ["model/one"]
    breaker.check()


@pytest.mark.parametrize(("max_in_flight", "enough"), [(1, LEAST_TIMED_OUT), (20, 20)])
def test_as_many_late_jobs_in_a_row_as_may_be_in_flight_mean_that_the_service_is_stuck(
    max_in_flight: int, enough: int
) -> None:
    breaker = CircuitBreaker(max_in_flight=max_in_flight)

    for _ in range(enough - 1):
        breaker.job_timed_out()
    breaker.job_ended()
    for _ in range(enough - 1):
        breaker.job_timed_out()
    before = breaker.reason
    breaker.job_timed_out()

    assert before is None
    assert isinstance(breaker.reason, ServiceStuck)


def test_a_service_that_was_never_reached_is_unreachable_until_it_is_reached() -> None:
    breaker = CircuitBreaker()

    for _ in range(UNREACHED_ROWS):
        breaker.not_reached("no route", may_be_reached=False)
    stopped = breaker.reason
    breaker.reached()
    for _ in range(UNREACHED_ROWS):
        breaker.not_reached("no route", may_be_reached=False)

    assert isinstance(stopped, ServiceUnreachable)
    assert breaker.reason is None


def test_a_service_that_may_be_reached_is_tried_for_every_row() -> None:
    breaker = CircuitBreaker()

    for _ in range(2 * UNREACHED_ROWS):
        breaker.not_reached("no route", may_be_reached=True)

    assert breaker.reason is None


def test_paid_rows_that_break_off_in_a_row_stop_the_run_and_a_downloaded_one_between_does_not() -> None:
    breaker = CircuitBreaker()

    for _ in range(UNFORESEEN_ERRORS - 1):
        breaker.paid_row_broke_off()
    breaker.row_downloaded()
    for _ in range(UNFORESEEN_ERRORS - 1):
        breaker.paid_row_broke_off()
    before = breaker.reason
    breaker.paid_row_broke_off()

    assert before is None
    assert isinstance(breaker.reason, UnforeseenErrors)
