"""The picture of a clip: its prompt, wrapped and legible, on a flat ground or on the keyframe sent. No encoding."""

from __future__ import annotations

import base64
import binascii
import colorsys
import hashlib
import io
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prefect_together.sandbox.jobs import ClipPlan

STRIP_ROWS = 32
"""The least height of the strip at the foot, which shows only the moving mark."""

GROUND = 40
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


def draw_clip(plan: ClipPlan, *, prompt: str, model: str, keyframe: str | None = None) -> Planes:
    """Draw the still part of a clip. `keyframe` is bare base64 or a data URI; what does not decode is left out."""
    picture = _background(plan, keyframe)
    if picture is None:
        luma, tint = Image.new("L", (plan.width, plan.height), GROUND), _tint(model)
        quarter = (plan.width // 2) * (plan.height // 2)
        blue, red = bytes([tint[0]]) * quarter, bytes([tint[1]]) * quarter
    else:
        luma, small_blue, small_red = picture
        blue, red = small_blue.tobytes(), small_red.tobytes()
    _write(luma, plan, prompt=prompt, model=model, dim=picture is not None)
    return Planes(luma.tobytes(), _grey_strip(blue, plan), _grey_strip(red, plan))


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


def _write(luma: Image.Image, plan: ClipPlan, *, prompt: str, model: str, dim: bool) -> None:
    """Write the prompt, and a line on the clip at the foot. `dim` darkens what is behind the words."""
    draw = ImageDraw.Draw(luma)
    width, foot_top = plan.width, strip_top(plan.height)
    margin = max(4, min(width, plan.height) // 16)
    font, line_height, lines = _set(readable(prompt) or "(no prompt)", plan, margin)
    small_size = max(8, min(line_height // 3, width // 32))
    foot_at = foot_top - margin // 2 - round(small_size * 1.4)
    if dim:
        _darken(luma, (0, 0, width, margin * 2 + line_height * len(lines)))
        _darken(luma, (0, foot_at - small_size // 2, width, foot_top))
    for number, line in enumerate(lines):
        draw.text((margin, margin + number * line_height), line, font=font, fill=228)
    foot = f"{readable(model)}   {width}x{plan.height}   {plan.seconds:g} s   {plan.fps} fps"
    draw.text((margin, foot_at), foot, font=_font(small_size, eastern=False), fill=170)
    draw.rectangle((0, foot_top, width, plan.height), fill=STRIP)


def _set(text: str, plan: ClipPlan, margin: int) -> tuple[AnyFont, int, list[str]]:
    """Font, line height and lines of a text: as large as fits, cut short where even the smallest does not."""
    largest = max(10, min(plan.width, plan.height) // 14)
    best: tuple[AnyFont, int, list[str]] | None = None
    for size in (largest, max(9, largest * 2 // 3), max(8, largest // 2), max(8, largest // 3)):
        font, line_height = _font(size, eastern=_is_eastern(text)), round(size * 1.35)
        max_lines = max(1, (strip_top(plan.height) - 2 * margin) // line_height - 2)
        best = font, line_height, wrap(text, font, plan.width - 2 * margin, max_lines)
        if not (best[2] and best[2][-1].endswith("…")):
            break
    assert best is not None
    return best


def _darken(luma: Image.Image, box: tuple[int, int, int, int]) -> None:
    luma.paste(luma.crop(box).point([value // 3 for value in range(256)]), box[:2])


def _background(plan: ClipPlan, keyframe: str | None) -> tuple[Image.Image, Image.Image, Image.Image] | None:
    """The keyframe, cropped to fill the clip, as three planes. None without one, or if it is no picture."""
    if not keyframe or keyframe.startswith(("http://", "https://")):
        return None
    encoded = keyframe.partition(",")[2] if keyframe.startswith("data:") else keyframe
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            if image.width * image.height > _MAX_IMAGE_PIXELS:
                return None
            image.draft("RGB", (plan.width, plan.height))
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError):
        return None
    scale = max(plan.width / whole.width, plan.height / whole.height)
    across, down = plan.width / scale, plan.height / scale
    left, top = (whole.width - across) / 2, (whole.height - down) / 2
    filled = whole.resize((plan.width, plan.height), Image.Resampling.BILINEAR, (left, top, left + across, top + down))
    luma, blue, red = filled.convert("YCbCr").split()
    half = (plan.width // 2, plan.height // 2)
    return luma, blue.resize(half, Image.Resampling.BOX), red.resize(half, Image.Resampling.BOX)


def _tint(model: str) -> tuple[int, int]:
    """A ground colour for each model: chroma (blue, red) of a hue from its name."""
    hue = hashlib.sha256(model.encode(errors="replace")).digest()[0] / 256
    r, g, b = colorsys.hsv_to_rgb(hue, 0.75, 0.36)
    return round(128 + 255 * (b - g) * 0.4), round(128 + 255 * (r - g) * 0.4)


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
