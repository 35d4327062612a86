"""Stills and first frames of clips: a scene above its prompt, or a picture that was sent, alone. No encoding."""

from __future__ import annotations

import colorsys
import io
import random
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageDraw, ImageFont

from prefect_together.sandbox.jobs import ClipPlan
from prefect_together.sandbox.scenes import Scene, scene_of

if TYPE_CHECKING:
    from av.video.plane import VideoPlane

STRIP_ROWS = 32
"""The least height of the strip at the foot, which shows only the moving mark."""

GROUND = 30
SCENE_SHARE = 0.72
"""Of the picture above the strip: below it are the words."""
STRIP = 20
_MAX_IMAGE_PIXELS = 40_000_000
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "/System/Library/Fonts")
_WESTERN = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf")
_EASTERN = ("NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc", "PingFang.ttc")

AnyFont = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Planes:
    """A picture as YUV 4:2:0: `luma` is width x height bytes, the other two a quarter of that."""

    luma: bytes
    blue: bytes
    red: bytes
    scene: Scene | None = None


def draw_clip(plan: ClipPlan, *, prompt: str, model: str) -> Planes:
    """Draw the first frame of a clip's own scene, above its prompt.

    `model` is what stands in the small line at the foot; prompt and model choose the colours.
    """
    scene = scene_of(prompt, plan.width, round(strip_top(plan.height) * SCENE_SHARE))
    luma = Image.new("L", (plan.width, plan.height), GROUND)
    if scene is not None:
        luma.paste(scene.still(), (0, 0))
    blue, red = _colours(luma.size, scene, f"{prompt} {model}")
    foot = f"{readable(model)}   {plan.width}x{plan.height}   {plan.seconds:g} s   {plan.fps} fps"
    _write(luma, prompt=prompt, foot=foot, top=scene.end if scene else 0)
    ImageDraw.Draw(luma).rectangle((0, strip_top(plan.height), plan.width, plan.height), fill=STRIP)
    return Planes(luma.tobytes(), _grey_strip(blue, plan), _grey_strip(red, plan), scene)


def fit_picture(plan: ClipPlan, content: bytes) -> Planes | None:
    """A picture that was sent, cropped to fill the clip, with nothing over it. None for what does not decode."""
    from av.video.frame import VideoFrame  # here: stills are drawn in the sandbox's own process, without FFmpeg

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MAX_IMAGE_PIXELS:
                return None
            image.draft("RGB", (plan.width, plan.height))
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    scale = max(plan.width / whole.width, plan.height / whole.height)
    across, down = plan.width / scale, plan.height / scale
    left, top = (whole.width - across) / 2, (whole.height - down) / 2
    filled = whole.resize((plan.width, plan.height), Image.Resampling.BILINEAR, (left, top, left + across, top + down))
    # FFmpeg's own conversion, so that a frame that is decoded is the picture again.
    frame = cast("VideoFrame", VideoFrame.from_image(filled)).reformat(format="yuv420p")  # pyright: ignore[reportUnknownMemberType]
    luma, blue, red = (_rows(plane) for plane in frame.planes)
    return Planes(luma, blue, red)


def _rows(plane: VideoPlane) -> bytes:
    """A plane's pixels without what fills up its lines."""
    content = bytes(plane)
    return b"".join(content[at : at + plane.width] for at in range(0, plane.height * plane.line_size, plane.line_size))


