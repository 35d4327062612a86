"""Rows whose videos begin with a still that is made first, through the whole flow."""

from __future__ import annotations

import csv
import sqlite3
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # pyright: ignore[reportMissingTypeStubs]
from PIL import Image, ImageChops, ImageStat

from prefect_server import PrefectServer
from prefect_together.films.frames import frame_image
from prefect_together.request.form import Limits
from prefect_together.results.outcome import advice
from prefect_together.steps.events import IN_DOUBT, run_events
from prefect_together.stills.catalogue import estimate_still_usd
from prefect_together.stills.models import DEFAULT_MODEL
from prefect_together.stills.request import StillRequest
from table_of_prompts import PRICE_USD, Harness, opened_harness, read_results

TABLE = """\
id,prompt,still_prompt,count
dawn,The mist lifts,A harbour at dawn,1
boat,The boat leaves,A red boat,2
sea,The open sea,,1
"""
STILLS = {"A harbour at dawn": 1, "A red boat": 1}
VIDEOS = 4


def stills_of(harness: Harness) -> Counter[str]:
    """The pictures that were made and are billed, by prompt."""
    return Counter(picture["prompt"] for picture in harness.api.images())


def still_usd(harness: Harness) -> float:
    """What the catalogue says that these pictures cost: the service says nothing."""
    sizes = [(picture["width"], picture["height"]) for picture in harness.api.images()]
    asked = (StillRequest(model=DEFAULT_MODEL, prompt="any", width=wide, height=high) for wide, high in sizes)
    return sum(price.high_usd for one in asked if (price := estimate_still_usd(one)))


def row_errors(harness: Harness) -> dict[str, str]:
    return {row["id"]: row["error"] for row in read_results(harness.output_dir)}


def ledger(harness: Harness, query: str) -> list[Any]:
    connection = sqlite3.connect(harness.output_dir / "ledger.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@pytest.fixture
def rendering(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Harness]:
    """A harness whose sandbox draws each clip, beginning with the picture that it was given."""
    with opened_harness(prefect_server, tmp_path / "out", monkeypatch, clip="render") as opened:
        yield opened


def test_all_videos_of_a_row_begin_with_its_one_still(rendering: Harness) -> None:
    ended = rendering.run(TABLE)

    assert ended.statuses == ["downloaded"] * 3
    assert stills_of(rendering) == STILLS
    with Image.open(rendering.output_dir / "stills" / "boat.jpg") as still:
        for name in ("boat.mp4", "boat-take2.mp4"):
            first = frame_image(rendering.output_dir / "videos" / name, "first")
            other = ImageChops.difference(still.convert("RGB").resize(first.size), first)
            assert max(ImageStat.Stat(other).mean) < 6


def test_nothing_is_sent_again_by_the_same_run_and_the_dollars_have_the_stills(harness: Harness) -> None:
    first = harness.run(TABLE)
    again = harness.run(TABLE)

    assert again.statuses == ["downloaded"] * 3
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)
    assert first.result.totals.spent_usd == pytest.approx(VIDEOS * PRICE_USD + still_usd(harness), abs=1e-5)
    assert first.result.new_usd == pytest.approx(first.result.totals.spent_usd)
    assert again.result.new_usd == 0
    assert (first.result.totals.videos, first.result.totals.stills) == (VIDEOS, 2)
    for name in ("results.csv", "videos.csv"):
        with (harness.output_dir / name).open(newline="") as file:
            costs = [float(line["cost_usd"]) for line in csv.DictReader(file)]
        assert sum(costs) == pytest.approx(first.result.totals.spent_usd)
    assert "2 of 2 stills" in first.state.message


def test_a_changed_still_makes_the_videos_that_begin_with_it_new_and_no_others(harness: Harness) -> None:
    harness.run(TABLE)
    harness.run(TABLE.replace("A harbour at dawn", "A harbour in fog"))

    assert stills_of(harness) == {**STILLS, "A harbour in fog": 1}
    assert Counter(job["prompt"] for job in harness.api.jobs()) == {
        "The mist lifts": 2,
        "The boat leaves": 2,
        "The open sea": 1,
    }


def test_rows_without_ids_that_ask_for_the_same_still_share_it(harness: Harness) -> None:
    ended = harness.run("prompt,still_prompt\nIt sails,A red boat\nIt sinks,A red boat\n")

    assert ended.statuses == ["downloaded"] * 2
    assert stills_of(harness) == {"A red boat": 1}


