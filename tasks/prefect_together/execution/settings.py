"""Settings of a run: its locations, limits and caps, and what it sends again. Imports no Prefect."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect_together.clips.download import MAX_CLIP_BYTES
from prefect_together.clips.remote_store import output_name
from prefect_together.clips.store import OutputStore
from prefect_together.ledger.ledger import HERE, LEDGER_FILE
from prefect_together.ledger.states import STATES, SentIf, State, states_where
from prefect_together.request.form import CollectLimits, VideoLimits
from prefect_together.request.media import MAX_INLINE_CHARACTERS
from prefect_together.table.plan import Kind

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True)
class RunLocations:
    """Where a run reads its key, writes its videos and keeps its ledger. None: the default of each.

    `served_at`: URL under which the team serves the output directory; None if it is not served.
    """

    output_dir: str
    ledger_url: str | None = None
    credentials_block: str | None = None
    sandbox: bool = False
    sandbox_speed: float = 1.0
    served_at: str | None = None

    @property
    def output_name(self) -> str:
        """The ledger's name for the output directory: a ledger that lies in it may be moved together with it."""
        return HERE if self.ledger_url is None else output_name(self.output_dir)

    def ledger_in(self, store: OutputStore) -> str:
        """Path or URL of the ledger; `store` is that of the output directory."""
        return self.ledger_url or str(Path(store.local_dir) / LEDGER_FILE)


MAX_IN_FLIGHT = 20
"""Jobs at the provider at once, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Limits and choices of a run; None: not set, so no cap.

    `allowed_failures` counts rows, `shards` the runs that work on the plan together: `max_in_flight` and `budget_usd`
    hold for all of them.
    """

    max_in_flight: int = MAX_IN_FLIGHT
    budget_usd: float | None = None
    whole_chains: bool = False
    max_wait_minutes: float = 60.0
    max_clip_megabytes: int = MAX_CLIP_BYTES // 1_000_000
    resubmit_in_doubt: bool = False
    retry_failed: bool = False
    collect_only: bool = False
    allowed_failures: int = 0
    canary: bool = False
    approve_above_usd: float | None = None
    approval_minutes: float = 24 * 60.0
    shards: int = 1
    new_ledger: bool = False
    rebuy: bool = False
    concurrency_limit: str | None = None
    max_inline_kilobytes: int = MAX_INLINE_CHARACTERS // 1000
    stop_after: Literal["stills"] | None = None

    @classmethod
    def of(cls, limits: VideoLimits | CollectLimits, **more: Any) -> RunSettings:
        """The settings that the form's card of limits has under the same names, and `more`. None: the default."""
        given = {name: value for name, value in limits if name != "catalogue_checks"} | more
        return cls(**{name: value for name, value in given.items() if value is not None})

    def sends(self, state: State, kind: Kind = "video") -> bool:
        """Whether a video or still that the ledger has in this state is sent, and not only collected."""
        is_on: dict[SentIf, bool] = {
            "always": True,
            "resubmit_in_doubt": self.resubmit_in_doubt,
            "retry_failed": self.retry_failed,
            "never": False,
        }
        is_stopped = self.collect_only or (self.stop_after == "stills" and kind == "video")
        return not is_stopped and is_on[STATES[state].sent_if]

    def states_to_resend(self, kind: Kind) -> tuple[State, ...]:
        """Finished states of which the user said that they are to be sent again."""
        return tuple(state for state in states_where(lambda facts: facts.is_finished) if self.sends(state, kind))


@dataclass(frozen=True, slots=True)
class Partition:
    """Number `index` of `of` runs over one plan; number 0 is the run that made it.

    A run begins with its own part and then takes up what remains of the others': the ledger's claims decide who has a
    video, the part only where each begins.
    """

    index: int = 0
    of: int = 1

    def has(self, position: int) -> bool:
        """Whether the video at this position of the plan is one to begin with: every `of`-th, so that the table's
        order holds over all runs together."""
        return position % self.of == self.index

    def part_of(self, limit: int) -> int:
        """This run's part of a limit that holds for all together; the parts add up to it."""
        return limit // self.of + (self.index < limit % self.of)


ALONE = Partition()

NO_SERVER = (
    "shards are runs of a deployment, on the workers of a Prefect server: set PREFECT_API_URL to its address,"
    " or leave shards at 1"
)
