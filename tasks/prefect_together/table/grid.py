"""A table's bytes -> its columns and cells as text: CSV, JSON lines, Parquet, Excel. Knows nothing of videos.

Nothing is interpreted: a cell is the text that stands in the table ("007", "NA", "8"). Cells that have a type of
their own (JSON, Parquet, Excel) become the text that a person would have written: 8, 0.1, true, 2026-01-05.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

import pandas

from prefect_together.errors import Problem, TableInvalid, missing_extra
from prefect_together.table.columns import RESULT_COLUMNS, is_results_table, unescape_cell
from prefect_together.table.formats import Record, json_records
from prefect_together.table.source import DELIMITERS, TableSource

MAX_COLUMNS = 2_000

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_FILES = {
    b"\xd0\xcf\x11\xe0": "is an old .xls file, or protected by a password: save it as .xlsx without one, or as CSV",
    b"%PDF": "is a PDF",
    b"\x1f\x8b": "is compressed (gzip): unpack it first",
    b"SQLite format 3": "is a database",
}
_EMPTY = "is empty: the first line must be a header with a column prompt"
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))+")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n)', re.IGNORECASE)

# pandas' strict parser is built on this module, whose limit of 131,072 characters a cell may pass.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Grid:
    """A table as text. Every row has as many cells as there are columns; empty rows are left out.

    `rows` bear their number as a spreadsheet counts it (the header is row 1; the line's number in JSON lines).
    """

    columns: tuple[str, ...]
    rows: list[Record]
    problems: list[Problem]
    warnings: list[Problem]


def read_grid(source: TableSource, *, known_columns: Collection[str]) -> Grid:
    """Read a table. `known_columns` (lower case) tell which of several possible delimiters is meant.

    Raises TableInvalid if there is no reading it. What is wrong with single rows or columns is in `problems`.
    """
    warnings: list[Problem] = []
    problems: list[Problem] = []
    content = source.content
    if isinstance(content, bytes) and content[:4] == b"PK\x03\x04":
        try:
            from prefect_together.table.excel import excel_records  # here and below: imported for who needs it
        except ImportError:
            _refuse(source.label, missing_extra("openpyxl, which reads workbooks,", "excel"))

        records = excel_records(content, source.label, problems=problems, warnings=warnings)
    elif isinstance(content, bytes) and content[:4] == b"PAR1":
        try:
            from prefect_together.table.parquet import parquet_records
        except ImportError:
            _refuse(source.label, missing_extra("pyarrow, which reads Parquet,", "parquet"))

        records = parquet_records(content, source.label, problems=problems)
    else:
        text = content if isinstance(content, str) else _decoded(content, source)
        text = text.lstrip("\ufeff")
        if _is_json_lines(text, source):
            records = json_records(text, problems=problems)
        else:
            records = _csv_records(text, source, known_columns)
    return _grid(records, source.label, problems, warnings)


def _decoded(content: bytes, source: TableSource) -> str:
    """The text of a file: by its byte order mark, else UTF-16 if every other byte of its start is NUL, else UTF-8."""
    for beginning, what in _OTHER_FILES.items():
        if content.startswith(beginning):
            _refuse(source.label, what)
    if source.suffix in {".parquet", ".xlsx"}:
        _refuse(source.label, f"is not a whole {source.suffix} file: it begins with {content[:8]!r}")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    start = content[:16]
    if encoding is None and len(start) > 3 and 0 in start:
        halves = (not any(start[1::2]), not any(start[0::2]))
        encoding = {(True, False): "utf-16-le", (False, True): "utf-16-be"}.get(halves)
    encoding = encoding or "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        around = content[max(0, error.start - 20) : error.start].rpartition(b"\n")[2]
        _refuse(
            source.label,
            f"is not {encoding.upper()}: byte 0x{content[error.start]:02x} in line {line}, after"
            f" {around.decode(encoding, 'replace')!r}. Save it as CSV UTF-8 (UTF-16 is read too;"
            " older encodings such as Windows-1252 are not guessed)",
        )


def _is_json_lines(text: str, source: TableSource) -> bool:
    if source.suffix in {".jsonl", ".ndjson"}:
        return True
    start = text.lstrip()[:1]
    if start == "[" and (source.suffix == ".json" or isinstance(source.content, str)):
        _refuse(source.label, "is a JSON list: write one object a line (.jsonl)")
    return start == "{" and source.suffix not in {".csv", ".tsv", ".txt"}


def _csv_records(text: str, source: TableSource, known_columns: Collection[str]) -> list[Record]:
    number, start, delimiter = 1, 0, None
    if hint := _SEPARATOR_LINE.match(text):  # a line that Excel writes for itself
        number, start, delimiter = 2, hint.end(), hint.group(1)
    if blank := _BLANK_LINES.match(text, start):
        number += len(re.findall(r"\r\n|\r|\n", blank.group()))
        start = blank.end()
    text = text[start:]
    if not text.strip():
        _refuse(source.label, _EMPTY)
    if delimiter is None:
        delimiter = _delimiter(text, source, known_columns)
    try:
        rows = _parsed(text, delimiter)
    except pandas.errors.ParserError:
        rows = _parsed(text, delimiter, width=_widest(text, delimiter, number, source.label))
    return [(number + index, [cell or "" for cell in row]) for index, row in enumerate(rows)]


def _parsed(text: str, delimiter: str, *, width: int | None = None) -> list[list[str | None]]:
    """Every record of a CSV as it stands; `width` is that of the widest one if it is not the first."""
    frame = pandas.read_csv(
        io.StringIO(text, newline=""),
        sep=delimiter,
        engine="python",  # strict about quotes, where the C engine mends silently
        header=None,
        names=None if width is None else list(range(width)),
        index_col=False,
        dtype=object,
        keep_default_na=False,
        na_filter=False,
        skip_blank_lines=False,
    )
    return frame.to_numpy().tolist()


def _widest(text: str, delimiter: str, first_row: int, label: str) -> int:
    """How many cells the widest record has. pandas stops at the first bad one, without the row as one counts it."""
    width, row = 0, first_row
    try:
        for record in csv.reader(_lines(text), delimiter=delimiter, strict=True):
            width, row = max(width, len(record)), row + 1
    except csv.Error as error:
        message = f"cannot be read ({error})"
        if "expected after" in str(error):
            message = 'has text after a closing quote: inside quotes, write a quote twice (""), and quote whole cells'
        elif "end of data" in str(error):
            message = "a quote is opened and never closed: close it, or write the quote twice inside quotes"
        raise TableInvalid(label, [Problem(message, row=row)]) from error
    if width > MAX_COLUMNS:
        _refuse(label, f"has a row of {width:,} cells; at most {MAX_COLUMNS:,} columns are read")
    return width


def _lines(text: str) -> io.StringIO:
    return io.StringIO(text, newline="")


def _delimiter(text: str, source: TableSource, known_columns: Collection[str]) -> str:
    """The delimiter with which the header has most of the known names; then most cells; then as listed."""
    preferred = ("\t", ",", ";", "|") if source.suffix == ".tsv" else DELIMITERS
    scores: list[tuple[int, int, int]] = []
    for place, delimiter in enumerate(preferred):
        header = next(csv.reader(_lines(text), delimiter=delimiter))
        known = sum(cell.strip().lower() in known_columns for cell in header)
        scores.append((known, len(header), -place))
    best = max(scores)
    if best[1] == 1 and source.suffix not in {".csv", ".tsv"}:
        # One column: a line is a cell, commas and all. No character that the text holds can then part cells.
        return next((mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in text), ",")
    return preferred[-best[2]]


def _grid(records: Sequence[Record], label: str, problems: list[Problem], warnings: list[Problem]) -> Grid:
    """Part the header from the rows, check their shape, and leave out what is empty and what results.csv added."""
    filled = [record for record in records if any(cell.strip() for cell in record[1])]
    if not filled:
        raise TableInvalid(label, problems or [Problem(_EMPTY)])
    header, rows = filled[0][1], filled[1:]
    width = max(place for place, name in enumerate(header, start=1) if name.strip())
    problems += [problem for row in filled for problem in _shape_problems(row, width)]
    problems += _header_problems(header[:width], rows)
    rows = [(number, _as_wide(cells, width)) for number, cells in rows]

    names = [name.strip() for name in header[:width]]
    is_results = is_results_table(names)
    if is_results:
        names = [unescape_cell(name) for name in names]
        rows = [(number, [unescape_cell(cell) for cell in cells]) for number, cells in rows]
    else:
        warnings += [
            Problem("is ignored: results.csv has a column of this name. Rename it to keep it", column=name)
            for name in names
            if name in RESULT_COLUMNS
        ]
    kept = [place for place, name in enumerate(names) if name and name not in RESULT_COLUMNS]
    if len(kept) < width:
        rows = [(number, [cells[place] for place in kept]) for number, cells in rows]
    return Grid(tuple(names[place] for place in kept), rows, problems, warnings)


def _as_wide(cells: list[str], width: int) -> list[str]:
    return cells[:width] + [""] * (width - len(cells))


def _shape_problems(record: Record, width: int) -> list[Problem]:
    """Cells beyond the header's, and characters that no cell can keep."""
    number, cells = record
    problems: list[Problem] = []
    if any(cell.strip() for cell in cells[width:]):
        used = max(place for place, cell in enumerate(cells, start=1) if cell.strip())
        message = f"has {used} cells, the header names {width}: a cell that holds the delimiter needs quotes"
        problems.append(Problem(message, row=number))
    text = "".join(cells)
    if "\x00" in text:
        problems.append(Problem("holds a NUL character: take it out", row=number))
    if not text.isascii() and not _is_whole_unicode(text):
        problems.append(Problem("holds half a character (a lone surrogate): it cannot be sent", row=number))
    return problems


def _is_whole_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _header_problems(header: list[str], rows: list[Record]) -> list[Problem]:
    """Names that stand twice, and columns with cells but without a name."""
    problems: list[Problem] = []
    names = [name.strip() for name in header]
    for place, name in enumerate(names):
        if name and name in names[:place]:
            message = f"stands in the header twice (columns {names.index(name) + 1} and {place + 1}): rename one"
            problems.append(Problem(message, row=None, column=name))
        if not name:
            used = [number for number, cells in rows if place < len(cells) and cells[place].strip()]
            if used:
                message = f"column {place + 1} has cells (the first in row {used[0]}) but no name in the header"
                problems.append(Problem(message))
    return problems


def _refuse(label: str, message: str) -> NoReturn:
    raise TableInvalid(label, [Problem(message)])
