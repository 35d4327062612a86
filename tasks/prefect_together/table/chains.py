"""Videos that need each other's clips: the chains of a plan, and what of it a run can send. Knows no ledger."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from prefect_together.request.fields import counted
from prefect_together.table.plan import Plan, PlannedVideo


@dataclass(frozen=True, slots=True)
class Chain:
    """At least two videos or stills that need each other's clips, directly or not, in the table's order.

    `name` is the film of its rows if no other chain belongs to that, else the id of the row that it begins with.
    """

    name: str
    videos: tuple[PlannedVideo, ...]

    @property
    def contents(self) -> str:
        """Like `2 videos and 1 still`."""
        stills = sum(video.kind == "still" for video in self.videos)
        parts = ((len(self.videos) - stills, "video"), (stills, "still"))
        return " and ".join(counted(number, kind) for number, kind in parts if number)

    @property
    def low_usd(self) -> float:
        return round(sum(video.low_usd or 0.0 for video in self.videos), 6)

    @property
    def high_usd(self) -> float:
        return round(sum(video.estimate_usd or 0.0 for video in self.videos), 6)

    @property
    def unknown_prices(self) -> int:
        return sum(video.estimate_usd is None for video in self.videos)


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """What a run does of a chain. Dollars count what is left to send, seconds what is left to wait for, each shot after
    those that it continues. `fits`: into the rest of the budget, as a whole."""

    name: str
    videos: int
    stills: int
    to_send: int
    low_usd: float
    high_usd: float
    unknown_prices: int
    low_seconds: float
    high_seconds: float
    fits: bool


def chains_of(plan: Plan) -> tuple[Chain, ...]:
    """The chains of a plan in the table's order. A shot that two others continue is in one chain with both."""
    together: dict[str, list[str]] = {}
    for key, video in plan.videos.items():
        for source in video.sources:
            if source in plan.videos:
                one, other = together.setdefault(key, [key]), together.setdefault(source, [source])
                if one is not other:
                    small, large = sorted((one, other), key=len)
                    large += small
                    together.update(dict.fromkeys(small, large))
    position = {key: number for number, key in enumerate(plan.videos)}
    parts = {id(keys): sorted(keys, key=position.__getitem__) for key in plan.videos if (keys := together.get(key))}
    film_of = {key: row.film for row in plan.rows if row.film for key in (row.still_key, *row.keys) if key}
    films = [{film_of.get(key) for key in keys} for keys in parts.values()]
    chains_with = Counter(film for found in films for film in found)
    chains: list[Chain] = []
    for keys, found in zip(parts.values(), films, strict=True):
        videos = tuple(plan.videos[key] for key in keys)
        first = next(video for video in videos if not any(source in plan.videos for source in video.sources))
        film = next(iter(found)) if len(found) == 1 else None
        chains.append(Chain(film if film and chains_with[film] == 1 else first.row_id, videos))
    return tuple(chains)


def sendable(
    videos: Mapping[str, PlannedVideo], *, is_sent: Callable[[PlannedVideo], bool], comes: Callable[[str], bool]
) -> tuple[list[PlannedVideo], dict[str, str]]:
    """Those of the videos to send whose sources come too; and of the others, by key, the source that does not.

    `comes` says whether the clip of a video that is not sent is there or on its way.
    """
    sent: set[str] = set()
    waiting: dict[str, str] = {}
    after = {key: [source for source in video.sources if source in videos] for key, video in videos.items()}
    for key in TopologicalSorter(after).static_order():
        if not is_sent(videos[key]):
            continue
        missing = next((source for source in videos[key].sources if source not in sent and not comes(source)), None)
        if missing is None:
            sent.add(key)
        else:
            waiting[key] = waiting.get(missing, missing)
    return [video for key, video in videos.items() if key in sent], waiting


def past_budget(
    chains: Sequence[Chain], to_send: Iterable[PlannedVideo], *, begun: Collection[str], remaining_usd: float
) -> list[Chain]:
    """Those of the chains of which not all that is to be sent fits what remains of a budget, at the estimates.

    Each chain, and each video that is in none, gets its part as a whole: first what was begun, then in the table's
    order.
    """
    chain_of = {video.key: chain for chain in chains for video in chain.videos}
    parts: dict[str, list[PlannedVideo]] = {}
    for video in to_send:
        chain = chain_of.get(video.key)
        parts.setdefault(video.key if chain is None else chain.videos[0].key, []).append(video)
    is_begun = {chain.videos[0].key: any(one.key in begun for one in chain.videos) for chain in chains}
    past: list[Chain] = []
    for key in sorted(parts, key=lambda key: not is_begun.get(key, False)):
        part = Chain(key, tuple(parts[key]))
        if not part.unknown_prices and part.high_usd <= remaining_usd + 1e-9:
            remaining_usd -= part.high_usd
        elif key in chain_of:
            past.append(chain_of[key])
    return past


def chain_plans(
    plan: Plan,
    to_send: Sequence[PlannedVideo],
    to_wait: Sequence[PlannedVideo],
    *,
    begun: Collection[str],
    remaining_usd: float | None,
    usual_seconds: Mapping[str, float],
    slow_seconds: Mapping[str, float],
) -> tuple[ChainPlan, ...]:
    """The chains in which a video continues another: one that only begins with a still is none to read of.

    `begun` are videos that were sent before, `remaining_usd` what remains of a budget, if there is one; the seconds are
    those of each model's jobs.
    """
    chains, stills = chains_of(plan), plan.stills
    past = [] if remaining_usd is None else past_budget(chains, to_send, begun=begun, remaining_usd=remaining_usd)
    sent, waited_for = {video.key for video in to_send}, {video.key for video in to_wait}
    found: list[ChainPlan] = []
    for chain in chains:
        if all(stills.issuperset(video.sources) for video in chain.videos):
            continue
        new = Chain(chain.name, tuple(video for video in chain.videos if video.key in sent))
        waits = [video for video in chain.videos if video.key in waited_for]
        pictures = sum(video.key in stills for video in chain.videos)
        found.append(
            ChainPlan(
                name=chain.name,
                videos=len(chain.videos) - pictures,
                stills=pictures,
                to_send=len(new.videos),
                low_usd=new.low_usd,
                high_usd=new.high_usd,
                unknown_prices=new.unknown_prices,
                low_seconds=seconds_until_all_end(waits, usual_seconds, len(waits)),
                high_seconds=seconds_until_all_end(waits, slow_seconds, len(waits)),
                fits=all(chain is not one for one in past),
            )
        )
    return tuple(found)


def seconds_until_all_end(
    videos: Sequence[PlannedVideo], seconds_of_model: Mapping[str, float], max_in_flight: int
) -> float:
    """How long the jobs take, `max_in_flight` at a time in the table's order, if each takes what is its model's.

    A job begins when those that it continues have ended.
    """
    ends: list[float] = []
    end_of: dict[str, float] = {}
    waited_for = {video.key: video for video in videos}
    after = {key: [source for source in video.sources if source in waited_for] for key, video in waited_for.items()}
    for video in map(waited_for.__getitem__, TopologicalSorter(after).static_order()):
        is_free = heapq.heappop(ends) if len(ends) >= max_in_flight else 0.0
        start = max([is_free, *(end_of.get(key, 0.0) for key in video.sources)])
        end_of[video.key] = start + seconds_of_model[video.request.model]
        heapq.heappush(ends, end_of[video.key])
    return round(max(end_of.values(), default=0.0), 1)
