"""A table's bytes -> its columns and cells as text: CSV, JSON, Markdown, lists, Parquet, Excel. Knows no videos.

Nothing is interpreted: a cell is the text that stands in the table ("007", "NA", "8"). Cells that have a type of
their own (JSON, Parquet, Excel) become the text that a person would have written: 8, 0.1, true, 2026-01-05.
What had to be guessed is a warning.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from prefect_together.grid.columns import (
    CLIP_COLUMNS,
    PLAIN_CELLS,
    RESULT_COLUMNS,
    STILL_RESULT_COLUMNS,
    header_place,
    is_known_column,
    is_results_table,
    is_videos_table,
    unescape_cell,
)
from prefect_together.grid.formats import (
    Record,
    are_prompts,
    frame_records,
    is_markdown_table,
    json_records,
    list_records,
    markdown_records,
    parquet_records,
)
from prefect_together.grid.source import DELIMITERS, TableSource, long_cells
from prefect_together.problems import Problem, TableInvalid, missing_extra
from prefect_together.request.fields import counted, is_sendable

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
    b"SQLite format 3": "is a database",
    b"{\\rtf": "is an RTF document: save it as plain text or CSV",
    b"\x89PNG": "is an image",
    b"\xff\xd8\xff": "is an image",
}
_EMPTY = "is empty: the first line must be a header with a column prompt"
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))+")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n)', re.IGNORECASE)

MAX_UNPACKED_BYTES = 1 << 30
_NOT_LATIN = re.compile(rb"[\x00-\x08\x0e-\x1f]|[\x80-\xff]{3}")
"""Control characters, or three letters that are not ASCII side by side: Cyrillic, Greek, Chinese, no text at all."""
_HTML = re.compile(rb"\s*(?:<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class Grid:
    """A table as text. Every row has as many cells as there are columns; empty rows are left out.

    `rows` have their number as a spreadsheet counts it (the header is row 1; the line's number in JSON lines).
    `is_videos`: it is a videos.csv, in which each row is one video.
    """

    columns: tuple[str, ...]
    rows: list[Record]
    problems: list[Problem]
    warnings: list[Problem]
    is_videos: bool = False


def read_grid(source: TableSource, *, sheet: str | None = None) -> Grid:
    """Read a table; `sheet` names one of a workbook.

    Raises TableInvalid if there is no reading it. What is wrong with single rows or columns is in `problems`.
    """
    warnings: list[Problem] = []
    problems: list[Problem] = []
    source = _unpacked(source)
    content = source.content
    if sheet is not None and not (isinstance(content, bytes) and content[:4] == b"PK\x03\x04"):
        _refuse(source.label, "is no workbook, and has no sheets: leave sheet out")
    if isinstance(content, bytes) and content[:4] == b"PK\x03\x04":
        try:
            from prefect_together.grid.excel import excel_records  # not small, and an extra
        except ImportError:
            _refuse(source.label, missing_extra("openpyxl, which reads workbooks,", "excel"))

        records = excel_records(content, source.label, sheet=sheet, problems=problems, warnings=warnings)
    elif isinstance(content, bytes) and content[:4] == b"PAR1":
        records = parquet_records(content, source.label, problems=problems)
    else:
        text = content if isinstance(content, str) else _decoded(content, source, warnings)
        with long_cells():
            records = _text_records(text.lstrip("\ufeff"), source, problems, warnings)
    return _grid(records, source.label, problems, warnings)


def read_frame(frame: Any, label: str) -> Grid:
    """The grid of a pandas DataFrame, as `read_grid` gives it."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    records = frame_records(frame, problems=problems, warnings=warnings)
    is_plain = bool(frame.attrs.get(PLAIN_CELLS))
    return _grid(records, label, problems, warnings, is_plain=is_plain)


def _unpacked(source: TableSource) -> TableSource:
    """What is inside a gzip file; its name is then without the .gz."""
    if not (isinstance(source.content, bytes) and source.content.startswith(b"\x1f\x8b")):
        return source
    try:
        with gzip.open(io.BytesIO(source.content)) as file:
            content = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(source.label, f"is not a whole gzip file ({error})")
    if len(content) > MAX_UNPACKED_BYTES:
        _refuse(source.label, f"is more than {MAX_UNPACKED_BYTES >> 20:,} MB when unpacked")
    return replace(source, content=content, suffix=source.inner_suffix)


def _decoded(content: bytes, source: TableSource, warnings: list[Problem]) -> str:
    """The text of a file: by its byte order mark, else UTF-16 if every other byte of its start is NUL, else as its
    address declares, else UTF-8; if it is not that, Windows-1252, which is a guess."""
    for beginning, what in _OTHER_FILES.items():
        if content.startswith(beginning):
            _refuse(source.label, what)
    if _HTML.match(content):
        _refuse(
            source.label,
            "is a web page (HTML), not a table. Of a Google sheet, give the link that exports it:"
            " https://docs.google.com/spreadsheets/d/ID/export?format=csv",
        )
    if source.suffix in {".parquet", ".xlsx"}:
        _refuse(source.label, f"is not a whole {source.suffix} file: it begins with {content[:8]!r}")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    start = content[:16]
    if encoding is None and len(start) > 3 and 0 in start:
        halves = (not any(start[1::2]), not any(start[0::2]))
        encoding = {(True, False): "utf-16-le", (False, True): "utf-16-be"}.get(halves)
    # Servers declare Latin-1 also of what is UTF-8, which no other text is by accident.
    is_utf8 = encoding is None and not content.isascii() and _text_in("utf-8", content) is not None
    for name in (encoding, "utf-8" if is_utf8 else source.charset, "utf-8"):
        if name is not None and (text := _text_in(name, content)) is not None:
            return text
    guessed = _windows_1252(content)
    if guessed is None:
        _refuse(source.label, f"{_not_utf8(content)}: save it as CSV UTF-8")
    first = next(match for match in re.finditer(r"\S*[^\x00-\x7f]\S*", guessed))
    line = guessed.count("\n", 0, first.start()) + 1
    message = f"is not UTF-8, and is read as Windows-1252 (Latin-1): is {first.group()[:40]!r} in line {line} right?"
    warnings.append(Problem(message))
    return guessed


def _text_in(encoding: str, content: bytes) -> str | None:
    try:
        return content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _not_utf8(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        before = content[max(0, error.start - 20) : error.start].rpartition(b"\n")[2].decode("utf-8", "replace")
        return f"is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}, after {before!r}), nor plainly Latin-1"
    return "is not in the encoding that it declares"


def _windows_1252(content: bytes) -> str | None:
    """The text, unless it holds what speaks against it: NUL, UTF-8 among it, or runs as of another script."""
    has_utf8 = not content.decode("utf-8", "ignore").isascii()
    return None if has_utf8 or _NOT_LATIN.search(content) else _text_in("cp1252", content)


def _text_records(text: str, source: TableSource, problems: list[Problem], warnings: list[Problem]) -> list[Record]:
    start = text.lstrip()[:1]
    is_table_file = source.suffix in {".csv", ".tsv"}
    if source.suffix in {".json", ".jsonl", ".ndjson"} or (start in ("{", "[") and not is_table_file):
        return json_records(text, problems=problems, warnings=warnings)
    if not is_table_file and is_markdown_table(text):
        return markdown_records(text, warnings=warnings)
    records = _csv_records(text, source, warnings)
    if records is None:
        return _list_records(text, source, warnings)
    if _is_one_column_without_header(records):
        warnings.append(Problem(f"has no header: each of {counted(len(records), 'row')} is read as one prompt"))
        records.insert(0, (0, ["prompt"]))
    return records


def _list_records(text: str, source: TableSource, warnings: list[Problem]) -> list[Record]:
    """One prompt a line. Quotes are text in a .txt file; in pasted text with a header they are those of a CSV."""
    lines = re.split(r"\r\n|\r|\n", text)
    first = next((line for line in lines if line.strip() and line.lstrip()[0] != "#"), "")
    has_header = is_known_column(first)
    if has_header and source.suffix != ".txt" and '"' in text and "#" not in text:
        unused = next((mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in text), ",")
        blank = _BLANK_LINES.match(text)
        start = blank.end() if blank else 0
        number = 1 + len(re.findall(r"\r\n|\r|\n", text[:start]))
        rows = _parsed(text[start:], unused, number, source.label)
        return [(number + index, row) for index, row in enumerate(rows)]
    return list_records(text, has_header=has_header, warnings=warnings)


def _is_one_column_without_header(records: Sequence[Record]) -> bool:
    filled = [cells for _, cells in records if any(cells)]
    if any(len(cells) > 1 for cells in filled) or not filled or is_known_column(filled[0][0]):
        return False
    return are_prompts("\n".join(" ".join(cells[0].split()) for cells in filled))


def _csv_records(text: str, source: TableSource, warnings: list[Problem]) -> list[Record] | None:
    """The records of a CSV; None if the text is no CSV but a list with one prompt a line."""
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
        delimiter = _delimiter(text, source)
    if delimiter is None:
        return None
    if delimiter == "\t" and (rows := _unquoted_tsv(text)) is not None:
        warnings.append(Problem("quotes are taken as they stand: read as quoted cells, they would join rows"))
    else:
        rows = _parsed(text, delimiter, number, source.label)
    if (width := max(map(len, rows))) > MAX_COLUMNS:
        _refuse(source.label, f"has a row of {width:,} cells; at most {MAX_COLUMNS:,} columns are read")
    return [(number + index, row) for index, row in enumerate(rows)]


def _parsed(text: str, delimiter: str, first_row: int, label: str) -> list[list[str]]:
    """Every record of a CSV as it stands. Raises TableInvalid with the row of a quote that is wrong."""
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(_lines(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        message = f"cannot be read ({error})"
        if "expected after" in str(error):
            message = 'has text after a closing quote: inside quotes, write a quote twice (""), and quote whole cells'
        elif "end of data" in str(error):
            message = "a quote is opened and never closed: close it, or write the quote twice inside quotes"
        raise TableInvalid(label, [Problem(message, row=first_row + len(rows))]) from error
    return rows


def _unquoted_tsv(text: str) -> list[list[str]] | None:
    """The rows of a TSV whose quotes are text: lines fit the header as they stand, and do not as quoted cells."""
    lines = [line.split("\t") for line in re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))]
    if '"' not in text or any(len(cells) != len(lines[0]) for cells in lines if cells != [""]):
        return None
    if all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in lines[0]):  # who quotes the header quotes the cells
        return None
    try:
        quoted = sum(1 for _ in csv.reader(_lines(text.rstrip("\r\n")), delimiter="\t", strict=True))
    except csv.Error:
        quoted = 0
    return lines if quoted != len(lines) else None


def _lines(text: str) -> io.StringIO:
    return io.StringIO(text, newline="")


def _delimiter(text: str, source: TableSource) -> str | None:
    """The delimiter with which the header has most of the known names; then most cells; then as listed.

    None for a list with one prompt a line: text that is no .csv or .tsv file, with a header of one known name, or none.
    """
    preferred = ("\t", ",", ";", "|") if source.suffix == ".tsv" else DELIMITERS
    scores: list[tuple[int, int, int]] = []
    for place, delimiter in enumerate(preferred):
        header = next(csv.reader(_lines(text), delimiter=delimiter))
        known = sum(is_known_column(cell) for cell in header)
        scores.append((known, len(header), -place))
    known, cells, place = max(scores)
    if source.suffix in {".csv", ".tsv"} or (known and cells > 1):
        return preferred[-place]
    if known:
        return None
    is_list = are_prompts(text) or source.suffix == ".txt"
    return None if is_list and not _is_tabular(text, preferred[-place]) else preferred[-place]


def _is_tabular(text: str, delimiter: str) -> bool:
    """Whether the lines look like rows of cells: as many in each, and no blank behind the first line's delimiters."""
    widths = {len(line.split(delimiter)) for line in text.splitlines() if line.strip()}
    return len(widths) == 1 and widths != {1} and f"{delimiter} " not in text.splitlines()[0]


def _grid(
    records: Sequence[Record], label: str, problems: list[Problem], warnings: list[Problem], *, is_plain: bool = False
) -> Grid:
    """Separate the header from the rows, check their shape, leave out what is empty and what results.csv added."""
    filled = [record for record in records if any(cell.strip() for cell in record[1])]
    if not filled:
        raise TableInvalid(label, problems or [Problem(_EMPTY)], warnings)
    filled = _below_title(filled, warnings)
    header, rows = filled[0][1], filled[1:]
    width = max(place for place, name in enumerate(header, start=1) if name.strip())
    problems += [problem for row in filled for problem in _shape_problems(row, width)]
    problems += _header_problems(header[:width], rows)
    rows = [(number, cells[:width] + [""] * (width - len(cells))) for number, cells in rows]

    names = [name.strip() for name in header[:width]]
    is_results, is_videos = is_results_table(names), is_videos_table(names)
    if is_results and not is_plain:
        names = [unescape_cell(name) for name in names]
        rows = [(number, [unescape_cell(cell) for cell in cells]) for number, cells in rows]
    if not is_results:
        warnings += [
            Problem("is ignored: results.csv has a column of this name. Rename it to keep it", column=name)
            for name in names
            if name in RESULT_COLUMNS
        ]
    left_out = {*RESULT_COLUMNS, *(STILL_RESULT_COLUMNS if is_results else ()), *(CLIP_COLUMNS if is_videos else ())}
    kept = [
        place for place, name in enumerate(names) if name and (name.lower() if is_results else name) not in left_out
    ]
    if len(kept) < width:
        rows = [(number, [cells[place] for place in kept]) for number, cells in rows]
    return Grid(tuple(names[place] for place in kept), rows, problems, warnings, is_videos)


def _below_title(filled: list[Record], warnings: list[Problem]) -> list[Record]:
    """The rows from the header on, if that stands below a title or notes."""
    place = header_place([cells for _, cells in filled])
    if place:
        title = " ".join(" ".join(filled[0][1]).split())[:60]
        message = f"the header is row {filled[place][0]}; what stands above it is not read: {title!r}"
        warnings.append(Problem(message))
    return filled[place:]


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
    if not is_sendable(text):
        problems.append(Problem("holds half a character (a lone surrogate): it cannot be sent", row=number))
    return problems


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
