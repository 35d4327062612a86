"""A whole run against a service whose answers are odd: what is paid is settled, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_server import PrefectServer
from prefect_together.request.form import Limits
from table_of_prompts import Harness, opened_harness, prompts


@pytest.mark.slow
def test_a_clip_without_a_link_is_settled_with_its_own_reason_and_fetched_by_a_later_run(harness: Harness) -> None:
    harness.api.fault("no-url", endpoint="retrieve", count=None)

    first = harness.run(prompts("A cat"), limits=Limits(max_wait_minutes=0.02))
    [row] = first.rows
    harness.api.clear_faults()
    second = harness.run(prompts("A cat"))

    assert float(row["cost_usd"]) > 0
    assert f"no link: ask Together with job id {row['job_id']}" in row["error"]
    assert second.statuses == ["downloaded"]
    assert harness.api.accepted() == 1


def test_a_cost_that_cannot_be_one_ends_no_run(harness: Harness) -> None:
    harness.api.fault("cost-huge", endpoint="retrieve", count=None)

    ended = harness.run(prompts("A cat", "A dog"), budget_usd=2.0)

    assert ended.statuses == ["downloaded"] * 2
    assert [row["cost_usd"] for row in ended.rows] == ["", ""]


def test_a_run_at_a_sandbox_by_its_address_says_that_nothing_is_billed(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_harness(prefect_server, tmp_path / "out", monkeypatch, is_marked=True) as harness:
        ended = harness.run(prompts("A cat"))

    assert "sandbox: nothing is billed" in ended.state.message


def test_a_clip_above_the_limit_is_fetched_with_a_larger_limit_and_not_paid_again(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_harness(prefect_server, tmp_path / "out", monkeypatch, clip_bytes=3_000_000) as harness:
        ended = harness.run(prompts("A cat"), limits=Limits(max_clip_megabytes=2))
        again = harness.run(prompts("A cat"), limits=Limits(max_clip_megabytes=4))

        assert harness.api.accepted("A cat") == 1
    assert "the limit is 2,000,000: raise max_clip_megabytes" in ended.state.message
    assert again.statuses == ["downloaded"]
