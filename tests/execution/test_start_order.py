"""Which video may start when some wait for the clips of others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ledger_rows import a_video
from prefect_together.execution.start_order import StartOrder
from prefect_together.table.plan import PlannedVideo


def videos_and_sources(sources: Mapping[int, set[int]]) -> tuple[list[PlannedVideo], dict[str, list[str]]]:
    videos = [a_video(f"r{number}") for number in range(len(sources))]
    return videos, {videos[one].key: [videos[source].key for source in wanted] for one, wanted in sources.items()}


async def test_a_video_starts_when_all_that_it_waits_for_are_there() -> None:
    (first, second, last), sources = videos_and_sources({0: set(), 1: set(), 2: {0, 1}})
    order = StartOrder([last, first, second], sources=sources)

    started = [await order.next(), await order.next()]
    coming = asyncio.create_task(order.next())
    order.source_ended(first.key, is_there=True)
    await asyncio.sleep(0)
    waits = not coming.done()
    order.source_ended(second.key, is_there=True)

    assert started == [first, second]
    assert waits
    assert await coming == last
    order.source_ended(last.key, is_there=True)
    assert await order.next() is None


async def test_what_waits_for_a_clip_that_does_not_come_is_given_up_with_all_behind_it() -> None:
    (first, second, third, apart), sources = videos_and_sources({0: set(), 1: {0}, 2: {1}, 3: set()})
    order = StartOrder([first, second, third, apart], sources=sources)

    given_up = order.source_ended(first.key, is_there=False)

    assert given_up == [second, third]
    assert [await order.next(), await order.next(), await order.next()] == [first, apart, None]


async def test_the_canary_of_a_model_is_one_that_can_start() -> None:
    (first, second, third), sources = videos_and_sources({0: set(), 1: {0}, 2: set()})
    order = StartOrder([], [second, first, third], sources=sources)

    canary = await order.next()
    is_free_before = order.is_free
    order.source_ended(first.key, is_there=True)
    order.release_model(first.request.model)

    assert canary == first
    assert not is_free_before
    assert [await order.next(), await order.next()] == [third, second]
    assert order.is_free


@st.composite
def graphs(draw: st.DrawFn) -> dict[int, set[int]]:
    """Up to 12 videos, each waiting for some of those before it."""
    size = draw(st.integers(1, 12))
    return {one: draw(st.sets(st.integers(0, one - 1), max_size=3)) if one else set() for one in range(size)}


@given(graphs(), st.randoms(use_true_random=False), st.booleans())
def test_each_video_starts_once_behind_its_sources_or_is_given_up(
    graph: dict[int, set[int]], random: Random, has_canary: bool
) -> None:
    videos, sources = videos_and_sources(graph)
    shuffled = [*videos]
    random.shuffle(shuffled)

    async def run() -> tuple[list[PlannedVideo], list[PlannedVideo], set[str]]:
        order = StartOrder([], shuffled, sources=sources) if has_canary else StartOrder(shuffled, sources=sources)
        started, given_up, there = list[PlannedVideo](), list[PlannedVideo](), set[str]()
        while (video := await asyncio.wait_for(order.next(), 5)) is not None:
            started.append(video)
            assert set(sources[video.key]) <= there
            is_there = random.random() < 0.8
            if is_there:
                there.add(video.key)
            given_up += order.source_ended(video.key, is_there=is_there)
            if order.is_canary(video):
                order.release_model(video.request.model)
        return started, given_up, there

    started, given_up, there = asyncio.run(run())

    assert sorted(video.key for video in (*started, *given_up)) == sorted(video.key for video in videos)
    assert all(not set(sources[video.key]) <= there for video in given_up)
