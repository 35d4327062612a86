"""The moving scene above a clip's caption, chosen by its prompt's words: six kinds, as brightness; colours are apart.

The brightness of a scene of one kind and size is the same in every clip, and its colours are even within a band. So
its moving frames are encoded once, and fit every clip of that kind and size, whatever its colours and its caption.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw

BLOCK = 16
"""An H.264 macroblock: bands begin on its borders, so that no block belongs to two of them."""
LEAST_SCENE_ROWS = 6 * BLOCK
LEAST_GROUND_ROWS = 3 * BLOCK
"""Still rows between what moves and the caption: no motion vector reaches across."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A kind of scene at one size. Rows from 0: `horizon` ends the sky, `ground` the moving part, `end` the scene."""

    kind: str
    width: int
    horizon: int
    ground: int
    end: int

    def still(self) -> Image.Image:
        """What does not move, as brightness: `width` x `end`."""
        picture = Image.new("L", (self.width, self.end))
        draw = ImageDraw.Draw(picture)
        top, bottom = _SKY[self.kind]
        for row in range(self.horizon):
            draw.line((0, row, self.width, row), fill=round(top + (bottom - top) * row / max(1, self.horizon)))
        for row in range(self.horizon, self.end):
            below = _SEA - 14 * (row - self.horizon) / self.end if self.kind == "sea" else bottom
            draw.line((0, row, self.width, row), fill=round(below))
        _FURNITURE[self.kind](self, draw)
        return picture

    def land(self) -> Image.Image:
        """255 where the picture has land or water, 0 where it has sky: `width` x `end`."""
        if self.kind == "sea":
            mask = Image.new("L", (self.width, self.end), 255)
            mask.paste(0, (0, 0, self.width, self.horizon))
            return mask
        sky = round(_SKY[self.kind][1])
        mask = self.still().point([0 if value == sky else 255 for value in range(256)])
        mask.paste(0, (0, 0, self.width, self.ground))
        return mask

    def draw_movers(self, picture: Image.Image, phase: float) -> None:
        """Draw what moves, `phase` (0 to 1) of the way through its loop, onto a copy of the still picture."""
        draw = ImageDraw.Draw(picture)
        for box, brightness in _MOVERS[self.kind](self, phase):
            left, top, right, bottom = box
            draw.ellipse((left, top, max(right, left + 1), max(bottom, top + 1)), fill=brightness)


