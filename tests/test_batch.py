"""Nothing is paid twice, nothing is lost: runs of the flow over tables, against the sandbox, one after the other."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from table_of_prompts import Desk, prompts


@pytest.fixture
def desk(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Desk]:
    with Sandbox() as api:
        monkeypatch.setenv("TOGETHER_API_KEY", "key")
        monkeypatch.setenv("TOGETHER_BASE_URL", api.base_url)
        desk = Desk(prefect_server, api, tmp_path / "out")
        desk.learn_durations()
        yield desk


def test_a_second_run_sends_nothing(desk: Desk) -> None:
    table = prompts("A cat asleep on a drum", "A harbour at dawn")
    first = desk.run(table)
    calls, downloads = desk.api_calls(), desk.api.calls("download")

    second = desk.run(table)

    assert first.statuses == second.statuses == ["downloaded", "downloaded"]
    assert (desk.api_calls(), desk.api.calls("download")) == (calls, downloads)
    assert second.state.is_completed()
