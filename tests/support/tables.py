"""Short ways for tests to read a prompt table and to see its cells, its rows, or its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prefect_together.problems import TableInvalid
from prefect_together.table.prompt_table import read_table
from prefect_together.table.rows import PromptTable, TableRow

DIRECTOR = "minimax/video-01-director"
FREE = "unknown/model"
"""A model that the catalogue does not know: only what no model takes is a mistake."""


def read(
    source: str | Path,
    *,
    model: str | None = DIRECTOR,
    defaults: Mapping[str, object] | None = None,
    **settings: Any,
) -> PromptTable:
    return read_table(str(source), defaults={"model": model, **(defaults or {})}, **settings)


def only_row(text: str, **settings: Any) -> TableRow:
    (row,) = read(text, **settings).rows
    return row


def cells_of(table: PromptTable) -> list[list[str]]:
    return [list(row.cells.values()) for row in table.rows]


def _refused(source: str | Path, **settings: Any) -> TableInvalid:
    with pytest.raises(TableInvalid) as caught:
        read(source, **settings)
    return caught.value


def mistakes_of(source: str | Path, **settings: Any) -> str:
    """All mistakes as a user sees them."""
    return str(_refused(source, **settings))


def problems_of(text: str, **settings: Any) -> list[tuple[int | None, str | None, str]]:
    """Each mistake as row, column and message."""
    return [(problem.row, problem.column, problem.message) for problem in _refused(text, **settings).problems]


def warnings_of(text: str, **settings: Any) -> list[str]:
    return [str(warning) for warning in read(text, **settings).warnings]
