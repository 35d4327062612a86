"""What a run knows while it works, without asking the ledger: videos by state, dollars, time remaining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prefect_together.ledger.records import Unsettled, VideoRecord
from prefect_together.ledger.schema import to_micro
from prefect_together.ledger.states import STATES, State, Status
from prefect_together.results.text import dollars, price_text
from prefect_together.table.plan import Kind


@dataclass(slots=True)
class Progress:
    """Counts kept up to date by the run. `started_at` is unix seconds; dollars are those of this table's videos.
    `downloaded_here` counts what this run itself has downloaded, `undownloaded` are keys of paid clips that it could
    not. `stills` count in dollars alone. `reserved_...` are dollars of the whole ledger that a budget counts as spent
    though they may never be charged."""

    started_at: float
    states: dict[str, State] = field(default_factory=dict[str, State])
    stills: set[str] = field(default_factory=set[str])
    estimates_usd: dict[str, float] = field(default_factory=dict[str, float])
    costs_usd: dict[str, float] = field(default_factory=dict[str, float])
    reserved_in_doubt_usd: float = 0.0
    reserved_failed_usd: float = 0.0
    finished_before: int = 0
    costs_before_usd: dict[str, float] = field(default_factory=dict[str, float])
    """What was charged before this run, of each video but those whose job an earlier run has sent."""
    downloaded_here: int = 0
    undownloaded: set[str] = field(default_factory=set[str])
    _records: dict[str, VideoRecord] = field(default_factory=dict[str, VideoRecord])
    _learned: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def add_video(
        self, key: str, state: State, estimate_usd: float | None, cost_usd: float | None, *, kind: Kind = "video"
    ) -> None:
        """Enter a video or still of the table. Others (rows that are gone) are collected, but not counted."""
        self.states[key] = state
        if kind == "still":
            self.stills.add(key)
        if estimate_usd is not None:
            self.estimates_usd[key] = estimate_usd
        self.replace_cost(key, cost_usd)

    def start(self) -> None:
        """Keep what was finished and charged before this run."""
        self.finished_before = self.finished
        self.costs_before_usd = {
            key: self.costs_usd.get(key, 0.0) for key, state in self.states.items() if not STATES[state].has_job
        }

    def set(self, key: str, state: State, **learned: object) -> None:
        """Set a video's state and, by their names in `VideoRecord`, other things that the ledger now has of it.

        Videos that are not of this table are not counted.
        """
        if key not in self.states:
            return
        if self.states[key] == State.SUBMITTING and state in (State.SUBMITTED, State.IN_DOUBT):
            learned["jobs"] = self._now(key).jobs + 1 if key in self._records else 1
        self.states[key] = state
        self._learned.setdefault(key, {}).update(learned)

    def update(self, record: VideoRecord) -> None:
        """Set what the ledger has of a video."""
        key = record.video_key
        if key in self.states:
            self.states[key], self._records[key] = record.state, record
            self._learned.pop(key, None)
            self.replace_cost(key, record.cost_usd)

    def last_known(self) -> tuple[dict[str, VideoRecord], dict[str, Unsettled]]:
        """The records of this table's videos and what is unsettled of them, by key, as `Ledger` would read them.

        For the end of a run whose ledger cannot be read; only this run's own work is as new as in the ledger.
        """
        records = {key: self._now(key) for key in self.states if key in self._records}
        unsettled: dict[str, Unsettled] = {}
        for key, record in records.items():
            usd = record.estimate_usd or self.estimates_usd.get(key, 0.0)
            if record.state == State.IN_DOUBT:
                unsettled[key] = Unsettled(in_doubt_usd=usd)
            elif record.state == State.FAILED and record.job_id and record.cost_usd is None:
                unsettled[key] = Unsettled(failed_usd=usd)
        return records, unsettled

    def _now(self, key: str) -> VideoRecord:
        cost = to_micro(self.costs_usd.get(key))
        learned = self._learned.get(key, {})
        return replace(self._records[key], state=self.states[key], owner=None, cost_micro_usd=cost, **learned)

    def add_cost(self, key: str, usd: float | None) -> None:
        """One more job of this video was charged."""
        if usd is not None and key in self.states:
            self.costs_usd[key] = self.costs_usd.get(key, 0.0) + usd

    def replace_cost(self, key: str, usd: float | None) -> None:
        """What all jobs of this video were charged, by the ledger."""
        if usd is not None and key in self.states:
            self.costs_usd[key] = usd

    @property
    def by_status(self) -> Mapping[Status, int]:
        """Videos by the words of results.csv; a clip that an earlier run could not fetch is `submitted` until tried."""
        return Counter(self._status(key, state) for key, state in self.states.items() if key not in self.stills)

    @property
    def total(self) -> int:
        return len(self.states) - len(self.stills)

    @property
    def finished(self) -> int:
        return sum(STATES[state].is_finished for key, state in self.states.items() if key not in self.stills)

    @property
    def spent_usd(self) -> float:
        """What the service charged for this table's videos, so far."""
        return sum(self.costs_usd.values())

    @property
    def new_usd(self) -> float:
        """What of it is for jobs that this run created, not for those that it took up."""
        return round(sum(self.costs_usd.get(key, 0.0) - usd for key, usd in self.costs_before_usd.items()), 6)

    @property
    def projected_usd(self) -> float:
        """What they will have cost in the end: charges, and estimates for those that are not charged yet."""
        return self.spent_usd + sum(self.estimates_usd.get(key, 0.0) for key in self._uncharged())

    @property
    def money(self) -> str:
        """Like `$0.28 so far, $1.40 and 2 of unknown price projected`."""
        projected, unknown = self.projected_usd, sum(key not in self.estimates_usd for key in self._uncharged())
        return f"{dollars(self.spent_usd)} so far, {price_text(projected, projected, unknown)} projected"

    def _uncharged(self) -> list[str]:
        open_states = {state for state in State if not STATES[state].is_failure}
        return [key for key, state in self.states.items() if key not in self.costs_usd and state in open_states]

    def seconds_left(self, now: float) -> float | None:
        """Seconds until all are finished at the speed of this run so far; None while nothing is finished."""
        done = self.finished - self.finished_before
        left = self.total - self.finished
        if left == 0:
            return 0.0
        return None if done <= 0 else (now - self.started_at) / done * left

    def _status(self, key: str, state: State) -> Status:
        facts = STATES[state]
        return facts.stalled if facts.stalled and key in self.undownloaded else facts.status
