"""Rows that the service does not take yet hold up no other row's polls and downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_server import PrefectServer
from prefect_together.request.form import Limits
from table_of_prompts import opened_harness, prompts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 40
CREATES_PER_SECOND = 4.0
UNDER_WAY = 6
"""Rows that may be between their create call and their download when the last row is taken."""


def test_while_most_creates_are_refused_what_is_done_is_downloaded_at_once(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = prompts(*(f"A paper boat, take {row}" for row in range(ROWS)))
    with opened_harness(
        prefect_server, tmp_path / "out", monkeypatch, creates_per_second=CREATES_PER_SECOND
    ) as harness:
        ended = harness.run(table, limits=Limits(max_in_flight=ROWS))
        made = harness.api.requests

    assert ended.statuses == ["downloaded"] * ROWS
    creates = [number for number, one in enumerate(made) if one.endpoint == "create"]
    assert len(creates) > ROWS, "the service refused some"
    downloads = [number for number, one in enumerate(made) if one.endpoint == "download"]
    assert sum(number < creates[-1] for number in downloads) >= ROWS - UNDER_WAY
