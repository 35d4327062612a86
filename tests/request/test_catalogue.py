"""The catalogue as a whole: 42 models, each usable in each of its modes, found by its id."""

from __future__ import annotations

import pytest

from catalogue_examples import every_model_and_mode, example_request
from prefect_together.request.catalogue import catalogue, check_request, estimate_usd, similar_models
from prefect_together.request.form import listed_models
from prefect_together.request.model_spec import Mode, ModelSpec
from prefect_together.request.request import VideoRequest

MODELS = list(catalogue())
RETIRED = [spec for spec in catalogue().values() if spec.retired]


def test_all_42_models_are_there_in_all_their_modes() -> None:
    assert len(catalogue()) == 42
    assert sum(len(spec.modes) for spec in catalogue().values()) == 80
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


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("bytedance/seedance-2.5", "ByteDance/Seedance-2.5"),
        ("vidu-q1", "vidu/vidu-q1"),
        ("veo-3.1", "google/veo-3.1"),
        ("veo3", "google/veo-3.0"),
        ("google/kling-2.1-standard", "kwaivgI/kling-2.1-standard"),
        ("vidu/vidu-q2x", "vidu/vidu-q1"),
        ("minimax/hailuo-03", "minimax/hailuo-02"),
        ("Kling", "kwaivgI/kling-2.1-standard"),
        ("Wan2.7", "Wan-AI/wan2.7-t2v"),
        ("openai/sora2", "openai/sora-2"),
    ],
)
def test_a_mistyped_model_is_an_error_that_names_the_right_one_and_the_way_round_it(given: str, meant: str) -> None:
    (finding,) = check_request(VideoRequest(model=given, prompt="a cat"))

    assert (finding.field, finding.is_error) == ("model", True)
    assert meant in finding.message.partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert "--no-catalogue-checks" in finding.message


@pytest.mark.parametrize("model", ["acme/zzzzzzzz", "tencent/hunyuan-video", "acme/video-model", "model"])
def test_an_unknown_model_like_no_other_is_a_warning(model: str) -> None:
    (finding,) = check_request(VideoRequest(model=model, prompt="a cat"))

    assert not finding.is_error
    assert "is sent unchecked, its price unknown" in finding.message
    assert similar_models(model) == []


@pytest.mark.parametrize("spec", RETIRED, ids=lambda spec: spec.id)
def test_a_model_that_was_shut_down_is_an_error_that_names_its_successor(spec: ModelSpec) -> None:
    (finding,) = check_request(VideoRequest(model=spec.id, prompt="a cat"))

    assert (finding.field, finding.is_error) == ("model", True)
    assert spec.retired
    assert f"was shut down by {spec.retired.by} on {spec.retired.date}" in finding.message
    assert f"use {spec.retired.successor}." in finding.message
    assert catalogue()[spec.retired.successor].is_offered
    assert spec.retired.date <= "2026-11-28"
    assert spec.retired.source.startswith("https://")


def test_veo_2_and_3_and_sora_2_are_shut_down_and_nothing_else() -> None:
    assert {spec.id: spec.retired.date for spec in RETIRED if spec.retired} == {
        **dict.fromkeys(("google/veo-2.0", "google/veo-3.0", "google/veo-3.0-audio"), "2026-06-30"),
        **dict.fromkeys(("google/veo-3.0-fast", "google/veo-3.0-fast-audio"), "2026-06-30"),
        **dict.fromkeys(("openai/sora-2", "openai/sora-2-pro"), "2026-09-24"),
    }
    assert not {spec.id for spec in RETIRED}.intersection(listed_models())


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
