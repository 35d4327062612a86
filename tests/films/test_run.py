"""Films as a run makes them: at its end, on the page, in Prefect's summary, and again by `prefect-together join`."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_together.cli.commands import main
from prefect_together.clips.inspection import inspect_clip
from prefect_together.results.outcome import RowsFailed, RunOutcome
from table_of_prompts import FLOWS, Ended, Harness, load_script, table_text

SHOTS = [
    {"id": "dawn", "prompt": "A harbour at dawn", "film": "Harbour"},
    {"id": "boats", "prompt": "Two boats leave", "film": "Harbour"},
    {"id": "cat", "prompt": "A cat asleep on a drum", "film": "Drummer"},
    {"id": "alone", "prompt": "A paper boat in the rain", "film": ""},
]


def outcome_of(ended: Ended) -> RunOutcome:
    result = ended.result.outcome if isinstance(ended.result, RowsFailed) else ended.result
    assert isinstance(result, RunOutcome)
    return result


def test_a_run_joins_its_films_and_shows_them(harness: Harness) -> None:
    ended = harness.run(table_text(SHOTS))

    films = outcome_of(ended).films
    assert ended.state.is_completed()
    assert [(film.name, film.file, len(film.shots), film.is_new) for film in films] == [
        ("Harbour", "films/Harbour.mp4", 2, True),
        ("Drummer", "films/Drummer.mp4", 1, True),
    ]
    lengths = [
        inspect_clip(harness.output_dir / "videos" / f"{name}.mp4").duration_seconds for name in ("dawn", "boats")
    ]
    facts = inspect_clip(harness.output_dir / "films" / "Harbour.mp4")
    assert facts.duration_seconds == pytest.approx(sum(lengths), abs=0.1)
    assert '"name":"Harbour","source":"films/Harbour.mp4"' in (harness.output_dir / "index.html").read_text()
    summary = harness.prefect.artifacts(ended.run_id)["together-video-summary"].data
    assert "| Harbour | " in summary

    again = harness.run(table_text(SHOTS))

    assert [film.is_new for film in outcome_of(again).films] == [False, False]


def test_a_failed_shot_leaves_the_old_film_and_is_named(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.run(table_text(SHOTS))
    content = (harness.output_dir / "films" / "Harbour.mp4").read_bytes()
    harness.api.fault("job-moderated", prompt="storm")
    changed = [SHOTS[0], {**SHOTS[1], "prompt": "A storm over the boats"}, *SHOTS[2:]]

    ended = harness.run(table_text(changed))

    harbour, drummer = outcome_of(ended).films
    assert (harbour.why_old, drummer.why_old) == ("waits for row 3 (boats): failed", None)
    assert (harness.output_dir / "films" / "Harbour.mp4").read_bytes() == content
    assert "waits for row 3 (boats): failed" in (harness.output_dir / "index.html").read_text()

    assert main(["join", str(harness.output_dir)]) == 1
    said = capsys.readouterr().out
    assert f"{harness.output_dir}/films/Drummer.mp4  " in said
    assert "film Harbour: the new cut waits for row 3 (boats): failed" in said


def test_a_run_that_breaks_off_shows_the_films_of_earlier_ones(harness: Harness) -> None:
    harness.run(table_text(SHOTS))
    harness.api.fault("401", endpoint="create", count=None)

    harness.run(table_text([SHOTS[0], {**SHOTS[1], "prompt": "A storm over the boats"}]))

    page = (harness.output_dir / "index.html").read_text()
    assert '"name":"Harbour","source":"films/Harbour.mp4"' in page
    assert "waits for row 3 (boats): refused" in page


def test_what_cannot_be_joined_is_a_warning_and_the_run_is_complete(harness: Harness) -> None:
    harness.output_dir.mkdir(parents=True, exist_ok=True)
    (harness.output_dir / "films").write_text("a file where the films' folder would be")

    ended = harness.run(table_text(SHOTS))

    assert ended.state.is_completed()
    assert ended.statuses == ["downloaded"] * 4
    assert any("film Harbour could not be joined: cannot write" in line for line in harness.prefect.logs(ended.run_id))


def test_join_makes_what_is_not_there_and_nothing_else(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.run(table_text(SHOTS))
    film = harness.output_dir / "films" / "Harbour.mp4"
    film.unlink()

    assert main(["join", str(harness.output_dir)]) == 0

    assert film.is_file()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == ["made now", "1 shot"]
    assert main(["report", str(harness.output_dir)]) == 0
    assert '"name":"Harbour","source":"films/Harbour.mp4"' in (harness.output_dir / "index.html").read_text()


def test_join_without_films_says_what_is_wanted(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.run(table_text(SHOTS[3:]))

    assert main(["join", str(harness.output_dir)]) == 2
    assert "column film" in capsys.readouterr().err
    assert main(["join", str(harness.output_dir / "elsewhere")]) == 2


def test_a_run_that_only_collects_joins_the_films_too(harness: Harness) -> None:
    harness.run(table_text(SHOTS))
    for path in (harness.output_dir / "films").iterdir():
        path.unlink()
    flow = load_script(FLOWS / "collect_videos.py").collect_videos

    async def collect() -> RunOutcome:
        return await flow(output_dir=str(harness.output_dir))

    outcome = harness.prefect.run(collect)

    assert [film.is_new for film in outcome.films] == [True, True]
    assert Path(harness.output_dir / "films" / "Drummer.mp4").is_file()
