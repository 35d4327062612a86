"""The image models: near misses, doubts, prices with their sources."""

from __future__ import annotations

import pytest

from prefect_together.stills.catalogue import check_still, estimate_still_usd
from prefect_together.stills.models import ImageModel, image_models
from prefect_together.stills.request import StillRequest


def still(model: str, **more: object) -> StillRequest:
    return StillRequest.model_validate({"model": model, "prompt": "a lighthouse", **more})


def usd(request: StillRequest) -> tuple[float, float]:
    estimate = estimate_still_usd(request)
    assert estimate is not None
    return estimate.low_usd, estimate.high_usd


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("black-forest-labs/flux.2-PRO", "black-forest-labs/FLUX.2-pro"),
        ("FLUX.2-dev", "black-forest-labs/FLUX.2-dev"),
        ("bfl/FLUX.2-dve", "black-forest-labs/FLUX.2-dev"),
        ("Qwen/QwenImage-2.0", "Qwen/Qwen-Image-2.0"),
    ],
)
def test_a_near_miss_is_a_mistake_with_the_right_name(given: str, meant: str) -> None:
    (finding,) = check_still(still(given))

    assert finding.is_error
    assert (finding.field, meant in finding.message) == ("model", True)


def test_a_model_like_no_other_is_sent_with_a_warning_and_has_no_price() -> None:
    request = still("my-lab/easel")
    (finding,) = check_still(request)

    assert not finding.is_error
    assert "its price unknown" in finding.message
    assert estimate_still_usd(request) is None


def test_a_listed_model_has_no_findings() -> None:
    assert check_still(still("black-forest-labs/FLUX.2-dev", width=1280, height=720)) == []


def test_a_model_that_is_no_longer_listed_is_a_warning() -> None:
    (finding,) = check_still(still("black-forest-labs/FLUX.1-schnell"))

    assert (finding.is_error, "no longer in Together's list" in finding.message) == (False, True)


def test_a_size_that_a_model_of_few_sizes_lacks_is_a_mistake() -> None:
    (finding,) = check_still(still("google/gemini-3-pro-image", width=1280, height=720))

    assert (finding.field, finding.is_error) == ("width", True)


def test_a_model_by_the_megapixel_costs_its_size_and_the_steps_above_its_default() -> None:
    model = "black-forest-labs/FLUX.1-kontext-pro"

    assert usd(still(model, width=1000, height=1000)) == (0.04, 0.04)
    assert usd(still(model, width=1000, height=1000, steps=14)) == (0.04, 0.04)
    assert usd(still(model, width=1000, height=1000, steps=56)) == (0.08, 0.08)


def test_a_model_by_the_image_is_read_both_ways_and_the_higher_is_reserved() -> None:
    model = "black-forest-labs/FLUX.2-pro"

    assert usd(still(model, width=1000, height=800)) == (0.024, 0.03)
    assert usd(still(model, width=1920, height=1000)) == (0.03, 0.0576)


@pytest.mark.parametrize("model", image_models().values(), ids=lambda model: model.id)
def test_every_price_has_its_source_and_date(model: ImageModel) -> None:
    assert model.usd > 0
    assert model.sources
    assert model.price_date.startswith("2026-")
    assert not (model.sizes or model.least_pixels) or model.sizes_source
