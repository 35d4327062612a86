"""Which columns of a prompt table mean something, and what was probably meant by the others. Reads no cells."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from prefect_together.errors import Problem
from prefect_together.request.fields import shown
from prefect_together.request.media import LocalImage
from prefect_together.request.request import PARAMETERS

RESULT_COLUMNS = ("status", "job_id", "file", "cost_usd", "attempts", "error")
"""What results.csv adds to the table's own columns. They are ignored when it is read as a prompt table."""

_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
_ESCAPED = re.compile(r"'+(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def is_results_table(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is a results.csv, or a part of one: its cells are then escaped."""
    return {"status", "job_id"} <= set(columns)


def escape_cell(text: str) -> str:
    """The text as a spreadsheet leaves it alone. `unescape_cell` gives back exactly what went in."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def unescape_cell(text: str) -> str:
    """What `escape_cell` was given."""
    return text[1:] if _ESCAPED.match(text) else text


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


LoadImage = Callable[[str], str | LocalImage]
"""Raises ValueError for what is no image."""

_PLACED_IMAGE = re.compile(r"(first|last|\d+(?:\.\d+)?)\s*:\s*(?=\S)", re.IGNORECASE)
_ONE_ITEM = frozenset({"first_frame", "last_frame", "source_video"})


class MediaDraft:
    """`media` as it is put together for one row.

    `problems` are (column, message). `column_of` tells where a place in `media` came from.
    """

    def __init__(self, load_image: LoadImage) -> None:
        self.media: dict[str, Any] = {}
        self.problems: list[tuple[str, str]] = []
        self._origins: dict[str, str] = {}
        self._load_image = load_image

    def add(self, values: Mapping[str, object], *, row_columns: frozenset[str]) -> None:
        """Take the columns `media`, `first_frame`, `reference_images`... from a row's cells and a run's defaults.

        Where `media` and a column of its own give the same part, the row's (`row_columns`) is taken before the run's;
        if both are of the same rank, that is a problem.
        """
        if "media" in values:
            self._add_whole(values["media"])
        for column, part in MEDIA_FIELDS.items():
            if column not in values:
                continue
            if self._origins.get(part) == "media":
                if (column in row_columns) == ("media" in row_columns):
                    message = f"{part} is given in the column media too: give it in one of them"
                    self.problems.append((column, message))
                    continue
                if column not in row_columns:
                    continue
                del self.media[part], self._origins[part]
            self._add_part(column, part, values[column])

    def column_of(self, place: str) -> str:
        """The column that filled a place such as "frame_images.0.frame"; "media" if no column of its own did."""
        parts = place.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self._origins[prefix] for prefix in prefixes if prefix in self._origins), "media")

    def _add_whole(self, value: object) -> None:
        """A whole `media` object, as JSON or as a default."""
        try:
            whole = _json(value) if isinstance(value, str) else value
        except ValueError as error:
            self.problems.append(("media", str(error)))
            return
        if not isinstance(whole, Mapping):
            self.problems.append(("media", f'{shown(whole)} is not an object, {{"frame_images": [...]}}'))
            return
        for part, given in cast("Mapping[str, object]", whole).items():
            items = cast("list[object]", given) if isinstance(given, list) else None
            self.media[part] = given if items is None else [self._item("media", part, item) for item in items]
            self._origins[part] = "media"

    def _add_part(self, column: str, part: str, value: object) -> None:
        """One column's items, behind those that the part has already."""
        try:
            items = _items(value)
        except ValueError as error:
            self.problems.append((column, str(error)))
            return
        if column in _ONE_ITEM and len(items) != 1:
            self.problems.append((column, f"holds {len(items)} items: give one"))
            return
        self._origins.setdefault(part, column)
        if part == "source_video":
            self.media[part] = items[0]
            return
        whole: list[object] = self.media.setdefault(part, [])
        for item in items:
            self._origins[f"{part}.{len(whole)}"] = column
            whole.append(self._item(column, part, item))

    def _item(self, column: str, part: str, item: object) -> object:
        """An item of `media` with its image loaded; what is no image stays, its mistake noted."""
        if part == "reference_images":
            return self._image(column, item)
        if part != "frame_images":
            return item
        if isinstance(item, Mapping):
            frame = dict(cast("Mapping[str, object]", item))
            return (
                {**frame, "input_image": self._image(column, frame["input_image"])} if "input_image" in frame else frame
            )
        if column in {"first_frame", "last_frame"}:
            return {"input_image": self._image(column, item), "frame": column.partition("_")[0]}
        if isinstance(item, str) and (placed := _PLACED_IMAGE.match(item)):
            return {"input_image": self._image(column, item[placed.end() :]), "frame": placed.group(1)}
        return {"input_image": self._image(column, item)}

    def _image(self, column: str, item: object) -> object:
        if not isinstance(item, str):
            return item
        try:
            return self._load_image(item)
        except ValueError as error:
            self.problems.append((column, str(error)))
            return item


def _items(value: object) -> list[object]:
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")):
            return [part.strip() for part in text.split("|") if part.strip()]
        value = _json(text)
    return list(cast("list[object]", value)) if isinstance(value, (list, tuple)) else [value]


def _json(text: str) -> object:
    """Raises ValueError in plain words."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at character {error.pos + 1})") from error
    except RecursionError as error:
        raise ValueError("is JSON that is nested too deep") from error
