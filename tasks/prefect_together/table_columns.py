"""Which columns of a prompt table mean something, and what was probably meant by the others. Reads no cells."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from prefect_together.errors import Problem
from prefect_together.requests import PARAMETERS
from prefect_together.results import RESULT_COLUMNS

FRAME_COLUMNS = ("first_frame", "frame_images", "last_frame")

MEDIA_FIELDS = {
    **dict.fromkeys(FRAME_COLUMNS, "frame_images"),
    "reference_images": "reference_images",
    "frame_videos": "frame_videos",
    "reference_videos": "reference_videos",
    "source_video": "source_video",
    "audio_inputs": "audio_inputs",
    "reference_audios": "reference_audios",
}
"""Columns that hold images, videos and sounds, with the field of the API's `media` that each of them fills."""

SETTABLE = (*PARAMETERS, *MEDIA_FIELDS, "extra_body", "count", "price_usd")
"""What a column, or a default for the whole run, can set."""

UNDERSTOOD = ("id", *SETTABLE)

KNOWN_COLUMNS = frozenset({*UNDERSTOOD, *RESULT_COLUMNS})

_MEANT = {
    "aspect": "ratio",
    "aspect_ratio": "ratio",
    "audio": "generate_audio",
    "caption": "prompt",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "cost": "price_usd",
    "duration": "seconds",
    "end_frame": "last_frame",
    "end_image": "last_frame",
    "format": "output_format",
    "frame_rate": "fps",
    "framerate": "fps",
    "frames_per_second": "fps",
    "guidance": "guidance_scale",
    "image": "first_frame",
    "image_url": "first_frame",
    "init_image": "first_frame",
    "input_image": "first_frame",
    "keyframes": "frame_images",
    "last_image": "last_frame",
    "length": "seconds",
    "model_id": "model",
    "model_name": "model",
    "n": "count",
    "negative": "negative_prompt",
    "num_inference_steps": "steps",
    "num_videos": "count",
    "price": "price_usd",
    "quality": "output_quality",
    "references": "reference_images",
    "row_id": "id",
    "sec": "seconds",
    "secs": "seconds",
    "settings": "extra_body",
    "size": "width and height",
    "start_frame": "first_frame",
    "start_image": "first_frame",
    "takes": "count",
    "text": "prompt",
    "video": "source_video",
    "video_url": "source_video",
}

_GAPS = re.compile(r"[\s\-]+")
_MOST_NAMES_SHOWN = 20


def parameter_name(column: str) -> str:
    """A column's name as the API writes names: " Guidance scale" and "guidance-scale" are guidance_scale."""
    return _GAPS.sub("_", column.strip()).lower()


def understood_columns(columns: Sequence[str], problems: list[Problem]) -> dict[str, int]:
    """Where the columns are that mean something, by their parameter. Two for one parameter go to `problems`."""
    places: dict[str, int] = {}
    for place, column in enumerate(columns):
        name = parameter_name(column)
        if name not in UNDERSTOOD:
            continue
        if name in places:
            first = columns[places[name]]
            if first != column:  # of two equal names the reader has complained already
                problems.append(Problem(f"means {name}, as column {first} does: keep one of them", column=column))
        else:
            places[name] = place
    return places


def likely_parameter(column: str, *, taken: Iterable[str]) -> str | None:
    """The parameter that a column of another name was probably meant to be; none that the table has already."""
    name = parameter_name(column)
    free = [known for known in UNDERSTOOD if known not in set(taken)]
    meant = _MEANT.get(name)
    if meant and (meant in free or " " in meant):
        return meant
    close = difflib.get_close_matches(name, free, n=1, cutoff=0.8)
    # "prompt_en" beside "prompt" is a column of its own, not a slip of the pen.
    return close[0] if close and not name.startswith(f"{close[0]}_") else None


def column_warnings(columns: Sequence[str], places: Mapping[str, int]) -> list[Problem]:
    """A warning for each column that is carried through although its name is close to a parameter's."""
    warnings: list[Problem] = []
    for place, column in enumerate(columns):
        if place not in places.values() and (meant := likely_parameter(column, taken=places)):
            warnings.append(Problem(f"is carried through, not used: did you mean {meant}?", column=column))
    return warnings


def no_prompt_message(columns: Sequence[str]) -> str:
    """What to say of a table without a column `prompt`."""
    if not columns:
        return "has no column prompt"
    shown = [column if len(column) <= 60 else f"{column[:59]}…" for column in columns[:_MOST_NAMES_SHOWN]]
    more = f" and {len(columns) - len(shown)} more" if len(columns) > len(shown) else ""
    seen = f"has no column prompt; its columns are: {', '.join(shown)}{more}"
    if len(columns) == 1 and " " in columns[0]:
        return f"the first line is not a header: put a line with the word prompt above it ({seen})"
    meant = next((column for column in columns if likely_parameter(column, taken=()) == "prompt"), None)
    return f"{seen}. Did you mean {meant}? Rename it to prompt" if meant else seen
