"""What polling late costs a run of many rows of which some are in flight, in virtual time: nothing is sent.

`python benchmarks/in_flight.py` prints a Markdown table. A job whose end is seen late keeps its slot
from the next one: the table says how much longer the run takes than one that polls every job twice a second. Jobs run
concurrently, and each duration is learned from, as in a real run.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from statistics import mean

from pace import virtual_clock

from prefect_together.api.client import VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget, wait
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.clock import Clock

MODEL, MEDIAN_LOG_SECONDS = "m", 4.5
OFTEN_SECONDS = 0.5
SPREADS, SIZES, ROUNDS = (0.2, 0.35), ((20, 20), (200, 20), (1000, 200)), 4
GOAL = 1.02
GOAL_SIZE = (1000, 200)


class Service(VideoApi):
    """Jobs that take a given time; timestamps in whole seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, tuple[float, float]] = {}
        self.polls, self.late_seconds = 0, list[float]()

    def begin(self, job_id: str, seconds: float) -> None:
        self._jobs[job_id] = (self._clock.time(), seconds)

    async def retrieve(self, job_id: str) -> VideoJob:
        self.polls += 1
        began, seconds = self._jobs[job_id]
        late = self._clock.time() - began - seconds
        if late < 0.0:
            return VideoJob(job_id, "in_progress")
        self.late_seconds.append(late)
        stamp = float(int(began))
        return VideoJob(job_id, "completed", video_url="x", created_at=stamp, completed_at=stamp + round(seconds))


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of the whole run, polls a job, mean lateness in seconds."""

    seconds: float
    polls: float
    late_seconds: float


async def run(rows: int, in_flight: int, spread: float, seed: int, *, known: int = 0, often: bool = False) -> Run:
    clock, rng, book = virtual_clock(), random.Random(seed), DurationStatistics()
    durations = [random.Random(1000 * seed + row).lognormvariate(MEDIAN_LOG_SECONDS, spread) for row in range(rows)]
    book.load(MODEL, [float(round(rng.lognormvariate(MEDIAN_LOG_SECONDS, spread))) for _ in range(known)])
    service, budget, slots = Service(clock), PollBudget(clock=clock), asyncio.Semaphore(in_flight)
    began = clock.time()

    async def job(row: int) -> None:
        async with slots:
            service.begin(str(row), durations[row])
            if often:
                await clock.sleep(OFTEN_SECONDS)
                while not (await service.retrieve(str(row))).is_completed:
                    await clock.sleep(OFTEN_SECONDS)
                return
            now = clock.time()
            await wait(
                service,
                str(row),
                model=MODEL,
                submitted_at=now,
                deadline=now + 86_400,
                durations=book,
                poll_budget=budget,
                clock=clock,
                rng=rng,
            )

    await asyncio.gather(*(job(row) for row in range(rows)))
    return Run(clock.time() - began, service.polls / rows, mean(service.late_seconds))


def main() -> None:
    print(
        f"Lognormal durations of median 90 s, means of {ROUNDS} runs; (e) polls each job every {OFTEN_SECONDS:g} s.\n"
    )
    print("| spread | rows | in flight | known before | polls a job | s late | (e)'s polls | the run, x (e)'s |")
    print("|---|---|---|---|---|---|---|---|")
    of_goal: list[float] = []
    for spread in SPREADS:
        for rows, in_flight in SIZES:
            often = [asyncio.run(run(rows, in_flight, spread, seed, often=True)) for seed in range(ROUNDS)]
            for known in (0, 96):
                ours = [asyncio.run(run(rows, in_flight, spread, seed, known=known)) for seed in range(ROUNDS)]
                ratio = mean(one.seconds / other.seconds for one, other in zip(ours, often, strict=True))
                if (rows, in_flight) == GOAL_SIZE:
                    of_goal.append(ratio)
                cells = (f"{spread:g}", f"{rows:,}", f"{in_flight}", f"{known} jobs" if known else "nothing")
                polls, late = mean(one.polls for one in ours), mean(one.late_seconds for one in ours)
                figures = (f"{polls:.1f}", f"{late:.1f}", f"{mean(one.polls for one in often):.0f}", f"{ratio:.3f}")
                print("| " + " | ".join((*cells, *figures)) + " |")
    rows, in_flight = GOAL_SIZE
    is_met = max(of_goal) <= GOAL
    print(
        f"\nGoal, {rows:,} rows, {in_flight} in flight: at most {GOAL:g} x (e)'s. Seen: at most {max(of_goal):.3f}: "
        f"{'met' if is_met else 'not met'}. Engine, ledger and downloads take no time here; see `durations` for them."
    )


if __name__ == "__main__":
    main()
