"""The Prefect flows, and what they show and ask in Prefect's UI. Uses everything below.

    from prefect_together.flows import generate_videos

In an `async def` flow of your own, a notebook or a program: `outcome = await generate_videos("prompts.csv", ...)` gives
a RunOutcome, and raises RowsFailed if rows failed. `generate_videos.serve(name=...)` and `.deploy(...)` work too. The
functions and their options are in `functions`, the flows made of them in `entrypoints`.

    outcome = await generate_videos("prompts.csv", limits=Limits(max_in_flight=8))

Options beyond the first are in cards, each a pydantic model or a dict: `parameters`, `limits`, `locations`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_together.flows.entrypoints import (
        collect_videos,
        generate_video,
        generate_videos,
        generate_videos_shard,
        plan_videos,
    )
    from prefect_together.request.form import (
        CollectLimits,
        CollectLocations,
        Images,
        Limits,
        Locations,
        PlanLimits,
        PlanLocations,
        VideoLimits,
        VideoLocations,
        VideoParameters,
    )

_FLOWS = ("collect_videos", "generate_video", "generate_videos", "generate_videos_shard", "plan_videos")

__all__ = [
    "CollectLimits",
    "CollectLocations",
    "Images",
    "Limits",
    "Locations",
    "PlanLimits",
    "PlanLocations",
    "VideoLimits",
    "VideoLocations",
    "VideoParameters",
    "collect_videos",
    "generate_video",
    "generate_videos",
    "generate_videos_shard",
    "plan_videos",
]


def __getattr__(name: str) -> object:
    """Imports Prefect when a flow is first asked for: the command line is parsed without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "flows.entrypoints" if name in _FLOWS else "request.form"
    return getattr(import_module(f"prefect_together.{home}"), name)
