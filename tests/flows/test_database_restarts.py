"""A whole run over a ledger in PostgreSQL whose server goes away in the middle: nothing is lost or paid twice."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from database_proxy import Proxy, proxy_in_a_thread
from postgres_server import throw_away_database
from table_of_prompts import Desk, prompts

ROWS = 12


def away_in_the_middle(desk: Desk, proxy: Proxy, loop: asyncio.AbstractEventLoop, seconds: float) -> threading.Thread:
    """Cuts the database off once a third of the rows is accepted, for so long."""

    def cut() -> None:
        while desk.api.accepted() < ROWS // 3:
            time.sleep(0.02)
        loop.call_soon_threadsafe(proxy.cut)
        time.sleep(seconds)
        loop.call_soon_threadsafe(proxy.restore)

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


@pytest.mark.postgres
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [6.0, 31.0])
def test_a_run_outlasts_a_database_that_is_restarted(
    desk: Desk, request: pytest.FixtureRequest, seconds: float
) -> None:
    url = throw_away_database(request)
    port = int(url.rpartition(":")[2].partition("/")[0])
    table = prompts(*(f"A boat, take {number}" for number in range(ROWS)))
    with proxy_in_a_thread(port) as (proxy, loop):
        cutting = away_in_the_middle(desk, proxy, loop, seconds)
        ended = desk.run(table, ledger=url.replace(f":{port}/", f":{proxy.port}/"), max_in_flight=3)
        cutting.join()

    # A create call whose intent was durable when its answer could not be written is waited for, never sent again.
    assert ended.statuses == ["downloaded"] * ROWS, ended.state.message
    assert desk.api.accepted() == ROWS
    assert not (desk.output_dir / "unsaved-jobs.jsonl").exists()
