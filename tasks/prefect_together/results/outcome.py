"""How a run ended: what its caller gets, its message, its exit code, and what to do about each reason."""

from __future__ import annotations

import re
from collections import UserList
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_together.errors import FailureClass, TogetherVideoError
from prefect_together.ledger.states import STATES, State, Status
from prefect_together.results.notebook import outcome_html
from prefect_together.results.results import RowResult, TakeResult, Totals
from prefect_together.results.text import counted, dollars, reserved, state_counts

if TYPE_CHECKING:
    from prefect_together.films.films import Film

NAMED_ROWS = 3
MAX_ID_CHARACTERS = 60


class Rows(UserList[RowResult]):
    """Rows as one value. Prefect's engine looks through every tuple and list of a result for futures: 0.2 ms a row."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run over a table leaves: its rows in the table's order, sums, and where they lie.

    `output_dir` holds videos/, results.csv and index.html, as a path or URL without credentials. `notes` say what
    happened beside the rows. `new_usd` are the charges for jobs that this run itself created. `films` are joined from
    its clips. `only_stills`: the run was to end when the stills are there.
    """

    rows: Sequence[RowResult]
    totals: Totals
    output_dir: str
    page: str
    notes: tuple[str, ...] = ()
    new_usd: float | None = None
    films: tuple[Film, ...] = ()
    only_stills: bool = False

    @property
    def failed(self) -> tuple[RowResult, ...]:
        """Rows that will not come by waiting: failed, in doubt or refused, or their still is."""
        return tuple(row for row in self.rows if STATES[State(row.status)].is_failure or row.failed_still)

    @property
    def open(self) -> tuple[RowResult, ...]:
        """Rows that a later run takes up: still generating, or not sent yet."""
        return tuple(row for row in self.rows if not STATES[State(row.status)].is_finished)

    @property
    def exit_code(self) -> int:
        """0 if every row is downloaded, or every still of a run that was to make no more; else 1."""
        return 0 if not self.failed and (not self.open or self.stills_made) else 1

    @property
    def stills_made(self) -> bool:
        """Whether the run was to make only the stills, and has all of them."""
        stills = (row.still for row in self.rows if row.still is not None)
        return self.only_stills and all(still.status == "downloaded" for still in stills)

    @property
    def counts(self) -> str:
        """Like `12 downloaded, 1 failed of 13 rows`."""
        return f"{state_counts(self.totals.rows_by_status)} of {counted(len(self.rows), 'row')}"

    @property
    def headline(self) -> str:
        """Like `12 downloaded, 1 failed of 13 rows, $3.36, $0.28 held for failed jobs without a reported cost`.

        After `$3.36` comes `($0.28 in this run)` where earlier runs paid for the rest.
        """
        reserved_text = reserved(self.totals.in_doubt_usd, self.totals.failed_usd)
        spent = dollars(self.totals.spent_usd)
        if self.new_usd is not None and dollars(self.new_usd) != spent:
            spent = f"{spent} ({dollars(self.new_usd)} in this run)"
        return ", ".join(part for part in (self.counts, self._stills, spent, reserved_text) if part)

    @property
    def _stills(self) -> str:
        """Like `2 of 3 stills`; empty without any."""
        statuses = {row.still.key: row.still.status for row in self.rows if row.still is not None}
        there = sum(status == "downloaded" for status in statuses.values())
        return f"{there:,} of {counted(len(statuses), 'still')}" if statuses else ""

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
        still_open = (row for row in self.open if not row.failed_still)
        unsent = (row for row in still_open if any(take.status == "planned" and take.error for take in row.takes))
        return (*self.failed, *unsent)

    @property
    def message(self) -> str:
        """One line: `12 downloaded, 1 failed of 13 rows, $3.36. row 8 (cat-7) failed: ...`."""
        failed = " ".join(part for part in ("; ".join(self.named), self.more) if part)
        return ". ".join(part for part in (self.headline, failed, *self.notes) if part)

    def _repr_html_(self) -> str:
        """A notebook's view: a table with each clip beside its prompt."""
        return outcome_html(self)


