"""Short ways for tests to read a prompt table and to see its cells, or its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_together.errors import TableInvalid
from prefect_together.table import PromptTable, read_table

MODEL = {"model": "minimax/video-01-director"}


def read(source: str | Path, **settings: Any) -> PromptTable:
    return read_table(str(source), defaults=MODEL, **settings)


def cells_of(table: PromptTable) -> list[list[str]]:
    return [list(row.cells.values()) for row in table.rows]


def mistakes_of(source: str | Path, **settings: Any) -> str:
    with pytest.raises(TableInvalid) as caught:
        read(source, **settings)
    return str(caught.value)
