"""Settings of a run: its locations, limits and caps, what it sends again; and what a team sets once for all runs."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from prefect.logging import get_run_logger
from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import Field, ValidationError

from prefect_together.clips.download import MAX_CLIP_BYTES
from prefect_together.clips.remote_store import output_name
from prefect_together.clips.store import OutputStore, redacted
from prefect_together.errors import Problem, SettingsInvalid
from prefect_together.ledger.ledger import HERE, LEDGER_FILE
from prefect_together.ledger.states import STATES, SentIf, State, states_where
from prefect_together.request.form import CollectLimits, VideoLimits, VideoLocations
from prefect_together.request.media import MAX_INLINE_CHARACTERS
from prefect_together.results.text import counted, dollars
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

PREFIX = "PREFECT_INTEGRATIONS_TOGETHER_"


class TogetherSettings(PrefectBaseSettings):
    """Defaults that a team sets once, for a work pool or a profile; None: not set. What a run is given wins.

    Prefect reads PREFECT_INTEGRATIONS_TOGETHER_* from the environment, .env, prefect.toml, pyproject.toml and the
    active profile.
    """

    model_config = build_settings_config(("integrations", "together"), frozen=True)

    budget_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=2000)] | None = None
    output_root: str | None = None
    credentials_block: str | None = None
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s()<>\"]+$")] | None = None


class TeamDefaults:
    """What holds for a run: what it was given, or else what the team has set; `used` says which settings were taken.

    Raises SettingsInvalid for a setting with a value that it does not take.
    """

    def __init__(self) -> None:
        self._team = _settings()
        self.used: list[str] = []

    def budget_usd(self, given: float | None) -> float | None:
        if given is not None or self._team.budget_usd is None:
            return given
        self.used.append(f"a budget of {dollars(self._team.budget_usd)}")
        return self._team.budget_usd

    def max_in_flight(self, given: int | None) -> int:
        if given is not None or self._team.max_in_flight is None:
            return given or MAX_IN_FLIGHT
        self.used.append(f"{counted(self._team.max_in_flight, 'job')} at once")
        return self._team.max_in_flight

    def credentials_block(self, given: str | None) -> str | None:
        if given is not None or self._team.credentials_block is None:
            return given
        self.used.append(f"the key in the block {self._team.credentials_block}")
        return self._team.credentials_block

    def output_dir(self, given: str) -> str:
        """A relative directory is under the team's root."""
        root = self._team.output_root
        if root is None or "://" in given or Path(given).is_absolute():
            return given
        self.used.append(f"outputs under {redacted(root)}")
        return f"{root.rstrip('/')}/{given}"

    def locations(
        self, output_dir: str, given: VideoLocations, *, sandbox: bool, ledger: str | None = None
    ) -> RunLocations:
        """Where everything of a run is."""
        return RunLocations(
            self.output_dir(output_dir),
            ledger,
            None if sandbox else self.credentials_block(given.credentials_block),
            sandbox,
            given.sandbox_speed,
            served_at=self.served_at(output_dir),
        )

    def served_at(self, given: str) -> str | None:
        """URL under which the team serves this output directory; None for one that is not under its root."""
        base, root = self._team.base_url, self._team.output_root
        if root is not None and given.startswith(f"{root.rstrip('/')}/"):
            given = given[len(root.rstrip("/")) :].strip("/")
        path = PurePosixPath(given)
        if base is None or "://" in given or path.is_absolute() or ".." in path.parts:
            return None
        return f"{base.rstrip('/')}/{quote(str(path))}"

    def log(self) -> None:
        """Say in the flow run's log what was taken, and what is no setting."""
        if self.used:
            get_run_logger().info("%s", self._note)
        if unknown := _unknown():
            get_run_logger().warning("%s", unknown)

    def print_note(self) -> None:
        """Say on stderr what was taken, and what is no setting."""
        if self.used:
            print(self._note, file=sys.stderr)
        if unknown := _unknown():
            print(f"warning: {unknown}", file=sys.stderr)

    @property
    def _note(self) -> str:
        return f"from the team's settings ({PREFIX}*): {', '.join(self.used)}"


def _unknown() -> str | None:
    """What the environment sets and nobody reads: a cap whose name is mistyped would hold for nothing."""
    known = [f"{PREFIX}{name.upper()}" for name in TogetherSettings.model_fields]
    unknown = {name for name in map(str.upper, os.environ) if name.startswith(PREFIX)} - {*known}
    if not unknown:
        return None
    return f"not a setting, and not used: {', '.join(sorted(unknown))}. Known are {', '.join(known)}"


def _settings() -> TogetherSettings:
    try:
        return TogetherSettings()
    except ValidationError as error:
        problems = {
            f"{PREFIX}{str(found['loc'][0]).upper()} is {found['input']!r}: {found['msg']}"
            for found in error.errors()
            if found["type"] != "none_required"
        }
        raise SettingsInvalid([Problem(problem) for problem in sorted(problems)]) from None
