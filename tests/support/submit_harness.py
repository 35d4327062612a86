"""One submit with everything about it scripted: the service, the pace, the journal, the clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from fake_clock import FakeClock
from prefect_together.api.jobs import VideoJob
from prefect_together.api.submit import SubmitPacer, submit
from prefect_together.clock import Clock
from prefect_together.errors import NeverSent, RateLimited, SubmissionRefused
from prefect_together.request.request import VideoRequest
from scripted_api import Answer, ScriptedApi

REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")


JOB = VideoJob("job-1", "queued")


UNREACHABLE = NeverSent("ConnectError")


class NoJitter:
    def random(self) -> float:
        return 0.0


class CountedPacer(SubmitPacer):
    """Remembers which end each admitted call was given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, rng=NoJitter())
        self.admitted, self.ends = 0, list[str]()

    async def admit(self) -> None:
        await super().admit()
        self.admitted += 1

    def accepted(self) -> None:
        super().accepted()
        self.ends.append("accepted")

    def refused(self, retry_after_seconds: float | None = None) -> None:
        super().refused(retry_after_seconds)
        self.ends.append("refused")

    def released(self) -> None:
        super().released()
        self.ends.append("released")


@dataclass
class LoggedJournal:
    """Writes into the same log as the API, so that the order of both can be seen; `breaks` names a step that raises."""

    log: list[str]
    breaks: str | None = None
    error: Exception = field(default_factory=lambda: RuntimeError("the ledger is gone"))
    intending: asyncio.Event | None = None
    attempts: int = 0
    estimate_usd: float | None = None

    async def intend(self) -> int:
        self._write("intend", f"intend {self.attempts + 1}")
        self.attempts += 1
        if self.intending is not None:
            await self.intending.wait()
        return self.attempts

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        self._write("accepted", f"accepted {attempt} {job.id}")

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None:
        self._write("not_accepted", f"not_accepted {attempt} {type(error).__name__}")

    async def in_doubt(self, attempt: int, reason: str) -> None:
        self._write("in_doubt", f"in_doubt {attempt} {reason}")

    def _write(self, step: str, line: str) -> None:
        if step == self.breaks:
            raise self.error
        self.log.append(line)


class Harness:
    """One submit with all that it needs."""

    def __init__(self, *answers: Answer, breaks: str | None = None, error: Exception | None = None) -> None:
        self.clock = FakeClock()
        self.log: list[str] = []
        self.api = ScriptedApi(*answers, clock=self.clock, log=self.log)
        self.pacer = CountedPacer(self.clock)
        self.journal = LoggedJournal(self.log, breaks)
        if error is not None:
            self.journal.error = error

    async def submit(self, *, for_seconds: float = 3600.0) -> VideoJob:
        return await submit(
            partial(self.api.create, REQUEST),
            pacer=self.pacer,
            journal=self.journal,
            give_up_at=self.clock.time() + for_seconds,
            clock=self.clock,
        )


async def settle(turns: int = 20) -> None:
    """Let every task come as far as it can without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


def refused(status: int = 429, *, after: float | None = None) -> RateLimited:
    return RateLimited(status, None, "slow down", after)
