"""Videos that need each other's clips: the chains of a plan, and what of it a run can send. Knows no ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from prefect_together.table.plan import Plan, PlannedVideo


@dataclass(frozen=True, slots=True)
class Chain:
    """At least two videos or stills that need each other's clips, directly or not, in the table's order.

    `name` is the film of its rows if no other chain belongs to that, else the id of the row that it begins with.
    """

    name: str
    videos: tuple[PlannedVideo, ...]


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
