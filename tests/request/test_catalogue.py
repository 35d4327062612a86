"""The catalogue as a whole: 42 models, each usable in each of its modes, found by its id."""

from __future__ import annotations

import pytest

from catalogue_examples import every_model_and_mode, example_request
from prefect_together.request.catalogue import catalogue, check_request, estimate_usd, similar_models
from prefect_together.request.model_spec import Mode, ModelSpec
from prefect_together.request.request import VideoRequest

MODELS = list(catalogue())


def test_all_42_models_are_there_in_all_their_modes() -> None:
    assert len(catalogue()) == 42
    assert len(every_model_and_mode()) == 80
    assert sum(spec.listed for spec in catalogue().values()) == 30


@pytest.mark.parametrize(("model", "mode"), every_model_and_mode())
def test_every_model_has_a_sound_request_in_every_mode(model: str, mode: Mode) -> None:
    request = example_request(model, mode)

    assert [str(finding) for finding in check_request(request) if finding.is_error] == []


@pytest.mark.parametrize("spec", catalogue().values(), ids=MODELS)
def test_every_model_keeps_its_sources_and_is_whole(spec: ModelSpec) -> None:
    assert spec.sources
    assert spec.organization
    assert spec.modes
    assert spec.listing
    assert bool(spec.prices) == bool(spec.price_date)
    if spec.sizing == "pixels":
        assert spec.dimensions
        assert all(int(side) > 0 for size in spec.dimensions.values for side in size.split("x"))
    if spec.sizing == "resolution":
        assert spec.resolutions
    if spec.seconds and spec.seconds.default:
        assert spec.seconds.allows(spec.seconds.default)
    if spec.resolutions and spec.resolutions.default:
        assert spec.resolutions.default in spec.resolutions.values


@pytest.mark.parametrize("model", MODELS)
def test_the_low_reading_of_a_price_is_never_above_the_high_one(model: str) -> None:
    found = estimate_usd(VideoRequest(model=model, prompt="a cat"))

    if model == "Wan-AI/wan2.7-videoedit":
        assert found is None
    else:
        assert found is not None
        assert 0 < found.low_usd <= found.high_usd < 10
        assert found.as_of in {"2026-10", "early 2026"}


def test_an_unknown_model_is_a_warning_that_names_close_ones() -> None:
    (finding,) = check_request(VideoRequest(model="minimax/hailuo-03", prompt="a cat"))

    assert (finding.field, finding.is_error) == ("model", False)
    assert "is not in the catalogue" in finding.message
    assert "minimax/hailuo-02" in finding.message


def test_an_unknown_model_like_no_other_is_a_warning_too() -> None:
    (finding,) = check_request(VideoRequest(model="acme/zzzzzzzz", prompt="a cat"))

    assert not finding.is_error
    assert "did you mean" not in finding.message


def test_a_model_in_the_wrong_case_is_an_error_that_names_the_right_one() -> None:
    (finding,) = check_request(VideoRequest(model="bytedance/seedance-2.5", prompt="a cat"))

    assert finding.is_error
    assert "did you mean ByteDance/Seedance-2.5?" in finding.message


def test_a_model_without_its_organization_is_recognised() -> None:
    assert similar_models("veo-3.1")[0] == "google/veo-3.1"


@pytest.mark.parametrize("model", ["openai/sora-2", "openai/sora-2-pro", "google/veo-3.0"])
def test_a_model_that_is_believed_dead_is_a_warning(model: str) -> None:
    (finding,) = check_request(VideoRequest(model=model, prompt="a cat"))

    assert (finding.field, finding.is_error) == ("model", False)
    assert "probably gone" in finding.message


def test_a_model_that_is_no_longer_listed_is_a_warning() -> None:
    (finding,) = check_request(VideoRequest(model="kwaivgI/kling-2.1-master", prompt="a cat"))

    assert not finding.is_error
    assert "no longer in Together's lists (old tables only)" in finding.message


def test_findings_come_in_the_order_of_the_apis_parameters() -> None:
    request = VideoRequest.model_validate(
        {
            "model": "openai/sora-2",
            "fps": 24,
            "guidance_scale": 13,
            "seconds": 3,
            "width": 5,
            "height": 5,
            "media": {"source_video": "https://example.com/c.mp4"},
        }
    )

    fields = [finding.field for finding in check_request(request)]

    assert fields == ["model", "prompt", "width", "seconds", "guidance_scale", "guidance_scale", "media.source_video"]
