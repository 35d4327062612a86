"""Rows of a prompt table as requests: what a column means, and where its images come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prefect_together.request.media import LocalImage
from prefect_together.results.results import RowResult, TakeResult, results_csv
from prefect_together.table.prompt_table import read_table
from prefect_together.table.rows import PromptTable
from repository import EXAMPLES
from tables import DIRECTOR, FREE, only_row, problems_of, read


def media_of(text: str, **settings: Any) -> dict[str, Any]:
    return only_row(text, model=FREE, **settings).requests[0].create_kwargs()["media"]


def json_row(**cells: object) -> str:
    return json.dumps({"prompt": "A cat", **cells})


def test_columns_named_after_parameters_set_them_and_the_others_are_carried_through() -> None:
    table = read("id,prompt,seconds,Mood\n007, A cat ,6,calm\n")

    row = table.rows[0]
    assert (row.number, row.row_id, row.count, row.price_usd) == (2, "007", 1, None)
    assert row.requests[0].create_kwargs() == {"model": DIRECTOR, "prompt": " A cat ", "seconds": "6"}
    assert table.columns == ("id", "prompt", "seconds", "Mood")
    assert dict(row.cells) == {"id": "007", "prompt": " A cat ", "seconds": "6", "Mood": "calm"}


@pytest.mark.parametrize("column", ["Guidance Scale", "guidance-scale", " GUIDANCE_SCALE ", "guidance scale"])
def test_case_spaces_and_hyphens_in_a_parameters_name_do_not_matter(column: str) -> None:
    row = only_row(f"prompt,{column}\nA cat,7.5\n", model=FREE)

    assert row.requests[0].guidance_scale == 7.5
    assert dict(row.cells)[column.strip()] == "7.5"


def test_an_empty_cell_leaves_the_runs_setting_and_a_filled_one_goes_before_it() -> None:
    text = "prompt,fps,model\nA cat,,\nA dog,30,other/model\n"

    rows = read(text, model=FREE, defaults={"fps": 24, "seed": "5", "negative_prompt": None, "ratio": ""}).rows

    assert [(row.requests[0].model, row.requests[0].fps, row.requests[0].seed) for row in rows] == [
        (FREE, 24, 5),
        ("other/model", 30, 5),
    ]
    assert rows[0].requests[0].create_kwargs().keys() == {"model", "prompt", "fps", "seed"}


def test_only_what_is_set_is_part_of_a_request() -> None:
    row = only_row("prompt,seconds,fps,media,extra_body,first_frame\nA cat,,,,,\n")

    assert row.requests[0].create_kwargs() == {"model": DIRECTOR, "prompt": "A cat"}


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes"])
def test_yes_and_true_in_the_usual_spellings_are_taken(text: str) -> None:
    assert only_row(f"prompt,generate_audio\nA cat, {text} \n", model=FREE).requests[0].generate_audio is True


def test_count_and_price_are_read() -> None:
    row = only_row("prompt,count,price_usd\nA cat, 3 ,0.28\n")

    assert (row.count, row.price_usd) == (3, 0.28)
    assert only_row("prompt\nA cat\n", defaults={"count": 2, "price_usd": 1}).count == 2


def test_extra_body_is_read_as_json() -> None:
    row = only_row(json_row(extra_body={"settings": {"audio": False}}), model=FREE)

    assert row.requests[0].extra_body == {"settings": {"audio": False}}


# Images, videos and sounds

A, B, C = (f"https://example.com/{name}.png" for name in "abc")


@pytest.mark.parametrize(
    ("columns", "media"),
    [
        ({"first_frame": A}, {"frame_images": [{"input_image": A, "frame": "first"}]}),
        (
            {"last_frame": B, "first_frame": A, "frame_images": f"48:{C}"},
            {
                "frame_images": [
                    {"input_image": A, "frame": "first"},
                    {"input_image": C, "frame": 48},
                    {"input_image": B, "frame": "last"},
                ]
            },
        ),
        (
            {"frame_images": f"first:{A} | 48.5: {B} | LAST:{C}"},
            {
                "frame_images": [
                    {"input_image": A, "frame": "first"},
                    {"input_image": B, "frame": 48.5},
                    {"input_image": C, "frame": "last"},
                ]
            },
        ),
        ({"frame_images": f"{A}|{B}"}, {"frame_images": [{"input_image": A}, {"input_image": B}]}),
        (
            {"frame_images": json.dumps([{"input_image": A, "frame": 0}, B])},
            {"frame_images": [{"input_image": A, "frame": 0}, {"input_image": B}]},
        ),
        ({"reference_images": f" {A} | {B} |"}, {"reference_images": [A, B]}),
        ({"reference_images": json.dumps([A, B])}, {"reference_images": [A, B]}),
        ({"reference_videos": f"{A}|{B}"}, {"reference_videos": [{"video": A}, {"video": B}]}),
        ({"frame_videos": A}, {"frame_videos": [{"video": A}]}),
        ({"source_video": A}, {"source_video": A}),
        ({"audio_inputs": A, "reference_audios": f"{B}|{C}"}, {"audio_inputs": [A], "reference_audios": [B, C]}),
        ({"media": json.dumps({"source_video": {"video": A}}), "first_frame": B}, {
            "frame_images": [{"input_image": B, "frame": "first"}], "source_video": A}),
        ({"media": json.dumps({"reference_images": [A]})}, {"reference_images": [A]}),
    ],
)  # fmt: skip
def test_media_can_be_given_by_columns_lists_and_json(columns: dict[str, str], media: dict[str, Any]) -> None:
    assert media_of(json_row(**columns)) == media


def test_the_rows_own_media_goes_before_the_runs() -> None:
    defaults = {"first_frame": A, "media": {"reference_images": [A]}}

    assert media_of(json_row(last_frame=B), defaults={"first_frame": A})["frame_images"] == [
        {"input_image": A, "frame": "first"},
        {"input_image": B, "frame": "last"},
    ]
    assert media_of(json_row(reference_images=B), defaults=defaults)["reference_images"] == [B]
    assert media_of(json_row(first_frame=B, last_frame=C), defaults={"media": {"frame_images": [A]}}) == {
        "frame_images": [{"input_image": B, "frame": "first"}, {"input_image": C, "frame": "last"}]
    }
    assert media_of(json_row(media={"frame_images": [C]}), defaults={"first_frame": A}) == {
        "frame_images": [{"input_image": C}]
    }


def test_the_same_part_of_media_twice_in_a_row_is_a_mistake() -> None:
    (problem,) = problems_of(json_row(media={"frame_images": [A]}, first_frame=B), model=FREE)

    assert problem[:2] == (1, "first_frame")
    assert "is given in the column media too" in problem[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for a table, with two pictures in it."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    (tmp_path / "pictures").mkdir()
    for name in ("red.png", "pictures/also red.png"):
        (tmp_path / name).write_bytes(stream.getvalue())
    return tmp_path


def test_local_images_are_found_beside_the_table(directory: Path) -> None:
    (directory / "t.csv").write_text(
        "prompt,first_frame,frame_images,reference_images,media\n"
        "A cat,red.png,48:red.png,red.png|pictures/also red.png,\n"
        'A dog,,,,"{""frame_images"": [{""input_image"": ""red.png""}], ""reference_images"": [""red.png""]}"\n'
    )

    cat, dog = read(str(directory / "t.csv"), model=FREE).rows

    names = [Path(image.path).name for _, image in cat.requests[0].images() if isinstance(image, LocalImage)]
    assert names == ["red.png", "red.png", "red.png", "also red.png"]
    assert [type(image) for _, image in dog.requests[0].images()] == [LocalImage, LocalImage]


def test_for_pasted_text_local_images_are_found_in_the_directory_that_is_named(directory: Path) -> None:
    row = only_row("prompt,first_frame\nA cat,red.png\n", image_directory=str(directory))

    assert [type(image) for _, image in row.requests[0].images()] == [LocalImage]


def test_every_bad_image_of_a_cell_is_named_with_its_column(directory: Path) -> None:
    (directory / "t.csv").write_text("prompt,Reference Images,x\nA cat,no.png|red.png|../../up.png,t.csv\n")

    problems = problems_of(str(directory / "t.csv"))

    assert [(row, column) for row, column, _ in problems] == [(2, "Reference Images")] * 2
    assert "'no.png' does not exist" in problems[0][2]
    assert "'../../up.png' lies outside" in problems[1][2]


# results.csv


def as_results(table: PromptTable) -> str:
    rows = [
        RowResult(
            number=row.number,
            cells=row.cells,
            takes=(
                TakeResult(
                    row_id=row.row_id or "x", status="failed", model=row.requests[0].model, parameters={}, job_id="j"
                ),
            ),
        )
        for row in table.rows
    ]
    return results_csv(table.columns, rows).decode("utf-8-sig")


def test_results_are_a_table_that_asks_for_the_same_videos() -> None:
    text = 'id,prompt,note,=x\n-1,=SUM(A1:A9) over a cat,\'quoted,\n@b,"- a\n+ b",\'=x,"\t"\n'
    table = read(text)

    again = read(as_results(table))

    assert again.columns == table.columns
    assert [dict(row.cells) for row in again.rows] == [dict(row.cells) for row in table.rows]
    assert [row.requests[0].fingerprint() for row in again.rows] == [
        row.requests[0].fingerprint() for row in table.rows
    ]
    assert again.warnings == ()


def test_a_column_that_results_would_overwrite_is_left_out_with_a_warning() -> None:
    table = read("prompt,status,note\nA cat,draft,'=1\n")

    assert table.columns == ("prompt", "note")
    assert dict(table.rows[0].cells) == {"prompt": "A cat", "note": "'=1"}
    assert "column status: is ignored" in str(table.warnings[0])


# Examples


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.csv")), ids=lambda path: path.name)
def test_the_examples_have_neither_mistakes_nor_warnings(path: Path) -> None:
    with_options = {"compare.csv": {"model": FREE, "prompt_template": "{subject}, {place}, {light}"}}
    table = read_table(str(path), defaults=with_options.get(path.name), catalogue_checks=path.name not in with_options)

    assert len(table.rows) >= 3
    assert table.warnings == ()


@pytest.mark.scale
def test_a_hundred_thousand_rows_are_read_and_checked() -> None:
    rows = [f'{number:06},"A cat number {number}, asleep",6,1366,768,{number % 7}' for number in range(100_000)]

    table = read("\n".join(["id,prompt,seconds,width,height,group", *rows]))

    assert len(table.rows) == 100_000
    assert table.rows[-1].row_id == "099999"
