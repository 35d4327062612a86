"""One video by its parameters alone, without a table: the plan, or every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prefect_together.problems import TableInvalid
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest
from prefect_together.table.prompt_table import plan_video

GIVEN = {"prompt": "a cat asleep on a drum", "model": "ByteDance/Seedance-1.0-lite"}
URL = "https://example.com/a.png"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_images_are_the_frames_and_references_of_the_request(directory: Path) -> None:
    Image.new("RGB", (64, 36)).save(directory / "a.png")

    plan = plan_video(GIVEN, {"first_frame": "a.png", "last_frame": URL})

    (video,) = plan.videos.values()
    assert isinstance(video.request, VideoRequest)
    assert video.request.media is not None
    first, last = video.request.media.frame_images or []
    assert isinstance(first.input_image, LocalImage)
    assert (first.frame, last.frame, last.input_image) == ("first", "last", URL)
    assert plan.rows[0].cells["first_frame"] == "a.png"


def test_every_image_that_is_none_is_named_with_its_parameter() -> None:
    with pytest.raises(TableInvalid) as caught:
        plan_video(GIVEN, {"first_frame": "gone.png", "reference_images": [URL, "lost.png"]})

    assert [(one.column, one.message.partition(" ")[0]) for one in caught.value.problems] == [
        ("first_frame", "'gone.png'"),
        ("reference_images", "'lost.png'"),
    ]


def test_several_values_are_a_video_each_and_takes_are_takes_of_each() -> None:
    plan = plan_video({**GIVEN, "fps": [24, 30]}, {}, count=2, catalogue_checks=False)

    made = [(video.row_id.rpartition("--")[2], video.take) for video in plan.videos.values()]
    assert made == [("fps-24", 1), ("fps-24", 2), ("fps-30", 1), ("fps-30", 2)]


def test_what_the_catalogue_knows_to_be_wrong_is_said_once_and_can_be_passed_over() -> None:
    wrong = {**GIVEN, "seconds": "77", "seed": [1, 2]}

    with pytest.raises(TableInvalid) as caught:
        plan_video(wrong, {})

    assert [one.column for one in caught.value.problems] == ["seconds"]
    assert len(plan_video(wrong, {}, catalogue_checks=False).videos) == 2
