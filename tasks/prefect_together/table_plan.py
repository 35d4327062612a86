"""A prompt table with what holds for all of its rows: read, checked and planned. Sends nothing, no Prefect."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_together.parameters import VideoParameters, for_all_rows
from prefect_together.plan import Plan, make_plan
from prefect_together.table import read_table


@dataclass(frozen=True, slots=True)
class TableToPlan:
    """`prompts` is the table's text, path or URL; `model` and `parameters` are for the rows that do not set them.

    Relative image paths start in `image_directory`, by default the table's own.
    """

    prompts: str
    model: str | None = None
    parameters: VideoParameters | None = None
    catalogue_checks: bool = True
    image_directory: str | None = None

    def plan(self) -> Plan:
        """Read and check the table and plan its videos. Raises TableInvalid with every mistake."""
        table = read_table(
            self.prompts,
            defaults=for_all_rows(self.model, self.parameters),
            catalogue_checks=self.catalogue_checks,
            image_directory=self.image_directory,
        )
        return make_plan(table)
