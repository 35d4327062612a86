"""Tables whose cells have types, DataFrames and Parquet files, as records of text. Reads no text formats."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from prefect_together.errors import Problem, TableInvalid, missing_extra
from prefect_together.table.columns import meaning_of

if TYPE_CHECKING:
    from pandas import DataFrame

Record = tuple[int, list[str]]
"""A row's number as a spreadsheet counts it, and its cells."""

_WHOLE_FLOATS_BELOW = 1e16
_ONE_TEXT = frozenset({"id", "model", "negative_prompt", "prompt"})
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")

# Each of Arrow's own errors is one of these. A date beyond Python's calendar is one of the last two.
_NO_TEXT = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError)


def as_text(value: object) -> str:
    """A typed value as a person would have written it into a cell; "" for None and NaN, JSON for what is nested."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS_BELOW:
        return str(int(value))
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value)


def nested_problem(column: str, value: object, *, row: int) -> Problem | None:
    """A mistake if a list or an object stands where one text is right: its text would be paid for as a prompt."""
    if not isinstance(value, dict | list | tuple) or meaning_of(column) not in _ONE_TEXT:
        return None
    kind = "an object" if isinstance(value, dict) else "a list"
    return Problem(f"holds {kind}: one text is right", row=row, column=column)


def parquet_records(content: bytes, label: str, *, problems: list[Problem]) -> list[Record]:
    """A Parquet file, its rows numbered as if a header stood above them.

    Raises TableInvalid if the file is broken; a column that cannot be text goes to `problems`.
    """
    try:
        import pyarrow  # not small, and an extra
        import pyarrow.parquet as arrow_parquet
    except ImportError as error:
        message = missing_extra("pyarrow, which reads Parquet,", "parquet")
        raise TableInvalid(label, [Problem(message)]) from error
    arrow = cast("Any", pyarrow)  # it has no types
    try:
        table = cast("Any", arrow_parquet).read_table(arrow.BufferReader(content))
        names: list[str] = table.column_names
    except _NO_TEXT as error:
        raise TableInvalid(label, [Problem(f"is not a whole Parquet file ({str(error)[:100]})")]) from error
    columns: list[tuple[str, Iterable[object]]] = []
    for place, name in enumerate(names):
        column = table.column(place)
        if arrow.types.is_floating(column.type):  # Arrow writes 32-bit floats as short as they were: 6.1
            column = column.cast(arrow.string())
        if not _PANDAS_INDEX.fullmatch(name):
            columns.append((name, _values(column)))
    return _records(columns, problems)


def _values(column: Any) -> Iterable[object]:
    """The values of an Arrow column; raises one of `_NO_TEXT` while it is iterated over."""
    yield from (None if value == "nan" else value for value in column.to_pylist())


def frame_records(frame: DataFrame, *, problems: list[Problem], warnings: list[Problem]) -> list[Record]:
    """A DataFrame, its rows numbered from 2 as if a header stood above them, whatever its index holds.

    An index that has a name is a column of that name; another one is left out.
    """
    any_frame = cast("Any", frame)
    if any_frame.columns.nlevels > 1:
        raise TableInvalid("DataFrame", [Problem("has columns of several levels: give each column one name")])
    names = [str(name) for name in any_frame.columns]
    columns = [(name, _frame_values(any_frame.iloc[:, place])) for place, name in enumerate(names)]
    levels = [any_frame.index.get_level_values(level) for level in range(any_frame.index.nlevels)]
    named = [level for level in levels if level.name is not None]
    columns = [(str(level.name), _frame_values(level.to_series())) for level in named] + columns
    if not named and len(frame) and any(level.dtype.kind not in "iuM" for level in levels):
        message = "its index has no name and is not used: frame.rename_axis('id') makes it the column id"
        warnings.append(Problem(message))
    return _records(columns, problems)


def _frame_values(series: Any) -> Iterable[object]:
    """The cells of a Series as plain Python values; None where one is missing."""
    is_short_float = series.dtype.kind == "f" and series.dtype.itemsize < 8
    values = series.to_numpy() if is_short_float else series
    for value, is_missing in zip(values, series.isna(), strict=True):
        if is_missing:
            yield None
        elif is_short_float:  # 6.1 of 32 bits is 6.099999904632568 of 64
            yield float(str(value))
        elif isinstance(value, datetime) and value.time() == time():
            yield value.date()
        elif hasattr(value, "tolist"):  # NumPy's scalars and arrays
            yield cast("Any", value).tolist()
        else:
            yield value


def _records(columns: Sequence[tuple[str, Iterable[object]]], problems: list[Problem]) -> list[Record]:
    """The columns side by side under their names; what is no text, or no single one, goes to `problems`."""
    texts: list[tuple[str, list[str]]] = []
    for name, values in columns:
        cells: list[str] = []
        try:
            for row, value in enumerate(values, start=2):
                cells.append(as_text(value))
                if problem := nested_problem(name, value, row=row):
                    problems.append(problem)
        except _NO_TEXT as error:
            message = f"holds what has no form as text ({str(error)[:60]}): leave the column out"
            problems.append(Problem(message, column=name))
        else:
            texts.append((name, cells))
    rows = [list(cells) for cells in zip(*(cells for _, cells in texts), strict=True)]
    return [(1, [name for name, _ in texts]), *enumerate(rows, start=2)]
