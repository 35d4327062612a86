"""A Parquet file as records of text. Imported for Parquet alone: Arrow is not small."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pyarrow
import pyarrow.parquet as arrow_parquet

from prefect_together.errors import Problem, TableInvalid
from prefect_together.table.formats import Record, as_text

_arrow, _arrow_parquet = cast("Any", pyarrow), cast("Any", arrow_parquet)  # they bear no types

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")

# Each of Arrow's own errors is one of these. A date beyond Python's calendar is one of the last two.
_BROKEN_PARQUET = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError)


def parquet_records(content: bytes, label: str, *, problems: list[Problem]) -> list[Record]:
    """A Parquet file, its rows numbered as if a header stood above them.

    Raises TableInvalid if the file is broken; a column that cannot be text goes to `problems`.
    """
    try:
        table = _arrow_parquet.read_table(_arrow.BufferReader(content))
        names: list[str] = table.column_names
    except _BROKEN_PARQUET as error:
        raise TableInvalid(label, [Problem(f"is not a whole Parquet file ({str(error)[:100]})")]) from error
    columns: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        if not _PANDAS_INDEX.fullmatch(name):
            try:
                columns[name] = _column_text(table.column(place))
            except _BROKEN_PARQUET as error:
                message = f"holds what has no form as text ({str(error)[:60]}): leave the column out"
                problems.append(Problem(message, column=name))
    if len(set(names)) < len(names):
        problems.append(Problem("has two columns of the same name: rename one"))
    rows = [(number, list(cells)) for number, cells in enumerate(zip(*columns.values(), strict=True), start=2)]
    return [(1, list(columns)), *rows]


def _column_text(column: Any) -> list[str]:
    if _arrow.types.is_floating(column.type):  # Arrow writes 32-bit floats as short as they were: 6.1
        texts = cast("list[str | None]", column.cast(_arrow.string()).to_pylist())
        return ["" if text is None or text == "nan" else text for text in texts]
    return [_nested_or_text(value) for value in column.to_pylist()]


def _nested_or_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return as_text(value)
