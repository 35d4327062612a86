"""The size of a still that is to be a video's first frame: the video's own shape, within what image models take."""

from __future__ import annotations

import math
import re

from prefect_together.request.request import VideoRequest
from prefect_together.stills.models import image_models
from prefect_together.stills.request import LONGEST_SIDE, SHORTEST_SIDE, SIDE_STEP, StillRequest

USUAL_PIXELS = 1280 * 720
"""Where a video names only a shape."""
USUAL_RATIO = (16, 9)

_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")


def still_size(video: VideoRequest, model: str) -> tuple[int, int]:
    """Width and height in pixels of a still by image model `model` for `video`.

    Those of the video, scaled into the limits with its shape kept; else its ratio ("9:16"); else 16:9.
    """
    if video.width and video.height:
        wide, high, pixels = video.width, video.height, video.width * video.height
    else:
        ratio = _RATIO.fullmatch(video.ratio or "")
        sides = (int(ratio[1]), int(ratio[2])) if ratio else USUAL_RATIO
        wide, high = sides if all(sides) else USUAL_RATIO
        pixels = USUAL_PIXELS
    known = image_models().get(model)
    if known and known.sizes:
        return min(
            (_sides(size) for size in known.sizes),
            key=lambda size: (abs(math.log(size[0] / size[1] * high / wide)), abs(size[0] * size[1] - pixels)),
        )
    if known and known.least_pixels and known.most_pixels and not known.least_pixels <= pixels <= known.most_pixels:
        pixels = (known.least_pixels + known.most_pixels) // 2
    return _fitted(wide, high, pixels)


def size_warning(request: StillRequest, width: int, height: int) -> str | None:
    """What to say of a picture of another size than was asked for; None if it has the right one."""
    if (request.width or width, request.height or height) == (width, height):
        return None
    return f"asked for {request.width}x{request.height}, {request.model} made {width}x{height}: taken as it is"


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _fitted(wide: int, high: int, pixels: int) -> tuple[int, int]:
    """A size of about so many pixels in the shape `wide` to `high`, as far as the limits allow it."""
    scale = math.sqrt(pixels / (wide * high))
    scale = max(scale, SHORTEST_SIDE / min(wide, high))
    scale = min(scale, LONGEST_SIDE / max(wide, high))
    return _side(wide * scale), _side(high * scale)


def _side(pixels: float) -> int:
    return min(max(round(pixels / SIDE_STEP) * SIDE_STEP, SHORTEST_SIDE), LONGEST_SIDE)
