"""A request for a still: what is sent, what is refused, its identity and its size."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prefect_together.request.request import VideoRequest, problems_of
from prefect_together.stills.models import DEFAULT_MODEL, image_models
from prefect_together.stills.request import StillRequest
from prefect_together.stills.sizes import still_size

FLUX = "black-forest-labs/FLUX.1.1-pro"


def test_only_what_is_set_is_sent_as_one_picture_by_a_link() -> None:
    request = StillRequest(model=FLUX, prompt="a lighthouse", width=1280, height=720)

    assert request.create_kwargs() == {
        "model": FLUX,
        "prompt": "a lighthouse",
        "width": 1280,
        "height": 720,
        "n": 1,
        "response_format": "url",
    }


def test_a_model_that_rewrites_prompts_is_told_not_to_unless_asked() -> None:
    plain = StillRequest(model="black-forest-labs/FLUX.2-pro", prompt="a lighthouse")
    asked = plain.model_copy(update={"prompt_upsampling": True})

    assert plain.create_kwargs()["extra_body"] == {"prompt_upsampling": False}
    assert asked.create_kwargs()["extra_body"] == {"prompt_upsampling": True}
    assert plain.fingerprint() != asked.fingerprint()


@pytest.mark.parametrize(("side", "value"), [("width", 248), ("height", 1928), ("width", 1001)])
def test_a_side_that_no_model_takes_is_refused_with_what_is_right(side: str, value: int) -> None:
    with pytest.raises(ValidationError) as caught:
        StillRequest.model_validate({"model": FLUX, "prompt": "a", side: value})

    assert problems_of(caught.value) == [
        (side, f"{value} is not a side of a still: 256 to 1920 pixels, a multiple of 8")
    ]


def test_a_still_never_has_the_fingerprint_of_a_video_with_the_same_parameters() -> None:
    given = {"model": FLUX, "prompt": "a lighthouse", "width": 1280, "height": 720, "seed": 7}

    assert StillRequest.model_validate(given).fingerprint() != VideoRequest.model_validate(given).fingerprint()


def test_parameters_can_leave_the_prompt_out() -> None:
    request = StillRequest(model=FLUX, prompt="a lighthouse", seed=7)

    assert request.parameters(with_prompt=False) == {"model": FLUX, "seed": 7}


@pytest.mark.parametrize(
    ("video", "size"),
    [
        ({}, (1280, 720)),
        ({"ratio": "9:16"}, (720, 1280)),
        ({"ratio": "1:1"}, (960, 960)),
        ({"ratio": "adaptive"}, (1280, 720)),
        ({"ratio": "0:9"}, (1280, 720)),
        ({"width": 1280, "height": 720}, (1280, 720)),
        ({"width": 1366, "height": 768}, (1368, 768)),
        ({"width": 3840, "height": 2160}, (1920, 1080)),
        ({"width": 64, "height": 32}, (512, 256)),
        ({"width": 16000, "height": 16}, (1920, 256)),
        ({"width": 720, "height": 1280, "ratio": "16:9"}, (720, 1280)),
    ],
)
def test_a_still_has_the_shape_of_its_video_within_the_limits(video: dict[str, object], size: tuple[int, int]) -> None:
    assert still_size(VideoRequest.model_validate({"model": "any/model", **video}), FLUX) == size


def test_a_model_of_few_sizes_gives_the_nearest_shape_of_them() -> None:
    wide = VideoRequest(model="any/model", ratio="16:9")

    assert still_size(wide, "google/gemini-3-pro-image") == (1376, 768)
    assert still_size(wide.model_copy(update={"ratio": "1:1"}), "google/gemini-3-pro-image") == (1024, 1024)


def test_a_model_with_a_least_area_gets_it_in_the_shape_of_the_video() -> None:
    width, height = still_size(VideoRequest(model="any/model", ratio="16:9"), "Wan-AI/Wan2.6-image")

    assert 1265 * 1265 <= width * height <= 1440 * 1440
    assert abs(width / height - 16 / 9) < 0.01


@pytest.mark.parametrize("model", list(image_models()))
@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1", "21:9", "4:3"])
def test_every_derived_size_can_be_asked_for(model: str, ratio: str) -> None:
    width, height = still_size(VideoRequest(model="any/model", ratio=ratio), model)

    assert StillRequest(model=model, prompt="a", width=width, height=height).width == width


def test_the_default_model_is_the_cheapest_flux_that_is_listed() -> None:
    flux = [model for model in image_models().values() if model.listed and "/FLUX" in model.id]

    assert min(flux, key=lambda model: model.usd).id == DEFAULT_MODEL
