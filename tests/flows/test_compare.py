"""A comparison: a grid of models and seeds, in which only new cells are sent."""

from __future__ import annotations

import csv

import pytest

from table_of_prompts import Harness

TABLE = "id,animal,model,seed\nboat,boat,{models},{seeds}\ncat,cat,{models},{seeds}\n"
TEMPLATE = "A {animal} at sea"


def run(harness: Harness, models: str, seeds: str) -> int:
    """Run the grid; how many jobs the service accepted for it."""
    before = harness.api.accepted()
    ended = harness.run(TABLE.format(models=models, seeds=seeds), model=None, prompt_template=TEMPLATE)
    assert ended.statuses == ["downloaded"] * 2, ended.state.message
    return harness.api.accepted() - before


@pytest.mark.slow
def test_only_new_cells_are_sent_and_what_is_left_out_stays(harness: Harness) -> None:
    assert run(harness, "any/one|any/two", "7|8") == 8
    assert run(harness, "any/one|any/two|any/three", "8") == 2
    assert run(harness, "any/two|any/one", "8|7") == 0

    assert {harness.api.accepted(f"A {animal} at sea") for animal in ("boat", "cat")} == {5}
    names = {path.stem for path in (harness.output_dir / "videos").iterdir()}
    assert len(names) == 10
    assert {"boat--one--seed-7", "cat--three"} <= names


@pytest.mark.slow
def test_videos_csv_is_the_same_grid_again(harness: Harness) -> None:
    run(harness, "any/one|any/two", "7|8")
    path = harness.output_dir / "videos.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    accepted = harness.api.accepted()

    again = harness.run(str(path), model=None)

    assert {(line["prompt"], line["model"], line["seed"], line["status"]) for line in lines} == {
        (f"A {animal} at sea", model, seed, "downloaded")
        for animal in ("boat", "cat")
        for model in ("any/one", "any/two")
        for seed in ("7", "8")
    }
    assert again.statuses == ["downloaded"] * 8
    assert harness.api.accepted() == accepted
