"""A key that is no longer taken in the middle of a run: no more is sent, nothing paid is lost, a good key continues."""

from __future__ import annotations

import pytest

from prefect_together.request.form import Limits
from prefect_together.results.outcome import RowsFailed, advice
from table_of_prompts import Harness, prompts

TABLE = prompts(*(f"A boat, take {number}" for number in range(12)))


@pytest.mark.parametrize("may_collect", [True, False])
def test_a_key_revoked_in_mid_run_stops_submits_and_a_good_one_continues(harness: Harness, may_collect: bool) -> None:
    harness.api.fault("401", endpoint="create", after=4, count=None)
    if not may_collect:  # the key is refused for everything: what is at the provider is collected later
        harness.api.fault("401", endpoint="retrieve", after=2, count=None)

    ended = harness.run(TABLE, limits=Limits(max_in_flight=3))
    accepted = harness.api.accepted()

    assert accepted == 4
    assert harness.api.calls("create") <= 4 + 3
    paid = ["downloaded"] * 4 if may_collect else ["downloaded"] * 2 + ["submitted"] * 2
    assert sorted(ended.statuses) == sorted([*paid, *["refused"] * 8])
    assert isinstance(ended.result, RowsFailed)
    (said,) = advice(ended.result.outcome.rows)
    assert said.to_do.startswith("Fix the key (HTTP 401 or 403)")
    assert len(said.rows) == 12 - ended.statuses.count("downloaded")

    harness.api.clear_faults()
    again = harness.run(TABLE)

    assert again.statuses == ["downloaded"] * 12
    assert harness.api.accepted() == 12
    assert {row["attempts"] for row in again.rows} == {"1"}
