"""The flows: what Prefect calls, serves, deploys and loads again in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect_together.flows import functions
from prefect_together.prefect_internals import VideoFlow

P = ParamSpec("P")
R = TypeVar("R")


def _flow(function: Callable[P, R], name: str) -> VideoFlow[P, R]:
    made = VideoFlow(function, name=name, persist_result=False)
    made.__module__ = __name__  # where Prefect finds the flow; under the function's own module is the function
    return made


generate_videos = _flow(functions.generate_videos, "generate-videos")
generate_video = _flow(functions.generate_video, "generate-video")
collect_videos = _flow(functions.collect_videos, "collect-videos")
plan_videos = _flow(functions.plan_videos, "plan-videos")
generate_videos_shard = _flow(functions.generate_videos_shard, "generate-videos-shard")