def test_a_still_in_doubt_is_not_sent_again_unasked_and_its_videos_wait(harness: Harness) -> None:
    harness.api.fault("drop-after", endpoint="images", prompt="A red boat")
    first = harness.run(TABLE)
    second = harness.run(TABLE)
    made, accepted = stills_of(harness), harness.api.accepted()

    again = harness.run(TABLE, limits=Limits(resubmit_in_doubt=True))

    assert first.statuses == second.statuses == ["downloaded", "planned", "downloaded"]
    assert "its still (in doubt: possibly billed, $0.02: no answer" in second.rows[1]["error"]
    assert first.state.is_failed()
    assert "row 3 (boat) still in doubt" in first.state.message
    assert first.result.outcome.totals.in_doubt_usd > 0
    assert [(name, payload["row_ids"]) for name, payload in run_events(first.result.outcome)] == [(IN_DOUBT, ["boat"])]
    assert (made, accepted) == (STILLS, 2)
    assert again.statuses == ["downloaded"] * 3
    assert stills_of(harness) == {**STILLS, "A red boat": 2}


@pytest.mark.parametrize("stop_after", [None, "stills"])
@pytest.mark.parametrize(
    ("fault", "reason"), [("400", "failed: refused with HTTP 400"), ("drop-after", "in doubt: possibly billed, $0.02")]
)
def test_a_row_says_why_its_still_is_not_there_in_results_and_page_and_what_to_do_once(
    harness: Harness, fault: str, reason: str, stop_after: Literal["stills"] | None
) -> None:
    harness.api.fault(fault, endpoint="images", prompt="A red boat")

    ended = harness.run(TABLE, limits=Limits(stop_after=stop_after))

    outcome = ended.result.outcome
    page = (harness.output_dir / "index.html").read_text()
    advised = [one.kind for one in advice(outcome.rows) if any(row.number == 3 for row in one.rows)]
    assert f"take 1: not sent: waits for its still ({reason}" in row_errors(harness)["boat"]
    assert f"not sent: waits for its still ({reason}" in page
    assert advised == ["bad_parameter" if fault == "400" else "in_doubt"]


def test_the_costs_and_attempts_of_a_table_with_stills_add_up_to_what_was_paid_and_sent(harness: Harness) -> None:
    ended = harness.run(TABLE)
    alone = harness.run(
        "prompt,still_prompt\nIt sails,A red barge\nIt sinks,A red barge\n",
        output_dir=str(harness.output_dir.with_name("shared")),
    )

    for rows, result in ((ended.rows, ended.result), (alone.rows, alone.result)):
        assert sum(float(row["cost_usd"]) for row in rows) == pytest.approx(result.totals.spent_usd, abs=1e-5)
    assert sum(int(row["attempts"]) for row in (*ended.rows, *alone.rows)) == VIDEOS + 2 + 2 + 1


@pytest.mark.parametrize("has_results", [True, False])
def test_stills_that_a_lost_ledger_had_paid_for_are_not_made_again_unasked(
    harness: Harness, *, has_results: bool
) -> None:
    harness.run(TABLE, limits=Limits(stop_after="stills"))
    for file in harness.output_dir.glob("ledger.db*"):
        file.unlink()
    if not has_results:
        (harness.output_dir / "results.csv").unlink()

    ended = harness.run(TABLE)

    assert ended.state.is_failed()
    assert "would be paid for again" in ended.state.message
    assert stills_of(harness) == STILLS


def test_a_run_for_the_stills_alone_is_refused_where_no_row_has_one(harness: Harness) -> None:
    ended = harness.run("id,prompt\nsea,The open sea\n", limits=Limits(stop_after="stills"))

    assert "stop_after: no row has a still_prompt" in ended.state.message
    assert (stills_of(harness), harness.api.accepted()) == ({}, 0)


def test_a_still_that_could_not_be_downloaded_is_fetched_by_the_next_run_and_not_made_again(harness: Harness) -> None:
    in_the_way = harness.output_dir / "stills"
    in_the_way.write_text("a file where their folder should be")
    first = harness.run(TABLE)
    in_the_way.unlink()
    second = harness.run(TABLE)

    assert first.statuses == ["planned", "planned", "downloaded"]
    assert second.statuses == ["downloaded"] * 3
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)


