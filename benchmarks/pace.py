"""How long submits take against services that do not announce their limit, in virtual time: nothing is sent.

`python benchmarks/pace.py` prints a Markdown table. Peers: what the SDK does by itself (every call at once; waits of
0.5 s doubling to 8 s after a refusal; here without its end after two retries), and halving with slow additive growth.
"Best" is one client that knows the limit, asks the very moment a call will be taken, and waits when asked to.
"""

from __future__ import annotations

import asyncio
import math
import random
import runpy
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import mean
from typing import Protocol, cast

from prefect_together.api.submit import SubmitPacer
from prefect_together.clock import Clock
from prefect_together.sandbox.service import DynamicLimit

ROUND_TRIP_SECONDS = 0.1
"""Mean; each way takes 0.5 to 1.5 of its half."""
HOUR = 3600.0
PEERS_UP_TO = 2000
"""Creates above which the peers are left out: the SDK's way takes millions of calls there."""

NO_WORD = -1.0
"""A refusal that does not say how long to wait (503)."""
Refuses = Callable[[float], float | None]
"""What a service says to a create call at a time: seconds to wait, or None: taken."""
Service = Callable[[int], Refuses]
"""Makes a new one; the number is the round's, for what happens by chance."""
Pacer = Callable[[Clock], "Submitting"]


class Submitting(Protocol):
    """One way of pacing: `send` gives None when taken, else the wait that the service asks for."""

    async def submit(self, send: Callable[[], Awaitable[float | None]]) -> None: ...


class Ours:
    def __init__(self, clock: Clock) -> None:
        self._pacer = SubmitPacer(clock, rng=random.Random(1))

    async def submit(self, send: Callable[[], Awaitable[float | None]]) -> None:
        while True:
            await self._pacer.admit()
            if (pause := await send()) is None:
                return self._pacer.accepted()
            self._pacer.refused(None if pause == NO_WORD else pause)


class LikeTheSdk:
    """All at once; each call backs off by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._rng = clock, random.Random(1)

    async def submit(self, send: Callable[[], Awaitable[float | None]]) -> None:
        retries = 0
        while await send() is not None:
            await self._clock.sleep(min(0.5 * 2.0 ** min(retries, 10), 8.0) * (1.0 - 0.25 * self._rng.random()))
            retries += 1


class Aimd:
    """One call after the other at a pace that grows by 0.1 a second with each second, and is halved by a refusal."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._turn = clock, asyncio.Lock()
        self._pace, self._cut_at = 10.0, 0.0

    async def submit(self, send: Callable[[], Awaitable[float | None]]) -> None:
        while True:
            async with self._turn:
                await self._clock.sleep(1.0 / self._pace)
                self._pace += 0.1 / self._pace
            if (pause := await send()) is None:
                return
            if self._clock.monotonic() > self._cut_at + ROUND_TRIP_SECONDS:
                self._pace, self._cut_at = max(self._pace / 2.0, 0.1), self._clock.monotonic()
            await self._clock.sleep(max(pause, 0.0))


def unlimited(_round: int) -> Refuses:
    return lambda _now: None


def dynamic(per_second: float) -> Service:
    return lambda _round: DynamicLimit(per_second, HOUR).take


