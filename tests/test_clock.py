"""What the headers of an answer say about waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_clock import START_UNIX_SECONDS
from prefect_together.clock import MAX_RETRY_AFTER_SECONDS, retry_after_seconds

NOW = START_UNIX_SECONDS


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-reset": "2"}, 2.0),
        ({"X-RateLimit-Reset": " 0.35 "}, 0.35),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "3", "x-ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-reset": f"{NOW + 12:.0f}"}, 12.0),
        ({"x-ratelimit-reset": f"{(NOW + 12) * 1000:.0f}"}, 12.0),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True)}, 30.0),
        ({"x-ratelimit-reset": "-4"}, 0.0),
        ({"x-ratelimit-reset": f"{NOW - 60:.0f}"}, 0.0),
        ({"x-ratelimit-reset": "86400"}, 300.0),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "nan", "retry-after": "inf"}, None),
        ({"x-ratelimit-reset": "soon", "retry-after": "4"}, 4.0),
        ({"x-ratelimit-reset": ""}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
    ],
)
def test_the_wait_that_an_answer_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now_unix_seconds=NOW) == (None if seconds is None else pytest.approx(seconds))


def test_a_date_is_compared_with_the_service_s_own_clock() -> None:
    headers = {"Date": "Tue, 10 Nov 2026 10:00:00 GMT", "Retry-After": "Tue, 10 Nov 2026 10:00:25 GMT"}

    assert retry_after_seconds(headers, now_unix_seconds=0.0) == 25.0


NUMBERS = st.one_of(st.integers(0, 99), st.integers()).map(str)
DATES = st.builds("{} {} {} {}:{}:{} {}".format, NUMBERS, st.just("Jan"), *[NUMBERS] * 4, NUMBERS | st.just("GMT"))
HEADERS = st.text(max_size=40) | NUMBERS | DATES


@given(HEADERS, HEADERS)
def test_no_header_asks_for_a_wait_that_is_none(header: str, date: str) -> None:
    seconds = retry_after_seconds({"Date": date, "Retry-After": header, "x-ratelimit-reset": header})

    assert seconds is None or 0.0 <= seconds <= MAX_RETRY_AFTER_SECONDS
