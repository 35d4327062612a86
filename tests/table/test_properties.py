"""Whatever a table holds: its cells come through unchanged, and it is read or refused as a whole, never by accident."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefect_together.grid.columns import UNDERSTOOD
from prefect_together.problems import TableInvalid
from prefect_together.table.prompt_table import read_table
from prefect_together.table.rows import PromptTable

DEFAULTS = {"model": "unknown/model", "prompt": "A cat"}
IN_ONE_DIRECTORY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
TRICKY_CELL = st.text("\"',;|\t\r\n \ufeff=+-@NAnull0.8é猫", max_size=12)
ROWS = st.lists(st.tuples(CELL | TRICKY_CELL, CELL | TRICKY_CELL, TRICKY_CELL), min_size=1, max_size=6)
NAMES = ("own", "other one", "third")


def filled(rows: list[tuple[str, str, str]]) -> list[list[str]]:
    """The rows that count: a table's empty ones do not."""
    return [list(row) for row in rows if any(cell.strip() for cell in row)]


def outcome_of(source: str, *, catalogue_checks: bool = True) -> PromptTable | TableInvalid:
    """The table, or the one error that may come of it."""
    try:
        return read_table(source, defaults=DEFAULTS, catalogue_checks=catalogue_checks)
    except TableInvalid as error:
        return error


def cells_in(source: str) -> list[list[str]]:
    table = read_table(source, defaults=DEFAULTS)
    assert table.columns == NAMES
    return [list(row.cells.values()) for row in table.rows]


@IN_ONE_DIRECTORY
@given(
    rows=ROWS.filter(filled),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoted=st.booleans(),
)
def test_any_text_in_a_csv_comes_through_unchanged(
    rows: list[tuple[str, str, str]], delimiter: str, end: str, encoding: str, quoted: bool, tmp_path: Path
) -> None:
    # Lines of a quoted cell that fit the header are read as rows, with a warning: they may as well be unquoted rows.
    assume(quoted or delimiter != "\t" or not any("\t" in cell and "\n" in cell for row in rows for cell in row))
    text = io.StringIO()
    if not quoted:  # Python's writer leaves a lone CR unquoted, which then ends the row
        rows = [(a.replace("\r", ""), b.replace("\r", ""), c.replace("\r", "")) for a, b, c in rows]
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([NAMES, *rows])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode(encoding))

    assert cells_in(str(tmp_path / "t.csv")) == filled(rows)


@IN_ONE_DIRECTORY
@given(rows=ROWS.filter(filled))
def test_any_text_in_json_lines_comes_through_unchanged(rows: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows]

    assert cells_in("\n".join([*lines, ""])) == filled(rows)


@IN_ONE_DIRECTORY
@given(number=st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_in_json_lines_keeps_every_digit(number: float) -> None:
    written = json.dumps(number)

    table = read_table(f'{{"own": {written}}}\n', defaults=DEFAULTS)

    assert table.rows[0].cells["own"] == written


@IN_ONE_DIRECTORY
@given(
    source=st.text(max_size=200).filter(lambda text: text not in {"-", "/dev/stdin"})
    | st.text("prompt,;|\"\n\r\t '{}[]:x", max_size=60).map(lambda text: f"prompt{text}")
)
def test_any_text_is_a_table_or_is_refused(source: str) -> None:
    outcome = outcome_of(source)

    assert outcome.problems if isinstance(outcome, TableInvalid) else outcome.rows


@IN_ONE_DIRECTORY
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".jsonl", ".xlsx", ".parquet", ".txt", ""]))
def test_any_bytes_are_a_table_or_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"t{suffix}").write_bytes(content)

    outcome = outcome_of(str(tmp_path / f"t{suffix}"))

    assert outcome.problems if isinstance(outcome, TableInvalid) else outcome.rows


VALUES = st.sampled_from(
    [
        *("", "8", "-1", "1e999", "nan", "NaN", "true", "null", "x/y", "9" * 400, "٣", "\ud800", '"text"'),
        *("[]", "{}", "[{}]", '{"": {}}', '{"frame_images": 3}', '{"frame_images": [[]]}', '[{"frame": []}]'),
        *('[{"input_image": {}}]', '{"reference_images": [null]}', "https://example.com/a.png", "data:"),
        *("../../x", "a|b|", "first:", "48:|", "/", "."),
    ]
)


@IN_ONE_DIRECTORY
@given(
    columns=st.lists(st.sampled_from(UNDERSTOOD), min_size=1, max_size=6, unique=True),
    values=st.lists(st.lists(VALUES | CELL, min_size=6, max_size=6), min_size=1, max_size=4),
    checks=st.booleans(),
)
def test_any_cells_under_any_parameters_are_taken_or_refused(
    columns: list[str], values: list[list[str]], checks: bool
) -> None:
    lines = [json.dumps(dict(zip(columns, row, strict=False))) for row in values]

    outcome = outcome_of("\n".join([*lines, ""]), catalogue_checks=checks)

    if isinstance(outcome, TableInvalid):
        assert all(str(problem) for problem in outcome.problems)
    else:
        assert [row.requests[0].fingerprint() for row in outcome.rows]


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_workbook_is_read_or_refused(edits: list[tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    book = openpyxl.Workbook()
    book.worksheets[0].append(["prompt", "fps"])
    book.worksheets[0].append(["A cat", 25])
    book.save(path)
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(content)

    outcome = outcome_of(str(path))

    assert outcome.problems if isinstance(outcome, TableInvalid) else outcome.rows
