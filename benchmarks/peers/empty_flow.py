"""A script with an empty flow: what Prefect itself takes to start and end. Prints when its body began (unix time)."""

from __future__ import annotations

import asyncio
import time

from prefect import flow


@flow
async def nothing() -> None:
    print(f"BEGAN {time.time()}", flush=True)


asyncio.run(nothing())
