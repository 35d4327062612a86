"""results.csv as a DataFrame: text as it stood in the table, numbers as numbers, and a table of prompts again."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from prefect_together import read_table, results_frame
from prefect_together.results.results import RowResult, TakeResult, results_csv
from table_of_prompts import MODEL

TABLE = 'id,prompt,note\n007,"=A cat, asleep",1.0\nb,\'=A dög,\n'


@pytest.fixture
def output_dir(tmp_path: Path) -> str:
    """The results of TABLE: its first row downloaded for $0.28, its second planned."""
    table = read_table(TABLE, defaults={"model": MODEL})
    done = TakeResult(
        row_id="007", status="downloaded", model=MODEL, parameters={}, job_id="j1", cost_usd=0.28, attempts=1
    )
    planned = TakeResult(row_id="b", status="planned", model=MODEL, parameters={})
    rows = [
        RowResult(number=row.number, cells=row.cells, takes=(take,))
        for row, take in zip(table.rows, (done, planned), strict=True)
    ]
    (tmp_path / "results.csv").write_bytes(results_csv(table.columns, rows))
    return str(tmp_path)


def test_own_columns_are_text_and_what_was_paid_is_numbers(output_dir: str) -> None:
    frame = results_frame(output_dir)

    assert frame[["id", "prompt", "note"]].to_numpy().tolist() == [
        ["007", "=A cat, asleep", "1.0"],
        ["b", "'=A dög", ""],
    ]
    assert frame["status"].tolist() == ["downloaded", "planned"]
    assert str(frame["status"].dtype) == "category"
    assert frame["cost_usd"].sum() == pytest.approx(0.28)
    assert frame["cost_usd"].isna().tolist() == [False, True]
    assert frame["attempts"].dtype == pandas.Int64Dtype()
    assert frame["job_id"].tolist() == ["j1", ""]


def test_its_rows_are_a_table_that_asks_for_the_same_videos(output_dir: str) -> None:
    before = read_table(TABLE, defaults={"model": MODEL})

    frame = results_frame(output_dir)

    again = read_table(frame[frame["status"] != "downloaded"], defaults={"model": MODEL})
    assert [row.requests[0].fingerprint() for row in again.rows] == [before.rows[1].requests[0].fingerprint()]
    assert again.rows[0].requests[0].prompt == "'=A dög"
    assert [dict(row.cells) for row in read_table(frame, defaults={"model": MODEL}).rows] == [
        dict(row.cells) for row in before.rows
    ]


def test_results_that_pandas_has_read_ask_for_the_same_videos_too(output_dir: str) -> None:
    before = read_table(TABLE, defaults={"model": MODEL})

    frame = pandas.read_csv(f"{output_dir}/results.csv", dtype="str", keep_default_na=False)

    again = read_table(frame, defaults={"model": MODEL})
    assert [row.requests[0].fingerprint() for row in again.rows] == [
        row.requests[0].fingerprint() for row in before.rows
    ]


def test_a_cell_of_any_length_is_read(tmp_path: Path) -> None:
    table = read_table(f"prompt,note\na cat,{'x' * 200_000}\n", defaults={"model": MODEL})
    rows = [RowResult(number=2, cells=table.rows[0].cells, takes=())]
    (tmp_path / "results.csv").write_bytes(results_csv(table.columns, rows))

    assert results_frame(str(tmp_path))["note"].tolist() == ["x" * 200_000]


def test_a_directory_without_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.csv"):
        results_frame(str(tmp_path))