class RowsFailed(TogetherVideoError):
    """The run ended with rows that are failed, in doubt or refused. All rows are in `outcome`."""

    def __init__(self, outcome: RunOutcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome

    def __str__(self) -> str:
        return self.outcome.message


def _named(row: RowResult) -> str:
    take = row.failed_still or row.decisive
    error, status = take.error or "no reason known", take.status.replace("_", " ")
    what = f"still {status}" if row.failed_still else status
    return f"row {row.number} ({take.row_id[:MAX_ID_CHARACTERS]}) {what}: {error[:160]}"


@dataclass(frozen=True, slots=True)
class Advice:
    """One way of failing: what it is, the rows that failed so, their estimated dollars, and what to do."""

    kind: FailureClass | Status
    what: str
    rows: tuple[RowResult, ...]
    estimate_usd: float
    to_do: str


OPTIONS = re.compile(
    r"`(output_dir|budget_usd|canary|max_clip_megabytes|retry_failed|resubmit_in_doubt|stop_after)`( switched on)?"
)

AGAIN = "run again with the same table, options and `output_dir`"
RETRY = "run again with `retry_failed` switched on"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is said of a reason; `explains` are the statuses that it may be the reason of."""

    what: str
    to_do: str
    explains: tuple[Status, ...] = ("failed",)


_KINDS: dict[FailureClass | Status, _Kind] = {
    "in_doubt": _Kind(
        "in doubt: the create call got no answer",
        "A job may exist and be billed, and cannot be found: see your usage on together.ai. To send these rows again,"
        " and perhaps pay twice, run again with `resubmit_in_doubt` switched on.",
    ),
    FailureClass.MODERATION: _Kind(
        "the content was refused",
        f"Change the prompt or the pictures of these rows and {AGAIN}: a changed row is new work. As it is, a row is"
        " only sent again with `retry_failed` switched on.",
    ),
    FailureClass.BAD_PARAMETER: _Kind(
        "the service does not take the request",
        f"Compare it with the error and with the model's limits (prefect-together models), change it and {AGAIN}.",
    ),
    FailureClass.UPSTREAM: _Kind("the provider failed", f"To try once more, as a new job at its price, {RETRY}."),
    FailureClass.CANCELLED: _Kind(
        "the service cancelled the job", f"To try once more, as a new job at its price, {RETRY}."
    ),
    FailureClass.NOT_FOUND: _Kind(
        "the service no longer knows the job",
        f"Is it the right key and address? If it is, the clip is lost: to make it anew, {RETRY}.",
    ),
    FailureClass.DOWNLOAD: _Kind(
        "paid, but not downloaded",
        f"To fetch them, {AGAIN}. Nothing is paid for again. A clip above the limit is only downloaded with a larger"
        " `max_clip_megabytes`.",
    ),
    FailureClass.NO_LINK: _Kind(
        "paid, but the service gives no link",
        f"Ask Together, with the job ids. To check once more, {AGAIN}. Nothing is paid for again. A"
        " still without a link is lost: it is made again, at its price, with `retry_failed` switched on.",
    ),
    "failed": _Kind("failed", f"See the error. To send these rows again, {RETRY}."),
    FailureClass.BUDGET: _Kind(
        "not sent: the budget is reached",
        f"Raise `budget_usd` and {AGAIN}.",
        explains=("refused",),
    ),
    FailureClass.PRICE_UNKNOWN: _Kind(
        "not sent: the price is unknown, and there is a budget",
        f"Give your price of one clip in a column `price_usd`, or leave `budget_usd` empty, and {AGAIN}.",
        explains=("refused",),
    ),
    FailureClass.CANARY: _Kind(
        "not sent: the first video of the model failed",
        f"See what that row's error says. Then {AGAIN}, without `canary` if it is to be sent anyway.",
        explains=("refused",),
    ),
    FailureClass.STUCK: _Kind(
        "not sent: the service did not get its jobs done",
        f"Later, {AGAIN}.",
        explains=("refused",),
    ),
    FailureClass.ACCOUNT: _Kind(
        "the service refuses the key or the account",
        "Fix the key (HTTP 401 or 403), the account's setting that the error names, or the credits on together.ai"
        f" (HTTP 402), and {AGAIN}.",
        explains=("refused", "submitted"),
    ),
    FailureClass.DEPENDENCY: _Kind(
        "not sent: waits for the clip of another row",
        f"The error names that row: do what is said of it, and {AGAIN}. If it failed, with `retry_failed` switched on:"
        " it is sent again, and then what waits for it.",
        explains=("planned",),
    ),
    FailureClass.UNREACHABLE: _Kind(
        "not sent: the service cannot be reached",
        f"Check the network and the base URL, and {AGAIN}.",
        explains=("planned",),
    ),
    FailureClass.WRONG_ADDRESS: _Kind(
        "not sent: there is no video API at the base URL",
        f"Fix or unset the base URL, and {AGAIN}.",
        explains=("planned",),
    ),
    FailureClass.UNFORESEEN: _Kind(
        "not sent: too many paid rows before them ended by an error that was not foreseen",
        f"The log has that error, which should be reported. To send these rows anyway, {AGAIN}.",
        explains=("planned",),
    ),
    FailureClass.RATE_LIMITED: _Kind(
        "not sent: the service took no more jobs",
        f"Later, {AGAIN}.",
        explains=("planned",),
    ),
    "refused": _Kind("not sent", f"See the error. To send these rows, {AGAIN}."),
    FailureClass.TIMED_OUT: _Kind(
        "still generating at the deadline",
        f"Later, {AGAIN}. They are fetched, and nothing is paid for again.",
        explains=("submitted",),
    ),
    "submitted": _Kind(
        "still generating",
        f"Later, {AGAIN}. They are fetched, and nothing is paid for again.",
    ),
    "planned": _Kind("not sent yet", f"To continue, {AGAIN}."),
}

_AFTER_STILLS = _Kind("not sent, as this run was for the stills", "To make the videos, run again without `stop_after`.")
"""What is said of "planned" when a run was to make only the stills."""


def kind_of(take: TakeResult) -> FailureClass | Status:
    """Why a video is not there: its failure class if that explains its status, else its status."""
    reason = take.failure_class
    return reason if reason is not None and take.status in _KINDS[reason].explains else take.status


def advice(rows: Iterable[RowResult], *, only_stills: bool = False) -> list[Advice]:
    """Every way of failing among the rows, with what to do; what may have cost money first. [] if all is there.

    `only_stills`: the run was to end when the stills are there.
    """
    kinds = dict(_KINDS)
    if only_stills:
        kinds["planned"] = _AFTER_STILLS
    found: dict[FailureClass | Status, dict[int, RowResult]] = {}
    dollars: dict[FailureClass | Status, float] = {}
    counted_stills: set[str | None] = set()
    for row in rows:
        for take in row.attempted:
            if take.status == "downloaded":
                continue
            kind = kind_of(take)
            found.setdefault(kind, {})[row.number] = row
            if row.shared_with is None and take.key not in counted_stills:
                dollars[kind] = dollars.get(kind, 0.0) + (take.estimate_usd or 0.0)
        counted_stills |= {row.failed_still.key} if row.failed_still else set()
    return [
        Advice(kind, said.what, tuple(found[kind].values()), dollars.get(kind, 0.0), said.to_do)
        for kind, said in kinds.items()
        if kind in found
    ]


def as_typed(advised: str, *, mark: str = "") -> str:
    """Advice with the parameters as options of the command line, each between two `mark`s."""
    return OPTIONS.sub(lambda found: f"{mark}--{found[1].replace('_', '-')}{mark}", advised)
