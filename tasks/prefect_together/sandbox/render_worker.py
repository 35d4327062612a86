"""A process that renders clips: one JSON order a line on stdin, one JSON answer a line on stdout, low priority.

Started by `studio` as `python -m prefect_together.sandbox.render_worker`. It ends when its stdin does, that is with
the sandbox, however that ended.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import av.error

from prefect_together.sandbox.drawing import draw_clip
from prefect_together.sandbox.encoding import encode_clip
from prefect_together.sandbox.jobs import ClipPlan

NICENESS = 10


def render(order: dict[str, Any]) -> str | None:
    """Render one clip to `order["path"]`, whole or not at all. Returns what went wrong, if anything."""
    path = Path(order["path"])
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    plan = ClipPlan(**order["plan"])
    try:
        planes = draw_clip(plan, prompt=order["prompt"], model=order["model"], keyframe=order.get("keyframe"))
        encode_clip(partial, plan, planes)
        partial.replace(path)
    except (OSError, ValueError, MemoryError, av.error.FFmpegError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    for line in sys.stdin:
        order = json.loads(line)
        problem = render(order)
        print(json.dumps({"id": order["id"], "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
