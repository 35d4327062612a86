"""JSON lines as records of text, and what a typed cell of any table becomes. Knows nothing of columns or videos.

Workbooks and Parquet are in `excel` and `parquet`.
"""

from __future__ import annotations

import json
import math
from datetime import date, time
from decimal import Decimal
from typing import cast

from prefect_together.errors import Problem

Record = tuple[int, list[str]]
"""A row's number as a spreadsheet counts it, and its cells."""

_WHOLE_FLOATS_BELOW = 1e16


class _NumberAsWritten(str):
    """A JSON number, every digit kept."""

    __slots__ = ()


def json_records(text: str, *, problems: list[Problem]) -> list[Record]:
    """The objects of JSON lines as records under one header: all their keys in the order in which they appear."""
    places: dict[str, int] = {}
    objects: list[tuple[int, dict[str, str]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                cells = _json_cells(line)
            except json.JSONDecodeError as error:
                problems.append(Problem(f"is not JSON ({error.msg} at character {error.pos + 1})", row=number))
            except (ValueError, RecursionError) as error:
                problems.append(Problem(f"is not a JSON object of a row ({error})", row=number))
            else:
                for name in cells:
                    places.setdefault(name, len(places))
                objects.append((number, cells))
    rows = [(number, [cells.get(name, "") for name in places]) for number, cells in objects]
    return [(0, list(places)), *rows]


def _json_cells(line: str) -> dict[str, str]:
    value: object = json.loads(
        line,
        parse_int=_NumberAsWritten,
        parse_float=_NumberAsWritten,
        parse_constant=_NumberAsWritten,
        object_pairs_hook=_without_repeats,
    )
    if not isinstance(value, dict):
        raise ValueError('a line must be an object: {"prompt": "..."}')
    cells = cast("dict[str, object]", value)
    nested: dict[str, object] = {}
    if any(isinstance(item, (dict, list)) for item in cells.values()):
        nested = json.loads(line)
    return {name: _json_text(item, nested.get(name)) for name, item in cells.items()}


def _json_text(value: object, plain: object) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(plain, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in dict(pairs) if names.count(name) > 1] if len(dict(pairs)) < len(names) else []
    if twice:
        raise ValueError(f"{twice[0]!r} stands in it twice")
    return dict(pairs)


def as_text(value: object) -> str:
    """A typed value as a person would have written it into a cell; "" for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS_BELOW:
        return str(int(value))
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value)
