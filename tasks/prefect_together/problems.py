"""What is wrong with an input: each mistake with its row and column, and the errors that list them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect_together.errors import NotConfigured, TogetherVideoError


@dataclass(frozen=True)
class Problem:
    """One mistake in the input, or one thing worth a warning.

    `row` is the row as a spreadsheet counts it (the header is row 1), or None for the table as a whole;
    `column` the column's or parameter's name; `message` says what is wrong and what would be right.
    """

    message: str
    row: int | None = None
    column: str | None = None
    row_id: str | None = None

    def __str__(self) -> str:
        row = "" if self.row is None else f"row {self.row}"
        if self.row is not None and self.row_id:
            row += f" (id {self.row_id})"
        column = "" if self.column is None else f"column {self.column}"
        cell = ", ".join(part for part in (row, column) if part)
        return f"{cell}: {self.message}" if cell else self.message


class TableInvalid(TogetherVideoError):
    """The prompt table has mistakes: every one of them is in `problems`. Nothing was sent.

    `warnings` are what else should be checked while the table is fixed.
    """

    def __init__(self, source: str, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__(source, tuple(problems), tuple(warnings))
        self.source, self.problems, self.warnings = source, tuple(problems), tuple(warnings)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.source}: {count} mistake{'s' if count != 1 else ''}, nothing was sent"
        warnings = (f"  warning: {warning}" for warning in self.warnings)
        return "\n".join([head, *(f"  {problem}" for problem in self.problems), *warnings])


def missing_extra(package: str, extra: str) -> str:
    """What to say where a package is missed that only an extra of this one installs."""
    return f"{package} is not installed: pip install 'prefect-together[{extra}]'"


class SettingsInvalid(TogetherVideoError):
    """Settings of the run are wrong: every one of them is in `problems`. Nothing was sent."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """`column` of each problem is the setting's name."""
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    @classmethod
    def of(cls, message: str, *, column: str | None = None) -> SettingsInvalid:
        """The error for one problem."""
        return cls([Problem(message, column=column)])

    def __str__(self) -> str:
        lines = (f"{one.column}: {one.message}" if one.column else one.message for one in self.problems)
        return "\n".join(lines)


MISTAKES = (TableInvalid, SettingsInvalid, NotConfigured)
"""What a person has to put right before anything is sent: a command ends with exit code 2."""