def by_the_minute(calls: int) -> Service:
    def make(_round: int) -> Refuses:
        used: dict[int, int] = {}

        def take(now: float) -> float | None:
            minute = int(now // 60)
            if used.get(minute, 0) >= calls:
                return (minute + 1) * 60 - now
            used[minute] = used.get(minute, 0) + 1
            return None

        return take

    return make


def changing(before: float, after: float, at_seconds: float) -> Service:
    def make(seed: int) -> Refuses:
        first, second = dynamic(before)(seed), dynamic(after)(seed)
        return lambda now: (first if now < at_seconds else second)(now)

    return make


def overloaded(part: float, inner: Service) -> Service:
    """503 for a part of the calls, whatever the pace: others in each round."""

    def make(seed: int) -> Refuses:
        refuses, rng = inner(seed), random.Random(seed)
        return lambda now: NO_WORD if rng.random() < part else refuses(now)

    return make


def in_whole_seconds(inner: Service) -> Service:
    """The waits that are asked for are rounded up to seconds."""

    def make(seed: int) -> Refuses:
        refuses = inner(seed)

        def take(now: float) -> float | None:
            pause = refuses(now)
            return None if pause is None else float(math.ceil(pause))

        return take

    return make


SERVICES: dict[str, tuple[int, Service]] = {
    "no limit": (1000, unlimited),
    "1 a second, rising to 2 x the past hour's rate": (600, dynamic(1)),
    "the same, for longer": (5000, dynamic(1)),
    "5 a second, rising so": (2000, dynamic(5)),
    "20 a second, rising so": (4000, dynamic(20)),
    "60 a minute, by the clock's minutes": (600, by_the_minute(60)),
    "5 a second, after 100 s 1": (800, changing(5, 1, 100)),
    "1 a second, after 200 s 5": (1500, changing(1, 5, 200)),
    "1 a second, and 3 % are 503": (600, overloaded(0.03, dynamic(1))),
    "5 a second, waits given in whole seconds": (1000, in_whole_seconds(dynamic(5))),
    "the same, 40 rows": (40, in_whole_seconds(dynamic(5))),
    "no limit, but 20 % are 503": (100, overloaded(0.2, unlimited)),
}


ROUNDS = {"1 a second, and 3 % are 503": 8, "no limit, but 20 % are 503": 8}
"""For services with chance in them."""
WITHOUT_LIMIT = ("no limit", "no limit, but 20 % are 503")
"""Services that only the pool's bound of 100 calls and the round trip hold up: the goal is about limits."""
GOAL = 1.15


def virtual_clock() -> Clock:
    """The tests' clock: time jumps to the next sleeper."""
    module = runpy.run_path(str(Path(__file__).parent.parent / "tests" / "support" / "fake_clock.py"))
    return cast("Clock", module["FakeClock"]())


async def run(count: int, refuses: Refuses, pacer: Pacer) -> tuple[float, int]:
    """Seconds until the last call is taken, and how many were refused."""
    clock, rng, refused = virtual_clock(), random.Random(2), 0
    submitting = pacer(clock)

    async def send() -> float | None:
        nonlocal refused
        await clock.sleep(ROUND_TRIP_SECONDS * rng.uniform(0.25, 0.75))
        pause = refuses(clock.monotonic())
        await clock.sleep(ROUND_TRIP_SECONDS * rng.uniform(0.25, 0.75))
        refused += pause is not None
        return pause

    await asyncio.gather(*(submitting.submit(send) for _ in range(count)))
    return clock.monotonic(), refused


def best_seconds(count: int, refuses: Refuses) -> float:
    now = 0.0
    for _ in range(count):
        while (pause := refuses(now)) is not None:
            now += ROUND_TRIP_SECONDS if pause == NO_WORD else max(pause, 1e-6)
    return now + ROUND_TRIP_SECONDS


def main() -> None:
    pacers: dict[str, Pacer] = {"ours": Ours, "like the SDK": LikeTheSdk, "AIMD": Aimd}
    print(f"Round trip {ROUND_TRIP_SECONDS:g} s; seconds until all are taken (x best), and refused calls.\n")
    print("| service | creates | best | " + " | ".join(pacers) + " |")
    print("|---|---|---|" + "---|" * len(pacers))
    slowest: dict[str, float] = {}
    refusals: dict[str, float] = {}
    for name, (count, service) in SERVICES.items():
        rounds = range(ROUNDS.get(name, 1))
        best = [best_seconds(count, service(seed)) for seed in rounds]
        cells = [name, str(count), f"{mean(best):.1f} s"]
        for pacer in pacers.values():
            if count > PEERS_UP_TO and pacer is not Ours:
                cells.append("-")
                continue
            runs = [asyncio.run(run(count, service(seed), pacer)) for seed in rounds]
            seconds, refused = mean(seconds for seconds, _ in runs), mean(refused for _, refused in runs)
            ratio = mean(taken / least for (taken, _), least in zip(runs, best, strict=True))
            if pacer is Ours and name not in WITHOUT_LIMIT:
                slowest[name], refusals[name] = ratio, refused / count
            cells.append(f"{seconds:.1f} s ({ratio:.2f}), {refused:.0f} refused ({100 * refused / count:.0f} %)")
        print("| " + " | ".join(cells) + " |")
    most = max(refusals, key=refusals.__getitem__)
    missed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in slowest.items() if ratio > GOAL)
    print(
        f"\nGoal, each service with a limit: at most {GOAL:g} x the best possible. Seen: "
        f"{sum(ratio <= GOAL for ratio in slowest.values())} of {len(slowest)}; "
        f"{f'not met: {missed}' if missed else 'met'}. Refused at most: {100 * refusals[most]:.0f} % ({most})."
    )


if __name__ == "__main__":
    main()
