"""A run's results.csv as a pandas DataFrame. Writes nothing."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, cast

import fsspec

from prefect_together.table.columns import PLAIN_CELLS, unescape_cell

if TYPE_CHECKING:
    from pandas import DataFrame


def results_frame(output_dir: str) -> DataFrame:
    """The rows of a run into `output_dir`, a path or any fsspec URL, in the table's order.

    The table's own columns are text as it stood in the table. `status` is a category, `cost_usd` a float in dollars
    (NaN where the cost is unknown), `attempts` an integer; `job_id`, `file` and `error` are text, of a row of several
    takes joined by "|". Such a frame, or some of its rows, is itself a table of prompts for `read_table`.
    Raises FileNotFoundError if no run has written results there.
    """
    import pandas  # not small, and used by nothing else here

    address = f"{output_dir.rstrip('/')}/results.csv"
    with cast("Any", fsspec).open(address, "r", encoding="utf-8-sig", newline="") as file:
        header, *lines = [[unescape_cell(cell) for cell in line] for line in csv.reader(file, strict=True)]
    frame = pandas.DataFrame(lines, columns=header, dtype="str")
    frame.attrs[PLAIN_CELLS] = True
    return frame.assign(
        status=frame["status"].astype("category"),
        cost_usd=pandas.to_numeric(frame["cost_usd"]).astype("float64"),
        attempts=pandas.to_numeric(frame["attempts"]).astype("Int64"),
    )
