"""The first sheet of an Excel workbook as records of text. Imported for workbooks alone: openpyxl is not small."""

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
from prefect_together.table.formats import Record, as_text

_WrongCell = tuple[int, int, str]
"""Row, place in it (from 1) and what is wrong."""

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
