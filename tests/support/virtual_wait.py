"""One wait for a job with a scripted service and virtual time: its looks, its end, what it learned."""

from __future__ import annotations

from dataclasses import dataclass, field

from fake_clock import START_UNIX_SECONDS, FakeClock
from prefect_together.api.client import PollMissed
from prefect_together.api.durations import Lognormal
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget, wait
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.errors import AccountBlocked, JobNotFound
from scripted_api import Answer, ScriptedApi

DRAFT = (Lognormal(1.0, -3.0, 0.5),)


DONE = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.28)


MISSED = PollMissed("HTTP 500 on retrieve")


NOT_FOUND = JobNotFound("job-1")


BLOCKED = AccountBlocked(401, None, "bad key")


def at(status: str | None) -> VideoJob:
    return VideoJob("job-1", status)


class RecordingStatistics(DurationStatistics):
    """Keeps what it has observed."""

    def __init__(self) -> None:
        super().__init__()
        self.observed: list[tuple[float, float | None]] = []

    def observe(self, model: str, seconds: float, *, earliest_seconds: float | None = None) -> None:
        self.observed.append((seconds, earliest_seconds))
        super().observe(model, seconds, earliest_seconds=earliest_seconds)


@dataclass
class Changes:
    seen: list[tuple[str | None, str | None]] = field(default_factory=list[tuple[str | None, str | None]])

    def __call__(self, before: str | None, now: str | None) -> None:
        self.seen.append((before, now))


class VirtualWait:
    """One wait with all that it needs, in virtual time that starts when the job is submitted."""

    def __init__(self, *answers: Answer) -> None:
        self.clock = FakeClock()
        self.api = ScriptedApi(*answers, clock=self.clock)
        self.statistics, self.changes = RecordingStatistics(), Changes()
        self.budget = PollBudget(clock=self.clock)

    async def wait(self, *, for_seconds: float = 3600.0, submitted_ago: float = 0.0) -> VideoJob:
        now = self.clock.time()
        return await wait(
            self.api,
            "job-1",
            model="m",
            submitted_at=now - submitted_ago,
            deadline=now + for_seconds,
            durations=self.statistics,
            poll_budget=self.budget,
            on_change=self.changes,
            clock=self.clock,
        )

    @property
    def asked_after(self) -> list[float]:
        """Seconds from the start to each poll."""
        return [asked - START_UNIX_SECONDS for asked in self.api.asked_at]
