"""Rows that continue each other, through the whole flow: the sandbox begins a clip with the frame that it was given."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import Counter
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageChops, ImageStat
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRunResult

from batch_run import wait_until
from prefect_server import PrefectServer
from prefect_together.films.frames import frame_image
from prefect_together.request.form import Limits
from repository import ROOT
from table_of_prompts import Harness, opened_harness, read_results

TABLE = """\
id,film,prompt,continues
dawn,harbour,{dawn},
boat,harbour,The boat leaves,dawn
sea,harbour,The open sea,boat
lamp,lantern,A paper lantern is folded,
street,lantern,It is carried through a street,lamp
sky,lantern,It floats into the sky,street
"""
DAWN = "A harbour at dawn"
SHOTS = 6
STORYBOARD = {
    "harbour": ("harbour-dawn", "harbour-departure", "harbour-open-sea"),
    "lantern": ("lantern-workshop", "lantern-street", "lantern-sky"),
}


def table(dawn: str = DAWN) -> str:
    return TABLE.format(dawn=dawn)


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures are from each other in the worst channel, on average (0-255), in the size of the second."""
    return max(ImageStat.Stat(ImageChops.difference(one.resize(other.size), other)).mean)


def seam(earlier: Path, later: Path) -> float:
    """How far the first frame of a clip is from the last one of another."""
    return apart(frame_image(earlier, "last"), frame_image(later, "first"))


def pictures(clip: Path) -> int:
    """How many frames it has."""
    with av.open(str(clip)) as container:
        return sum(1 for _ in container.decode(video=0))


def errors(harness: Harness) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["status"], row["error"]) for row in read_results(harness.output_dir)}


def creates(harness: Harness, prompt: str) -> list[dict[str, Any]]:
    """The bodies of the create calls with this prompt."""
    bodies = [request.body for request in harness.api.requests if request.endpoint == "create"]
    return [body for body in bodies if body["prompt"] == prompt]


@pytest.fixture
def rendering(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Harness]:
    """A harness whose sandbox draws each clip, beginning with the frame that it was given."""
    with opened_harness(prefect_server, tmp_path / "out", monkeypatch, clip="render") as opened:
        yield opened


@pytest.mark.slow
def test_the_storyboard_of_the_examples_becomes_two_films_whose_shots_begin_where_the_last_one_ended(
    rendering: Harness,
) -> None:
    ended = rendering.run((ROOT / "examples" / "storyboard.csv").read_text(encoding="utf-8"))

    videos = {path.stem: path for path in (rendering.output_dir / "videos").glob("*.mp4")}
    with Image.open(rendering.output_dir / "stills" / "lantern-workshop.jpg") as still:
        beginning = apart(still.convert("RGB"), frame_image(videos["lantern-workshop"], "first"))
    assert ended.statuses == ["downloaded"] * SHOTS
    assert len(rendering.api.images()) == 1
    assert beginning < 8
    for film, shots in STORYBOARD.items():
        seams = [seam(videos[one], videos[other]) for one, other in pairwise(shots)]
        frames = [pictures(videos[shot]) for shot in shots]
        assert max(seams) < 3
        assert pictures(rendering.output_dir / "films" / f"{film}.mp4") == sum(frames) - len(seams)


def test_a_changed_shot_and_those_after_it_are_sent_again_and_nothing_else(harness: Harness) -> None:
    harness.run(table())
    same = harness.run(table())
    after_same = harness.api.accepted()

    changed = harness.run(table("A harbour in fog"))

    assert same.statuses == changed.statuses == ["downloaded"] * SHOTS
    assert after_same == SHOTS
    assert Counter(job["prompt"] for job in harness.api.jobs()) == Counter(
        {
            DAWN: 1,
            "A harbour in fog": 1,
            "The boat leaves": 2,
            "The open sea": 2,
            "A paper lantern is folded": 1,
            "It is carried through a street": 1,
            "It floats into the sky": 1,
        }
    )