def draw_still(width: int, height: int, *, prompt: str, model: str) -> Image.Image:
    """Draw a picture: a scene above its prompt. Prompt and `model` choose the colours and where what moves is."""
    scene = scene_of(prompt, width, round(strip_top(height) * SCENE_SHARE))
    luma = Image.new("L", (width, height), GROUND)
    words = f"{prompt} {model}"
    if scene is not None:
        picture = scene.still()
        scene.draw_movers(picture, random.Random(words.encode(errors="replace")).random())
        luma.paste(picture, (0, 0))
    _write(luma, prompt=prompt, foot=f"{readable(model)}   {width}x{height}", top=scene.end if scene else 0)
    half = (width // 2, height // 2)
    colours = (Image.frombytes("L", half, plane).resize(luma.size) for plane in _colours(luma.size, scene, words))
    return Image.merge("YCbCr", (luma, *colours)).convert("RGB")


def strip_top(height: int) -> int:
    """The strip's first row: on the border of an H.264 block (16), so that a block is strip or picture, never both."""
    return max(0, (height - STRIP_ROWS) // 16 * 16)


def readable(text: str) -> str:
    """`text` without what no font can show: control characters, NUL, half characters; blanks and line ends stay."""
    kept = (c if c.isprintable() or c in "\n\u200d" else " " for c in text if unicodedata.category(c) != "Cs")
    return "".join(kept).strip()


def wrap(text: str, font: AnyFont, width: float, max_lines: int) -> list[str]:
    """Break `text` into lines that fit; a word that is too long is broken, what is left over becomes an ellipsis."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            for piece in _pieces(word, font, width):
                longer = f"{line} {piece}" if line else piece
                if line and font.getlength(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
            if len(lines) > max_lines:
                break
        lines.append(line)
        if len(lines) > max_lines:
            break
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], last.rstrip() + "…"]
    return lines


def _grey_strip(chroma: bytes, plan: ClipPlan) -> bytes:
    """The strip has no colour, so that it is the same in every clip of a size."""
    kept = strip_top(plan.height) // 2 * (plan.width // 2)
    return chroma[:kept] + bytes([128]) * (len(chroma) - kept)


def _pieces(word: str, font: AnyFont, width: float) -> list[str]:
    """A word that is wider than the line, in parts that fit (Chinese and Japanese are one long word)."""
    if font.getlength(word) <= width:
        return [word]
    pieces, piece = list[str](), ""
    for character in word[:2000]:
        if piece and font.getlength(piece + character) > width:
            pieces.append(piece)
            piece = ""
        piece += character
    return [*pieces, piece]


def _write(luma: Image.Image, *, prompt: str, foot: str, top: int) -> None:
    """Write the prompt below row `top`, and a line at the foot."""
    draw = ImageDraw.Draw(luma)
    width, height = luma.size
    foot_top = strip_top(height)
    margin = max(4, min(width, height) // 16)
    font, line_height, lines = _set(readable(prompt) or "(no prompt)", luma.size, top, margin)
    small_size = max(8, min(line_height // 3, width // 32))
    foot_at = foot_top - margin // 2 - round(small_size * 1.4)
    for number, line in enumerate(lines):
        draw.text((margin, top + margin * (0.5 if top else 1) + number * line_height), line, font=font, fill=228)
    draw.text((margin, foot_at), foot, font=_font(small_size, eastern=False), fill=170)


def _set(text: str, size: tuple[int, int], top: int, margin: int) -> tuple[AnyFont, int, list[str]]:
    """Font, line height and lines of a text: as large as fits, cut short where even the smallest does not."""
    width, height = size
    largest = max(10, min(width, height) // (18 if top else 14))
    best: tuple[AnyFont, int, list[str]] | None = None
    for points in (largest, max(9, largest * 2 // 3), max(8, largest // 2), max(8, largest // 3)):
        font, line_height = _font(points, eastern=_is_eastern(text)), round(points * 1.35)
        foot = round(line_height * 0.6) + margin // 2
        room = strip_top(height) - top - foot - (margin // 2 if top else 2 * margin)
        max_lines = max(1, room // line_height)
        best = font, line_height, wrap(text, font, width - 2 * margin, max_lines)
        if not (best[2] and best[2][-1].endswith("…")):
            break
    assert best is not None
    return best


def _colours(whole: tuple[int, int], scene: Scene | None, words: str) -> tuple[bytes, bytes]:
    """The two colour planes: the sky's colour, and another where the scene has land or water, and below it.

    Even in each row of what moves. Which colours, say the words.
    """
    noise = random.Random(words.encode(errors="replace"))
    sky, (hue, strength) = noise.choice(_PALETTES[scene.kind if scene else "lights"])
    size = whole[0] // 2, whole[1] // 2
    land = Image.new("L", size, 255)
    if scene is not None:
        mask = scene.land().resize((size[0], scene.end // 2), Image.Resampling.NEAREST)
        land.paste(mask, (0, 0))
    planes: list[bytes] = []
    for of_sky, of_land, of_words in zip(
        _chroma(*sky), _chroma(hue, strength), _chroma(hue, strength / 2), strict=True
    ):
        plane = land.point([of_sky if value < 128 else of_land for value in range(256)])
        below = scene.end // 2 if scene else 0
        plane.paste(of_words, (0, below, *size))
        planes.append(plane.tobytes())
    return planes[0], planes[1]


Colour = tuple[float, float]
"""Hue in degrees and strength from 0 (grey) to 1."""

_PALETTES: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "rain": (((215, 0.35), (225, 0.3)), ((190, 0.3), (200, 0.3)), ((265, 0.3), (280, 0.3))),
    "snow": (((205, 0.4), (210, 0.15)), ((330, 0.25), (220, 0.2)), ((180, 0.3), (195, 0.15))),
    "sea": (((28, 0.75), (200, 0.6)), ((205, 0.6), (210, 0.7)), ((340, 0.55), (240, 0.5)), ((48, 0.6), (175, 0.6))),
    "night": (((235, 0.6), (250, 0.4)), ((265, 0.6), (230, 0.5)), ((215, 0.6), (215, 0.4))),
    "hills": (((35, 0.75), (110, 0.5)), ((205, 0.6), (130, 0.6)), ((345, 0.55), (265, 0.5)), ((195, 0.5), (40, 0.5))),
    "lights": (((30, 0.6), (20, 0.5)), ((320, 0.5), (290, 0.5)), ((185, 0.5), (210, 0.5)), ((260, 0.6), (280, 0.5))),
}


def _chroma(hue: float, strength: float) -> tuple[int, int]:
    r, g, b = colorsys.hsv_to_rgb(hue / 360, strength, 0.6)
    return round(128 + 255 * (-0.169 * r - 0.331 * g + 0.5 * b)), round(128 + 255 * (0.5 * r - 0.419 * g - 0.081 * b))


def _is_eastern(text: str) -> bool:
    return any("\u2e80" <= character <= "\U0003ffff" and ord(character) < 0x1F000 for character in text)


@lru_cache(maxsize=32)
def _font(size: int, *, eastern: bool) -> AnyFont:
    """A font of this system that has most scripts; Pillow's own where there is none."""
    for name in (*(_EASTERN if eastern else ()), *_WESTERN):
        if path := _font_path(name):
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


@lru_cache(maxsize=16)
def _font_path(name: str) -> str | None:
    for folder in _FONT_FOLDERS:
        for path in sorted(Path(folder).rglob(name)) if Path(folder).is_dir() else ():
            return str(path)
    return None
