"""Tables whose cells have types (JSON lines, Excel, Parquet) as records of text. Knows nothing of columns or videos."""

from __future__ import annotations

import io
import json
import math
import re
import warnings as python_warnings
import zipfile
import zlib
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, cast

import openpyxl
import pyarrow
import pyarrow.parquet as arrow_parquet
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from prefect_together.errors import Problem, TableInvalid

Record = tuple[int, list[str]]
"""A row's number as a spreadsheet counts it, and its cells."""

_WrongCell = tuple[int, int, str]
"""Row, place in it (from 1) and what is wrong."""

_arrow, _arrow_parquet = cast("Any", pyarrow), cast("Any", arrow_parquet)  # they bear no types

_FORMULA = re.compile(rb"<f[ >]")
_WHOLE_FLOATS_BELOW = 1e16
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")

# What openpyxl raises on workbooks that are damaged or are something else; seen by feeding it broken ones.
_BROKEN_WORKBOOK = (
    InvalidFileException,
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    SyntaxError,
    NotImplementedError,
)

# Each of Arrow's own errors is one of these. A date beyond Python's calendar is one of the last two.
_BROKEN_PARQUET = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError)


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


def excel_records(content: bytes, label: str, *, problems: list[Problem], warnings: list[Problem]) -> list[Record]:
    """The first sheet of a workbook. Formulas give the value that was last computed for them.

    Raises TableInvalid if the file is no workbook; cells that hold an Excel error go to `problems`.
    """
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # about styles and validations that are of no interest here
            book = _workbook(content, values=True)
            records, wrong_cells = _sheet_records(book)
            wrong_cells += _uncomputed_formulas(content, book)
    except _BROKEN_WORKBOOK as error:
        message = f"is not a whole .xlsx workbook ({type(error).__name__}: {str(error)[:100]})"
        raise TableInvalid(label, [Problem(message)]) from error
    if len(book.sheetnames) > 1:
        title = book.sheetnames[0]
        warnings.append(Problem(f"sheet {title!r} of {len(book.sheetnames)} is read, the first one"))
    header: list[str] = next((cells for _, cells in records if any(cells)), list[str]())
    for row, place, message in wrong_cells:
        name = header[place - 1] if place <= len(header) else ""
        problems.append(Problem(message, row=row, column=name or get_column_letter(place)))
    return records


def _workbook(content: bytes, *, values: bool) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=values)


def _first_sheet(book: openpyxl.Workbook) -> Any:
    sheet = cast("Any", book.worksheets[0])
    sheet.reset_dimensions()  # some programs write them wrong, and rows would be cut off
    return sheet


def _sheet_records(book: openpyxl.Workbook) -> tuple[list[Record], list[_WrongCell]]:
    records: list[Record] = []
    wrong_cells: list[_WrongCell] = []
    for number, row in enumerate(_first_sheet(book).iter_rows(), start=1):
        for place, cell in enumerate(row, start=1):
            if cell.data_type == "e":
                wrong_cells.append((number, place, f"holds the Excel error {cell.value}"))
        records.append((number, [_excel_text(cell.value) for cell in row]))
    return records, wrong_cells


def _uncomputed_formulas(content: bytes, book: openpyxl.Workbook) -> list[_WrongCell]:
    """Formulas without a value, as programs write them: they would read as empty cells."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        if not any(_FORMULA.search(archive.read(name)) for name in sheets):
            return []
    values = _first_sheet(book).iter_rows(values_only=True)
    formulas = _first_sheet(_workbook(content, values=False)).iter_rows()
    message = "holds a formula that was never computed: open the file in a spreadsheet program and save it"
    return [
        (number, place, message)
        for number, rows in enumerate(zip(values, formulas, strict=False), start=1)
        for place, (value, cell) in enumerate(zip(*rows, strict=False), start=1)
        if value is None and cell.data_type == "f"
    ]


def _excel_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return as_text(value)


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
