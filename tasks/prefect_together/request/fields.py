"""The types of single request parameters: values, ranges, other names, and messages that say what is right.

Only what can be right for no model at all is refused here; the limits of single models are the catalogue's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic_core import PydanticCustomError

MAX_PROMPT_CHARACTERS = 32_000
"""The schema's limit (Together's OpenAPI document, April 2026); most models take less."""

LONGEST_SECONDS = 3600
"""An hour: far above any model, low enough to catch milliseconds."""

MOST_PIXELS = 16_384
LOWEST_FPS, HIGHEST_FPS = 15, 60
LOWEST_SEED, HIGHEST_SEED = -(2**63), 2**63 - 1
"""What fits 64 bits; the models' own ranges are narrower."""

PARAMETER_ALIASES = {
    "aspect": "ratio",
    "aspect_ratio": "ratio",
    "caption": "prompt",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "clip_length": "seconds",
    "duration": "seconds",
    "frame_rate": "fps",
    "framerate": "fps",
    "frames_per_second": "fps",
    "guidance": "guidance_scale",
    "inference_steps": "steps",
    "model_id": "model",
    "model_name": "model",
    "neg_prompt": "negative_prompt",
    "negative": "negative_prompt",
    "num_inference_steps": "steps",
    "num_steps": "steps",
    "prompt_text": "prompt",
    "prompts": "prompt",
    "sampling_steps": "steps",
    "sec": "seconds",
    "secs": "seconds",
    "text": "prompt",
    "text_prompt": "prompt",
    "video_duration": "seconds",
    "video_length": "seconds",
    "video_prompt": "prompt",
}
"""Other names of the API's parameters that mean them beyond doubt."""

DOUBTFUL_ALIASES = {
    "audio": "generate_audio",
    "description": "prompt",
    "format": "output_format",
    "frames": "seconds (frames divided by fps)",
    "length": "seconds",
    "num_frames": "seconds (frames divided by fps)",
    "number_of_frames": "seconds (frames divided by fps)",
    "quality": "output_quality",
    "settings": "extra_body",
    "size": "width and height",
}
"""Names that may mean a parameter, or something else."""

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?")


WRONG_VALUE = "wrong_value"
NUMBERS_LISTED = 10


def wrong(message: str) -> PydanticCustomError:
    """A validation error whose text is `message` and nothing else (braces in it are harmless)."""
    return PydanticCustomError(WRONG_VALUE, "{problem}", {"problem": message})


def shown(value: object, *, limit: int = 60) -> str:
    """`value` as error messages quote it: short, on one line."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def counted(count: int, noun: str) -> str:
    """1 video, 1,200 videos."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed_numbers(numbers: Sequence[int]) -> str:
    """2, 5, 9; of more than ten the first ones, and ", ..." for the others."""
    return ", ".join(map(str, numbers[:NUMBERS_LISTED])) + (", ..." if len(numbers) > NUMBERS_LISTED else "")


def parsed_json(text: str, loads: Callable[[str], object] = json.loads) -> object:
    """The value of a JSON text. Raises ValueError that says in plain words what is wrong with it."""
    try:
        return loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"is not JSON ({error.msg} at {line}character {error.colno})") from error
    except RecursionError as error:
        raise ValueError("is JSON that is nested too deep") from error


def is_sendable(text: str) -> bool:
    """Whether `text` is whole characters: half of a surrogate pair (a broken emoji) cannot be encoded."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def values_of(value: object) -> list[object]:
    """The values of a list or of a text such as `a|b`; of any other value itself alone."""
    if isinstance(value, list | tuple):
        return [each for one in cast("Sequence[object]", value) for each in values_of(one)]
    if isinstance(value, str) and "|" in value:
        return [part.strip() for part in value.split("|")]
    return [value]


def as_number(value: object) -> int | float | None:
    """`value` as a finite number, or None. Text such as "7.5" counts; a bool, NaN and infinity do not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        text = value.strip()
        return float(text) if "." in text else int(text)
    return None


def _whole_number(low: int, high: int | None, what: str) -> Callable[[object], object]:
    """A check for whole numbers from `low` to `high`; 24.0 and "24" are taken as 24."""
    allowed = f"{what}: a whole number of {low} or more" if high is None else f"{what}: a whole number, {low} to {high}"

    def check(value: object) -> object:
        number = as_number(value)
        if number is None or number != int(number) or number < low or (high is not None and number > high):
            raise wrong(f"{shown(value)} is not {allowed}")
        return int(number)

    return check