def scene_of(prompt: str, width: int, rows: int) -> Scene | None:
    """The scene for a prompt in the uppermost `rows` of a clip; None where there is no room for one."""
    end = rows // BLOCK * BLOCK
    if end < LEAST_SCENE_ROWS or width < LEAST_SCENE_ROWS:
        return None
    kind = kind_of(prompt)
    part = 0.16 if kind == "sea" else 0.34
    ground = end - max(LEAST_GROUND_ROWS, round(end * part) // BLOCK * BLOCK)
    horizon = ground * 5 // 9 // BLOCK * BLOCK if kind == "sea" else ground
    return Scene(kind, width, horizon, ground, end)


def kind_of(prompt: str) -> str:
    """The first kind of which the prompt has a word, weather first; else one by the prompt's hash."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    words |= {word.removesuffix("s") for word in words}
    for kind, names in _WORDS.items():
        if words & names:
            return kind
    kinds = ("lights", "hills", "sea", "night")
    return kinds[hashlib.sha256(prompt.encode(errors="replace")).digest()[1] % len(kinds)]


_NAMED_BY = {
    "rain": "rain rainy raining storm gutter puddle thunder umbrella wet drizzle monsoon",
    "snow": "snow snowy winter ice icy frost blizzard glacier arctic ski penguin polar",
    "night": "night star moon space galaxy neon midnight rocket planet astronaut cosmos lantern dark",
    "sea": (
        "sea ocean harbour harbor boat ship lake river water beach wave shore sail bay island fish underwater"
        " coast dolphin whale surf pier port canoe duck swan lighthouse"
    ),
    "hills": (
        "mountain hill forest tree field valley grass desert garden meadow horse cow sheep farm road car"
        " train flower canyon bird dog fox sunset sunrise dawn dusk deer lion elephant zebra giraffe park"
        " castle"
    ),
    "lights": "room lamp cat drum piano kitchen city street people dance glass book coffee candle",
}
_WORDS = {kind: frozenset(words.split()) for kind, words in _NAMED_BY.items()}
_SKY = {
    "rain": (62, 92),
    "snow": (120, 158),
    "sea": (112, 176),
    "night": (22, 58),
    "hills": (110, 182),
    "lights": (34, 66),
}
_SEA = 84


def _noise(kind: str) -> random.Random:
    return random.Random(f"scene {kind}")


def _ridge(
    scene: Scene, draw: ImageDraw.ImageDraw, *, height: float, base: float, fill: int, seed: str, rough: float
) -> None:
    """A line of hills, from edge to edge."""
    noise = random.Random(seed)
    waves = [(noise.uniform(0.6, 1.0) / n, noise.uniform(0, math.tau), n * rough) for n in (1, 2, 3.3, 5.7)]
    top = sum(amplitude for amplitude, _, _ in waves)
    points: list[tuple[float, float]] = [(0, scene.end)]
    for step in range(65):
        x = step / 64
        y = sum(amplitude * math.sin(start + math.tau * turns * x) for amplitude, start, turns in waves) / top
        points.append((x * scene.width, base - height * (0.55 + 0.45 * y)))
    draw.polygon([*points, (scene.width, scene.end)], fill=fill)


def _disc(scene: Scene, draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: int) -> None:
    size = radius * scene.ground
    draw.ellipse(
        (x * scene.width - size, y * scene.ground - size, x * scene.width + size, y * scene.ground + size), fill=fill
    )


def _hills(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    _disc(scene, draw, 0.72, 0.62, 0.14, 236)
    rows = scene.end - scene.ground
    _ridge(scene, draw, height=rows * 0.8, base=scene.ground + rows * 0.8, fill=128, seed="far", rough=1.3)
    _ridge(scene, draw, height=rows * 0.55, base=scene.ground + rows * 0.9, fill=92, seed="middle", rough=0.9)
    _ridge(scene, draw, height=rows * 0.5, base=scene.end, fill=56, seed="near", rough=1.7)


def _sea(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    size = 0.12 * scene.ground
    centre = scene.width * 0.3
    draw.pieslice((centre - size, scene.horizon - size, centre + size, scene.horizon + size), 180, 360, fill=238)
    hull, mast = scene.width * 0.68, scene.horizon - 0.26 * scene.horizon
    span = scene.horizon * 0.2
    draw.polygon(
        [
            (hull - span, scene.horizon - span * 0.35),
            (hull + span, scene.horizon - span * 0.35),
            (hull + span * 0.7, scene.horizon - 1),
            (hull - span * 0.7, scene.horizon - 1),
        ],
        fill=40,
    )
    draw.polygon(
        [(hull, mast), (hull, scene.horizon - span * 0.45), (hull + span * 0.75, scene.horizon - span * 0.45)], fill=60
    )
    _ridge(scene, draw, height=(scene.end - scene.ground) * 0.6, base=scene.end, fill=38, seed="shore", rough=0.8)


def _town(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    noise = _noise("town")
    x = 0.0
    while x < scene.width:
        wide = scene.width * noise.uniform(0.035, 0.09)
        top = scene.end - (scene.end - scene.ground) * noise.uniform(0.45, 1.0)
        draw.rectangle((x, top, x + wide, scene.end), fill=noise.choice((26, 32, 38)))
        for window in range(int(noise.uniform(0, 5))):
            left = x + wide * noise.uniform(0.15, 0.8)
            down = top + (scene.end - top) * (0.15 + 0.16 * window)
            draw.rectangle((left, down, left + scene.width * 0.004, down + scene.width * 0.006), fill=190)
        x += wide


def _night(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    _disc(scene, draw, 0.78, 0.3, 0.11, 232)
    _disc(scene, draw, 0.755, 0.275, 0.095, round(22 + 36 * 0.3))
    _town(scene, draw)


def _snow(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    rows = scene.end - scene.ground
    _ridge(scene, draw, height=rows * 0.9, base=scene.ground + rows * 0.9, fill=184, seed="alps", rough=1.9)
    _ridge(scene, draw, height=rows * 0.5, base=scene.end, fill=222, seed="drift", rough=0.8)


def _lights(scene: Scene, draw: ImageDraw.ImageDraw) -> None:
    _ridge(scene, draw, height=(scene.end - scene.ground) * 0.5, base=scene.end, fill=24, seed="table", rough=0.4)


_FURNITURE: dict[str, Callable[[Scene, ImageDraw.ImageDraw], None]] = {
    "rain": _town,
    "snow": _snow,
    "sea": _sea,
    "night": _night,
    "hills": _hills,
    "lights": _lights,
}


def _drifting(
    scene: Scene,
    phase: float,
    *,
    count: int,
    size: tuple[float, float],
    flat: float,
    rows: tuple[float, float],
    brightness: tuple[int, int],
    seed: str,
) -> Iterator[tuple[Box, int]]:
    """Things that cross the picture once in a loop: what leaves it at one side enters at the other."""
    noise = _noise(seed)
    for _ in range(count):
        radius = scene.ground * noise.uniform(*size)
        span = scene.width + 2 * radius
        x = (noise.random() + phase) % 1 * span - radius
        y = scene.ground * noise.uniform(*rows)
        fill = round(noise.uniform(*brightness))
        yield (x - radius, y - radius * flat, x + radius, y + radius * flat), fill


_clouds = partial(
    _drifting, count=4, size=(0.08, 0.16), flat=0.22, rows=(0.1, 0.3), brightness=(196, 222), seed="clouds"
)
_bokeh = partial(_drifting, count=9, size=(0.04, 0.12), flat=1.0, rows=(0.16, 0.8), brightness=(76, 150), seed="bokeh")
_plane = partial(
    _drifting, count=1, size=(0.012, 0.013), flat=0.5, rows=(0.5, 0.55), brightness=(220, 221), seed="plane"
)


def _waves(scene: Scene, phase: float) -> Iterator[tuple[Box, int]]:
    noise = _noise("waves")
    depth = scene.ground - scene.horizon - 2 * BLOCK
    for number in range(14):
        near = (number + 0.5) / 14
        half = scene.width * (0.012 + 0.05 * near)
        x = scene.width * noise.random() + half * 1.2 * math.sin(math.tau * (phase * (1 + number % 2) + noise.random()))
        y = scene.horizon + BLOCK + depth * near
        high = 1 + scene.ground * 0.006 * near
        yield (x - half, y - high, x + half, y + high), round(120 + 60 * noise.random())


def _rainfall(scene: Scene, phase: float) -> Iterator[tuple[Box, int]]:
    noise = _noise("rainfall")
    for _ in range(26):
        long = scene.ground * noise.uniform(0.04, 0.08)
        y = (noise.random() + phase * 6) % 1 * (scene.ground - long - BLOCK)
        x = scene.width * noise.random()
        wide = max(1.0, scene.width / 700)
        yield (x, y, x + wide, y + long), round(noise.uniform(130, 180))


def _snowfall(scene: Scene, phase: float) -> Iterator[tuple[Box, int]]:
    noise = _noise("snowfall")
    for _ in range(24):
        radius = scene.ground * noise.uniform(0.006, 0.014)
        y = (noise.random() + phase * 2) % 1 * (scene.ground - 2 * radius - BLOCK) + radius
        x = scene.width * noise.random() + scene.width * 0.02 * math.sin(math.tau * (phase + noise.random()))
        yield (x - radius, y - radius, x + radius, y + radius), 240


def _stars(scene: Scene, phase: float) -> Iterator[tuple[Box, int]]:
    noise = _noise("stars")
    for number in range(30):
        x, y = scene.width * noise.random(), scene.ground * noise.uniform(0.02, 0.85)
        light = 0.5 + 0.5 * math.sin(math.tau * (phase * (1 + number % 3) + noise.random()))
        radius = scene.ground * 0.004 + 0.8
        yield (x - radius, y - radius, x + radius, y + radius), round(60 + 180 * light)
    yield from _plane(scene, phase)


_MOVERS: dict[str, Callable[[Scene, float], Iterator[tuple[Box, int]]]] = {
    "rain": _rainfall,
    "snow": _snowfall,
    "sea": _waves,
    "night": _stars,
    "hills": _clouds,
    "lights": _bokeh,
}
