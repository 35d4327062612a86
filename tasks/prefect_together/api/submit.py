"""Submits a video until it is accepted, refused or in doubt, at the rate that the service takes.

Never repeats a call whose outcome is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll_schedule import RandomSource
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import (
    ImageChanged,
    NeverSent,
    RateLimited,
    StoppedBeforeSending,
    SubmissionInDoubt,
    SubmissionRefused,
)

FIRST_IN_FLIGHT, MOST_IN_FLIGHT, LEAST_IN_FLIGHT = 8, 100, 4
"""Create calls without an answer: at first, at most, and what refusals leave (one may hang for minutes)."""
GROWTH = 0.5
"""By how much an accepted call raises that bound while it is reached: by half with each round of answers."""
LEAST_PER_SECOND, LEAST_ACCEPTED = 0.85, 0.25
"""The rate that refusals leave, times the part of the last calls that was accepted (or a quarter): below it, the
service's own word on how long to wait holds calls back. 60 a minute was Together's limit in late 2025."""
CUT = 0.5
"""What remains of the rate right after a refusal."""
RETURN_CALLS, PROBE_CALLS, LEAST_PROBE_CALLS = 2.0, 50.0, 3.0
"""Calls in which the rate returns to its target, and in which it then grows by half: when the target is well known, and
at the least."""
MEASURED_CALLS = 16
"""Accepted calls over which the accepted rate is measured, and after which a target is well known."""
LAST_CALLS = 4
"""The least of them that say what was accepted last, while the rate still grows fast."""
LATE_SECONDS = 0.05
"""How much of a late wake-up is made up for by a shorter next wait."""
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0
"""The wait after a refusal that names none; it doubles with each further one in a row."""
MAX_JITTER_SECONDS = 1.0
"""How much later than asked for calls continue at most: a random part of a tenth of the wait."""
NOISE_CALLS = 3
"""A refusal that names no wait is noise if there was none among so many answers before it; before any cut, if two
thirds of all were accepted."""


class SubmitPacer:
    """Rate limiter for all create calls of a process: additive growth, and a cut when the service refuses. Around each:

    `await pacer.admit()`, then send it, then exactly one of `pacer.accepted()`, `pacer.refused(retry_after_seconds)`
    and `pacer.released()`, whatever happens to the call.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, rng: RandomSource = random) -> None:
        self._clock, self._rng = clock, rng
        self._turns = asyncio.Lock()  # first come, first served
        self._answered = asyncio.Event()
        self._in_flight: deque[int] = deque()  # calls, as the number of cuts before them; the oldest first
        self._window: float = FIRST_IN_FLIGHT
        self._next_at = self._paused_until = -math.inf
        self._target: float | None = None  # the creates a second to return to; None: no refusal yet
        self._cuts = self._refusals_in_row = self._accepted = 0
        self._admitted = 0  # since the last cut
        self._cut_at: float | None = None  # at first: the first call
        self._accepted_at: deque[float] = deque(maxlen=MEASURED_CALLS)  # since the last cut
        self._known_calls = 0  # accepted calls that the target is derived from
        self._were_accepted = deque([True] * 20, maxlen=20)  # of the last calls; those refused together are one
        self._gave_no_wait = deque([False] * NOISE_CALLS, maxlen=NOISE_CALLS)  # of the last answers

    @property
    def per_second(self) -> float:
        """Creates a second that are let through now; infinite while the service has refused none."""
        if self._target is None:
            return math.inf
        beyond = self._admitted - RETURN_CALLS
        probe = max(PROBE_CALLS * self._known_calls / MEASURED_CALLS, LEAST_PROBE_CALLS)
        phase = beyond / (RETURN_CALLS if beyond < 0.0 else probe)  # -1 after a refusal, 0 back at the target
        return max(self._target * (1.0 + (1.0 - CUT) * phase**3), self._least_rate())

    async def admit(self) -> None:
        """Wait until one create call may be sent. A cancelled waiter leaves its turn to the next."""
        async with self._turns:
            while True:
                while len(self._in_flight) >= int(self._window):
                    self._answered.clear()
                    await self._answered.wait()
                pause = max(self._next_at, self._paused_until) - self._clock.monotonic()
                if pause <= 0.0:
                    break
                await self._clock.sleep(pause)
            now = self._clock.monotonic()
            self._cut_at = now if self._cut_at is None else self._cut_at
            self._next_at = max(self._next_at, now - LATE_SECONDS) + 1.0 / self.per_second
            self._in_flight.append(self._cuts)
            self._admitted += 1

    def accepted(self) -> None:
        """The service accepted the call."""
        if len(self._in_flight) >= int(self._window):  # the bound held calls back
            self._window = min(self._window + GROWTH, MOST_IN_FLIGHT)
        self._answer()
        self._were_accepted.append(True)
        self._gave_no_wait.append(False)
        self._refusals_in_row = 0
        self._accepted += 1
        self._accepted_at.append(self._clock.monotonic())

    def refused(self, retry_after_seconds: float | None = None) -> None:
        """The service answered 429 or 503: all wait for as long as it says, and the rate is cut, once a round.

        A refusal that names no wait counts as noise while few calls are refused: it only halves the calls in flight.
        """
        is_new = self._answer() == self._cuts
        self._refusals_in_row += is_new
        is_noise = retry_after_seconds is None and self._is_seldom_refused()
        if is_new or retry_after_seconds is None:
            self._were_accepted.append(False)
        self._gave_no_wait.append(retry_after_seconds is None)
        if is_noise:
            if is_new:
                self._window = max(self._window / 2.0, LEAST_IN_FLIGHT)
                self._cuts += 1
            return
        pause = retry_after_seconds
        if pause is None:
            pause = min(PAUSE_SECONDS * 2.0 ** max(self._refusals_in_row - 1, 0), MAX_PAUSE_SECONDS)
        jitter = (
            min(0.1 * pause, MAX_JITTER_SECONDS) * self._rng.random()
        )  # other processes may wait for the same moment
        now = self._clock.monotonic()
        self._paused_until = max(self._paused_until, now + pause + jitter)
        if is_new:
            self._cut(now)

    def released(self) -> None:
        """The call ended without an answer about the rate: not sent, in doubt, refused for good."""
        self._answer()

    def _cut(self, now: float) -> None:
        """Restart the curve at the end of the pause, with a target that the service's answers support."""
        if self._target is None:  # a burst: measured with the pause that it caused
            target = self._accepted / max(self._paused_until - (self._cut_at or 0.0), 1e-3)
            self._known_calls = min(self._accepted, MEASURED_CALLS)
        else:
            calls = len(self._accepted_at)
            part = max(calls / max(calls + self._known_calls, 1), 0.5)
            target = self._target ** (1.0 - part) * min(self.per_second, self._accepted_per_second(now)) ** part
            self._known_calls = min(self._known_calls + calls, MEASURED_CALLS)
        self._target = max(target, self._least_rate())
        self._cut_at = now
        self._cuts += 1
        self._admitted = 0
        self._accepted_at.clear()
        self._window = max((len(self._in_flight) + 1) // 2 if self._refusals_in_row == 1 else 0, LEAST_IN_FLIGHT)

    def _accepted_per_second(self, now: float) -> float:
        """The rate that the service accepted since the last cut."""
        times = list(self._accepted_at)
        is_growing = self._known_calls < MEASURED_CALLS
        if len(times) < (LAST_CALLS if is_growing else MEASURED_CALLS):
            return len(times) / max(now - (self._cut_at or 0.0), 1e-3)
        if is_growing:
            times = times[-max(len(times) // 2, LAST_CALLS) :]
        return (len(times) - 1) / max(times[-1] - times[0], 1e-3)

    def _is_seldom_refused(self) -> bool:
        """Whether the next refusal that names no wait can be noise, by the answers before it."""
        if self._target is None:
            return self._accepted > 0 and self._were_accepted.count(False) < len(self._were_accepted) / 3
        return not any(self._gave_no_wait)

    def _least_rate(self) -> float:
        return LEAST_PER_SECOND * max(sum(self._were_accepted) / len(self._were_accepted), LEAST_ACCEPTED)

    def _answer(self) -> int:
        """The oldest call in flight has its answer; returns how many cuts there had been when it was sent."""
        self._answered.set()
        return self._in_flight.popleft() if self._in_flight else self._cuts


NEVER_SENT_TRIES = 6
NEVER_SENT_PAUSE_SECONDS = 2.0
LAST_ANSWER_SECONDS = 0.8
"""How long a cancelled submit still waits for the answer to a request that is in flight."""


class Journal(Protocol):
    """Where a submit writes what it does, before and after each create call.

    `estimate_usd` is what is reserved for one call; None if its price is unknown.
    """

    estimate_usd: float | None

    async def intend(self) -> int:
        """Make the intent durable; return the attempt's number. May raise BudgetReached: then nothing is sent."""
        ...

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        """Write the id of a job that is paid from now on."""
        ...

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None:
        """Write that nothing is billed: refused, or never sent. It may be tried again, as another attempt."""
        ...

    async def in_doubt(self, attempt: int, reason: str) -> None:
        """Write that a job may exist and be billed."""
        ...


@dataclass(slots=True)
class NoJournal:
    """For a single call outside of a ledger: counts the attempts, keeps nothing."""

    attempts: int = 0
    estimate_usd: float | None = None

    async def intend(self) -> int:
        self.attempts += 1
        return self.attempts

    async def accepted(self, attempt: int, job: VideoJob) -> None: ...
    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None: ...
    async def in_doubt(self, attempt: int, reason: str) -> None: ...


async def submit(
    create: Callable[[], Awaitable[VideoJob]],
    *,
    pacer: SubmitPacer,
    journal: Journal,
    give_up_at: float,
    clock: Clock = SYSTEM_CLOCK,
) -> VideoJob:
    """Create the job by `create`, one call of `VideoApi.create` or `create_still`, and return it as it was answered.

    Sent again by itself: what was refused for rate (until `give_up_at`, unix seconds) and what provably never left
    this machine (six times). Each attempt is in the journal before it is sent. Raises BadParameter, WrongAddress,
    AccountBlocked, SubmissionInDoubt; RateLimited and NeverSent when it gives up; and what the journal raises.
    """
    never_sent, refusal = 0, None
    while True:
        await pacer.admit()
        if refusal is not None and clock.time() >= give_up_at:
            pacer.released()
            raise refusal
        try:
            job = await _attempt(create, journal)
        except RateLimited as error:
            refusal = error
            pacer.refused(error.retry_after_seconds)
            if clock.time() >= give_up_at:
                raise
        except ImageChanged:  # a NeverSent that no second try fixes
            pacer.released()
            raise
        except NeverSent:
            pacer.released()
            never_sent += 1
            if never_sent >= NEVER_SENT_TRIES or clock.time() >= give_up_at:
                raise
            await clock.sleep(NEVER_SENT_PAUSE_SECONDS * 2 ** (never_sent - 1))
        except BaseException:  # a cancellation too: whatever it was, the slot is free again
            pacer.released()
            raise
        else:
            pacer.accepted()
            return job


async def _attempt(create: Callable[[], Awaitable[VideoJob]], journal: Journal) -> VideoJob:
    """One create call with its entries in the journal. A cancellation does not separate the call from its entry."""
    attempt = await _intend(journal)
    call = asyncio.ensure_future(create())
    try:
        job = await asyncio.shield(call)
    except asyncio.CancelledError:
        await _end_cancelled(call, journal, attempt)
        raise
    except (SubmissionRefused, NeverSent) as error:
        await journal.not_accepted(attempt, error)
        raise
    except SubmissionInDoubt as error:
        await journal.in_doubt(attempt, error.reason)
        raise SubmissionInDoubt(error.reason, journal.estimate_usd) from error
    except Exception as error:  # whatever went wrong, the request may have been sent
        reason = f"{type(error).__name__}: {error}"
        await journal.in_doubt(attempt, reason)
        raise SubmissionInDoubt(reason, journal.estimate_usd) from error
    await journal.accepted(attempt, job)
    return job


async def _intend(journal: Journal) -> int:
    """The durable intent. Cancelled meanwhile, it is taken back: nothing was sent, so nothing is in doubt."""
    intent = asyncio.ensure_future(journal.intend())
    try:
        return await asyncio.shield(intent)
    except asyncio.CancelledError:
        await asyncio.wait([intent])
        if not intent.cancelled() and intent.exception() is None:
            await journal.not_accepted(intent.result(), StoppedBeforeSending())
        raise


async def _end_cancelled(call: asyncio.Future[VideoJob], journal: Journal, attempt: int) -> None:
    """The run is stopped while a create call is in flight: give the answer a moment, then write what is known."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait([call], timeout=LAST_ANSWER_SECONDS)
    if not call.done() or call.cancelled():
        call.cancel()
        await journal.in_doubt(attempt, "the run was stopped before the answer came")
        await asyncio.gather(call, return_exceptions=True)
        return
    error = call.exception()
    if error is None:
        await journal.accepted(attempt, call.result())
    elif isinstance(error, SubmissionRefused | NeverSent):
        await journal.not_accepted(attempt, error)
    else:
        await journal.in_doubt(attempt, error.reason if isinstance(error, SubmissionInDoubt) else str(error))
