"""Tables as text give every cell as it stands, and say clearly what cannot be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from tables import cells_of, mistakes_of, read


def as_csv(rows: Sequence[Sequence[str]], *, delimiter: str = ",", end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


TRICKY = [
    ["id", "prompt", "fps", "note", "big"],
    ["007", "NA", "", "1.0", "12345678901234567890123"],
    ["008", "null", "25", "", "1e5"],
    ["1e3", "None", "", "TRUE", "-0"],
    ["+1", 'two\nlines, "quoted"; and | more\t.', "25", "nan", "0x1F"],
    ["é", "猫が眠る 🐈", "", "#N/A", "１"],
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_tables_keep_every_cell_as_it_stands(encoding: str, delimiter: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(as_csv(TRICKY, delimiter=delimiter, end=end).encode(encoding))

    table = read(path)

    assert [list(table.columns), *cells_of(table)] == TRICKY
    assert [row.row_id for row in table.rows] == ["007", "008", "1e3", "+1", "é"]
    assert [row.requests[0].fps for row in table.rows] == [None, 25, None, 25, None]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf16_with_either_byte_order_mark_is_read(mark: bytes, tmp_path: Path) -> None:
    encoding = "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"
    (tmp_path / "t.csv").write_bytes(mark + "prompt\r\nA cat ü\r\n".encode(encoding))

    assert cells_of(read(tmp_path / "t.csv")) == [["A cat ü"]]


def test_an_older_encoding_is_read_with_a_warning_that_shows_what_was_guessed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("prompt\nA cat\nA café\n".encode("cp1252"))

    table = read(tmp_path / "t.csv")

    assert cells_of(table) == [["A cat"], ["A café"]]
    assert "is read as Windows-1252 (Latin-1): is 'café' in line 3 right?" in str(table.warnings[0])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_keep_a_spreadsheets_numbers_across_empty_rows_and_quoted_lines(end: str) -> None:
    lines = ["", "id,prompt", 'a,"one', 'two"', "", ",", "b,A dog", "", ""]

    table = read(end.join(lines))

    assert [(row.row_id, row.number) for row in table.rows] == [("a", 3), ("b", 6)]
    assert table.rows[0].requests[0].prompt == f"one{end}two"


def test_cells_beyond_the_header_are_named_row_by_row_unless_they_are_empty() -> None:
    message = mistakes_of("id,prompt\na,x,y\nb,A cat,,\nc,A cat, sleeping, softly\n")

    assert "row 2: has 3 cells, the header names 2" in message
    assert "row 3" not in message
    assert "row 4: has 4 cells, the header names 2" in message


def test_short_rows_and_trailing_delimiters_are_no_mistake() -> None:
    table = read("id,prompt,note,,\na,A cat\nb,A dog,x,,,,\n")

    assert table.columns == ("id", "prompt", "note")
    assert cells_of(table) == [["a", "A cat", ""], ["b", "A dog", "x"]]


def test_a_quote_that_is_never_closed_is_named_with_its_row() -> None:
    assert "row 3: a quote is opened and never closed" in mistakes_of('id,prompt\na,A cat\nb,"A dog\nc,A cow\n')


def test_text_behind_a_closing_quote_is_named_with_its_row() -> None:
    message = mistakes_of('id,prompt\na,A cat\nb,"He says "hi", and leaves"\n')

    assert "row 3: has text after a closing quote" in message


def test_quotes_inside_an_unquoted_cell_stay() -> None:
    assert cells_of(read('id,prompt\na,A 5" disk\n')) == [["a", 'A 5" disk']]


def test_names_that_stand_twice_in_the_header_are_a_mistake() -> None:
    message = mistakes_of("prompt,note,note\nA cat,1,2\n")

    assert "column note: stands in the header twice (columns 2 and 3)" in message


def test_two_columns_for_one_parameter_are_a_mistake() -> None:
    message = mistakes_of("prompt,Guidance Scale,guidance-scale\nA cat,7,8\n")

    assert "column guidance-scale: means guidance_scale, as column Guidance Scale does" in message


def test_cells_without_a_column_name_are_a_mistake() -> None:
    message = mistakes_of("id,,prompt\na,,A cat\nb,lost,A dog\n")

    assert "column 2 has cells (the first in row 3) but no name in the header" in message


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_characters_that_cannot_be_kept_are_named_with_their_row(text: str) -> None:
    message = mistakes_of(f"id,prompt\na,A cat\nb,A {text}\n")

    assert "row 3: holds" in message


def test_a_cell_of_a_megabyte_is_kept_and_the_csv_modules_limit_is_as_it_was(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    note = "x, " * 350_000
    (tmp_path / "t.csv").write_text(f'prompt,note\nA cat,"{note}"\n')

    assert read(tmp_path / "t.csv").rows[0].cells["note"] == note
    assert csv.field_size_limit() == limit < 1_000_000


def test_the_line_that_excel_writes_about_the_separator_is_no_row() -> None:
    table = read("sep=;\nid;prompt\na;A cat, asleep\n")

    assert cells_of(table) == [["a", "A cat, asleep"]]
    assert table.rows[0].number == 3


def test_the_delimiter_is_the_one_that_makes_sense_of_the_header() -> None:
    table = read("prompt;note, with commas, many\nA cat;x, y, z\n")

    assert table.columns == ("prompt", "note, with commas, many")


def test_one_prompt_a_line_needs_no_quotes_under_a_header(tmp_path: Path) -> None:
    text = 'prompt\nA cat, asleep; softly | a\tdrum\n"A dog, awake"\nA 5" disk\n'
    (tmp_path / "prompts.txt").write_text(text)

    assert cells_of(read(text)) == [["A cat, asleep; softly | a\tdrum"], ["A dog, awake"], ['A 5" disk']]
    as_they_stand = ["A cat, asleep; softly | a\tdrum", '"A dog, awake"', 'A 5" disk']
    assert cells_of(read(tmp_path / "prompts.txt")) == [[prompt] for prompt in as_they_stand]


def test_in_a_csv_file_an_unquoted_comma_is_a_mistake_even_in_a_single_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\nA cat, asleep\n")

    assert "row 2: has 2 cells, the header names 1" in mistakes_of(tmp_path / "t.csv")


def test_prompts_without_a_header_are_told_what_to_put_above_them() -> None:
    message = mistakes_of("A cat asleep on a drum\nDog\n")

    assert "the first line is not a header: put a line with the word prompt above it" in message


def test_a_table_without_prompt_names_the_columns_that_it_has() -> None:
    message = mistakes_of("id,promt,seconds\na,A cat,5\n")

    assert "has no column prompt; its columns are: id, promt, seconds. Did you mean promt?" in message


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff", "\n,,\n", ";;;\n"])
def test_an_empty_table_is_a_mistake(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")

    assert "is empty: the first line must be a header with a column prompt" in mistakes_of(tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["prompt", "id,prompt\n", "id,prompt\n,\n"])
def test_a_header_alone_is_a_mistake(text: str) -> None:
    assert "has a header and no rows" in mistakes_of(text)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "old .xls file, or protected by a password"),
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF"),
        (b"\x1f\x8b\x08\x00rest", "is not a whole gzip file"),
        (b"PK\x03\x04 no workbook", "is not a whole .xlsx workbook"),
        (b"PAR1 no parquet PAR1", "is not a whole Parquet file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is an image"),
        (b"<!DOCTYPE html><html><body>", "is a web page (HTML), not a table"),
    ],
)
def test_other_kinds_of_files_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)

    assert what in mistakes_of(tmp_path / "t.csv")


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_a_file_that_is_not_what_its_name_says_is_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"t{suffix}").write_text("prompt\nA cat\n")

    assert f"is not a whole {suffix} file" in mistakes_of(tmp_path / f"t{suffix}")
