"""What the catalogue objects to in a request's parameters: errors on Together's word, warnings on others'."""

from __future__ import annotations

import base64

import pytest

from prefect_together.request.catalogue import check_request
from prefect_together.request.checks import Finding
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest

DIRECTOR = "minimax/video-01-director"
HAILUO = "minimax/hailuo-02"
WAN = "Wan-AI/wan2.7-t2v"
SEEDANCE = "ByteDance/Seedance-2.5"
NEEDS = {
    "Wan-AI/wan2.7-videoedit": {"source_video": "https://example.com/c.mp4"},
    "alibaba/happyhorse-1.1-i2v": {"frame_images": ["https://example.com/a.png"]},
}


def findings(model: str, **values: object) -> list[Finding]:
    """What is said about a request, apart from the model's own standing."""
    given = {"model": model, "prompt": "a cat", "media": NEEDS.get(model), **values}
    return [found for found in check_request(VideoRequest.model_validate(given)) if found.field != "model"]


def only(model: str, **values: object) -> Finding:
    (found,) = findings(model, **values)
    return found


@pytest.mark.parametrize(
    ("model", "values", "field", "right"),
    [
        (DIRECTOR, {"prompt": None}, "prompt", "needs one"),
        (DIRECTOR, {"prompt": "x"}, "prompt", "at least 2"),
        (DIRECTOR, {"prompt": "x" * 3001}, "prompt", "at most 3,000"),
        (SEEDANCE, {"prompt": "x" * 10_001}, "prompt", "at most 10,000"),
        (WAN, {"negative_prompt": "x" * 501}, "negative_prompt", "at most 500"),
        (HAILUO, {"negative_prompt": "blurry"}, "negative_prompt", "does not take"),
        (DIRECTOR, {"seconds": 8}, "seconds", "5 or 6 seconds"),
        (HAILUO, {"seconds": 8}, "seconds", "6 or 10 seconds"),
        (WAN, {"seconds": 16}, "seconds", "2 to 15 seconds"),
        ("Wan-AI/wan2.7-videoedit", {"seconds": 11}, "seconds", "2 to 10 seconds"),
        (SEEDANCE, {"seconds": 3}, "seconds", "4 to 30 (whole seconds) seconds"),
        (SEEDANCE, {"seconds": "4.5"}, "seconds", "whole seconds"),
        (DIRECTOR, {"width": 1920, "height": 1080}, "width", "1366x768"),
        (DIRECTOR, {"width": 1920}, "width", "1366x768"),
        (DIRECTOR, {"height": 1080}, "height", "1366x768"),
        (DIRECTOR, {"resolution": "720p"}, "resolution", "sized by width and height (1366x768)"),
        (DIRECTOR, {"ratio": "16:9"}, "ratio", "sized by width and height (1366x768)"),
        (WAN, {"width": 1280}, "width", "sized by resolution and ratio"),
        (WAN, {"height": 720}, "height", "sized by resolution and ratio"),
        (WAN, {"resolution": "720p"}, "resolution", "is spelt 720P"),
        (WAN, {"resolution": "480P"}, "resolution", "720P, 1080P"),
        (WAN, {"ratio": "21:9"}, "ratio", "16:9, 9:16, 1:1, 4:3, 3:4"),
        (SEEDANCE, {"resolution": "720P"}, "resolution", "is spelt 720p"),
        (SEEDANCE, {"resolution": "1080p"}, "resolution", "480p, 720p"),
        (SEEDANCE, {"ratio": "16:9"}, "ratio", "leave it out"),
        (SEEDANCE, {"width": 1280}, "width", "sized by resolution alone"),
        (SEEDANCE, {"extra_body": {"settings": {"audio": False}}}, "extra_body", "always on"),
        (DIRECTOR, {"fps": 24}, "fps", "25 frames a second"),
        ("pixverse/pixverse-v5", {"fps": 30}, "fps", "16 or 24 frames a second"),
        (WAN, {"seed": -1}, "seed", "0 to 2147483647"),
        (WAN, {"seed": 2**31}, "seed", "0 to 2147483647"),
        (DIRECTOR, {"generate_audio": True}, "generate_audio", "makes no sound"),
        ("google/veo-3.0", {"generate_audio": True}, "generate_audio", "google/veo-3.0-audio has it"),
        (WAN, {"steps": 9}, "steps", "10 (quick test) to 50"),
    ],
)
def test_what_together_documents_as_wrong_is_an_error(
    model: str, values: dict[str, object], field: str, right: str
) -> None:
    found = only(model, **values)

    assert (found.field, found.is_error) == (field, True)
    assert right in found.message


