"""(f) The engine's own floor: three empty awaited Prefect tasks a row, all rows at once.

With the options of ours, the cheapest that the engine has; `plain` as third argument takes Prefect's defaults.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from stopwatch import body, read_prompts


async def nothing(row: str) -> None:
    """Nothing."""


IS_PLAIN = sys.argv[3:] == ["plain"]
if IS_PLAIN:
    empty = task(nothing)
else:
    empty = task(task_run_name="{row}", cache_policy=NO_CACHE, retries=0, persist_result=False)(nothing)


@flow
async def generate() -> None:
    async def three(row: str) -> None:
        await empty(row)
        await empty(row)
        await empty(row)

    if not IS_PLAIN:
        logging.getLogger("prefect.task_runs").setLevel(logging.WARNING)
    with body():
        await asyncio.gather(*(three(row["id"]) for row in read_prompts()))


asyncio.run(generate())
