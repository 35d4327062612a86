"""What a team sets once for all runs, as Prefect's own settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

from prefect.logging import get_run_logger
from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import Field, ValidationError

from prefect_together.clips.store import redacted
from prefect_together.execution.settings import MAX_IN_FLIGHT, RunLocations
from prefect_together.problems import Problem, SettingsInvalid
from prefect_together.request.form import VideoLocations
from prefect_together.results.text import counted, dollars

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
