"""A whole run over a ledger in PostgreSQL whose server goes away in the middle: nothing is lost or paid twice."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from database_proxy import Proxy, proxy_in_a_thread
from postgres_server import throw_away_database
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.request.form import Limits, Locations
from table_of_prompts import Harness, prompts

ROWS = 12


def away_in_the_middle(
    harness: Harness, proxy: Proxy, loop: asyncio.AbstractEventLoop, seconds: float, *, is_for_good: bool = False
) -> threading.Thread:
    """Cuts the database off once a third of the rows is accepted, for so long or for good."""

    def cut() -> None:
        while harness.api.accepted() < ROWS // 3:
            time.sleep(0.02)
        loop.call_soon_threadsafe(proxy.cut)
        time.sleep(seconds)
        if not is_for_good:
            loop.call_soon_threadsafe(proxy.restore)

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_a_database_that_stays_away_leaves_results_with_every_paid_id_and_the_next_run_continues(
    harness: Harness, request: pytest.FixtureRequest
) -> None:
    url = throw_away_database(request)
    port = int(url.rpartition(":")[2].partition("/")[0])
    table = prompts(*(f"A boat, take {number}" for number in range(ROWS)))
    with proxy_in_a_thread(port) as (proxy, loop):
        cutting = away_in_the_middle(harness, proxy, loop, seconds=0.0, is_for_good=True)
        locations = Locations(ledger=url.replace(f":{port}/", f":{proxy.port}/"))
        ended = harness.run(table, locations=locations, limits=Limits(max_in_flight=3))
        cutting.join()

    paid = {job["id"] for job in harness.api.jobs()}
    assert isinstance(ended.result, LedgerUnavailable)
    assert f"{harness.output_dir / 'results.csv'} has each row and job id" in str(ended.result)
    assert {row["job_id"] for row in ended.rows if row["job_id"]} == paid
    for job_id in (json.loads(line)["job_id"] for line in _lines(harness.output_dir / "unsaved-jobs.jsonl")):
        assert f"job {job_id} was accepted, is paid" in str(ended.result)
    assert (harness.output_dir / "index.html").exists()

    again = harness.run(table, locations=Locations(ledger=url))

    assert again.statuses == ["downloaded"] * ROWS, again.state.message
    assert harness.api.accepted() == ROWS


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.postgres
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [6.0, 31.0])
def test_a_run_outlasts_a_database_that_is_restarted(
    harness: Harness, request: pytest.FixtureRequest, seconds: float
) -> None:
    url = throw_away_database(request)
    port = int(url.rpartition(":")[2].partition("/")[0])
    table = prompts(*(f"A boat, take {number}" for number in range(ROWS)))
    with proxy_in_a_thread(port) as (proxy, loop):
        cutting = away_in_the_middle(harness, proxy, loop, seconds)
        ended = harness.run(
            table,
            locations=Locations(ledger=url.replace(f":{port}/", f":{proxy.port}/")),
            limits=Limits(max_in_flight=3),
        )
        cutting.join()

    # A create call whose intent was durable when its answer could not be written is waited for, never sent again.
    assert ended.statuses == ["downloaded"] * ROWS, ended.state.message
    assert harness.api.accepted() == ROWS
    assert not (harness.output_dir / "unsaved-jobs.jsonl").exists()
