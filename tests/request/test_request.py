"""A video request: what it takes, what it sends, what it refuses, and when two are the same work."""

from __future__ import annotations

import base64
import json
import math
import pickle

import pytest
from pydantic import ValidationError

from prefect_together.request.media import LocalImage
from prefect_together.request.request import PARAMETERS, VideoRequest, problems_of

MODEL = "minimax/video-01-director"
URL = "https://example.com/cat.png"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
PNG_TEXT = base64.b64encode(PNG).decode()
LOCAL = LocalImage(path="/tables/cat.png", sha256="ab12" * 16, size_bytes=108, media_type="image/png")


def request(**values: object) -> VideoRequest:
    return VideoRequest.model_validate({"model": MODEL, "prompt": "a cat", **values})


def problems(**values: object) -> dict[str, str]:
    """What is wrong with a request of these values, by parameter."""
    with pytest.raises(ValidationError) as caught:
        VideoRequest.model_validate({"model": MODEL, "prompt": "a cat", **values})
    return dict(problems_of(caught.value))


def test_only_what_was_set_is_sent() -> None:
    assert request().create_kwargs() == {"model": MODEL, "prompt": "a cat"}


def test_values_that_are_false_or_zero_are_sent() -> None:
    sent = request(seed=0, generate_audio=False, output_quality=0).create_kwargs()

    assert (sent["seed"], sent["generate_audio"], sent["output_quality"]) == (0, False, 0)


def test_an_explicit_none_and_empty_media_are_not_sent() -> None:
    sent = request(seed=None, seconds=None, media={"frame_images": [], "source_video": None}).create_kwargs()

    assert sent == {"model": MODEL, "prompt": "a cat"}


def test_every_parameter_is_sent_under_its_own_name() -> None:
    values: dict[str, object] = {
        "width": 1366,
        "height": 768,
        "resolution": "720p",
        "ratio": "16:9",
        "seconds": "8",
        "fps": 24,
        "steps": 30,
        "guidance_scale": 7.5,
        "seed": 42,
        "negative_prompt": "blurry",
        "output_format": "WEBM",
        "output_quality": 20,
        "generate_audio": True,
        "media": {"reference_images": [URL]},
    }

    sent = request(**values).create_kwargs()

    assert sent == {"model": MODEL, "prompt": "a cat", **values}
    assert tuple(sent) == PARAMETERS


def test_every_kind_of_media_is_sent_in_todays_form() -> None:
    media: dict[str, object] = {
        "frame_images": [{"input_image": URL, "frame": "first"}, {"input_image": URL, "frame": 48}],
        "reference_images": [URL, PNG_TEXT],
        "frame_videos": [{"video": "https://example.com/a.mp4"}],
        "reference_videos": [{"video": "https://example.com/b.mp4"}],
        "source_video": "https://example.com/c.mp4",
        "audio_inputs": ["https://example.com/d.mp3"],
        "reference_audios": ["https://example.com/e.mp3"],
    }

    assert request(media=media).create_kwargs()["media"] == media


def test_the_other_documented_forms_of_media_are_taken() -> None:
    media = {
        "frame_images": [URL],
        "frame_videos": ["https://example.com/a.mp4"],
        "source_video": {"video": "https://example.com/c.mp4"},
        "audio_inputs": [{"audio": "https://example.com/d.mp3"}],
    }

    assert request(media=media).create_kwargs()["media"] == {
        "frame_images": [{"input_image": URL}],
        "frame_videos": [{"video": "https://example.com/a.mp4"}],
        "source_video": "https://example.com/c.mp4",
        "audio_inputs": ["https://example.com/d.mp3"],
    }


def test_media_and_extra_body_can_be_json_text_as_in_a_table() -> None:
    made = request(media=json.dumps({"reference_images": [URL]}), extra_body='{"settings": {"audio": false}}')

    sent = made.create_kwargs()

    assert sent["media"] == {"reference_images": [URL]}
    assert sent["extra_body"] == {"settings": {"audio": False}}


def test_older_top_level_images_are_moved_into_media() -> None:
    made = request(
        frame_images=[{"input_image": URL, "frame": 0}],
        reference_images=[URL],
        media={"source_video": "https://example.com/c.mp4"},
    )

    assert made.create_kwargs()["media"] == {
        "frame_images": [{"input_image": URL, "frame": 0}],
        "reference_images": [URL],
        "source_video": "https://example.com/c.mp4",
    }


