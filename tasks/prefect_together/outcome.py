"""How a run ended: what its caller gets, its message, its exit code. No I/O, no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from prefect_together.errors import TogetherVideoError
from prefect_together.results import RowResult, Status, Totals
from prefect_together.wording import dollars, state_counts

NAMED_ROWS = 3
FAILED_STATUSES: frozenset[Status] = frozenset({"failed", "in_doubt", "refused"})
OPEN_STATUSES: frozenset[Status] = frozenset({"submitted", "planned"})


class Rows(Sequence[RowResult]):
    """Rows as one value. Prefect's engine looks through every tuple of a result for futures: 0.2 ms a row."""

    def __init__(self, rows: Sequence[RowResult]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> RowResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowResult]: ...
    def __getitem__(self, index: int | slice) -> RowResult | Sequence[RowResult]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[RowResult]:
        return iter(self._rows)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run over a table leaves: its rows in the table's order, sums, and where they lie.

    `output_dir` holds videos/, results.csv and index.html, as a path or URL without credentials. `notes` say what
    happened beside the rows.
    """

    rows: Sequence[RowResult]
    totals: Totals
    output_dir: str
    page: str
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[RowResult, ...]:
        """Rows that will not come by waiting: failed, in doubt or refused."""
        return tuple(row for row in self.rows if row.status in FAILED_STATUSES)

    @property
    def open(self) -> tuple[RowResult, ...]:
        """Rows that a later run takes up: still generating, or not sent yet."""
        return tuple(row for row in self.rows if row.status in OPEN_STATUSES)

    @property
    def exit_code(self) -> int:
        """0 if every row is downloaded, else 1."""
        return 0 if not self.failed and not self.open else 1

    @property
    def counts(self) -> str:
        """Like `12 downloaded, 1 failed of 13 rows`."""
        counts = state_counts({str(status): count for status, count in self.totals.rows_by_status.items()})
        return f"{counts} of {len(self.rows):,} rows"

    @property
    def headline(self) -> str:
        """Like `12 downloaded, 1 failed of 13 rows, $3.36`."""
        return f"{self.counts}, {dollars(self.totals.spent_usd)}"

    @property
    def named(self) -> list[str]:
        """The first rows that failed, each like `row 8 (cat-7) failed: ...`, and those that could not be sent."""
        return [_named(row) for row in self._with_reason[:NAMED_ROWS]]

    @property
    def more(self) -> str:
        """Like `and 9 more`: rows beyond those that are named. Empty if there are none."""
        count = len(self._with_reason)
        return f"and {count - NAMED_ROWS:,} more" if count > NAMED_ROWS else ""

    @property
    def _with_reason(self) -> tuple[RowResult, ...]:
        unsent = (row for row in self.open if any(take.status == "planned" and take.error for take in row.takes))
        return (*self.failed, *unsent)

    @property
    def message(self) -> str:
        """One line: `12 downloaded, 1 failed of 13 rows, $3.36. row 8 (cat-7) failed: ...`."""
        failed = " ".join(part for part in ("; ".join(self.named), self.more) if part)
        return ". ".join(part for part in (self.headline, failed, *self.notes) if part)


class RowsFailed(TogetherVideoError):
    """The run ended with rows that are failed, in doubt or refused. All rows are in `outcome`."""

    def __init__(self, outcome: RunOutcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome

    def __str__(self) -> str:
        return self.outcome.message


def _named(row: RowResult) -> str:
    its_own_first = sorted(row.takes, key=lambda take: take.status != row.status)
    error = next((take.error for take in its_own_first if take.error), "no reason known")
    return f"row {row.number} ({row.takes[0].row_id[:40]}) {row.status.replace('_', ' ')}: {error[:160]}"
