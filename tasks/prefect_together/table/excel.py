"""A sheet of an Excel workbook as records of text. Imported for workbooks alone: openpyxl is not small."""

from __future__ import annotations

import io
import re
import warnings as python_warnings
import zipfile
import zlib
from datetime import datetime, time
from typing import Any, cast

import openpyxl
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from prefect_together.errors import Problem, TableInvalid
from prefect_together.table.columns import meaning_of
from prefect_together.table.formats import Record, as_text

_WrongCell = tuple[int, int, str]
"""Row, place in it (from 1) and what is wrong."""

ROWS_WITH_A_HEADER = 10
"""In which the header is looked for, below a title."""
ROWS_NAMED = 5

_FORMULA = re.compile(rb"<f[ >]")

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
    """One sheet of a workbook: that of this name, else the first visible one with a column prompt, else the first.

    Hidden rows are left out. Formulas give the value that was last computed for them. Raises TableInvalid if the file
    is no workbook; cells that hold an Excel error, and merged cells, go to `problems`.
    """
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # about styles and validations that are of no interest here
            book = _workbook(content, values=True)
            chosen = _chosen_sheet(book, sheet, label, warnings)
            records, wrong_cells = _sheet_records(chosen, warnings)
            wrong_cells += _uncomputed_formulas(content, chosen)
    except _BROKEN_WORKBOOK as error:
        message = f"is not a whole .xlsx workbook ({type(error).__name__}: {str(error)[:100]})"
        raise TableInvalid(label, [Problem(message)]) from error
    header_row, header = _header(records)
    for row, place, message in [*wrong_cells, *_merged_cells(chosen, header_row, header)]:
        name = header[place - 1] if place <= len(header) else ""
        problems.append(Problem(message, row=row, column=name or get_column_letter(place)))
    return records


def _workbook(content: bytes, *, values: bool) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(content), data_only=values)


def _chosen_sheet(book: openpyxl.Workbook, name: str | None, label: str, warnings: list[Problem]) -> Any:
    sheets = {sheet.title: cast("Any", sheet) for sheet in book.worksheets}
    if name is not None:
        if name not in sheets:
            raise TableInvalid(label, [Problem(f"has no sheet {name!r}: its sheets are {', '.join(sheets)}")])
        return sheets[name]
    visible = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible"] or list(sheets.values())
    chosen = next((sheet for sheet in visible if _has_prompts(sheet)), visible[0])
    others = [title for title in sheets if title != chosen.title]
    if others:
        hidden = [title for title in others if sheets[title].sheet_state != "visible"]
        named = ", ".join(f"{title} (hidden)" if title in hidden else title for title in others)
        warnings.append(Problem(f"sheet {chosen.title!r} is read, not {named}: another one by the setting sheet"))
    return chosen


def _has_prompts(sheet: Any) -> bool:
    rows = sheet.iter_rows(max_row=ROWS_WITH_A_HEADER, values_only=True)
    return any(meaning_of(cell) == "prompt" for row in rows for cell in row if isinstance(cell, str))


def _sheet_records(sheet: Any, warnings: list[Problem]) -> tuple[list[Record], list[_WrongCell]]:
    records: list[Record] = []
    wrong_cells: list[_WrongCell] = []
    hidden: list[int] = []
    for number, row in enumerate(sheet.iter_rows(), start=1):
        if sheet.row_dimensions[number].hidden and any(cell.value is not None for cell in row):
            hidden.append(number)
            continue
        for place, cell in enumerate(row, start=1):
            if cell.data_type == "e":
                wrong_cells.append((number, place, f"holds the Excel error {cell.value}"))
        records.append((number, [_excel_text(cell.value) for cell in row]))
    if hidden:
        named = ", ".join(map(str, hidden[:ROWS_NAMED])) + (", ..." if len(hidden) > ROWS_NAMED else "")
        rows = "row is" if len(hidden) == 1 else "rows are"
        warnings.append(Problem(f"{len(hidden):,} hidden {rows} left out ({named}): show them to have them made"))
    return records, wrong_cells


def _header(records: list[Record]) -> tuple[int, list[str]]:
    """The number of the header's row, and its cells; 0 if there is none."""
    filled = [record for record in records if any(record[1])][:ROWS_WITH_A_HEADER]
    named = (record for record in filled if any(meaning_of(cell) == "prompt" for cell in record[1] if cell))
    return next(named, filled[0] if filled else (0, []))


def _merged_cells(sheet: Any, header_row: int, header: list[str]) -> list[_WrongCell]:
    """Cells of several rows that are one: all but the first of them read as empty."""
    wrong_cells: list[_WrongCell] = []
    for merged in sheet.merged_cells.ranges:
        place = int(merged.min_col)
        name = header[place - 1] if place <= len(header) else ""
        if merged.max_row > merged.min_row > header_row and meaning_of(name) is not None:
            message = f"is merged over {merged.coord}: unmerge these cells and fill in each of them"
            wrong_cells.append((merged.min_row, place, message))
    return wrong_cells


def _uncomputed_formulas(content: bytes, sheet: Any) -> list[_WrongCell]:
    """Formulas without a value, as programs write them: they would read as empty cells."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        if not any(_FORMULA.search(archive.read(name)) for name in sheets):
            return []
    values = sheet.iter_rows(values_only=True)
    formulas = cast("Any", _workbook(content, values=False)[sheet.title]).iter_rows()
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
