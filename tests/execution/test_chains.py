"""Videos that continue others, over a real ledger: what is sent when, and what remains when a source does not come."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from batch_harness import FACTS, BatchHarness, Service, Session, done, gave_up, working
from film_clips import shot
from prefect_server import PrefectServer
from prefect_together.api.jobs import VideoJob
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.errors import FailureClass
from prefect_together.execution.batch import Batch
from prefect_together.execution.settings import Partition
from prefect_together.ledger.states import State
from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import PlannedVideo, make_plan
from prefect_together.table.prompt_table import read_table
from table_of_prompts import MODEL, table_text

SHOT = shot([40, 80, 120])


class Shots(Session):
    """Every clip is three grey frames."""

    content = SHOT

    async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
        await asyncio.to_thread(target.write_bytes, self.content)
        return DownloadedClip(target, len(self.content), "ab", FACTS, 0, 1)


class Recording(Service):
    """Keeps the requests as they are sent."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.requests: list[VideoRequest] = []

    async def create(self, request: VideoRequest) -> VideoJob:
        self.requests.append(request)
        return await super().create(request)


def chained(*continues: str, names: str = "abcdefghi", **columns: object) -> list[PlannedVideo]:
    """Videos a, b, c ... each of which continues the one named, or none if that is empty."""
    rows = [
        {"id": name, "prompt": name, "continues": source, **columns}
        for name, source in zip(names, continues, strict=False)
    ]
    return list(
        make_plan(read_table(table_text(rows), defaults={"model": MODEL}, catalogue_checks=False)).videos.values()
    )


@pytest.fixture
def shots(prefect_server: PrefectServer, tmp_path: Path) -> BatchHarness:
    return BatchHarness(prefect_server, tmp_path, session=Shots)


def test_one_chain_goes_to_its_end_while_the_first_shot_of_another_is_being_made(shots: BatchHarness) -> None:
    videos = chained("", "a", "", "c", "d")
    service = Service()

    def slow(job_id: str) -> VideoJob:
        return service.usual(job_id) if "e" in service.created else working(job_id)

    service.answers = {"job-1": slow}
    ended = shots.run(videos, service, max_in_flight=2)

    assert ended.states == {"downloaded": 5}
    assert service.created == ["a", "c", "d", "e", "b"]


def test_a_source_in_the_middle_that_fails_stops_what_is_behind_it_alone(shots: BatchHarness) -> None:
    videos = chained("", "a", "b", "c", "", "e")
    service = Service()

    def usual(job_id: str) -> VideoJob:
        return (gave_up() if service.created[int(job_id.removeprefix("job-")) - 1] == "b" else done())(job_id)

    service.usual = usual

    first = shots.run(videos, service, max_in_flight=1)
    sent = Counter(service.created)
    behind = [first.of(video) for video in videos[2:4]]
    service.usual = done()
    again = shots.run(videos, service, max_in_flight=1, retry_failed=True)

    assert first.of(videos[0]).state == State.DOWNLOADED
    assert sent["c"] == sent["d"] == 0
    assert [(one.state, one.failure_class, one.attempts) for one in behind] == [
        (State.PLANNED, FailureClass.DEPENDENCY, 0)
    ] * 2
    assert all("waits for the clip of" in str(one.error) for one in behind)
    assert again.states == {"downloaded": 6}


