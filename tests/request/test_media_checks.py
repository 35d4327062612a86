"""What the catalogue objects to in a request's pictures, clips and sounds."""

from __future__ import annotations

import pytest

from prefect_together.request.catalogue import check_request
from prefect_together.request.checks import Finding, frame_places
from prefect_together.request.media import FrameImage
from prefect_together.request.request import VideoRequest

IMAGE = "https://example.com/a.png"
VIDEO = "https://example.com/a.mp4"
AUDIO = "https://example.com/a.mp3"
FIRST = {"input_image": IMAGE, "frame": "first"}
LAST = {"input_image": IMAGE, "frame": "last"}


def findings(model: str, media: dict[str, object] | None, **values: object) -> list[Finding]:
    given = {"model": model, "prompt": "a cat", "media": media, **values}
    return [found for found in check_request(VideoRequest.model_validate(given)) if found.field != "model"]


@pytest.mark.parametrize(
    ("model", "media", "field", "right"),
    [
        ("minimax/video-01-director", {"frame_images": [LAST]}, "frame_images", "the first frame only"),
        ("minimax/video-01-director", {"frame_images": [FIRST, LAST]}, "frame_images", "the first frame only"),
        ("minimax/video-01-director", {"frame_images": [{"input_image": IMAGE, "frame": 40}]}, "frame_images", "first"),
        ("vidu/vidu-q1", {"frame_images": [{"input_image": IMAGE, "frame": 48}]}, "frame_images", "first and the last"),
        ("vidu/vidu-q1", {"frame_images": [IMAGE, IMAGE, IMAGE]}, "frame_images", "the first and the last frame"),
        ("black-forest-labs/FLUX-3", {"frame_images": [IMAGE] * 11}, "frame_images", "up to 10 frames"),
        ("Wan-AI/wan2.7-t2v", {"frame_images": [FIRST]}, "frame_images", "takes no frame images"),
        ("kwaivgI/kling-2.1-standard", None, "frame_images", "needs one"),
        ("kwaivgI/kling-2.1-pro", {"frame_images": [LAST]}, "frame_images", "needs one"),
        ("alibaba/happyhorse-1.1-i2v", None, "frame_images", "needs one"),
        ("Wan-AI/wan2.7-i2v", None, "frame_images", "needs one or frame_videos"),
        ("Wan-AI/Wan2.2-I2V-A14B", None, "frame_images", "needs one"),
        ("Wan-AI/wan2.7-r2v", None, "reference_images", "reference_images or reference_videos"),
        ("alibaba/happyhorse-1.1-r2v", None, "reference_images", "needs reference_images"),
        ("Wan-AI/wan2.7-videoedit", None, "source_video", "needs source_video"),
        ("minimax/video-01-director", {"reference_images": [IMAGE]}, "reference_images", "it takes frame_images"),
        ("Wan-AI/Wan2.2-T2V-A14B", {"source_video": VIDEO}, "source_video", "leave it out"),
        ("Wan-AI/wan2.7-t2v", {"audio_inputs": [AUDIO, AUDIO]}, "audio_inputs", "at most 1"),
        ("Wan-AI/wan2.7-t2v", {"reference_audios": [AUDIO]}, "reference_audios", "it takes audio_inputs"),
        ("Wan-AI/wan2.7-i2v", {"frame_videos": [VIDEO, VIDEO]}, "frame_videos", "at most 1"),
        ("ByteDance/Seedance-2.5", {"reference_images": [IMAGE] * 31}, "reference_images", "at most 30"),
        ("ByteDance/Seedance-2.5", {"reference_videos": [VIDEO] * 11}, "reference_videos", "at most 10"),
        ("ByteDance/Seedance-2.0", {"reference_audios": [AUDIO] * 4}, "reference_audios", "at most 3"),
        ("ByteDance/Seedance-2.5", {"audio_inputs": [AUDIO]}, "audio_inputs", "it takes frame_images"),
        (
            "ByteDance/Seedance-2.5",
            {"frame_images": [FIRST], "reference_images": [IMAGE]},
            "frame_images",
            "not both: leave out reference_images",
        ),
    ],
)
def test_media_that_a_model_cannot_work_with_are_an_error(
    model: str, media: dict[str, object] | None, field: str, right: str
) -> None:
    (found,) = findings(model, media)

    assert (found.field, found.is_error) == (f"media.{field}", True)
    assert right in found.message


@pytest.mark.parametrize(
    ("model", "media"),
    [
        ("google/veo-3.1", {"reference_images": [IMAGE]}),
        ("google/veo-3.1", {"frame_images": [IMAGE, IMAGE, IMAGE]}),
        ("ByteDance/Seedance-2.0", {"source_video": VIDEO}),
        ("black-forest-labs/FLUX-3", {"reference_images": [IMAGE]}),
    ],
)
def test_media_that_nobody_documents_are_a_warning(model: str, media: dict[str, object]) -> None:
    (found,) = findings(model, media)

    assert not found.is_error


@pytest.mark.parametrize(
    ("model", "media"),
    [
        ("Wan-AI/wan2.7-i2v", {"frame_videos": [VIDEO]}),
        ("Wan-AI/wan2.7-i2v", {"frame_images": [{"input_image": IMAGE, "frame": 0}], "audio_inputs": [AUDIO]}),
        ("Wan-AI/wan2.7-r2v", {"reference_videos": [VIDEO, VIDEO, VIDEO]}),
        ("Wan-AI/wan2.7-videoedit", {"source_video": VIDEO, "reference_images": [IMAGE]}),
        ("vidu/vidu-q1", {"frame_images": [IMAGE, IMAGE]}),
        ("vidu/vidu-q1", {"frame_images": [IMAGE, {"input_image": IMAGE, "frame": 119}]}),
        ("ByteDance/Seedance-2.5", {"reference_images": [IMAGE] * 30, "reference_audios": [AUDIO] * 10}),
        ("black-forest-labs/FLUX-3", {"frame_images": [IMAGE] * 10}),
        ("pixverse/pixverse-v6", {"frame_images": [FIRST, LAST]}),
        ("vidu/vidu-q3-turbo", {"reference_images": [IMAGE] * 7}),
    ],
)
def test_media_that_a_model_takes_are_not_objected_to(model: str, media: dict[str, object]) -> None:
    assert findings(model, media) == []


@pytest.mark.parametrize(("values", "is_error"), [({"seconds": 5, "fps": 24}, True), ({"seconds": 5}, False)])
def test_a_frame_beyond_the_end_is_wrong_for_sure_only_if_length_and_rate_are_given(
    values: dict[str, object], is_error: bool
) -> None:
    media: dict[str, object] = {"frame_images": [FIRST, {"input_image": IMAGE, "frame": 121}]}

    (found,) = findings("black-forest-labs/FLUX-3", media, **values)

    assert (found.is_error, "seconds x fps is 120" in found.message) == (is_error, True)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([None], ["first"]),
        ([None, None], ["first", "last"]),
        ([None, None, None], ["first", "middle", "last"]),
        ([None, "last"], ["first", "last"]),
        (["last", None], ["last", "first"]),
        ([0, 60, 120], ["first", "middle", "last"]),
        ([0, 119], ["first", "last"]),
    ],
)
def test_frames_that_are_not_named_take_the_places_that_are_left(
    frames: list[int | str | None], expected: list[str]
) -> None:
    images = [FrameImage.model_validate({"input_image": IMAGE, "frame": frame}) for frame in frames]

    assert frame_places(images, last_frame=120) == expected
