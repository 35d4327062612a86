"""JSON lines, Excel and Parquet give the text that a person would have written into a cell."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import openpyxl
import pandas
import pyarrow
import pyarrow.parquet as arrow_parquet
import pytest

from tables import cells_of, mistakes_of, read

arrow, parquet = cast("Any", pyarrow), cast("Any", arrow_parquet)


# JSON lines


def test_json_lines_become_text_without_loss(tmp_path: Path) -> None:
    lines = [
        '{"id": "007", "prompt": "NA", "fps": 25, "note": 1.50, "big": 123456789012345678901234567890}',
        "",
        '{"id": 8, "prompt": "A\\ncat \\u00e9", "extra": {"a": [1, null, 2.50]}, "generate_audio": false}',
        '{"id": null, "prompt": "null", "note": true, "extra": [], "fps": null}\r',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")

    table = read(tmp_path / "t.jsonl")

    assert table.columns == ("id", "prompt", "fps", "note", "big", "extra", "generate_audio")
    assert cells_of(table) == [
        ["007", "NA", "25", "1.50", "123456789012345678901234567890", "", ""],
        ["8", "A\ncat é", "", "", "", '{"a": [1, null, 2.5]}', "false"],
        ["", "null", "", "true", "", "[]", ""],
    ]
    assert [row.number for row in table.rows] == [1, 3, 4]


def test_json_lines_can_bear_media_as_objects() -> None:
    line = '{"prompt": "A cat", "media": {"frame_images": [{"input_image": "https://e.com/a.png", "frame": "first"}]}}'

    media = read(line).rows[0].requests[0].media

    assert media is not None
    assert media.frame_images is not None
    assert media.frame_images[0].frame == "first"


def test_every_broken_line_of_json_lines_is_named() -> None:
    message = mistakes_of('{"prompt": "A cat"}\n{"prompt": \n[1]\n{"prompt": "x y", "prompt": "z"}\n{"a": "\\ud800"}\n')

    assert "row 2: is not JSON (Expecting value at character 12)" in message
    assert "row 3: is not a JSON object of a row" in message
    assert "row 4: 'prompt' stands in a JSON object twice" in message
    assert "row 5: holds half a character" in message


def test_json_nested_beyond_reason_is_a_mistake_like_others() -> None:
    assert "row 2: is JSON that is nested too deep" in mistakes_of('{"prompt": "A cat"}\n{"a": ' + "[" * 100_000 + "\n")


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a", "prompt": "A cat"}, {"id": "b", "prompt": "A dog"}]',
        '[\n {"id": "a",\n  "prompt": "A cat"},\n {"id": "b", "prompt": "A dog"}\n]\n',
        '{"id": "a", "prompt": "A cat"}\n{"id": "b", "prompt": "A dog"}\n',
        '{\n "id": "a",\n "prompt": "A cat"\n}\n{\n "id": "b",\n "prompt": "A dog"\n}\n',
        '{"a": {"prompt": "A cat"}, "b": {"prompt": "A dog"}}',
        '{"version": 1, "prompts": [{"id": "a", "prompt": "A cat"}, {"id": "b", "prompt": "A dog"}]}',
    ],
)
def test_json_is_read_in_whatever_shape_its_objects_come(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)

    assert cells_of(read(tmp_path / name)) == cells_of(read(text)) == [["a", "A cat"], ["b", "A dog"]]


def test_nested_json_is_carried_through_with_its_numbers_as_written() -> None:
    table = read('[{"prompt": "A cat", "shot": {"lens": 35.0, "tags": ["a", 1]}}]')

    assert cells_of(table) == [["A cat", '{"lens": 35.0, "tags": ["a", 1]}']]


def test_a_list_as_a_prompt_is_a_mistake() -> None:
    message = mistakes_of('{"id": "s1", "prompt": ["A cook mixes batter.", "The bowl tips over."]}')

    assert "row 1, column prompt: holds a list: one text is right" in message


def test_a_file_of_another_kind_is_one_mistake(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("prompt,seconds\n" + "A cat,5\n" * 3000)

    message = mistakes_of(tmp_path / "t.jsonl")

    assert "is not JSON (Expecting value at character 1)" in message
    assert len(message.splitlines()) < 4


# Excel


def write_workbook(path: Path, rows: Sequence[Sequence[object]], *, sheets: int = 1) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(list(row))
    for _ in range(sheets - 1):
        book.create_sheet()
    book.save(path)


def test_excel_cells_become_the_text_that_a_person_would_write(tmp_path: Path) -> None:
    write_workbook(
        tmp_path / "t.xlsx",
        [
            ["id", "prompt", "fps", "when", "share", "yes"],
            ["007", "NA", 25, datetime(2026, 1, 5), 0.1, True],
            [8, "A cat", None, datetime(2026, 1, 5, 12, 30), 8.0, None],
            [],
            [8.5, "null", 25.0, time(9, 5), 2.0**60, False],
        ],
    )

    table = read(tmp_path / "t.xlsx")

    assert cells_of(table) == [
        ["007", "NA", "25", "2026-01-05", "0.1", "TRUE"],
        ["8", "A cat", "", "2026-01-05T12:30:00", "8", ""],
        ["8.5", "null", "25", "09:05:00", "1.152921504606847e+18", "FALSE"],
    ]
    assert [row.number for row in table.rows] == [2, 3, 5]


def test_excel_is_known_by_its_content_and_its_first_sheet_is_read(tmp_path: Path) -> None:
    write_workbook(tmp_path / "t.csv", [[], ["prompt"], ["A cat"]], sheets=3)

    table = read(tmp_path / "t.csv")

    assert cells_of(table) == [["A cat"]]
    assert table.rows[0].number == 3
    assert "sheet 'Sheet' is read, not Sheet1, Sheet2" in str(table.warnings[0])


def test_an_excel_error_in_a_cell_is_named_with_row_and_column(tmp_path: Path) -> None:
    write_workbook(tmp_path / "t.xlsx", [["prompt", "note"], ["A cat", "#REF!"]])

    assert "row 2, column note: holds the Excel error #REF!" in mistakes_of(tmp_path / "t.xlsx")


def test_a_formula_gives_the_value_that_was_computed_for_it(tmp_path: Path) -> None:
    write_workbook(tmp_path / "new.xlsx", [["prompt", "fps"], ["A cat", "=5*5"]])
    with zipfile.ZipFile(tmp_path / "new.xlsx") as new, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as computed:
        for name in new.namelist():
            text = new.read(name).replace(b"<v/>", b"<v />")
            computed.writestr(name, text.replace(b"<f>5*5</f><v />", b"<f>5*5</f><v>25</v>"))

    assert cells_of(read(tmp_path / "t.xlsx")) == [["A cat", "25"]]
    assert "row 2, column fps: holds a formula that was never computed" in mistakes_of(tmp_path / "new.xlsx")


def test_a_cut_off_workbook_is_a_mistake_like_others(tmp_path: Path) -> None:
    write_workbook(tmp_path / "t.xlsx", [["prompt"], ["A cat"]])
    content = (tmp_path / "t.xlsx").read_bytes()
    (tmp_path / "t.xlsx").write_bytes(content[: len(content) // 2])

    assert "is not a whole .xlsx workbook" in mistakes_of(tmp_path / "t.xlsx")


# Parquet


def test_parquet_cells_become_the_text_that_a_person_would_write(tmp_path: Path) -> None:
    columns = {
        "prompt": arrow.array(["NA", "null", "A cat"]),
        "fps": arrow.array([25, None, 25]),
        "whole": arrow.array([8.0, float("nan"), 0.1]),
        "short": arrow.array([6.1, 8, None], arrow.float32()),
        "money": arrow.array([Decimal("1.50"), None, Decimal("0.00")]),
        "day": arrow.array([date(2026, 1, 5), None, None]),
        "moment": arrow.array([datetime(2026, 1, 5, 12), None, None]),
        "long": arrow.array([timedelta(seconds=90), None, None]),
        "yes": arrow.array([True, False, None]),
        "nested": arrow.array([{"a": [1, None]}, None, None]),
        "kind": arrow.array(["x", "nan", None]).dictionary_encode(),
        "big": arrow.array([2**63 - 1, None, 0]),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")

    table = read(tmp_path / "t.parquet")

    moment = "2026-01-05T12:00:00"
    assert cells_of(table) == [
        [
            "NA",
            "25",
            "8",
            "6.1",
            "1.50",
            "2026-01-05",
            moment,
            "0:01:30",
            "true",
            '{"a": [1, null]}',
            "x",
            f"{2**63 - 1}",
        ],
        ["null", "", "", "8", "", "", "", "", "false", "", "nan", ""],
        ["A cat", "25", "0.1", "", "0.00", "", "", "", "", "", "", "0"],
    ]
    assert [row.number for row in table.rows] == [2, 3, 4]


def test_whole_numbers_that_pandas_wrote_with_gaps_stay_whole(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"prompt": ["A cat", "A dog"], "fps": [25, None], "row": [1, 2]}, index=[5, 9])
    frame.to_parquet(tmp_path / "t.parquet")

    table = read(tmp_path / "t.parquet")

    assert table.columns == ("prompt", "fps", "row")
    assert cells_of(table) == [["A cat", "25", "1"], ["A dog", "", "2"]]


def test_a_parquet_column_that_is_no_text_is_named(tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"prompt": ["A cat"], "bytes": [b"\xff\xfe"]}), tmp_path / "t.parquet")

    assert "column bytes: holds what has no form as text" in mistakes_of(tmp_path / "t.parquet")
