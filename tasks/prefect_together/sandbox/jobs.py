"""A job's life as a function of time and of its script. No HTTP, no clock of its own, no clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

MISSING = "(missing)"
"""In a script: the answer has no `status` at all (None stands for `"status": null`)."""

QUEUED_SHARE = 0.15
"""How much of its generation time a job spends `queued`."""

Ending = Literal["completed", "failed", "cancelled", "stuck"]


@dataclass(frozen=True)
class Failure:
    """Why a job ended `failed`, in the service's words."""

    code: str
    message: str


@dataclass(frozen=True)
class Script:
    """The statuses a job shows, one a read, or from given seconds after its creation on; the last one stays.

    `statuses` may hold None and `MISSING`. A scripted `completed` waits for no rendering.
    """

    statuses: tuple[str | None, ...]
    at_seconds: tuple[float, ...] | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if not self.statuses:
            raise ValueError("a script needs at least one status")
        if self.at_seconds is not None and len(self.at_seconds) != len(self.statuses):
            raise ValueError("a script by time needs one time for each status")

    def status(self, *, reads: int, elapsed_seconds: float) -> str | None:
        if self.at_seconds is None:
            return self.statuses[min(max(reads, 1), len(self.statuses)) - 1]
        shown = self.statuses[0]
        for at, status in zip(self.at_seconds, self.statuses, strict=True):
            if elapsed_seconds >= at:
                shown = status
        return shown


@dataclass(frozen=True)
class ClipPlan:
    """What a clip must be: pixels (even), seconds, frames a second, container and sound."""

    width: int
    height: int
    seconds: float
    fps: int
    webm: bool = False
    audio: bool = False

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.fps))

    @property
    def suffix(self) -> str:
        return ".webm" if self.webm else ".mp4"


@dataclass
class Job:
    """One accepted job. Times are unix seconds of the sandbox's clock."""

    id: str
    request: Mapping[str, Any]
    plan: ClipPlan
    created_at: float
    generation_seconds: float
    cost_usd: float
    ending: Ending = "completed"
    failure: Failure | None = None
    script: Script | None = None
    hidden_reads: int = 0
    reads: int = 0
    clip_ready_at: float | None = None
    seen_final_at: float | None = None
    downloads: int = 0
    link: str | None = field(default=None, repr=False)
    link_issued_at: float = 0.0

    @property
    def model(self) -> str:
        return str(self.request.get("model", ""))

    @property
    def prompt(self) -> str:
        return str(self.request.get("prompt") or "")

    @property
    def due_at(self) -> float:
        return self.created_at + self.generation_seconds

    @property
    def is_billed(self) -> bool:
        """Whether it is, or will be, charged: failed and cancelled jobs cost nothing here."""
        return self.script.statuses[-1] == "completed" if self.script else self.ending == "completed"

    def status(self, now: float, *, next_read: bool = False) -> str | None:
        """What the last read shows at `now`, or what one more read would show."""
        elapsed = now - self.created_at
        if self.script is not None:
            return self.script.status(reads=self.reads + next_read, elapsed_seconds=elapsed)
        if elapsed < self.generation_seconds * QUEUED_SHARE:
            return "queued"
        if elapsed < self.generation_seconds or self.ending == "stuck":
            return "in_progress"
        if self.ending == "completed" and self.clip_ready_at is None:
            return "in_progress"
        return self.ending

    def span(self, now: float) -> tuple[float, float]:
        """When it was at work, as far as is known at `now`."""
        if self.script is not None:
            return self.created_at, self.seen_final_at or now
        return self.created_at, min(now, self.due_at)

    def ended_at(self, now: float) -> float:
        """When it ended, as far as a read at `now` knows."""
        return min(now, max(self.due_at, self.clip_ready_at or self.due_at))


def peak_in_flight(spans: Sequence[tuple[float, float]]) -> int:
    """The most jobs at work in the same moment, from their (start, end) times."""
    events = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    peak = now = 0
    for _, step in events:
        now += step
        peak = max(peak, now)
    return peak
