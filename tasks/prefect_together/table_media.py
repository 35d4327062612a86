"""Cells that name images, videos and sounds -> the API's `media` object, local images loaded. No limits of models.

A cell holds one item, several parted by "|", or JSON. An image of `frame_images` may bear its frame before it:
"first:a.png|48:b.png|last:c.png"; without, one image is the first frame and two are the first and the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from prefect_together.field_types import shown
from prefect_together.inputs import LocalImage
from prefect_together.table_columns import MEDIA_FIELDS

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
