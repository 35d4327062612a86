"""A sheet of an Excel workbook as records of text. Imported for workbooks only: openpyxl is not small, and an extra."""

from __future__ import annotations

import io
import re
import warnings as python_warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from itertools import islice
from typing import Any, cast

import openpyxl
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.exceptions import InvalidFileException

from prefect_together.grid.columns import HEADER_WITHIN, header_place, meaning_of
from prefect_together.grid.formats import Record, as_text
from prefect_together.problems import Problem, TableInvalid
from prefect_together.request.fields import counted, listed_numbers

_WrongCell = tuple[int, int, str]
"""Row, place in it (from 1) and what is wrong."""

_FORMULA = re.compile(rb"<f[ >]")
_TAG = re.compile(rb"<(?:\w+:)?(row|col|mergeCell)\b([^>]*)>")
_ATTRIBUTE = re.compile(rb"(\w+)=[\"']([^\"']*)[\"']")

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


def excel_records(
    content: bytes, label: str, *, sheet: str | None, problems: list[Problem], warnings: list[Problem]
) -> list[Record]:
    """A sheet of a workbook: the one called `sheet`, else the first that is not hidden and has a column prompt.

    Formulas give the value that was last computed for them. Hidden rows are left out, with a warning. Raises
    TableInvalid if the file is no workbook; cells that hold an Excel error, or are merged, go to `problems`.
    """
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # about styles and validations that are of no interest here
            book = _workbook(content, values=True)
            place = _sheet_place(book, sheet, label, warnings)
            records, wrong_cells = _sheet_records(book, place)
            layout = _layout(content, _sheet(book, place))
            if layout.has_formulas:
                wrong_cells += _uncomputed_formulas(content, book, place)
    except _BROKEN_WORKBOOK as error:
        raise TableInvalid(label, [Problem(_not_a_workbook(content, error))]) from error
    filled = [record for record in records if any(record[1])]
    shown_rows = [record for record in filled if record[0] not in layout.hidden_rows]
    left_out = [number for number, _ in filled if number in layout.hidden_rows]
    if left_out:
        rows = f"{counted(len(left_out), 'hidden row')} {'is' if len(left_out) == 1 else 'are'} left out"
        warnings.append(Problem(f"{rows} ({listed_numbers(left_out)}): unhide them to have them made"))
    header_row, header = shown_rows[header_place([cells for _, cells in shown_rows])] if shown_rows else (0, [])
    names = {at: name.strip() for at, name in enumerate(header, start=1)}
    for number, at, message in wrong_cells:
        if number not in layout.hidden_rows:
            problems.append(Problem(message, row=number, column=names.get(at) or get_column_letter(at)))
    hidden = [name for at, name in names.items() if at in layout.hidden_columns and meaning_of(name)]
    warnings += [Problem("is hidden in the workbook, and is used", column=name) for name in hidden]
    _note_merged(layout.merged, header_row, names, problems, warnings)
    return shown_rows


def _not_a_workbook(content: bytes, error: Exception) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "mimetype" in names and b"opendocument" in archive.read("mimetype"):
                return "is an OpenDocument file: save it as .xlsx or CSV"
            if "[Content_Types].xml" not in names:
                return "is a .zip archive: unpack it, and give the table in it"
    except _BROKEN_WORKBOOK:
        pass  # a damaged archive: what the workbook's reader says of it is said
    return f"is not a whole .xlsx workbook ({type(error).__name__}: {str(error)[:100]})"


def _workbook(content: bytes, *, values: bool) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=values)


def _sheet(book: openpyxl.Workbook, place: int) -> Any:
    sheet = cast("Any", book.worksheets[place])
    sheet.reset_dimensions()  # some programs write them wrong, and rows would be cut off
    return sheet


def _sheet_place(book: openpyxl.Workbook, wanted: str | None, label: str, warnings: list[Problem]) -> int:
    """Which sheet is read, with a warning if there was a choice. Raises TableInvalid."""
    titles = [sheet.title for sheet in book.worksheets]
    if wanted is not None:
        folded = [title.strip().casefold() for title in titles]
        if wanted.strip().casefold() not in folded:
            raise TableInvalid(label, [Problem(f"has no sheet {wanted!r}: its sheets are {', '.join(titles)}")])
        return titles.index(wanted) if wanted in titles else folded.index(wanted.strip().casefold())
    visible = [place for place, sheet in enumerate(book.worksheets) if sheet.sheet_state == "visible"]
    if not visible:
        message = f"has only hidden sheets ({', '.join(titles)}): unhide one, or name it by the setting sheet"
        raise TableInvalid(label, [Problem(message)])
    place = next((place for place in visible if _has_prompts(_sheet(book, place))), visible[0])
    others = [other for other in range(len(titles)) if other != place]
    if others:
        named = ", ".join(titles[other] if other in visible else f"{titles[other]} (hidden)" for other in others)
        warnings.append(Problem(f"sheet {titles[place]!r} is read, not {named}: another one by the setting sheet"))
    return place


