"""Ours: the flow of flows/generate_videos.py with ledger, results, page and checks; all rows at once.

The third argument, if given, bounds the jobs in flight.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from stopwatch import body, output_directory

from prefect_together.cli.local_prefect import raised_gc_thresholds
from prefect_together.flows import Limits, generate_videos
from prefect_together.prefect_internals import shell_console, shorten_task_lines


@flow(name="generate-videos", persist_result=False)
async def generate(prompts: str, output_dir: str, max_in_flight: int) -> State[Any]:
    shell_console()  # as `prefect-together generate` does, like the garbage collector's thresholds
    shorten_task_lines()
    with raised_gc_thresholds(), body():
        return await generate_videos.fn(prompts, output_dir=output_dir, limits=Limits(max_in_flight=max_in_flight))


asyncio.run(generate(sys.argv[1], str(output_directory()), int(sys.argv[3]) if len(sys.argv) > 3 else 2000))
