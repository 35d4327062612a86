"""What waiting costs, in simulated time: this project's polls compared with fixed, exponential and optimal ones.

`python benchmarks/waiting.py` prints Markdown tables; nothing is sent, no time passes. The jobs run one after
another, and each duration is learned in whole seconds, as the service reports it. The cost of a wait is what the
schedule minimises: `WORTH` seconds a poll, plus the lateness. The optimum knows the distribution: dynamic programming
over it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from prefect_together.api.durations import Lognormal
from prefect_together.api.poll import POLL_COST_SECONDS
from prefect_together.api.poll_schedule import DurationStatistics, PollPlan

WORTH = POLL_COST_SECONDS
RUNS, JOBS, LEARNED = 24, 200, 20
"""Cold starts, jobs of each, and the number of jobs after which a run counts as learned."""
WORTHS = (0.08, 0.2, 0.4, 1.0, 4.0, 10.0, 25.0)

Draw = Callable[[random.Random, int], float]
"""The duration in seconds of a job, by its number."""


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
    "jumps 60 / 180 s": lambda rng, number: lognormal((60, 180)[number // JUMP_EVERY % 2], 0.2)(rng, number),
    "sandbox 2-3 s": lambda rng, _number: rng.uniform(2, 3),
}
MOVING = {"drift 60 to 180 s": range(5, JOBS, 10), "jumps 60 / 180 s": (0, 50, 100, 150)}
"""Shapes that change from job to job, and jobs whose optimum holds up to the next of them."""
JUMP_EVERY = 50


@dataclass(frozen=True)
class Waits:
    """Polls and lateness in seconds of many jobs."""

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


def ours(
    draw: Draw, *, worth_seconds: float = WORTH, runs: int = RUNS, jobs: int = JOBS, is_exact: bool = False
) -> list[Waits]:
    """One `Waits` per job number, over all runs: the first is that of a model of which nothing is known.

    `is_exact`: durations are learned to the millisecond, not in whole seconds.
    """
    polls, late_seconds = np.zeros((jobs, runs)), np.zeros((jobs, runs))
    for run in range(runs):
        rng, book = random.Random(run), DurationStatistics()
        for number in range(jobs):
            duration = draw(rng, number)
            polls[number, run], late_seconds[number, run] = wait_for(duration, book.plan("m"), worth_seconds, rng)
            if is_exact:
                book.observe("m", duration, earliest_seconds=duration - 0.001)
            else:
                book.observe("m", round(duration) or 0.5)
    return [Waits(polls[number], late_seconds[number]) for number in range(jobs)]


def wait_for(duration: float, plan: PollPlan, worth_seconds: float, rng: random.Random) -> tuple[int, float]:
    elapsed, looks = 0.0, 0
    while elapsed < duration:
        elapsed += plan.next_poll(elapsed, poll_cost_seconds=worth_seconds, rng=rng)
        looks += 1
    return looks, elapsed - duration


def knowing_both_kinds(name: str = "jumps 60 / 180 s") -> Waits:
    """The best for the jumps if both kinds of jobs and how often they change are known, but not when."""
    kinds, polls, late_seconds = (math.log(60), math.log(180)), list[int](), list[float]()
    plans = [
        DurationStatistics(prior=(Lognormal(p / 100, kinds[0], 0.2), Lognormal(1 - p / 100, kinds[1], 0.2)))
        for p in range(1, 100)
    ]
    for run in range(RUNS):
        rng, first = random.Random(run), 0.5
        for number in range(JOBS):
            duration = SHAPES[name](rng, number)
            looks, late = wait_for(duration, plans[min(max(round(100 * first), 1), 99) - 1].plan("m"), WORTH, rng)
            if number >= LEARNED:
                polls.append(looks)
                late_seconds.append(late)
            chances = [math.exp(-0.5 * ((math.log(duration) - kind) / 0.2) ** 2) for kind in kinds]
            first = first * chances[0] / (first * chances[0] + (1 - first) * chances[1] + 1e-300)
            first += (1 - 2 * first) / JUMP_EVERY
    return Waits(np.array(polls), np.array(late_seconds))


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
        duration, elapsed, count = draw(rng, job % JOBS), 0.0, 0
        for pause in rule(rng, medians[job % JOBS]):
            elapsed += pause
            count += 1
            if elapsed >= duration:
                break
        polls[job], late_seconds[job] = count, elapsed - duration
    return Waits(polls, late_seconds)


def optimum(name: str, worth_seconds: float = WORTH) -> Optimum:
    """The best schedule there is, with the distribution known."""
    numbers = MOVING.get(name, (0,))
    results: list[tuple[float, float, float]] = []
    for number in numbers:
        rng = random.Random(9)
        size = 20_000 if len(numbers) < 5 else 4_000
        results.append(_optimum(np.sort([SHAPES[name](rng, number) for _ in range(size)]), worth_seconds))
    spans = np.diff([*numbers, JOBS] if numbers[0] == 0 else [0, *numbers[1:], JOBS])
    return Optimum(np.repeat(results, spans, axis=0))


@dataclass(frozen=True)
class Optimum:
    """Cost in seconds, polls and lateness of the best schedule for each job."""

    of_jobs: np.ndarray

    def of(self, start: int = 0, end: int = JOBS) -> tuple[float, float, float]:
        cost, polls, late_seconds = self.of_jobs[start:end].mean(axis=0)
        return float(cost), float(polls), float(late_seconds)


def _optimum(durations: np.ndarray, worth_seconds: float) -> tuple[float, float, float]:
    """Over 2,500 ages: the cost to come after a poll at each, and from it the best next poll."""
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
    """Polls a job at a given mean lateness, between measured (lateness, polls): both follow powers of the worth."""
    points = sorted(points)
    logs = np.log([late for late, _ in points]), np.log([polls for _, polls in points])
    return float(np.exp(np.interp(math.log(late_seconds), *logs)))


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def print_waits(learned: dict[str, Waits], optima: dict[str, Optimum]) -> None:
    rules = {"fixed 5 s": fixed(5), "fixed 60 s": fixed(60), "exponential": exponential, "genblaze": genblaze}
    plain: list[list[str]] = []
    costs: list[list[str]] = []
    for name, draw in SHAPES.items():
        cost, polls, late_seconds = optima[name].of(LEARNED)
        peers = [peer(draw, rule) for rule in rules.values()]
        plain.append([name, f"{polls:.1f} / {late_seconds:.1f}", str(learned[name]), *(str(each) for each in peers)])
        ratios = (learned[name].cost() / cost, *(each.cost() / optima[name].of()[0] for each in peers))
        costs.append([name, f"{cost:.2f} s", *(f"{ratio:.2f}" for ratio in ratios)])
    head = ["durations", "optimum, known", f"ours, jobs {LEARNED + 1}-{JOBS}", *rules]
    print_table("Polls a job / mean / 95 % lateness in seconds", head, plain)
    print_table(f"Cost ({WORTH:g} s a poll + lateness): the optimum's, and the others as multiples of it", head, costs)


def print_learning(cold: dict[str, list[Waits]], optima: dict[str, Optimum]) -> None:
    spans = ((0, 1), (1, 5), (5, 20), (20, 60), (60, JOBS), (0, LEARNED))
    rows: list[list[str]] = []
    for name, draw in SHAPES.items():
        parts = [together(cold[name][start:end]).cost() / optima[name].of(start, end)[0] for start, end in spans]
        other = peer(draw, exponential).cost() / optima[name].of()[0]
        rows.append([name, *(f"{part:.2f}" for part in (*parts, other))])
    head = ["durations", "first job", *(f"jobs {start + 1}-{end}" for start, end in spans[1:]), "exponential, any job"]
    print_table("Learning from nothing: cost as a multiple of the optimum's", head, rows)


def print_equal_lateness() -> dict[str, list[float]]:
    """Print polls at equal mean lateness; return, by shape, our fraction of those of fixed 5 s and of exponential."""
    rows: list[list[str]] = []
    parts: dict[str, list[float]] = {}
    for name, draw in SHAPES.items():
        runs = [(worth, together(ours(draw, worth_seconds=worth, runs=3)[LEARNED:])) for worth in WORTHS]
        points = [(waits.mean_late, waits.polls_a_job) for _, waits in runs]
        row, parts[name] = [name], []
        for rule in (fixed(5), exponential):
            other = peer(draw, rule)
            polls = polls_when_as_late(points, other.mean_late)
            part = polls / other.polls_a_job
            row += [f"{other.mean_late:.1f} s", f"{other.polls_a_job:.1f}", f"{polls:.1f}", f"{part:.2f}"]
            parts[name].append(part)
        rows.append(row)
    head = ["durations"]
    head += ["late like fixed 5 s", "its polls", "ours", "ratio", "late like exponential", "its polls", "ours", "ratio"]
    print_table("Polls a job at equal mean lateness", head, rows)
    return parts


def print_goals(
    cold: dict[str, list[Waits]], learned: dict[str, Waits], optima: dict[str, Optimum], parts: dict[str, list[float]]
) -> None:
    of_optimum = {name: waits.cost() / optima[name].of(LEARNED)[0] for name, waits in learned.items()}
    over = {name: ratio for name, ratio in of_optimum.items() if ratio > 1.10}
    of_exponential = {
        name: max(together(cold[name][:LEARNED]).cost(), together(cold[name]).cost()) / peer(draw, exponential).cost()
        for name, draw in SHAPES.items()
    }
    worst, worst_part = max(of_exponential.values()), max(part for _, part in parts.values())
    two, three = parts["lognormal 90 s, 0.2"][0], parts["lognormal 90 s, 0.35"][0]
    missed = "; ".join(f"{name} {ratio:.2f}" for name, ratio in over.items()) or "none above"
    inside = max(ratio for name, ratio in of_optimum.items() if name not in over)
    rows = [
        ["polls of fixed 5 s at its mean lateness, spread 0.2", "0.50", f"{two:.2f}", met(two <= 0.5)],
        ["the same, spread 0.35", "0.60", f"{three:.2f}", met(three <= 0.6)],
        [
            f"cost of the optimum's, jobs {LEARNED + 1}-{JOBS}, each shape",
            "1.10",
            f"{len(of_optimum) - len(over)} of {len(of_optimum)} shapes at most {inside:.2f}; {missed}",
            met(not over),
        ],
        ["cost of exponential's, each shape, jobs 1-20 and 1-200", "1.00", f"at most {worst:.2f}", met(worst <= 1)],
        [
            "polls of exponential at its mean lateness, each shape",
            "1.00",
            f"at most {worst_part:.2f}",
            met(worst_part <= 1),
        ],
    ]
    print_table("Goals", ["ratio", "goal", "seen", ""], rows)
    sandbox, jumps = "sandbox 2-3 s", "jumps 60 / 180 s"
    exact = together(ours(SHAPES[sandbox], is_exact=True)[LEARNED:]).cost() / optima[sandbox].of(LEARNED)[0]
    informed = knowing_both_kinds().cost() / optima[jumps].of(LEARNED)[0]
    print(
        f"\nOf {sandbox}: {of_optimum[sandbox]:.2f}, as the durations are learned in whole seconds; {exact:.2f} when"
        f" learned exactly. Of {jumps}: {of_optimum[jumps]:.2f}; the optimum knows when they come. With both kinds of"
        f" jobs and the frequency of the changes known, but not their times: {informed:.2f}."
    )


def met(is_met: bool) -> str:
    return "met" if is_met else "not met"


def main() -> None:
    print(f"{RUNS} cold starts of {JOBS} jobs for each distribution; exponential: 1, 2, 4, 8, 16, 30, 30 ... s")
    optima = {name: optimum(name) for name in SHAPES}
    cold = {name: ours(draw) for name, draw in SHAPES.items()}
    learned = {name: together(waits[LEARNED:]) for name, waits in cold.items()}
    print_waits(learned, optima)
    print_learning(cold, optima)
    print_goals(cold, learned, optima, print_equal_lateness())


if __name__ == "__main__":
    main()
