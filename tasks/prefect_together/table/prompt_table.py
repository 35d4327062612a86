"""The prompt table: its rows as checked requests, with every mistake in it named at once. Sends nothing.

Columns named after the API's parameters set them; `id`, `count`, `price_usd`, `first_frame`, `last_frame`, the parts of
`media`, `still_prompt` and `still_model` are understood; all others are carried through. An empty cell sets nothing:
the run's own setting holds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from prefect_together.grid.columns import (
    SETTABLE,
    MediaDraft,
    column_warnings,
    no_prompt_message,
    parameter_name,
    understood_columns,
)
from prefect_together.grid.grid import Grid, read_frame, read_grid
from prefect_together.grid.source import find_table
from prefect_together.problems import Problem, TableInvalid
from prefect_together.request.catalogue import check_request
from prefect_together.request.checks import Finding, seed_findings
from prefect_together.request.images import load_image
from prefect_together.request.request import VideoRequest, problems_of
from prefect_together.table.plan import Plan, make_plan
from prefect_together.table.references import References
from prefect_together.table.rows import PromptTable, RowReader, TableRow
from prefect_together.table.variants import combinations, listed_values, single_values

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["PromptTable", "TableRow", "read_table"]


FRAME = "DataFrame"


def read_table(
    source: str | PathLike[str] | DataFrame,
    *,
    defaults: Mapping[str, object] | None = None,
    catalogue_checks: bool = True,
    image_directory: str | None = None,
    sheet: str | None = None,
) -> PromptTable:
    """Read and check a whole table; nothing is sent.

    `source` is a pandas DataFrame, or the path or address (fsspec) of a .csv, .tsv, .txt, .json, .jsonl, .parquet or
    .xlsx, packed by gzip or not, or "-" for standard input, or the text itself: CSV, a Markdown table, JSON, a list of
    prompts. `sheet` names the sheet of a workbook; by default it is the first visible one with a column prompt.
    `defaults` are parameters of the whole run, which hold where a row sets nothing. `catalogue_checks=False` leaves
    out what is known of single models. Relative image paths start from the table's own directory (for pasted text:
    the working directory), or from `image_directory`. Raises TableInvalid with every mistake.
    """
    if isinstance(source, str | PathLike):
        found = find_table(fspath(source))
        label, base, grid = found.label, found.base, read_grid(found, sheet=sheet)
    else:
        label, base, grid = FRAME, str(Path.cwd()), read_frame(source, FRAME)
    problems = [*grid.problems]
    warnings = [*grid.warnings]
    settings = _settings(defaults or {}, problems)
    places = understood_columns(grid.columns, grid.rows, problems, warnings, of_videos=grid.is_videos)
    if not grid.rows:
        problems.append(Problem("has a header and no rows"))
    if {"prompt", "prompt_template"}.isdisjoint({*places, *settings}) and (not places or not grid.rows):
        raise TableInvalid(label, [*problems, Problem(no_prompt_message(grid.columns))])

    reader = RowReader(
        grid.columns,
        places,
        defaults=settings,
        base=base if image_directory is None else str(Path(image_directory).resolve()),
        catalogue_checks=catalogue_checks,
        of_videos=grid.is_videos,
    )
    rows = [reader.read(number, cells) for number, cells in grid.rows]
    problems += [*_table_problems(reader, grid), *reader.of_defaults.problems(), *reader.problems]
    warnings += [*column_warnings(grid.columns, places, grid.rows), *reader.warnings.problems()]
    unused = "is set for the whole run and not used: each row has its own"
    warnings += [Problem(unused, column=name) for name in settings if name in reader.unused_defaults]
    if "still_model" in settings and "still_prompt" not in {*places, *settings}:
        message = "is set for the whole run and not used: no row has a still_prompt"
        warnings.append(Problem(message, column="still_model"))
    whole = tuple(row for row in rows if row is not None)
    wrong, doubtful = References(whole).check(ids=reader.rows_by_id, catalogue_checks=catalogue_checks)
    problems += wrong
    warnings += doubtful
    if problems:
        raise TableInvalid(label, sorted(problems, key=lambda problem: problem.row or 0), warnings)
    return PromptTable(label, grid.columns, whole, tuple(warnings))


def _settings(defaults: Mapping[str, object], problems: list[Problem]) -> dict[str, object]:
    """The run's settings by parameter, without those that set nothing."""
    settings: dict[str, object] = {}
    for given, value in defaults.items():
        name = parameter_name(given)
        if name not in SETTABLE:
            close = difflib.get_close_matches(name, SETTABLE, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(SETTABLE)}"
            problems.append(Problem(f"is not a parameter that a run can set: {hint}", column=given))
        elif value is not None and value != [] and not (isinstance(value, str) and not value.strip()):
            settings[name] = value
    return single_values(settings)


def _table_problems(reader: RowReader, grid: Grid) -> list[Problem]:
    """Problems of all rows that a missing column causes."""
    problems: list[Problem] = []
    if reader.rows_without_prompt:
        problems.append(Problem(no_prompt_message(grid.columns)))
    if reader.rows_without_model:
        message = "has no column model, and no model is set for the whole run: add the column, or set one (--model)"
        problems.append(Problem(message))
    return problems


SOURCE = "parameters"


def plan_video(
    parameters: Mapping[str, object],
    images: Mapping[str, str | Sequence[str]],
    *,
    count: int = 1,
    catalogue_checks: bool = True,
) -> Plan:
    """Plan `count` takes of one video. `images` are URLs, or files below the working directory, by their column:
    first_frame, last_frame, reference_images.

    Raises TableInvalid with every mistake: the parameter's name stands for the column.
    """
    images = {name: value for name, value in images.items() if value}
    media = MediaDraft(partial(load_image, base=str(Path.cwd())))
    media.add(images, row_columns=frozenset(images))
    if media.problems:
        raise TableInvalid(SOURCE, [Problem(message, column=name) for name, message in media.problems])
    given = {name: value for name, value in parameters.items() if value is not None}
    if media.media:
        given["media"] = media.media
    given = single_values(given)
    listed = listed_values(given)
    try:
        requests = [VideoRequest.model_validate({**given, **variant}) for variant in combinations(listed)]
    except ValidationError as error:
        wrong = [Problem(message, column=name) for name, message in problems_of(error)]
        raise TableInvalid(SOURCE, wrong) from error
    found: dict[Finding, None] = {}
    for request in requests:
        check = check_request(request, takes=count) if catalogue_checks else seed_findings(None, request, count)
        found |= dict.fromkeys(check)
    if problems := [Problem(one.message, column=one.field) for one in found if one.is_error]:
        raise TableInvalid(SOURCE, problems)
    warnings = tuple(Problem(one.message, column=one.field) for one in found)
    cells = {"prompt": requests[0].prompt or "", "model": requests[0].model}
    cells |= {name: value if isinstance(value, str) else "|".join(value) for name, value in images.items()}
    row = TableRow(1, None, count, None, tuple(requests), cells, tuple(listed))
    if problems := References([row]).check(ids={}, catalogue_checks=catalogue_checks)[0]:
        raise TableInvalid(SOURCE, problems)
    return make_plan(PromptTable(source=SOURCE, columns=tuple(cells), rows=(row,), warnings=warnings))
