"""A DataFrame is a table: what pandas made of the cells is undone, and what its index says is not lost."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from subprocess import run
from typing import Any, cast

import numpy
import pandas
import pyarrow
import pyarrow.parquet as arrow_parquet
import pytest

from prefect_together.problems import TableInvalid
from prefect_together.table.plan import make_plan
from prefect_together.table.prompt_table import read_table
from prefect_together.table.rows import PromptTable
from tables import DIRECTOR, cells_of, mistakes_of


def read(frame: pandas.DataFrame) -> PromptTable:
    return read_table(frame, defaults={"model": DIRECTOR})


def mistakes(frame: pandas.DataFrame) -> str:
    with pytest.raises(TableInvalid) as caught:
        read(frame)
    return str(caught.value)


def test_cells_become_the_text_that_a_person_would_write() -> None:
    frame = pandas.DataFrame(
        {
            "prompt": ["A cat", "A dog"],
            "fps": [25, None],
            "short": numpy.array([6.1, numpy.nan], dtype="float32"),
            "whole": pandas.array([7, None], dtype="Int64"),
            "day": [datetime(2026, 1, 5), None],
            "moment": [datetime(2026, 1, 5, 12, 30), pandas.NaT],
            "yes": [True, False],
            "tags": [["a", 1], None],
            "kind": pandas.Categorical(["x", None]),
        }
    )

    assert cells_of(read(frame)) == [
        ["A cat", "25", "6.1", "7", "2026-01-05", "2026-01-05T12:30:00", "true", '["a", 1]', "x"],
        ["A dog", "", "", "", "", "", "false", "", ""],
    ]


def test_rows_are_numbered_as_in_a_spreadsheet_whatever_the_index_holds() -> None:
    frame = pandas.DataFrame({"prompt": ["A cat", "", "A dog"]}, index=[90, 4, 4])

    table = read(frame)

    assert [row.number for row in table.rows] == [2, 4]
    assert table.warnings == ()


def test_an_index_with_a_name_is_the_column_of_that_name() -> None:
    frame = pandas.DataFrame({"id": ["k", "m"], "prompt": ["A cat", "A dog"]}).set_index("id")

    assert [row.row_id for row in read(frame).rows] == ["k", "m"]


def test_an_index_of_labels_without_a_name_is_not_used_and_said() -> None:
    frame = pandas.DataFrame({"prompt": ["A cat"]}, index=["k"])

    table = read(frame)

    assert table.rows[0].row_id is None
    assert "its index has no name and is not used: frame.rename_axis('id')" in str(table.warnings[0])


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (pandas.DataFrame([["A", "B"]], columns=["prompt", "prompt"]), "column prompt: stands in the header twice"),
        (pandas.DataFrame({("a", "prompt"): ["A"]}), "has columns of several levels"),
        (pandas.DataFrame({"prompt": []}), "has a header and no rows"),
        (pandas.DataFrame(), "is empty"),
        (pandas.DataFrame({0: ["A cat"]}), "has no column prompt; its columns are: 0"),
    ],
)
def test_a_frame_that_is_no_table_of_prompts_is_refused(frame: pandas.DataFrame, what: str) -> None:
    assert what in mistakes(frame)


def test_a_list_is_no_prompt_in_a_frame_nor_in_parquet(tmp_path: Path) -> None:
    arrow = cast("Any", pyarrow)
    cast("Any", arrow_parquet).write_table(arrow.table({"prompt": [["A", "B"]]}), tmp_path / "t.parquet")

    assert "row 3, column prompt: holds a list" in mistakes(pandas.DataFrame({"prompt": ["A", ["B"]]}))
    assert "row 2, column prompt: holds an object" in mistakes(pandas.DataFrame({"prompt": [{"scene": "B"}]}))
    assert "row 2, column prompt: holds a list" in mistakes_of(tmp_path / "t.parquet")


def test_a_frame_and_its_csv_ask_for_the_same_videos() -> None:
    frame = pandas.DataFrame({"id": ["007", "b"], "prompt": ["A cat", "A dog"], "seconds": [6, 6]})

    tables = [read_table(source, defaults={"model": DIRECTOR}) for source in (frame, frame.to_csv(index=False))]
    plans = [make_plan(table) for table in tables]

    assert plans[0].videos == plans[1].videos


def test_a_text_table_is_read_without_pandas() -> None:
    program = (
        "import sys\nfrom prefect_together import read_table\n"
        f"read_table('prompt\\nA cat\\n', defaults={{'model': {DIRECTOR!r}}})\n"
        "print({'pandas', 'pyarrow', 'openpyxl'} & sys.modules.keys())"
    )

    done = run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
