"""JSON, Markdown, plain lists, DataFrames and Parquet as records of text. CSV is in `grid`, Excel in `excel`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from prefect_together.grid.columns import UNDERSTOOD, meaning_of, parameter_name
from prefect_together.problems import Problem, TableInvalid, missing_extra
from prefect_together.request.fields import counted, parsed_json, shown

if TYPE_CHECKING:
    from pandas import DataFrame

Record = tuple[int, list[str]]
"""A row's number as a spreadsheet counts it, and its cells."""

_LEAST_PROMPT_WORDS = 3
_MOST_LINES_NAMED = 20
_MARKDOWN_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_UNESCAPED_BAR = re.compile(r"(?<!\\)\|")
_WHOLE_FLOATS_BELOW = 1e16
_ONE_TEXT = frozenset({"id", "model", "negative_prompt", "prompt"})
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")

# Each of Arrow's own errors is one of these. A date beyond Python's calendar is one of the last two.
_NO_TEXT = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError)


class _NumberAsWritten(str):
    """A JSON number, every digit kept."""

    __slots__ = ()


def json_records(text: str, *, problems: list[Problem], warnings: list[Problem]) -> list[Record]:
    """The objects of a JSON text as records under one header: all their keys in the order in which they appear.

    One object a line (rows are numbered by lines), or one after the other, a list of objects, an object of objects by
    their ids, or an object with one such list (rows are numbered from 1).
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    read = [(number, _objects_of_line(line)) for number, line in lines]
    wrong = [(number, error) for number, error in read if isinstance(error, ValueError)]
    if not wrong and len(read) > 1:
        return _records([(number, cells) for number, cells in read if not isinstance(cells, ValueError)], problems)
    try:
        objects = list(_objects(_values(text), warnings))
    except ValueError as error:
        is_other_kind = len(wrong) == len(read) or (len(wrong) > 3 and len(wrong) * 2 > len(read))
        if not wrong or is_other_kind:
            problems.append(Problem(str(error)))
            return [(0, [])]
        problems += [Problem(str(error), row=number) for number, error in wrong[:_MOST_LINES_NAMED]]
        if (more := len(wrong) - _MOST_LINES_NAMED) > 0:
            problems.append(Problem(f"{counted(more, 'more line')} cannot be read either"))
        return _records([(number, cells) for number, cells in read if not isinstance(cells, ValueError)], problems)
    return _records(list(enumerate(objects, start=1)), problems)


def _records(objects: Sequence[tuple[int, Mapping[str, object]]], problems: list[Problem]) -> list[Record]:
    places: dict[str, int] = {}
    rows: list[tuple[int, dict[str, str]]] = []
    for number, values in objects:
        cells: dict[str, str] = {}
        for name, value in values.items():
            if problem := nested_problem(name, value, row=number):
                problems.append(problem)
            cells[name] = str(value) if isinstance(value, str) else as_text(_plain(value))
            places.setdefault(name, len(places))
        rows.append((number, cells))
    return [(0, list(places)), *((number, [cells.get(name, "") for name in places]) for number, cells in rows)]


def _objects_of_line(line: str) -> dict[str, object] | ValueError:
    try:
        value = parsed_json(line, _decoder.decode)
    except ValueError as error:
        return error
    if not isinstance(value, dict):
        return ValueError('is not a JSON object of a row: {"prompt": "..."} is right')
    return cast("dict[str, object]", value)


def _values(text: str) -> list[object]:
    """The JSON values that stand one after the other in a text. Raises ValueError in plain words."""
    values: list[object] = []
    at = 0
    while at < len(text):
        if text[at].isspace() or (text[at] == "," and values):
            at += 1
            continue
        value, at = cast("tuple[object, int]", parsed_json(text, partial(_decoder.raw_decode, idx=at)))
        values.append(value)
    return values


def _objects(values: Sequence[object], warnings: list[Problem]) -> Iterator[dict[str, object]]:
    """The rows among JSON values. Raises ValueError for what is no object."""
    if len(values) == 1 and isinstance(values[0], dict):
        yield from _objects_of(cast("dict[str, object]", values[0]), warnings)
        return
    for value in values:
        for item in cast("list[object]", value) if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise ValueError(f'holds {json.dumps(item)[:60]} where an object of a row belongs: {{"prompt": "..."}}')
            yield cast("dict[str, object]", item)


def _objects_of(whole: dict[str, object], warnings: list[Problem]) -> Iterator[dict[str, object]]:
    """The rows of one object: itself, the objects in it by their ids, or those of the one list in it."""
    if any(parameter_name(name) in UNDERSTOOD for name in whole):
        yield whole
        return
    if whole and all(isinstance(value, dict) for value in whole.values()):
        for name, value in whole.items():
            yield {"id": name, **cast("dict[str, object]", value)}
        return
    lists = [name for name, value in whole.items() if isinstance(value, list)]
    if len(lists) != 1:
        yield whole
        return
    warnings.append(Problem(f"the rows are those of the list {lists[0]!r}; what stands beside it is not read"))
    yield from _objects([whole[lists[0]]], warnings)


def _plain(value: object) -> object:
    """A nested value with its numbers as numbers again."""
    if isinstance(value, _NumberAsWritten):
        return json.loads(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, object]", value).items()}
    return [_plain(item) for item in cast("list[object]", value)] if isinstance(value, list) else value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in dict(pairs) if names.count(name) > 1] if len(dict(pairs)) < len(names) else []
    if twice:
        raise ValueError(f"{twice[0]!r} stands in a JSON object twice")
    return dict(pairs)


_decoder = json.JSONDecoder(
    parse_int=_NumberAsWritten,
    parse_float=_NumberAsWritten,
    parse_constant=_NumberAsWritten,
    object_pairs_hook=_without_repeats,
)


def is_markdown_table(text: str) -> bool:
    """Whether a Markdown table stands in the text: a line with bars, and below it one of dashes."""
    return _markdown_start(text.splitlines()) is not None


def markdown_records(text: str, *, warnings: list[Problem]) -> list[Record]:
    """The first Markdown table of a text; rows are numbered by lines."""
    lines = text.splitlines()
    start = _markdown_start(lines)
    assert start is not None
    rows: list[Record] = [(start + 1, _markdown_cells(lines[start]))]
    for number, line in enumerate(lines[start + 2 :], start=start + 3):
        if "|" not in line:
            break
        rows.append((number, _markdown_cells(line)))
    end = start + 1 + len(rows)
    if _markdown_start(lines[end:]) is not None:
        warnings.append(Problem("only the first of several Markdown tables is read"))
    elif others := [line for line in (*lines[:start], *lines[end:]) if line.strip()]:
        what = f"{counted(len(others), 'line')} around the Markdown table"
        warnings.append(Problem(f"{what} not read, such as {shown(others[0].strip())}"))
    return rows


def _markdown_start(lines: Sequence[str]) -> int | None:
    for at in range(len(lines) - 1):
        if "|" in lines[at] and "-" in lines[at + 1] and _MARKDOWN_RULE.fullmatch(lines[at + 1]):
            return at
    return None


def _markdown_cells(line: str) -> list[str]:
    text = line.strip()
    cells = [cell.strip().replace("\\|", "|") for cell in _UNESCAPED_BAR.split(text)]
    return cells[text.startswith("|") : len(cells) - (len(cells) > 1 and text.endswith("|") and not cells[-1])]


def list_records(text: str, *, has_header: bool, warnings: list[Problem]) -> list[Record]:
    """One prompt a line, as it stands; blank lines and lines that begin with # are passed over."""
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1) if line.strip()]
    prompts = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if len(prompts) < len(lines):
        warnings.append(Problem(f"lines that begin with # are passed over ({len(lines) - len(prompts):,})"))
    if not has_header:
        warnings.append(Problem(f"has no header: each of {counted(len(prompts), 'line')} is read as one prompt"))
        prompts.insert(0, (0, "prompt"))
    return [(number, [line.strip()]) for number, line in prompts]


def are_prompts(text: str) -> bool:
    """Whether every line is plainly a prompt: several words."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(lines) and all(len(line.split()) >= _LEAST_PROMPT_WORDS for line in lines)


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
        is_float = arrow.types.is_floating(column.type)
        if is_float:  # Arrow writes 32-bit floats as short as they were: 6.1
            column = column.cast(arrow.string())
        if not _PANDAS_INDEX.fullmatch(name):
            columns.append((name, _arrow_values(column, is_float=is_float)))
    return _column_records(columns, problems)


def _arrow_values(column: Any, *, is_float: bool) -> Iterable[object]:
    """The values of an Arrow column; raises one of `_NO_TEXT` while it is iterated over."""
    yield from (None if is_float and value == "nan" else value for value in column.to_pylist())


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
    return _column_records(columns, problems)


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


def _column_records(columns: Sequence[tuple[str, Iterable[object]]], problems: list[Problem]) -> list[Record]:
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