def test_a_budget_counts_the_stills_and_sends_nothing_beyond_it(harness: Harness) -> None:
    harness.run(TABLE, budget_usd=2 * PRICE_USD + 0.01, limits=Limits(max_in_flight=1))
    spent_usd = harness.api.stats()["billed_usd"]
    rest = harness.run(TABLE)

    assert spent_usd <= 2 * PRICE_USD + 0.01
    assert rest.statuses == ["downloaded"] * 3
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)


def test_one_job_at_a_time_and_a_canary_first_make_all_stills_and_videos(harness: Harness) -> None:
    ended = harness.run(TABLE, limits=Limits(max_in_flight=1, canary=True))

    assert ended.statuses == ["downloaded"] * 3
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)


def test_a_run_can_end_with_the_stills_and_the_next_one_makes_the_videos(harness: Harness) -> None:
    only = harness.run(TABLE, limits=Limits(stop_after="stills"))
    sent = harness.api.accepted()
    page = (harness.output_dir / "index.html").read_text()
    rest = harness.run(TABLE)

    assert (only.state.name, only.result.exit_code) == ("StillsMade", 0)
    assert "the same run without stop_after makes the videos" in only.state.message
    assert [one.to_do for one in advice(only.result.rows, only_stills=True)] == [
        "To make the videos, run again without `stop_after`."
    ]
    assert "run again without `--stop-after`" in page
    assert only.statuses == ["planned"] * 3
    assert sent == 0
    assert '"still":"stills/boat.jpg"' in page
    assert rest.statuses == ["downloaded"] * 3
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)


def test_a_deleted_still_is_fetched_again_by_its_link_and_one_whose_link_is_dead_only_made_again_when_asked(
    harness: Harness,
) -> None:
    harness.run(TABLE, limits=Limits(stop_after="stills"))
    still = harness.output_dir / "stills" / "boat.jpg"
    still.unlink()
    fetched = harness.run(TABLE, limits=Limits(stop_after="stills"))
    came_back = still.is_file()
    still.unlink()
    harness.api.fault("410", endpoint="download", count=None)
    lost = harness.run(TABLE, limits=Limits(stop_after="stills"))
    harness.api.clear_faults()
    made = stills_of(harness)

    again = harness.run(TABLE, limits=Limits(retry_failed=True))

    assert came_back
    assert fetched.state.name == "StillsMade"
    assert "row 3 (boat) still failed" in lost.state.message
    assert made == STILLS
    assert again.statuses == ["downloaded"] * 3
    assert stills_of(harness) == {**STILLS, "A red boat": 2}
    assert ledger(harness, "SELECT count(*) FROM attempts WHERE cost_micro_usd IS NULL") == [(0,)]


def test_a_deleted_still_whose_videos_are_there_is_not_made_again(harness: Harness) -> None:
    harness.run(TABLE)
    (harness.output_dir / "stills" / "boat.jpg").unlink()
    harness.api.fault("410", endpoint="download", count=None)

    again = harness.run(TABLE, limits=Limits(retry_failed=True))

    assert again.statuses == ["downloaded"] * 3
    assert again.state.is_completed()
    assert stills_of(harness) == STILLS


@pytest.mark.slow
def test_stills_and_videos_of_a_bucket_lie_in_it(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    bucket = f"memory://bucket/{tmp_path.name}"

    ended = harness.run(TABLE, output_dir=bucket)
    again = harness.run(TABLE, output_dir=bucket)

    files = cast("Any", MemoryFileSystem())
    assert ended.state.is_completed(), ended.state.message
    assert again.state.is_completed(), again.state.message
    assert {name.rpartition("/")[2] for name in files.ls(f"/bucket/{tmp_path.name}/stills", detail=False)} == {
        "boat.jpg",
        "dawn.jpg",
    }
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)


def test_the_same_prompt_under_another_id_is_not_paid_for_again_unasked(harness: Harness) -> None:
    harness.run(TABLE)

    renamed = harness.run(TABLE.replace("\nboat,", "\nship,"))

    assert renamed.state.is_failed()
    assert "would be paid for again" in renamed.state.message
    assert (stills_of(harness), harness.api.accepted()) == (STILLS, VIDEOS)
