"""Which columns of a prompt table mean something, and what was probably meant by the others."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from prefect_together.problems import Problem
from prefect_together.request.fields import DOUBTFUL_ALIASES, PARAMETER_ALIASES, parsed_json, shown
from prefect_together.request.media import Image
from prefect_together.request.request import PARAMETERS

RESULT_COLUMNS = ("status", "job_id", "file", "cost_usd", "attempts", "error")
"""What results.csv adds to the table's own columns. They are ignored when it is read as a prompt table."""

STILL_RESULT_COLUMNS = ("still_file", "still_usd")
"""What results.csv and videos.csv also have where the table asks for stills. Ignored when they are read."""

VIDEO_COLUMNS = ("video_id", "video_take")
"""What tells the lines of videos.csv apart that one row asked for; `id` is that of the row."""

CLIP_COLUMNS = ("clip_seconds", "generation_seconds", "clip_sha256")
"""What videos.csv adds to `RESULT_COLUMNS`; ignored when it is read."""

_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
_ESCAPED = re.compile(r"'+(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def is_results_table(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is a results.csv, or a part of one: its cells are then escaped.

    A spreadsheet may have written its names in capitals.
    """
    return {"status", "job_id"} <= {column.lower() for column in columns}


def is_videos_table(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is a videos.csv, or a part of one."""
    return {*VIDEO_COLUMNS, "status", "job_id"} <= {column.lower() for column in columns}


def escape_cell(text: str) -> str:
    """The text as a spreadsheet leaves it alone. `unescape_cell` gives back exactly what went in.

    A spreadsheet runs a cell that begins with = + - or @ as a formula, and quoting does not stop it. A table may have
    such prompts, and results.csv must give them back as they were, or their rows would count as changed and be paid for
    again. So an apostrophe is put before what could run (a spreadsheet shows it as text), and before what only looks
    escaped. It is taken off again where `is_results_table` says that the table was written here, and nowhere else.
    Numbers such as -5 stay as they are.
    """
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


PLAIN_CELLS = "prefect_together_plain_cells"
"""The attribute (`DataFrame.attrs`) of results whose cells are unescaped already."""


def unescape_cell(text: str) -> str:
    """What `escape_cell` was given."""
    return text[1:] if _ESCAPED.match(text) else text


FRAME_COLUMNS = ("continues", "first_frame", "frame_images", "last_frame")
"""`continues` names a row whose last frame is the first one."""

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

STILL_COLUMNS = ("still_prompt", "still_model")
"""What the first frame is made from by the images API, and by which model."""

SETTABLE = (*PARAMETERS, "prompt_template", *MEDIA_FIELDS, *STILL_COLUMNS, "extra_body", "count", "price_usd")
"""What a column, or a default for the whole run, can set."""

UNDERSTOOD = ("id", *SETTABLE, "film")

ALIASES = {
    **PARAMETER_ALIASES,
    "end_frame": "last_frame",
    "end_image": "last_frame",
    "final_frame": "last_frame",
    "first_image": "first_frame",
    "image": "first_frame",
    "img": "first_frame",
    "init_image": "first_frame",
    "input_image": "first_frame",
    "last_image": "last_frame",
    "num_videos": "count",
    "number_of_videos": "count",
    "ref": "reference_images",
    "ref_image": "reference_images",
    "ref_images": "reference_images",
    "reference": "reference_images",
    "reference_image": "reference_images",
    "references": "reference_images",
    "refs": "reference_images",
    "start_frame": "first_frame",
    "start_image": "first_frame",
    "takes": "count",
    "variations": "count",
}
"""Other names that mean a parameter beyond doubt: their columns are used, and a warning says as what."""

_PERHAPS = {
    **DOUBTFUL_ALIASES,
    "cost": "price_usd",
    "images": "reference_images",
    "input_video": "source_video",
    "keyframes": "frame_images",
    "n": "count",
    "price": "price_usd",
    "row_id": "id",
    "video": "source_video",
    "video_url": "source_video",
}
"""Names that may mean a parameter, or something else: carried through, with a warning."""

_GAPS = re.compile(r"[\s\-]+")
_UNIT = re.compile(r"\s*[(\[]\s*(?:s|secs?|seconds?|px|pixels?|usd|\$)\s*[)\]]\s*$", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MEDIA_SUFFIX = re.compile(r"_(?:url|uri|link|path|file|filename|name)$")
_SECONDS_SUFFIX = re.compile(r"_(?:s|secs?|seconds)$")
_IMAGE = re.compile(r"data:image/|.+\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif|heic)(?:[?#].*)?$", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://|@", re.IGNORECASE)
_CELLS_SAMPLED = 50
_MOST_NAMES_SHOWN = 20
_SHORT_ALIAS = 4
HEADER_WITHIN = 10
"""In how many of a table's first rows its header is looked for."""


def parameter_name(column: str) -> str:
    """A column's name as the API writes names: "Guidance scale", "guidance-scale" and "guidanceScale" are one.

    A unit in brackets is left out: "Seconds (s)" is seconds.
    """
    return _GAPS.sub("_", _CAMEL_CASE.sub("_", _UNIT.sub("", column.strip()))).lower()


def meaning_of(column: str) -> str | None:
    """The parameter that a column of this name sets, by its own name or by one that means the same; else None."""
    name = parameter_name(column)
    if name in UNDERSTOOD:
        return name
    if name in ALIASES:
        return ALIASES[name]
    of_media = _MEDIA_SUFFIX.sub("", name)
    meant = of_media if of_media in MEDIA_FIELDS else ALIASES.get(of_media)
    if meant in MEDIA_FIELDS:
        return meant
    in_seconds = _SECONDS_SUFFIX.sub("", name)
    return "seconds" if ALIASES.get(in_seconds) == "seconds" else None


def is_known_column(name: str) -> bool:
    """Whether a cell of this text in the first line shows that it is a header."""
    return parameter_name(name) in RESULT_COLUMNS or meaning_of(name) is not None


def header_place(rows: Sequence[Sequence[str]]) -> int:
    """Which of a table's first rows is its header: the first, unless it names nothing and one below it the prompt."""
    if not rows or any(is_known_column(cell) for cell in rows[0] if cell.strip()):
        return 0
    first = rows[:HEADER_WITHIN]
    return next((place for place, cells in enumerate(first) if "prompt" in map(parameter_name, cells)), 0)


def understood_columns(
    columns: Sequence[str],
    rows: Sequence[tuple[int, Sequence[str]]],
    problems: list[Problem],
    warnings: list[Problem],
    *,
    of_videos: bool = False,
) -> dict[str, int]:
    """Where the columns are that set something, by their parameter. Two for one parameter go to `problems`.

    A column under another name than the parameter's is used, with a warning, where no column has that name and,
    where images are meant, its cells look like some.
    """
    places: dict[str, int] = {}
    names = [parameter_name(column) for column in columns]
    for place, name in enumerate(names):
        if name in UNDERSTOOD or (of_videos and name in VIDEO_COLUMNS):
            _take(name, place, columns, places, problems)
    exact = frozenset(places)
    for place, column in enumerate(columns):
        meant = meaning_of(column)
        if meant is None or names[place] in UNDERSTOOD:
            continue
        if meant in exact:
            warnings.append(Problem(f"is not used: the table has a column {meant}", column=column))
        elif meant in MEDIA_FIELDS and not _has_images((cells[place] for _, cells in rows), addresses_too=True):
            warnings.append(Problem(f"is carried through, not used: did you mean {meant}?", column=column))
        elif _take(meant, place, columns, places, problems):
            warnings.append(Problem(f"is read as {meant}", column=column))
    return places


def _take(name: str, place: int, columns: Sequence[str], places: dict[str, int], problems: list[Problem]) -> bool:
    if name not in places:
        places[name] = place
        return True
    first, column = columns[places[name]], columns[place]
    if first != column:  # of two equal names the reader has complained already
        problems.append(Problem(f"means {name}, as column {first} does: keep one of them", column=column))
    return False


def likely_parameter(column: str, *, taken: Iterable[str]) -> str | None:
    """The parameter that a column of another name was perhaps meant to be; none that the table has already."""
    name = parameter_name(column)
    free = [known for known in UNDERSTOOD if known not in set(taken)]
    meant = _PERHAPS.get(name)
    if meant and (meant in free or " " in meant):
        return meant
    others = [alias for alias, parameter in ALIASES.items() if parameter in free and len(alias) > _SHORT_ALIAS]
    close = difflib.get_close_matches(name, [*free, *others], n=1, cutoff=0.8)
    # "prompt_en" beside "prompt" is a column of its own, not a slip of the pen.
    return ALIASES.get(close[0], close[0]) if close and not name.startswith(f"{close[0]}_") else None


def column_warnings(
    columns: Sequence[str], places: Mapping[str, int], rows: Sequence[tuple[int, Sequence[str]]]
) -> list[Problem]:
    """A warning for each column that is carried through although its name or its cells look like a parameter's."""
    warnings: list[Problem] = []
    for place, column in enumerate(columns):
        if place in places.values() or meaning_of(column) is not None:
            continue
        if meant := likely_parameter(column, taken=places):
            warnings.append(Problem(f"is carried through, not used: did you mean {meant}?", column=column))
        elif _has_images(cells[place] for _, cells in rows):
            message = "has images in its cells and is not used: name it first_frame, last_frame or reference_images"
            warnings.append(Problem(message, column=column))
    return warnings


def _has_images(cells: Iterable[str], *, addresses_too: bool = False) -> bool:
    """Whether most of the first cells that are not empty name an image, or any address."""
    sample = list(islice((cell.strip() for cell in cells if cell.strip()), _CELLS_SAMPLED))
    images = sum(bool(_IMAGE.match(cell) or (addresses_too and _ADDRESS.match(cell))) for cell in sample)
    return images * 2 > len(sample)


def no_prompt_message(columns: Sequence[str]) -> str:
    """What to say of a table without a column `prompt`."""
    if not columns:
        return "has no column prompt"
    shown = [column if len(column) <= 60 else f"{column[:59]}…" for column in columns[:_MOST_NAMES_SHOWN]]
    more = f" and {len(columns) - len(shown)} more" if len(columns) > len(shown) else ""
    seen = f"has no column prompt; its columns are: {', '.join(shown)}{more}"
    if len(columns) == 1 and " " in columns[0]:
        return f"the first line is not a header: put a line with the word prompt above it ({seen})"
    if any(_IMAGE.match(column) or len(column.split()) > 3 for column in columns):
        return f"the first line looks like a row, not like a header: put one above it, such as id,prompt ({seen})"
    meant = next((column for column in columns if likely_parameter(column, taken=()) == "prompt"), None)
    return f"{seen}. Did you mean {meant}? Rename it to prompt" if meant else seen


LoadImage = Callable[[str], Image]
"""Raises ValueError for what is no image."""

_PLACED_IMAGE = re.compile(r"(first|last|\d+(?:\.\d+)?)\s*:\s*(?=\S)", re.IGNORECASE)
_ONE_ITEM = frozenset({"continues", "first_frame", "last_frame", "source_video"})


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

    def add_first_frame(self, column: str, image: str) -> None:
        """Let the video begin with `image`, which stands for what is made from `column`."""
        given: object = self.media.get("frame_images")
        if given is not None and not isinstance(given, list):
            return  # what stands in `media` is refused with the request
        frames = self.media["frame_images"] = cast("list[object]", given or [])
        if any(isinstance(one, Mapping) and _begins(cast("Mapping[str, object]", one)) for one in frames):
            self.problems.append((column, "makes the first frame, and the row gives one too: keep one of them"))
            return
        self._origins.setdefault("frame_images", column)
        self._origins[f"frame_images.{len(frames)}"] = column
        frames.append({"input_image": image, "frame": "first"})

    def column_of(self, place: str) -> str:
        """The column that filled a place such as "frame_images.0.frame"; "media" if no column of its own did."""
        parts = place.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self._origins[prefix] for prefix in prefixes if prefix in self._origins), "media")

    def _add_whole(self, value: object) -> None:
        """A whole `media` object, as JSON or as a default."""
        try:
            whole = parsed_json(value) if isinstance(value, str) else value
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
        if column == "continues":
            text = str(item).strip()
            return {"input_image": self._image(column, f"@{text.removeprefix('@')}"), "frame": "first"}
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


def _begins(frame_image: Mapping[str, object]) -> bool:
    """Whether a frame image is the first frame, or may be taken for it."""
    return frame_image.get("frame") in (None, "first", 0, "0")


def _items(value: object) -> list[object]:
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")):
            return [part.strip() for part in text.split("|") if part.strip()]
        value = parsed_json(text)
    return list(cast("list[object]", value)) if isinstance(value, (list, tuple)) else [value]
