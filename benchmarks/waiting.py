"""What waiting costs, in simulated time: this project's looks against fixed, exponential and optimal ones.

`python benchmarks/waiting.py` prints Markdown tables; nothing is sent, no time passes. One job follows the other, each
teaching the next its duration in whole seconds, as the service stamps it. A look costs `WORTH` seconds of lateness.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from prefect_together.poll_budget import POLL_WORTH_SECONDS
from prefect_together.schedule import DurationBook

WORTH = POLL_WORTH_SECONDS
RUNS, JOBS, LEARNED = 24, 200, 20
"""Cold starts, jobs of each, and the number of jobs after which a run counts as learned."""
WORTHS = (0.05, 0.12, 0.3, 0.7, 1.6, 4.0, 10.0, 25.0)

Draw = Callable[[random.Random, int], float]
"""The duration in seconds of job number so-and-so."""


def lognormal(median_seconds: float, sigma: float) -> Draw:
    return lambda rng, _number: rng.lognormvariate(math.log(median_seconds), sigma)


def mixed(part: float, first: Draw, second: Draw) -> Draw:
    return lambda rng, number: (first if rng.random() < part else second)(rng, number)


SHAPES: dict[str, Draw] = {
    "lognormal 90 s, 0.1": lognormal(90, 0.1),
    "lognormal 90 s, 0.2": lognormal(90, 0.2),
    "lognormal 90 s, 0.35": lognormal(90, 0.35),
    "lognormal 90 s, 0.6": lognormal(90, 0.6),
    "lognormal 300 s, 0.3": lognormal(300, 0.3),
    "bimodal 45 / 180 s": mixed(0.5, lognormal(45, 0.15), lognormal(180, 0.15)),
    "shifted 60 s + lognormal 20 s": lambda rng, number: 60 + lognormal(20, 0.6)(rng, number),
    "long tail (1 in 10 at 400 s)": mixed(0.9, lognormal(90, 0.2), lognormal(400, 0.5)),
    "uniform 60-180 s": lambda rng, _number: rng.uniform(60, 180),
    "memoryless 90 s": lambda rng, _number: rng.expovariate(1 / 90),
    "drift 60 to 180 s": lambda rng, number: lognormal(60 * 3 ** (number / JOBS), 0.2)(rng, number),
    "jumps 60 / 180 s": lambda rng, number: lognormal((60, 180)[number // 50 % 2], 0.2)(rng, number),
    "sandbox 2-3 s": lambda rng, _number: rng.uniform(2, 3),
}
MOVING = {"drift 60 to 180 s": range(5, JOBS, 20), "jumps 60 / 180 s": (0, 50)}
"""Shapes that change from job to job, and the jobs whose optimum stands for all."""


@dataclass(frozen=True)
class Waits:
    """Looks and lateness in seconds of many jobs."""

    polls: np.ndarray
    late_seconds: np.ndarray

    @property
    def polls_a_job(self) -> float:
        return float(np.mean(self.polls))

    @property
    def mean_late(self) -> float:
        return float(np.mean(self.late_seconds))

    @property
    def p95_late(self) -> float:
        return float(np.quantile(self.late_seconds, 0.95))

    def cost(self, worth_seconds: float = WORTH) -> float:
        return self.polls_a_job * worth_seconds + self.mean_late

    def __str__(self) -> str:
        return f"{self.polls_a_job:.1f} / {self.mean_late:.1f} / {self.p95_late:.0f}"


def ours(draw: Draw, *, worth_seconds: float = WORTH, runs: int = RUNS, jobs: int = JOBS) -> list[Waits]:
    """One `Waits` per job number, over all runs: the first is that of a model of which nothing is known."""
    polls, late_seconds = np.zeros((jobs, runs)), np.zeros((jobs, runs))
    for run in range(runs):
        rng, book = random.Random(run), DurationBook()
        for number in range(jobs):
            duration, plan, elapsed, looks = draw(rng, number), book.plan("m"), 0.0, 0
            while elapsed < duration:
                elapsed += plan.next_look(elapsed, poll_worth_seconds=worth_seconds, rng=rng)
                looks += 1
            polls[number, run], late_seconds[number, run] = looks, elapsed - duration
            book.observe("m", round(duration) or 0.5)
    return [Waits(polls[number], late_seconds[number]) for number in range(jobs)]


def together(waits: list[Waits]) -> Waits:
    return Waits(np.concatenate([each.polls for each in waits]), np.concatenate([each.late_seconds for each in waits]))


def fixed(seconds: float) -> Callable[[random.Random, float], Iterator[float]]:
    def pauses(_rng: random.Random, _median: float) -> Iterator[float]:
        while True:
            yield seconds

    return pauses


def exponential(_rng: random.Random, _median: float) -> Iterator[float]:
    """1, 2, 4, 8, 16, 30, 30 ... seconds."""
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, 30.0)


def genblaze(rng: random.Random, median: float) -> Iterator[float]:
    """First at 0.8 x the estimate (here: the true median), then from 2 s, doubled every 30 s up to 30 s, +-25 %."""
    yield 0.8 * median * rng.uniform(0.75, 1.25)
    since = 0.0
    while True:
        pause = min(2.0 * 2.0 ** (since // 30.0), 30.0) * rng.uniform(0.75, 1.25)
        yield pause
        since += pause


def peer(draw: Draw, rule: Callable[[random.Random, float], Iterator[float]], jobs: int = 4000) -> Waits:
    """The waits of a rule that does not learn."""
    rng = random.Random(1)
    polls, late_seconds = np.zeros(jobs), np.zeros(jobs)
    medians = [float(np.median([draw(rng, number) for _ in range(99)])) for number in range(JOBS)]
    for job in range(jobs):
        duration, elapsed, looks = draw(rng, job % JOBS), 0.0, 0
        for pause in rule(rng, medians[job % JOBS]):
            elapsed += pause
            looks += 1
            if elapsed >= duration:
                break
        polls[job], late_seconds[job] = looks, elapsed - duration
    return Waits(polls, late_seconds)


def optimum(name: str, worth_seconds: float = WORTH) -> tuple[float, float, float]:
    """Cost, looks and lateness of the best schedule there is, with the distribution known (dynamic programming)."""
    results: list[tuple[float, float, float]] = []
    for number in MOVING.get(name, (0,)):
        rng = random.Random(9)
        results.append(_optimum(np.sort([SHAPES[name](rng, number) for _ in range(20_000)]), worth_seconds))
    cost, polls, late_seconds = (sum(figures) / len(results) for figures in zip(*results, strict=True))
    return cost, polls, late_seconds


def _optimum(durations: np.ndarray, worth_seconds: float) -> tuple[float, float, float]:
    """Over 2,500 ages: the cost to come after a look at each, and from it the best next look."""
    ages = np.append(np.zeros(1), np.linspace(float(durations[0]), float(durations[-1]) + 1e-9, 2500))
    going = 1.0 - np.searchsorted(durations, ages, side="right") / len(durations)
    waited = np.append(np.zeros(1), np.cumsum((going[1:] + going[:-1]) / 2 * np.diff(ages)))
    last = len(ages) - 1
    to_come, following = np.zeros(last + 1), np.zeros(last + 1, dtype=int)
    for age in range(last - 1, -1, -1):
        late = (ages[age + 1 :] - ages[age]) * going[age] - (waited[age + 1 :] - waited[age])
        costs = worth_seconds * going[age] + late + to_come[age + 1 :]
        best = int(np.argmin(costs))
        to_come[age], following[age] = costs[best], age + 1 + best
    polls, age = 0.0, 0
    while age < last:
        polls += going[age]
        age = int(following[age])
    return float(to_come[0]), polls, float(to_come[0] - worth_seconds * polls)


def polls_when_as_late(points: list[tuple[float, float]], late_seconds: float) -> float:
    """Looks a job at a given mean lateness, between measured (lateness, looks): both follow powers of the worth."""
    points = sorted(points)
    logs = np.log([late for late, _ in points]), np.log([polls for _, polls in points])
    return float(np.exp(np.interp(math.log(late_seconds), *logs)))


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def print_waits(learned: dict[str, Waits], optima: dict[str, tuple[float, float, float]]) -> None:
    rules = {"fixed 5 s": fixed(5), "fixed 60 s": fixed(60), "exponential": exponential, "genblaze": genblaze}
    plain: list[list[str]] = []
    costs: list[list[str]] = []
    for name, draw in SHAPES.items():
        cost, polls, late_seconds = optima[name]
        peers = [peer(draw, rule) for rule in rules.values()]
        plain.append([name, f"{polls:.1f} / {late_seconds:.1f}", str(learned[name]), *(str(each) for each in peers)])
        costs.append([name, f"{cost:.2f} s", *(f"{each.cost() / cost:.2f}" for each in (learned[name], *peers))])
    head = ["durations", "optimum, known", f"ours, after {LEARNED} jobs", *rules]
    print_table("Looks a job / mean / 95 % lateness in seconds", head, plain)
    print_table(f"Cost ({WORTH:g} s a look + lateness): the optimum's, and the others as multiples of it", head, costs)


def print_learning(cold: dict[str, list[Waits]], optima: dict[str, tuple[float, float, float]]) -> None:
    spans = ((0, 1), (1, 5), (5, 20), (20, 60), (60, JOBS))
    rows: list[list[str]] = []
    for name in SHAPES:
        parts = [together(cold[name][start:end]).cost() / optima[name][0] for start, end in spans]
        rows.append([name, *(f"{part:.2f}" for part in parts)])
    head = ["durations", "first job", *(f"jobs {start + 1}-{end}" for start, end in spans[1:])]
    print_table("Learning from nothing: cost as a multiple of the optimum's", head, rows)


def print_equal_lateness() -> None:
    rows: list[list[str]] = []
    for name, draw in SHAPES.items():
        runs = [(worth, together(ours(draw, worth_seconds=worth, runs=6)[LEARNED:])) for worth in WORTHS]
        points = [(waits.mean_late, waits.polls_a_job) for _, waits in runs]
        row = [name]
        for rule in (fixed(5), exponential):
            other = peer(draw, rule)
            polls = polls_when_as_late(points, other.mean_late)
            row += [
                f"{other.mean_late:.1f} s",
                f"{other.polls_a_job:.1f}",
                f"{polls:.1f}",
                f"{polls / other.polls_a_job:.2f}",
            ]
        rows.append(row)
    head = ["durations"]
    head += ["late like fixed 5 s", "its looks", "ours", "ratio", "late like exponential", "its looks", "ours", "ratio"]
    print_table("Looks a job at equal mean lateness", head, rows)


def main() -> None:
    print(f"{RUNS} cold starts of {JOBS} jobs for each distribution; exponential: 1, 2, 4, 8, 16, 30, 30 ... s")
    optima = {name: optimum(name) for name in SHAPES}
    cold = {name: ours(draw) for name, draw in SHAPES.items()}
    learned = {name: together(waits[LEARNED:]) for name, waits in cold.items()}
    print_waits(learned, optima)
    print_learning(cold, optima)
    print_equal_lateness()


if __name__ == "__main__":
    main()
