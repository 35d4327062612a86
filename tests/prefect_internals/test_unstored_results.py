"""Results that are never stored: no place is looked up for them, and all else of a task run is as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from prefect_together.prefect_internals import results_not_stored
from table_of_prompts import Desk


@task(cache_policy=NO_CACHE, persist_result=False)
async def seven() -> int:
    return 7


async def place_of_a_result() -> tuple[int, str]:
    state = cast("State[int]", await cast("Any", seven(return_state=True)))
    record: Any = state.data
    return record.result, record.metadata.storage_key


def test_within_it_a_result_has_a_key_and_no_path_and_after_it_a_path_again(desk: Desk) -> None:
    @flow(persist_result=False)
    async def own() -> list[tuple[int, str]]:
        with results_not_stored():
            within = await place_of_a_result()
        return [within, await place_of_a_result()]

    (within, within_key), (after, after_key) = desk.prefect.run(own)

    assert (within, after) == (7, 7)
    assert "/" not in within_key
    assert Path(after_key).is_absolute()


async def test_outside_of_a_flow_nothing_changes() -> None:
    with results_not_stored():
        assert await seven.fn() == 7