def _any_number(value: object) -> object:
    number = as_number(value)
    if number is None or not 0 <= number <= 1000:
        raise wrong(f"{shown(value)} is not a guidance scale: a number, usually 6 to 10")
    return number


def _seconds(value: object) -> object:
    text = value.strip() if isinstance(value, str) else None
    if text is None and (number := as_number(value)) is not None:
        text = str(number)
    if text is None or not _SECONDS.fullmatch(text) or not 0 < float(text) <= LONGEST_SECONDS:
        raise wrong(f"{shown(value)} is not a length in seconds: a number above 0, such as 8")
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") else str(int(whole))


def _output_format(value: object) -> object:
    if isinstance(value, str) and value.strip().upper() in {"MP4", "WEBM"}:
        return value.strip().upper()
    raise wrong(f"{shown(value)} is not an output format: MP4 or WEBM")


def _model_id(value: str) -> str:
    name = value.strip()
    if not name:
        raise wrong("the model's id is empty: give one such as minimax/video-01-director")
    if " " in name or not name.isprintable():
        raise wrong(f"{shown(name)} is not a model's id: an id has no spaces, for example minimax/video-01-director")
    return name


def _long_text(value: str) -> str:
    if not value.strip():
        raise wrong("is empty: write a text, or leave it out")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise wrong(f"has {len(value):,} characters: at most {MAX_PROMPT_CHARACTERS:,} are taken")
    if "\x00" in value:
        raise wrong("holds a NUL character: take it out")
    if not is_sendable(value):
        raise wrong("holds half a character (a lone surrogate), which cannot be sent: take it out")
    return value


def _short_text(value: str) -> str:
    text = value.strip()
    if not 0 < len(text) <= 100 or not text.isprintable():
        raise wrong(f"{shown(value)} is no value for it: a short text such as 720p or 16:9")
    return text


def _frame(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in {"first", "last"}:
        return value.strip().lower()
    number = as_number(value)
    if number is None or number < 0:
        raise wrong(f"{shown(value)} is not a frame: first, last or a frame's number (seconds x fps) of 0 or more")
    return int(number) if number == int(number) else number


def json_text_too(value: object) -> object:
    """JSON text (a table's cell) is taken for the object that it describes."""
    if not isinstance(value, str):
        return value
    try:
        return parsed_json(value)
    except ValueError as error:  # a number of thousands of digits among them
        raise wrong(f"{error}: give a plain object, {{...}}") from error


def _finite_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise wrong("holds NaN or infinity, which JSON does not have") from error
    if not is_sendable(text):
        raise wrong("holds half a character (a lone surrogate), which cannot be sent: take it out")
    return value


Text = Annotated[str, AfterValidator(_long_text)]
Word = Annotated[str, AfterValidator(_short_text)]
ModelId = Annotated[str, AfterValidator(_model_id)]
Seconds = Annotated[str, BeforeValidator(_seconds)]
Pixels = Annotated[
    int, Field(ge=1, le=MOST_PIXELS), BeforeValidator(_whole_number(1, MOST_PIXELS, "a length in pixels"))
]
FramesPerSecond = Annotated[
    int,
    Field(ge=LOWEST_FPS, le=HIGHEST_FPS),
    BeforeValidator(_whole_number(LOWEST_FPS, HIGHEST_FPS, "a rate (frames a second)")),
]
Steps = Annotated[int, Field(ge=1), BeforeValidator(_whole_number(1, None, "a number of steps, usually 10 to 50"))]
GuidanceScale = Annotated[int | float, Field(ge=0), BeforeValidator(_any_number)]
Seed = Annotated[int, BeforeValidator(_whole_number(LOWEST_SEED, HIGHEST_SEED, "a seed"))]
OutputFormat = Annotated[Literal["MP4", "WEBM"], BeforeValidator(_output_format)]
OutputQuality = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(_whole_number(0, None, "an output quality (lower is better, 20 is usual)")),
]
FramePosition = Annotated[Literal["first", "last"] | int | float, BeforeValidator(_frame)]
JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(json_text_too), AfterValidator(_finite_json)]


def plain_numbers(value: object) -> object:
    """`value` with whole floats as ints, at any depth: 7 and 7.0 are the same request."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in cast("list[object]", value)]
    return value
