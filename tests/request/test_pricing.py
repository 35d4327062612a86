"""What a video probably costs: by the clip, by the second, by resolution, and where sources disagree."""

from __future__ import annotations

import pytest

from prefect_together.request.catalogue import estimate_usd, lines_of
from prefect_together.request.request import VideoRequest

VIDEO = "https://example.com/a.mp4"


def readings(model: str, **values: object) -> tuple[float, float] | None:
    found = estimate_usd(VideoRequest.model_validate({"model": model, "prompt": "a cat", **values}))
    return None if found is None else (found.low_usd, found.high_usd)


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        ("minimax/video-01-director", {}, (0.28, 0.28)),
        ("minimax/video-01-director", {"seconds": 6}, (0.28, 0.28)),
        ("ByteDance/Seedance-2.5", {}, (1.245, 1.245)),
        ("ByteDance/Seedance-2.5", {"seconds": 30}, (7.47, 7.47)),
        ("ByteDance/Seedance-2.5", {"resolution": "480p", "seconds": 4}, (0.46, 0.46)),
        ("ByteDance/Seedance-2.0", {"resolution": "1080p", "seconds": 10}, (4.0, 4.0)),
        ("ByteDance/Seedance-2.0", {"resolution": "4k", "seconds": 4}, (3.344, 3.344)),
        ("google/veo-3.1-lite", {"width": 1920, "height": 1080, "seconds": 8}, (0.64, 0.64)),
        ("vidu/vidu-q3", {"width": 720, "height": 720, "seconds": 10}, (0.455, 0.455)),
        ("black-forest-labs/FLUX-3", {"resolution": "fhd", "seconds": 5}, (1.45, 1.45)),
        ("pixverse/pixverse-v6", {"resolution": "1080p", "seconds": 10, "generate_audio": False}, (0.9, 0.9)),
        ("pixverse/pixverse-v6", {"resolution": "1080p", "seconds": 10, "generate_audio": True}, (1.15, 1.15)),
        ("pixverse/pixverse-v6", {"resolution": "1080p", "seconds": 10}, (0.9, 1.15)),
        ("google/veo-3.1", {"seconds": 8, "generate_audio": False}, (0.08, 1.6)),
        ("google/veo-3.1", {"seconds": 8}, (0.08, 3.2)),
    ],
)
def test_a_price_follows_from_length_size_and_sound(
    model: str, values: dict[str, object], expected: tuple[float, float]
) -> None:
    assert readings(model, **values) == expected


def test_where_sources_disagree_by_five_both_readings_are_given() -> None:
    assert readings("Wan-AI/wan2.7-t2v", resolution="720P", seconds=5) == (0.1, 0.5)
    assert readings("Wan-AI/wan2.7-t2v") == (0.1, 0.75)


def test_an_unknown_default_length_or_size_is_reckoned_at_its_longest_and_largest() -> None:
    assert readings("black-forest-labs/FLUX-3") == (0.85, 5.8)
    assert readings("ByteDance/Seedance-2.0") == (0.8, 2.0)


def test_a_size_without_a_price_is_reckoned_at_the_next_larger_one() -> None:
    assert readings("ByteDance/Seedance-2.0", resolution="480p") == readings(
        "ByteDance/Seedance-2.0", resolution="720p"
    )


def test_a_size_above_every_published_price_has_none() -> None:
    assert readings("black-forest-labs/FLUX-3", resolution="4k") is None


def test_a_reference_video_costs_its_own_price() -> None:
    media = {"reference_videos": [VIDEO]}

    assert readings("ByteDance/Seedance-2.0", resolution="1080p", media=media) == (2.0, 2.4)


def test_input_videos_are_reserved_for_where_they_are_charged() -> None:
    media = {"frame_videos": [VIDEO]}

    assert readings("Wan-AI/wan2.7-i2v", resolution="720P", seconds=5, media=media) == (0.1, 2.0)


@pytest.mark.parametrize("model", ["x/unknown", "Wan-AI/wan2.7-videoedit"])
def test_an_unknown_price_is_none(model: str) -> None:
    assert readings(model) is None


def test_an_estimate_says_how_it_was_worked_out_and_when_prices_were_read() -> None:
    found = estimate_usd(VideoRequest(model="minimax/video-01-director", prompt="a cat", seconds="5"))

    assert found is not None
    assert (found.basis, found.as_of) == ("$0.28 a video (720p/5s); 5 s", "2026-10")


@pytest.mark.parametrize(("name", "lines"), [("720P", 720), ("4k", 2160), ("fhd", 1080), ("huge", None)])
def test_a_resolution_is_read_in_any_spelling(name: str, lines: int | None) -> None:
    assert lines_of(name) == lines
