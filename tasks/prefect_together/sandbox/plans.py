"""From a request to the clip that must come of it: pixels, seconds, frames a second, container, sound. No rendering."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from prefect_together.sandbox.jobs import ClipPlan
from prefect_together.sandbox.models import ModelFacts

DEFAULT_SIZE = (1366, 768)
MAX_SIDE = 8192
MAX_SECONDS = 120.0
MAX_FPS = 120

_NAMED_LINES = {"hd": 720, "fhd": 1080, "2k": 1440, "4k": 2160}


def plan_clip(request: Mapping[str, Any], facts: ModelFacts) -> ClipPlan:
    """What the clip of `request` will be. Nonsense (0 pixels, "seconds" seconds) falls back to the model's defaults."""
    width, height = _size(request, facts)
    fps = _positive(request.get("fps"), MAX_FPS)
    seconds = _positive(request.get("seconds"), MAX_SECONDS)
    return ClipPlan(
        width=_even(width),
        height=_even(height),
        seconds=seconds or facts.seconds,
        fps=max(1, round(fps or facts.fps)),
        webm=request.get("output_format") == "WEBM",
        audio=_sound(request, facts),
    )


def resolution_size(
    resolution: str, ratio: str | None, own_sizes: Mapping[str, tuple[str, ...]]
) -> tuple[int, int] | None:
    """Pixels of `720p` and `16:9`: the model's own size nearest to that ratio, else the usual one.

    None for a resolution that nobody knows.
    """
    wanted = _ratio(ratio)
    for name, sizes in own_sizes.items():
        if name.lower() == resolution.lower():
            pixels = [(int(width), int(height)) for width, _, height in (size.partition("x") for size in sizes)]
            return min(pixels, key=lambda size: abs(math.log(size[0] / size[1] / wanted)))
    lines, unit = resolution[:-1], resolution[-1:].lower()
    short = int(lines) if unit == "p" and lines.isdecimal() else _NAMED_LINES.get(resolution.lower(), 0)
    if not 16 <= short <= MAX_SIDE // 2:
        return None
    return (_even(short * wanted), short) if wanted >= 1 else (short, _even(short / wanted))


def _ratio(text: str | None) -> float:
    """Width over height; 16:9 for none and for what is no ratio ("auto")."""
    across, _, down = (text or "").partition(":")
    if across.isdecimal() and down.isdecimal() and 0 < int(across) <= 100 and 0 < int(down) <= 100:
        return int(across) / int(down)
    return 16 / 9


def _size(request: Mapping[str, Any], facts: ModelFacts) -> tuple[float, float]:
    width, height = (_positive(request.get(side), MAX_SIDE) for side in ("width", "height"))
    if width and height:
        return width, height
    resolution, ratio = request.get("resolution") or facts.resolution, request.get("ratio")
    named = None
    if isinstance(resolution, str):
        named = resolution_size(resolution, ratio if isinstance(ratio, str) else None, facts.resolution_sizes)
    across, down = named or facts.size or DEFAULT_SIZE
    if width:
        return width, min(width * down / across, MAX_SIDE)
    if height:
        return min(height * across / down, MAX_SIDE), height
    return across, down


def _sound(request: Mapping[str, Any], facts: ModelFacts) -> bool:
    if facts.always_audio:
        return True
    settings = request.get("settings")
    if isinstance(settings, Mapping) and cast("Mapping[str, object]", settings).get("audio") is False:
        return False
    wanted = request.get("generate_audio")
    return facts.audio if wanted is None else bool(wanted)


def _positive(value: object, limit: float) -> float | None:
    """`value` as a number above 0 and at most `limit`; text is read as the wire's `seconds` is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, limit) if math.isfinite(number) and number > 0 else None


def _even(pixels: float) -> int:
    """H.264 and VP8 in 4:2:0 need even sides."""
    return max(16, 2 * round(pixels / 2))
