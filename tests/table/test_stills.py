"""The columns still_prompt and still_model: the row's still, checked with everything else before anything is sent."""

from __future__ import annotations

import pytest

from prefect_together.stills.models import DEFAULT_MODEL
from prefect_together.table.plan import make_plan, price_sum
from tables import FREE, mistakes_of, only_row, problems_of, read, warnings_of

I2V = "Wan-AI/wan2.7-i2v"


def test_a_row_with_a_still_prompt_has_a_still_of_its_videos_shape() -> None:
    row = only_row("prompt,ratio,still_prompt\nit sails,9:16,a paper boat\n", model=FREE)

    assert row.still is not None
    assert (row.still.prompt, row.still.model) == ("a paper boat", DEFAULT_MODEL)
    assert (row.still.width, row.still.height) == (720, 1280)


def with_media(media: str) -> str:
    return f"prompt;model;still_prompt;media\nit sails;{FREE};a paper boat;{media}\n"


def test_a_still_beside_no_frames_in_media_is_the_first_frame() -> None:
    assert only_row(with_media('{"frame_images": null}')).still is not None


def test_frames_in_media_that_are_no_list_are_a_mistake_beside_a_still_too() -> None:
    [(row, column, _)] = problems_of(with_media('{"frame_images": 3}'))

    assert (row, column) == (2, "media")


def test_an_empty_still_prompt_is_no_still() -> None:
    assert only_row("prompt,still_prompt,x\nit sails,,1\n").still is None


def test_a_still_model_is_the_rows_or_the_runs() -> None:
    text = "prompt,still_prompt,still_model\nit sails,a boat,black-forest-labs/FLUX.2-max\nit sinks,a boat,\n"

    rows = read(text, defaults={"still_model": "black-forest-labs/FLUX.2-pro"}).rows

    models = [row.still.model for row in rows if row.still]
    assert models == ["black-forest-labs/FLUX.2-max", "black-forest-labs/FLUX.2-pro"]


def test_variants_and_takes_share_one_still() -> None:
    row = only_row("prompt,count,seed,still_prompt\nit sails,3,1|9,a boat\n")

    assert len(row.requests) == 2
    assert row.still is not None
    assert row.still.seed is None


def test_a_still_prompt_is_filled_from_the_rows_columns() -> None:
    row = only_row("prompt,animal,still_prompt\nit runs,cat,A {animal} asleep\n")

    assert row.still is not None
    assert row.still.prompt == "A cat asleep"


def test_a_wrong_place_in_a_still_prompt_is_a_mistake_of_its_column() -> None:
    ((row, column, message),) = problems_of("prompt,animal,still_prompt\nit runs,cat,A {anmal}\n")

    assert (row, column) == (2, "still_prompt")
    assert message == "{anmal} is not a column: did you mean {animal}?"


@pytest.mark.parametrize(
    "frame",
    ["first_frame,https://x.example/a.png", "frame_images,https://x.example/a.png", "image,https://x.example/a.png"],
)
def test_a_still_beside_a_first_frame_is_a_mistake(frame: str) -> None:
    name, value = frame.split(",")

    ((_, column, message),) = problems_of(f"prompt,{name},still_prompt\nit sails,{value},a boat\n")

    assert (column, message) == ("still_prompt", "makes the first frame, and the row gives one too: keep one of them")


def test_a_still_goes_with_a_last_frame() -> None:
    row = only_row("prompt,last_frame,still_prompt\nit sails,https://x.example/a.png,a boat\n", model=I2V)

    assert row.still is not None


def test_a_model_that_needs_a_first_frame_has_it_by_its_still() -> None:
    assert "needs one" in mistakes_of("prompt\nit sails\n", model=I2V)
    assert only_row("prompt,still_prompt\nit sails,a boat\n", model=I2V).still is not None


def test_a_model_that_takes_no_first_frame_is_a_mistake_of_the_still_prompt() -> None:
    ((_, column, message),) = problems_of("prompt,still_prompt\nit sails,a boat\n", model="Wan-AI/wan2.7-t2v")

    assert column == "still_prompt"
    assert "takes no frame images" in message


def test_a_mistyped_still_model_is_a_mistake_with_the_right_name_beside_all_others() -> None:
    found = problems_of("prompt,still_prompt,still_model,fps\nit sails,a boat,FLUX.2-por,none\n")

    assert [(column, "did you mean" in message) for _, column, message in found] == [
        ("still_model", True),
        ("fps", False),
    ]


def test_a_still_model_that_is_no_longer_listed_is_a_warning() -> None:
    found = warnings_of("prompt,still_prompt,still_model\nit sails,a boat,black-forest-labs/FLUX.1-schnell\n")

    assert any("column still_model" in one and "no longer" in one for one in found)


def test_a_still_model_without_a_still_prompt_is_said_to_be_unused() -> None:
    found = warnings_of("prompt,still_model\nit sails,black-forest-labs/FLUX.2-pro\n")

    assert any("is not used without a still_prompt" in one for one in found)


def test_a_still_model_of_the_run_without_any_still_is_said_to_be_unused() -> None:
    found = warnings_of("prompt\nit sails\n", defaults={"still_model": "black-forest-labs/FLUX.2-pro"})

    assert found == ["column still_model: is set for the whole run and not used: no row has a still_prompt"]


def test_the_still_stands_before_the_videos_that_begin_with_it() -> None:
    plan = make_plan(read("id,prompt,still_prompt,count\nboat,it sails,a boat,2\nsea,waves,,1\n"))

    still, first, second, sea = plan.videos.values()

    assert [video.kind for video in plan.videos.values()] == ["still", "video", "video", "video"]
    assert (still.free_file(()), still.row_id) == ("stills/boat.jpg", "boat")
    assert (first.sources, second.sources, sea.sources) == ((still.key,), (still.key,), ())
    assert [(row.still_key, row.keys) for row in plan.rows] == [
        (still.key, (first.key, second.key)),
        (None, (sea.key,)),
    ]


def test_a_changed_still_makes_its_videos_other_work_and_no_others() -> None:
    before, after = (make_plan(read(f"id,prompt,still_prompt\na,it sails,{text}\nb,waves,\n")) for text in ("x", "y"))

    assert [one.keys == other.keys for one, other in zip(before.rows, after.rows, strict=True)] == [False, True]
    assert before.rows[0].still_key != after.rows[0].still_key


def test_a_plan_costs_its_stills_too() -> None:
    without, with_still = (
        make_plan(read(f"id,prompt,still_prompt\na,it sails,{text}\n")).videos for text in ("", "a boat")
    )
    (still,) = (video for video in with_still.values() if video.kind == "still")

    assert price_sum(with_still.values())[1] - price_sum(without.values())[1] == pytest.approx(still.estimate_usd)


def test_rows_without_ids_share_an_equal_still_and_rows_with_ids_do_not() -> None:
    shared = make_plan(read("prompt,still_prompt\nit sails,a boat\nit sinks,a boat\n"))
    apart = make_plan(read("id,prompt,still_prompt\na,it sails,a boat\nb,it sinks,a boat\n"))

    assert (len(shared.stills), len(apart.stills)) == (1, 2)
    assert [file for video in apart.videos.values() if "stills" in (file := video.free_file(()))] == [
        "stills/a.jpg",
        "stills/b.jpg",
    ]