def test_the_same_images_in_the_older_and_in_todays_form_are_an_error() -> None:
    found = problems(frame_images=[URL], media={"frame_images": [URL]})

    assert "twice" in found["frame_images"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [(8, "8"), ("8", "8"), (8.0, "8"), ("8.0", "8"), (" 08 ", "8"), ("7.5", "7.5"), (7.5, "7.5"), ("7.50", "7.50")],
)
def test_seconds_are_sent_as_text(given: object, sent: str) -> None:
    assert request(seconds=given).create_kwargs()["seconds"] == sent


@pytest.mark.parametrize("given", ["8s", "", "abc", 0, -1, True, math.nan, math.inf, 5000, [8], "1e1"])
def test_seconds_that_are_no_length_are_refused(given: object) -> None:
    assert "a number above 0, such as 8" in problems(seconds=given)["seconds"]


@pytest.mark.parametrize(("given", "sent"), [("mp4", "MP4"), ("Webm", "WEBM"), ("MP4", "MP4")])
def test_the_output_format_may_be_written_in_any_case(given: str, sent: str) -> None:
    assert request(output_format=given).create_kwargs()["output_format"] == sent


def test_a_guidance_scale_keeps_its_own_kind_of_number() -> None:
    assert repr(request(guidance_scale=7).create_kwargs()["guidance_scale"]) == "7"
    assert repr(request(guidance_scale=7.0).create_kwargs()["guidance_scale"]) == "7.0"
    assert repr(request(guidance_scale="7.5").create_kwargs()["guidance_scale"]) == "7.5"


def test_numbers_of_a_table_are_taken_as_text() -> None:
    made = request(width="1366", height=768.0, seed="7", fps="24")

    assert (made.width, made.height, made.seed, made.fps) == (1366, 768, 7, 24)


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("fps", 14, "15 to 60"),
        ("fps", 61, "15 to 60"),
        ("fps", True, "15 to 60"),
        ("fps", 24.5, "whole number"),
        ("width", 0, "pixels"),
        ("height", -768, "pixels"),
        ("steps", 0, "10 to 50"),
        ("seed", 1.5, "whole number"),
        ("seed", True, "whole number"),
        ("seed", "abc", "whole number"),
        ("guidance_scale", math.nan, "6 to 10"),
        ("guidance_scale", math.inf, "6 to 10"),
        ("guidance_scale", True, "6 to 10"),
        ("guidance_scale", -1, "6 to 10"),
        ("output_format", "avi", "MP4 or WEBM"),
        ("output_quality", -1, "lower is better"),
        ("generate_audio", "perhaps", "true nor false"),
        ("prompt", "", "leave it out"),
        ("prompt", "   ", "leave it out"),
        ("prompt", "x" * 32_001, "32,000"),
        ("prompt", "a\x00b", "NUL"),
        ("prompt", "a \ud83d cat", "cannot be sent"),
        ("prompt", 7, "not text"),
        ("negative_prompt", "", "leave it out"),
        ("resolution", "", "720p"),
        ("resolution", 720, "not text"),
        ("model", "two words", "no spaces"),
        ("model", "", "minimax/video-01-director"),
        ("media", "{", "not JSON"),
        ("media", 7, "not an object"),
        ("extra_body", {"seed": 1}, "parameter of its own"),
        ("extra_body", {"x": math.nan}, "NaN"),
        ("extra_body", {"x": "\udc00"}, "cannot be sent"),
        ("model", "a/\ud800", "no spaces"),
        ("resolution", "7\n20p", "720p"),
    ],
)
def test_what_can_be_right_for_no_model_is_refused_with_what_is_right(field: str, value: object, right: str) -> None:
    assert right in problems(**{field: value})[field]


@pytest.mark.parametrize("frame", [-1, math.nan, math.inf, "middle", True])
def test_a_frame_is_first_last_or_a_number(frame: object) -> None:
    found = problems(media={"frame_images": [{"input_image": URL, "frame": frame}]})

    assert "first, last or a frame's number" in found["media.frame_images.0.frame"]


def test_two_images_for_one_frame_are_refused() -> None:
    frames = [{"input_image": URL, "frame": "first"}, {"input_image": URL, "frame": "First"}]

    assert "one image a frame" in problems(media={"frame_images": frames})["media.frame_images"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("promt", "prompt"), ("duration", "seconds"), ("aspect_ratio", "ratio"), ("size", "width and height")],
)
def test_an_unknown_parameter_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert f"did you mean {meant}?" in problems(**{name: "x"})[name]