def test_a_run_says_at_its_start_what_is_made_again_and_what_waits(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.run(table())
    caplog.clear()
    harness.api.fault("job-moderated", prompt="A harbour in fog")
    harness.run(table("A harbour in fog"))
    changed = caplog.text
    caplog.clear()
    harness.run(table("A harbour in fog"))

    assert "boat, sea are made again, as what they begin with has changed: $0.56" in changed
    assert "2 videos are not sent, as what they continue does not come in this run: dawn (failed)" in caplog.text
    assert "$0.00 new in this run" in caplog.text
    assert harness.api.accepted() == SHOTS + 1


@pytest.mark.slow
def test_frames_fit_the_limit_and_their_digests_stand_beside_the_intent(rendering: Harness) -> None:
    rendering.run(table(), limits=Limits(max_inline_kilobytes=10))

    sent = [body["media"]["frame_images"][0]["input_image"] for body in creates(rendering, "The open sea")]
    with sqlite3.connect(rendering.output_dir / "ledger.db") as connection:
        inputs = [json.loads(text) for (text,) in connection.execute("SELECT inputs FROM attempts") if text]
    connection.close()

    assert [len(text) <= 10_000 and base64.b64decode(text)[:3] == b"\xff\xd8\xff" for text in sent] == [True]
    assert sorted(name for one in inputs for name in one) == ["@boat:last", "@dawn:last", "@lamp:last", "@street:last"]


def test_the_shots_behind_one_that_failed_wait_and_are_no_failures_of_their_own(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt=DAWN)
    ended = harness.run(table())
    waiting = errors(harness)
    sent = harness.api.accepted()
    harness.run(table())
    still_waiting = errors(harness)

    again = harness.run(table(), limits=Limits(retry_failed=True))

    assert sent == 1 + 3
    assert waiting["dawn"][0] == "failed"
    assert waiting["boat"] == ("planned", "not sent: waits for the clip of dawn (failed)")
    assert waiting["sea"] == ("planned", "not sent: waits for the clip of dawn (failed)")
    assert still_waiting == waiting
    assert ended.state.is_failed()
    assert again.statuses == ["downloaded"] * SHOTS
    assert harness.api.accepted() == sent + 3


def test_a_source_in_doubt_is_not_continued(harness: Harness) -> None:
    harness.api.fault("drop-after", endpoint="create", prompt=DAWN)
    harness.run(table())
    waiting = errors(harness)
    sent = harness.api.accepted()

    again = harness.run(table(), limits=Limits(resubmit_in_doubt=True))

    assert sent == 1 + 3
    assert waiting["dawn"][0] == "in_doubt"
    assert waiting["boat"] == ("planned", "not sent: waits for the clip of dawn (in doubt)")
    assert again.statuses == ["downloaded"] * SHOTS
    assert harness.api.accepted() == sent + 3


@pytest.mark.slow
def test_a_budget_ends_a_chain_and_a_larger_one_continues_it(harness: Harness) -> None:
    harness.run(table(), budget_usd=0.28 * 4, limits=Limits(max_in_flight=1))
    sent = harness.api.accepted()
    statuses = Counter(row["status"] for row in read_results(harness.output_dir))

    again = harness.run(table(), budget_usd=0.28 * SHOTS)

    assert sent == 4
    assert statuses["downloaded"] == 4
    assert again.statuses == ["downloaded"] * SHOTS
    assert harness.api.accepted() == SHOTS


def test_a_budget_for_whole_chains_ends_no_film_in_its_middle(harness: Harness) -> None:
    ended = harness.run(table(), budget_usd=0.28 * 5, limits=Limits(whole_chains=True))

    assert ended.statuses == ["downloaded"] * 3 + ["refused", "planned", "planned"]
    assert errors(harness)["lamp"][1] == (
        "the chain lantern (3 videos, $0.84) does not fit the $0.56 that remain of the budget of $1.40"
    )
    assert harness.api.accepted() == 3


def test_whole_chains_are_not_promised_over_several_shards(harness: Harness) -> None:
    ended = harness.run(table(), budget_usd=1.0, limits=Limits(whole_chains=True, shards=2))

    assert ended.state.is_failed()
    assert "leave shards at 1, or whole_chains out" in str(ended.state.message)
    assert harness.api.accepted() == 0


@pytest.mark.slow
def test_one_job_at_a_time_and_a_canary_first_finish_every_chain(harness: Harness) -> None:
    ended = harness.run(table(), limits=Limits(max_in_flight=1, canary=True))

    assert ended.statuses == ["downloaded"] * SHOTS
    assert harness.api.accepted() == SHOTS


@pytest.mark.slow
def test_a_clip_that_was_deleted_is_fetched_again_before_it_is_continued(harness: Harness) -> None:
    short = "\n".join(table().splitlines()[:2])
    harness.run(short)
    (harness.output_dir / "videos" / "dawn.mp4").unlink()

    ended = harness.run("\n".join(table().splitlines()[:4]))

    assert ended.statuses == ["downloaded"] * 3
    assert harness.api.accepted() == 3


def test_a_frame_that_the_clip_does_not_have_leaves_its_row_planned_with_the_reason(harness: Harness) -> None:
    ended = harness.run("id,prompt,first_frame\na,A harbour,\nb,A boat,@a:60s\n")

    assert ended.statuses == ["downloaded", "planned"]
    assert errors(harness)["b"][1].startswith("not sent: waits for the clip of @a:60s (no picture of the clip: it is ")
    assert harness.api.accepted() == 1


def test_the_graph_in_the_ui_has_an_edge_from_each_shot_to_the_next(harness: Harness) -> None:
    ended = harness.run(table())

    async def edges() -> set[tuple[str, str]]:
        run = FlowRunFilter(id=FlowRunFilterId(any_=[ended.state.state_details.flow_run_id]))
        async with get_client() as client:
            runs = {one.id: one for one in await client.read_task_runs(flow_run_filter=run)}
        return {
            (runs[source.id].name, one.name)
            for one in runs.values()
            for source in one.task_inputs.get("wait_for", ())
            if isinstance(source, TaskRunResult)
        }

    wanted = {
        (f"download {one}", f"create {other}")
        for one, other in (("dawn", "boat"), ("boat", "sea"), ("lamp", "street"), ("street", "sky"))
    }
    wait_until(lambda: harness.prefect.run(edges) == wanted, seconds=60)  # the server records them a little later
    assert harness.prefect.run(edges) == wanted