@pytest.mark.parametrize(
    ("model", "values", "field", "said"),
    [
        (DIRECTOR, {"steps": 30}, "steps", "third party"),
        (DIRECTOR, {"seed": 1}, "seed", "third party"),
        (HAILUO, {"guidance_scale": 7}, "guidance_scale", "the docs' examples send it"),
        ("vidu/vidu-q1", {"fps": 24}, "fps", "third party"),
        ("vidu/vidu-q1", {"negative_prompt": "blur"}, "negative_prompt", "width, height, seconds, seed"),
        ("google/veo-3.1", {"seconds": 5}, "seconds", "4 or 6 or 8 seconds elsewhere"),
        ("google/veo-3.1", {"width": 640, "height": 360}, "width", "1280x720"),
        ("google/veo-3.1", {"ratio": "1:1"}, "ratio", "16:9, 9:16 elsewhere"),
        ("google/veo-3.1", {"resolution": "720p"}, "resolution", "sized by width and height"),
        ("google/veo-3.1", {"fps": 30}, "fps", "24 frames a second"),
        ("alibaba/happyhorse-1.1-i2v", {"prompt": "x" * 2501}, "prompt", "at most 2,500"),
        ("alibaba/happyhorse-1.1-i2v", {"resolution": "720P"}, "resolution", "is spelt 720p"),
        ("ByteDance/Seedance-2.0", {"width": 1280, "height": 720}, "width", "sized by resolution"),
        ("ByteDance/Seedance-2.0", {"generate_audio": False}, "generate_audio", "settings"),
        (SEEDANCE, {"generate_audio": False}, "generate_audio", "no effect"),
        (DIRECTOR, {"generate_audio": False}, "generate_audio", "leave it out"),
        (DIRECTOR, {"width": 1366}, "height", "give both (1366x768)"),
        (WAN, {"seconds": "7.5"}, "seconds", "only whole seconds"),
        (WAN, {"guidance_scale": 12.5}, "guidance_scale", "above 12"),
        (WAN, {"steps": 51}, "steps", "gains little"),
    ],
)
def test_what_only_others_say_or_what_is_unwise_is_a_warning(
    model: str, values: dict[str, object], field: str, said: str
) -> None:
    found = only(model, **values)

    assert (found.field, found.is_error) == (field, False)
    assert said in found.message


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (DIRECTOR, {"seconds": 5}),
        (DIRECTOR, {"seconds": "6"}),
        (HAILUO, {"seconds": 6}),
        (HAILUO, {"seconds": 10}),
        (WAN, {"guidance_scale": 12}),
        (WAN, {"steps": 50}),
        (WAN, {"prompt": "x" * 5000, "negative_prompt": "x" * 500, "seed": 2**31 - 1}),
        ("ByteDance/Seedance-2.0", {"extra_body": {"settings": {"audio": False}}}),
        ("pixverse/pixverse-v6", {"generate_audio": True}),
        ("google/veo-3.0-audio", {"generate_audio": True}),
        (
            "Wan-AI/Wan2.2-T2V-A14B",
            {"seconds": 5, "width": 640, "height": 360, "resolution": "x", "ratio": "y", "fps": 20},
        ),
    ],
)
def test_what_sources_allow_or_say_nothing_about_is_not_objected_to(model: str, values: dict[str, object]) -> None:
    assert findings(model, **values) == []


@pytest.mark.parametrize(
    ("model", "width", "height"),
    [
        ("ByteDance/Seedance-1.0-pro", 1920, 1088),
        ("pixverse/pixverse-v5", 720, 960),
        ("openai/sora-2-pro", 1920, 1080),
    ],
)
def test_a_size_on_which_sources_disagree_is_a_warning(model: str, width: int, height: int) -> None:
    found = only(model, width=width, height=height)

    assert not found.is_error
    assert "Together lists" in found.message


def test_a_prompt_is_not_needed_where_a_picture_is_enough() -> None:
    media = {"frame_images": ["https://example.com/a.png"]}

    assert findings("kwaivgI/kling-2.1-standard", prompt=None, media=media) == []


@pytest.mark.parametrize(("size", "warned"), [(30_000, False), (61_000, True)])
def test_an_inline_image_above_60_kb_is_a_warning(size: int, warned: bool) -> None:
    text = base64.b64encode(b"\x89PNG" + bytes(size)).decode()
    local = LocalImage(path="/t/cat.png", sha256="ab" * 32, size_bytes=size, media_type="image/png")
    images = {"frame_images": [text], "reference_images": [f"data:image/png;base64,{text}", local]}

    found = findings("x/unknown", media=images)

    assert [item.field for item in found] == [
        "media.frame_images",
        "media.reference_images",
        "media.reference_images",
    ][: 3 * warned]
    assert all("60 KB" in item.message and not item.is_error for item in found)


def test_a_finding_reads_as_parameter_and_message() -> None:
    assert str(Finding("fps", "24 is not a rate", is_error=True)) == "fps: 24 is not a rate"


def test_links_to_pages_are_warnings_in_every_field_that_takes_a_link() -> None:
    page, shown = "https://drive.google.com/file/d/1a/view?usp=sharing", "https://drive.google.com/file/d/1a/view?…"
    fields = ("frame_images", "reference_images", "frame_videos", "reference_videos")
    media = {
        **{field: [page] for field in fields},
        "source_video": page,
        "audio_inputs": [page],
        "reference_audios": [page],
    }

    found = check_request(VideoRequest.model_validate({"model": "acme/unheard-of", "prompt": "a cat", "media": media}))

    warned = [finding.field for finding in found if f"{shown} leads to a web page, not to the file" in finding.message]
    assert warned == [f"media.{field}" for field in media]
    assert not any(finding.is_error for finding in found)