def test_a_clip_of_which_no_frame_can_be_had_leaves_the_next_shot_planned(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    service = Service()  # whose clips are four bytes, not a film
    videos = chained("", "a", "b", "")

    ended = BatchHarness(prefect_server, tmp_path).run(videos, service, budget_usd=2.0)

    assert ended.error is None
    assert service.created == ["a", "d"]
    assert [ended.of(video).state.value for video in videos] == ["downloaded", "planned", "planned", "downloaded"]
    assert ended.of(videos[1]).failure_class == FailureClass.DEPENDENCY
    assert str(ended.of(videos[1]).error).startswith("not sent: waits for the clip of @a:last (no picture of the clip")
    assert ended.progress.spent_usd == pytest.approx(0.56)


def test_a_run_that_only_collects_sends_nothing_behind_what_it_collects(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "b"), Service()
    shots.buy(videos[0], "job-0")

    ended = shots.run(videos, service, collect_only=True)

    assert service.created == []
    assert [ended.of(video).state.value for video in videos] == ["downloaded", "planned", "planned"]


def test_several_runs_at_once_send_each_shot_of_a_chain_once_behind_its_source(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "b", "", "d"), Service()

    ended = shots.run(videos, service, at_once=3)

    assert ended.states == {"downloaded": 5}
    assert Counter(service.created) == Counter("abcde")
    assert [name for name in service.created if name in ("a", "b", "c")] == ["a", "b", "c"]


def test_a_run_that_ends_before_a_source_is_there_leaves_the_chain_to_the_next(shots: BatchHarness) -> None:
    videos = chained("", "a", "b")
    service = Service(working)

    first = shots.run(videos, service, max_wait_minutes=0.01)
    sent = [*service.created]
    service.usual = done()
    second = shots.run(videos, service)

    assert sent == ["a"]
    assert [first.of(video).state.value for video in videos] == ["submitted", "planned", "planned"]
    assert {first.of(video).failure_class for video in videos[1:]} == {FailureClass.DEPENDENCY}
    assert second.states == {"downloaded": 3}
    assert service.created == ["a", "b", "c"]
    assert {(record.error, record.failure_class) for record in second.records.values()} == {(None, None)}


def test_rows_in_any_order_and_one_at_a_time_finish_their_chains(shots: BatchHarness) -> None:
    names = "ihgfedcba"  # the last shot stands first in the table
    videos, service = chained(*names[1:], "", names=names), Service()

    ended = shots.run(videos, service, max_in_flight=1, canary=True, budget_usd=0.28 * 9)

    assert ended.states == {"downloaded": 9}
    assert service.created == list("abcdefghi")


def noise() -> bytes:
    """A clip of 640 x 480 whose frames hardly compress."""
    source = np.random.default_rng(7)
    file = io.BytesIO()
    with cast(Any, av.open(file, "w", format="mp4")) as opened:
        video = opened.add_stream("libx264", rate=12, options={"crf": "5"})
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        for _ in range(2):
            frame = source.integers(0, 256, (480, 640, 3), dtype=np.uint8)
            opened.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        opened.mux(video.encode(None))
    return file.getvalue()


def test_a_frame_of_noise_fits_the_limit_of_a_request(prefect_server: PrefectServer, tmp_path: Path) -> None:
    class Noise(Shots):
        content = noise()

    service = Recording()
    ended = BatchHarness(prefect_server, tmp_path, session=Noise).run(
        chained("", "a"), service, max_inline_kilobytes=20
    )

    assert ended.states == {"downloaded": 2}
    media = service.requests[1].media
    sent = [str(image.input_image) for image in (media and media.frame_images) or ()]
    assert [10_000 < len(text) <= 20_000 for text in sent] == [True]


def test_other_shards_wait_for_a_canary_whose_source_was_to_be_sent_by_one_of_them(shots: BatchHarness) -> None:
    videos = chained("b", "", "a", "b")  # b is in the other shard's part
    batches, was_open = list[Batch](), list[tuple[str | None, bool]]()
    service = Service()

    async def note() -> None:
        was_open.append((service.created[-1], batches[0].is_open.is_set()))

    service.on_create = note
    ended = shots.run(videos, service, partition=Partition(0, 2), on_batch=batches.append, canary=True, max_in_flight=2)

    assert ended.states == {"downloaded": 4}
    assert was_open[0] == ("b", False)
    assert {is_open for _, is_open in was_open[1:]} == {True}


def slow_until(service: Service, names: str) -> None:
    """Every job is at work until all of these have been sent."""
    usual = service.usual

    def answer(job_id: str) -> VideoJob:
        return usual(job_id) if set(names) <= set(service.created) else working(job_id)

    service.usual = answer


def test_whole_chains_are_sent_to_their_end_and_what_does_not_fit_is_not_begun(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "b", "", "d", "e"), Service()

    ended = shots.run(videos, service, budget_usd=0.28 * 5, whole_chains=True)

    assert service.created == ["a", "b", "c"]
    assert [ended.of(video).state.value for video in videos] == ["downloaded"] * 3 + ["refused"] + ["planned"] * 2
    assert ended.of(videos[3]).failure_class == FailureClass.BUDGET
    assert ended.of(videos[3]).error == (
        "the chain d (3 videos, $0.84) does not fit the $0.56 that remain of the budget of $1.40"
    )


def test_chains_that_are_sent_at_the_same_time_keep_their_money_for_each_other(shots: BatchHarness) -> None:
    videos, service = chained("", "", "", "a", "b", "c", "d", "e", "f"), Service()
    slow_until(service, "ab")  # both are at work before either goes on

    ended = shots.run(videos, service, budget_usd=0.28 * 8, whole_chains=True)

    assert Counter(service.created) == Counter("abdegh")
    assert ended.states == {"downloaded": 6, "refused": 1, "planned": 2}
    assert ended.totals.committed_usd == pytest.approx(0.28 * 6)


def test_a_chain_begins_when_others_have_cost_less_than_was_promised(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "", "c", "", "e"), Service(done(0.14))

    ended = shots.run(videos, service, budget_usd=0.28 * 4, whole_chains=True)

    assert ended.states == {"downloaded": 6}


def test_the_money_of_a_chain_that_broke_off_goes_to_the_next(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "b", "", "d"), Service()
    service.answers = {"job-1": gave_up(0.0), "job-2": gave_up(0.0)}

    ended = shots.run(videos, service, budget_usd=0.28 * 3, whole_chains=True)

    assert service.created == ["a", "a", "d", "e"]
    assert [ended.of(video).state.value for video in videos] == ["failed", "planned", "planned"] + ["downloaded"] * 2


def test_a_second_job_for_a_failed_one_takes_nothing_that_is_promised(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "", "c"), Service()
    service.answers = {"job-1": gave_up()}

    ended = shots.run(videos, service, budget_usd=0.28 * 4, whole_chains=True, max_in_flight=1)

    assert service.created == ["a", "c", "d"]
    assert [ended.of(video).state.value for video in videos] == ["failed", "planned", "downloaded", "downloaded"]
    assert "not sent again: budget $1.12" in str(ended.of(videos[0]).error)


def test_a_second_job_is_sent_where_the_budget_has_more_than_is_promised(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "", "c"), Service()
    service.answers = {"job-1": gave_up()}

    ended = shots.run(videos, service, budget_usd=0.28 * 5, whole_chains=True)

    assert ended.states == {"downloaded": 4}
    assert Counter(service.created)["a"] == 2


def test_the_next_run_finishes_the_chain_that_was_begun_before_it_begins_another(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "", "c"), Service()
    shots.run(videos[2:3], service)

    ended = shots.run(videos, service, budget_usd=0.28 * 3, whole_chains=True)

    assert service.created == ["c", "d"]
    assert ended.of(videos[0]).error == (
        "the chain a (2 videos, $0.56) does not fit the $0.28 that remain of the budget of $0.84"
    )


def test_what_remains_of_a_fork_is_sent_whole_or_not_at_all(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "a", "b"), Service()
    shots.run(videos[:1], service)

    short = shots.run(videos, service, budget_usd=0.28 * 3, whole_chains=True)
    sent = [*service.created]
    enough = shots.run(videos, service, budget_usd=0.28 * 4, whole_chains=True)

    assert sent == ["a"]
    assert [short.of(video).state.value for video in videos] == ["downloaded", "refused", "refused", "planned"]
    assert enough.states == {"downloaded": 4}


def test_more_rows_than_may_be_claimed_wait_for_a_chain_without_keeping_it_from_its_end(shots: BatchHarness) -> None:
    rows = [{"id": "a", "prompt": "a"}, *({"id": f"x{n}", "prompt": f"x{n}"} for n in range(60))]
    rows += [{"id": "b", "prompt": "b", "continues": "a"}, {"id": "c", "prompt": "c", "continues": "b"}]
    table = read_table(table_text(rows), defaults={"model": MODEL}, catalogue_checks=False)
    videos, service = list(make_plan(table).videos.values()), Service()

    ended = shots.run(videos, service, budget_usd=0.28 * 4, whole_chains=True, max_in_flight=1, canary=True)

    assert ended.states == {"downloaded": 4, "refused": 59}
    assert Counter(service.created) == Counter(["a", "b", "c", "x0"])


@pytest.mark.parametrize("canary", [False, True])
def test_a_canary_that_waits_for_the_money_of_a_chain_behind_it_gives_way(shots: BatchHarness, canary: bool) -> None:
    other = "ByteDance/Seedance-1.0-lite"
    rows = [
        {"id": "a", "prompt": "a", "model": MODEL, "price_usd": 1},
        {"id": "x", "prompt": "x", "model": other, "price_usd": 1},
        {"id": "b", "prompt": "b", "model": other, "price_usd": 1, "continues": "a"},
    ]
    videos, service = (
        list(make_plan(read_table(table_text(rows), catalogue_checks=False)).videos.values()),
        Service(done(1.0)),
    )

    ended = shots.run(videos, service, budget_usd=2.0, whole_chains=True, canary=canary)

    assert service.created == ["a", "b"]
    assert [ended.of(video).state.value for video in videos] == ["downloaded", "refused", "downloaded"]


def test_a_price_that_is_not_known_keeps_its_whole_chain_from_being_begun(shots: BatchHarness) -> None:
    rows = [{"id": "a", "prompt": "a", "price_usd": 1}, {"id": "b", "prompt": "b", "continues": "a", "price_usd": ""}]
    table = read_table(table_text(rows), defaults={"model": "somebody/new"}, catalogue_checks=False)
    videos, service = list(make_plan(table).videos.values()), Service()

    ended = shots.run(videos, service, budget_usd=9.0, whole_chains=True)

    assert service.created == []
    assert ended.of(videos[0]).failure_class == FailureClass.PRICE_UNKNOWN
    assert "a price in the chain a (2 videos) is unknown" in str(ended.of(videos[0]).error)


def test_a_still_is_not_made_for_a_chain_whose_videos_the_budget_does_not_cover(shots: BatchHarness) -> None:
    rows = [
        {"id": "a", "prompt": "a", "still_prompt": "a boat", "continues": ""},
        {"id": "b", "prompt": "b", "still_prompt": "", "continues": "a"},
    ]
    table = read_table(table_text(rows), defaults={"model": MODEL}, catalogue_checks=False)
    videos, service = list(make_plan(table).videos.values()), Service()

    ended = shots.run(videos, service, budget_usd=0.5, whole_chains=True, stop_after="stills")

    assert service.created == []
    still = next(video for video in videos if video.kind == "still")
    assert str(ended.of(still).error).startswith("the chain a (2 videos and 1 still, $0.5")


def test_two_runs_at_once_with_whole_chains_send_each_shot_once(shots: BatchHarness) -> None:
    videos, service = chained("", "a", "b", "", "d"), Service()

    ended = shots.run(videos, service, at_once=2, budget_usd=0.28 * 5, whole_chains=True)

    assert Counter(service.created) <= Counter("abcde")
    assert ended.totals.committed_usd <= 0.28 * 5 + 1e-9