def _has_prompts(sheet: Any) -> bool:
    """Whether one of a sheet's first rows is a header with a prompt, under this name or another one."""
    rows = islice(sheet.iter_rows(values_only=True), HEADER_WITHIN)
    headers = ([_excel_text(value) for value in row] for row in rows)
    return any("prompt" in map(meaning_of, cells) for cells in headers)


def _sheet_records(book: openpyxl.Workbook, place: int) -> tuple[list[Record], list[_WrongCell]]:
    records: list[Record] = []
    wrong_cells: list[_WrongCell] = []
    for number, row in enumerate(_sheet(book, place).iter_rows(), start=1):
        for at, cell in enumerate(row, start=1):
            if cell.data_type == "e":
                wrong_cells.append((number, at, f"holds the Excel error {cell.value}"))
        records.append((number, [_excel_text(cell.value) for cell in row]))
    return records, wrong_cells


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a sheet's file says beside its cells: rows and columns from 1, merged ranges such as "A2:A4"."""

    hidden_rows: frozenset[int]
    hidden_columns: frozenset[int]
    merged: tuple[str, ...]
    has_formulas: bool


def _layout(content: bytes, sheet: Any) -> _Layout:
    """openpyxl tells none of it of a workbook that it reads row by row; loaded as a whole, one is many times larger."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        xml = archive.read(sheet._worksheet_path.lstrip("/"))
    hidden_rows: set[int] = set()
    hidden_columns: set[int] = set()
    merged: list[str] = []
    number = 0
    for tag, text in _TAG.findall(xml):
        attributes = {name: value.decode() for name, value in _ATTRIBUTE.findall(text)}
        is_hidden = attributes.get(b"hidden") in {"1", "true"}
        if tag == b"row":
            number = int(attributes.get(b"r", number + 1))
            if is_hidden:
                hidden_rows.add(number)
        elif tag == b"col" and is_hidden:
            hidden_columns.update(range(int(attributes[b"min"]), min(int(attributes[b"max"]), 16_384) + 1))
        elif tag == b"mergeCell":
            merged.append(attributes[b"ref"])
    return _Layout(frozenset(hidden_rows), frozenset(hidden_columns), tuple(merged), _FORMULA.search(xml) is not None)


def _note_merged(
    merged: Iterable[str], header_row: int, names: Mapping[int, str], problems: list[Problem], warnings: list[Problem]
) -> None:
    """Only the first of merged cells has a value: a mistake in a column that is used, else a warning."""
    of_column: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    for cells in merged:
        left, top, right, bottom = cast("tuple[int, int, int, int]", range_boundaries(cells))
        if bottom > header_row:
            columns = [names.get(at, "") for at in range(left, right + 1)]
            used = next((name for name in columns if name and meaning_of(name)), None)
            key = (used or columns[0] or get_column_letter(left), used is not None)
            of_column.setdefault(key, []).append((top, cells))
    for (column, is_used), ranges in of_column.items():
        row, cells = ranges[0]
        more = f" (and {counted(len(ranges) - 1, 'more range')})" if len(ranges) > 1 else ""
        message = f"is merged over {cells}{more}"
        if is_used:
            problems.append(Problem(f"{message}: unmerge these cells and fill in each of them", row=row, column=column))
        else:
            warnings.append(Problem(f"{message}: only the first of these cells has the value", row=row, column=column))


def _uncomputed_formulas(content: bytes, book: openpyxl.Workbook, place: int) -> list[_WrongCell]:
    """Formulas without a value, as programs write them: they would read as empty cells."""
    values = _sheet(book, place).iter_rows(values_only=True)
    formulas = _sheet(_workbook(content, values=False), place).iter_rows()
    message = "holds a formula that was never computed: open the file in a spreadsheet program and save it"
    return [
        (number, at, message)
        for number, rows in enumerate(zip(values, formulas, strict=False), start=1)
        for at, (value, cell) in enumerate(zip(*rows, strict=False), start=1)
        if value is None and cell.data_type == "f"
    ]


def _excel_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return as_text(value)