def test_an_unknown_part_of_media_is_named_with_what_was_meant() -> None:
    found = problems(media={"frame_image": [URL]})

    assert "did you mean frame_images?" in found["media.frame_image"]


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems(fps=5, seconds="x", colour="red", frame_images=["no image"], media={"frame_images": [URL]})

    assert set(found) == {"fps", "seconds", "colour", "frame_images"}


def test_the_report_does_not_repeat_the_values() -> None:
    with pytest.raises(ValidationError) as caught:
        request(media={"frame_images": ["x" * 10_001]})

    assert len(str(caught.value)) < 500


def test_a_local_image_becomes_bare_base64_only_when_sent() -> None:
    made = request(media={"frame_images": [{"input_image": LOCAL, "frame": "first"}]})

    sent = made.create_kwargs(encode_image=lambda image: f"bytes of {image.path}")

    assert sent["media"]["frame_images"] == [{"input_image": "bytes of /tables/cat.png", "frame": "first"}]


def test_a_local_image_cannot_be_sent_without_a_reader() -> None:
    with pytest.raises(TypeError, match="encode_image"):
        request(media={"reference_images": [LOCAL]}).create_kwargs()


def test_a_request_comes_back_from_its_own_json_and_from_a_pickle() -> None:
    made = request(seconds=8, guidance_scale=7, media={"frame_images": [{"input_image": LOCAL, "frame": 3}]})

    from_json = VideoRequest.model_validate_json(made.model_dump_json(exclude_none=True))
    from_pickle = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes

    assert from_json == made == from_pickle
    assert from_json.fingerprint() == made.fingerprint()


def test_the_fingerprint_is_the_one_that_ledgers_already_hold() -> None:
    made = request(seconds=8, width=1366, height=768, media={"frame_images": [{"input_image": LOCAL, "frame": 0}]})

    assert made.fingerprint() == "d706594a3ad90c0856a56da0cf1af51d9853b571c56e47ca51669673d01b5ab1"


def test_the_same_work_in_another_spelling_has_the_same_fingerprint() -> None:
    one = request(seconds=8, guidance_scale=7, frame_images=[{"input_image": URL, "frame": 0}], output_format="mp4")
    other = VideoRequest.model_validate(
        {
            "output_format": "MP4",
            "media": {"frame_images": [{"frame": 0.0, "input_image": URL}], "reference_images": []},
            "guidance_scale": 7.0,
            "seconds": "8",
            "prompt": "a cat",
            "model": MODEL,
        }
    )

    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("change", [{"seed": 1}, {"prompt": "A cat"}, {"seconds": "9"}, {"extra_body": {"a": 1}}])
def test_other_work_has_another_fingerprint(change: dict[str, object]) -> None:
    assert request(seconds="8").fingerprint() != request(**{"seconds": "8", **change}).fingerprint()


def test_a_local_image_counts_by_its_content_not_by_its_path() -> None:
    here = request(media={"reference_images": [LOCAL]})
    moved = request(media={"reference_images": [LOCAL.model_copy(update={"path": "/elsewhere/x.png"})]})
    changed = request(media={"reference_images": [LOCAL.model_copy(update={"sha256": "cd34" * 16})]})

    assert here.fingerprint() == moved.fingerprint()
    assert here.fingerprint() != changed.fingerprint()


def test_parameters_for_pages_hold_no_bytes_and_no_signed_address() -> None:
    made = request(
        media={
            "frame_images": [LOCAL],
            "reference_images": [PNG_TEXT, f"data:image/png;base64,{PNG_TEXT}", f"{URL}?signature=secret"],
            "source_video": "https://user:word@example.com/c.mp4?token=secret",
        }
    )

    media = made.parameters(with_prompt=False)["media"]

    assert media["frame_images"] == [{"input_image": "cat.png (sha256 ab12ab12…)"}]
    assert media["reference_images"] == [
        "base64 image (0 KB)",
        "data:image/png;base64,… (0 KB)",
        "https://example.com/cat.png?…",
    ]
    assert media["source_video"] == "https://example.com/c.mp4?…"
    assert "prompt" not in made.parameters(with_prompt=False)
    assert made.parameters()["prompt"] == "a cat"


def test_the_model_describes_itself_for_forms() -> None:
    fields = VideoRequest.model_json_schema()["properties"]

    assert set(PARAMETERS) < set(fields)
