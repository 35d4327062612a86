"""The prompt table: its rows as checked requests, with every mistake in it named at once. Sends nothing.

Columns named after the API's parameters set them; `id`, `count`, `price_usd`, `first_frame`, `last_frame` and the
parts of `media` are understood; all others are carried through. An empty cell sets nothing: the run's own setting
holds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect_together.errors import Problem, TableInvalid
from prefect_together.table_columns import (
    KNOWN_COLUMNS,
    SETTABLE,
    column_warnings,
    no_prompt_message,
    parameter_name,
    understood_columns,
)
from prefect_together.table_reading import Grid, read_grid
from prefect_together.table_rows import RowReader, TableRow
from prefect_together.table_source import find_table

__all__ = ["PromptTable", "TableRow", "read_table"]


@dataclass(frozen=True, slots=True)
class PromptTable:
    """A table without mistakes. `columns` are its own in their order, without those that results.csv adds.

    `source` names it in messages: the path, the address without its query, or "pasted table".
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    warnings: tuple[Problem, ...]


def read_table(
    source: str,
    *,
    defaults: Mapping[str, object] | None = None,
    catalogue_checks: bool = True,
    image_directory: str | None = None,
) -> PromptTable:
    """Read and check a whole table; nothing is sent.

    `source` is the path or address (fsspec) of a .csv, .tsv, .txt, .jsonl, .ndjson, .parquet or .xlsx, or CSV text.
    `defaults` are parameters of the whole run, which hold where a row sets nothing. `catalogue_checks=False` leaves
    out what is known of single models. Relative image paths start from the table's own directory (for pasted text:
    the working directory), or from `image_directory`. Raises TableInvalid with every mistake.
    """
    found = find_table(source, known_columns=KNOWN_COLUMNS)
    grid = read_grid(found, known_columns=KNOWN_COLUMNS)
    problems = [*grid.problems]
    settings = _settings(defaults or {}, problems)
    places = understood_columns(grid.columns, problems)
    if not grid.rows:
        problems.append(Problem("has a header and no rows"))
    if "prompt" not in {*places, *settings} and (not places or not grid.rows):
        raise TableInvalid(found.label, [*problems, Problem(no_prompt_message(grid.columns))])

    reader = RowReader(
        grid.columns,
        places,
        defaults=settings,
        base=found.base if image_directory is None else str(Path(image_directory).resolve()),
        catalogue_checks=catalogue_checks,
    )
    rows = [reader.read(number, cells) for number, cells in grid.rows]
    problems += [*_table_problems(reader, grid), *reader.of_defaults.problems(), *reader.problems]
    warnings = [*grid.warnings, *column_warnings(grid.columns, places), *reader.warnings.problems()]
    if problems:
        raise TableInvalid(found.label, sorted(problems, key=lambda problem: problem.row or 0), warnings)
    return PromptTable(found.label, grid.columns, tuple(row for row in rows if row is not None), tuple(warnings))


def _settings(defaults: Mapping[str, object], problems: list[Problem]) -> dict[str, object]:
    """The run's settings by parameter, without those that set nothing."""
    settings: dict[str, object] = {}
    for given, value in defaults.items():
        name = parameter_name(given)
        if name not in SETTABLE:
            close = difflib.get_close_matches(name, SETTABLE, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(SETTABLE)}"
            problems.append(Problem(f"is not a parameter that a run can set: {hint}", column=given))
        elif value is not None and not (isinstance(value, str) and not value.strip()):
            settings[name] = value
    return settings


def _table_problems(reader: RowReader, grid: Grid) -> list[Problem]:
    """What is wrong with the rows for want of a column."""
    problems: list[Problem] = []
    if reader.rows_without_prompt:
        problems.append(Problem(no_prompt_message(grid.columns)))
    if reader.rows_without_model:
        message = "has no column model, and no model is set for the whole run: add the column, or set one (--model)"
        problems.append(Problem(message))
    return problems
