"""What a workbook says beside its cells, hidden, merged, far away, is never paid for without a word."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import openpyxl
import pytest

from tables import FREE, cells_of, mistakes_of, read


def sheet_of(*rows: Sequence[object]) -> tuple[openpyxl.Workbook, Any]:
    book = openpyxl.Workbook()
    sheet = cast("Any", book.worksheets[0])
    for row in rows:
        sheet.append(list(row))
    return book, sheet


def said_of(book: openpyxl.Workbook, path: Path) -> list[str]:
    """The warnings of the workbook, without those of the catalogue."""
    book.save(path)
    return [str(warning) for warning in read(path).warnings]


def test_a_hidden_column_that_is_used_is_named(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt", "seconds", "note"), ("A heron", 6, "x"))
    sheet.column_dimensions["B"].hidden = True
    sheet.column_dimensions["C"].hidden = True

    assert said_of(book, tmp_path / "t.xlsx") == ["column seconds: is hidden in the workbook, and is used"]


def test_what_is_wrong_in_a_hidden_row_is_no_mistake(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt", "seed"), ("A heron", 1), ("#REF!", "x"))
    sheet.row_dimensions[3].hidden = True
    book.save(tmp_path / "t.xlsx")

    assert cells_of(read(tmp_path / "t.xlsx", model=FREE)) == [["A heron", "1"]]


def test_a_heading_that_is_merged_over_the_row_is_no_prompt(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt", "seed"), ("Day one", None), ("A heron", 1))
    sheet.merge_cells("A2:B2")
    book.save(tmp_path / "t.xlsx")

    assert "row 2, column prompt: is merged over A2:B2: unmerge these cells" in mistakes_of(tmp_path / "t.xlsx")


def test_merged_cells_of_a_column_that_is_not_used_are_a_warning(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt", "scene"), ("A heron", "one"), ("Soup", None))
    sheet.merge_cells("B2:B3")

    assert said_of(book, tmp_path / "t.xlsx") == [
        "row 2, column scene: is merged over B2:B3: only the first of these cells has the value"
    ]


def test_hidden_sheets_alone_are_not_read_unless_one_is_named(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt",), ("A heron",))
    book.create_sheet("Chart")
    book.active = 1
    sheet.sheet_state = "hidden"
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as edited:
        for name in whole.namelist():  # openpyxl itself writes no workbook without a visible sheet
            text = whole.read(name)
            if name == "xl/workbook.xml":
                text = text.replace(
                    b'name="Chart" sheetId="2" state="visible"', b'name="Chart" sheetId="2" state="hidden"'
                )
            edited.writestr(name, text)

    assert "has only hidden sheets (Sheet, Chart): unhide one, or name it" in mistakes_of(tmp_path / "t.xlsx")
    assert cells_of(read(tmp_path / "t.xlsx", sheet="Sheet")) == [["A heron"]]


def test_one_cell_far_away_costs_neither_minutes_nor_gigabytes(tmp_path: Path) -> None:
    book, sheet = sheet_of(("prompt",), ("A heron",))
    sheet.cell(300_000, 200).value = " "
    book.save(tmp_path / "t.xlsx")

    began = time.process_time()
    table = read(tmp_path / "t.xlsx")

    assert cells_of(table) == [["A heron"]]
    assert time.process_time() - began < 20  # some 2 s; 60 million cells take minutes


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"prompts.csv": b"prompt\nA cat\n"}, "is a .zip archive: unpack it, and give the table in it"),
        ({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet"}, "is an OpenDocument file: save it as .xlsx"),
    ],
)
def test_other_archives_are_named(members: dict[str, bytes], what: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)

    assert what in mistakes_of(tmp_path / "t.xlsx")
