"""One sound request for each model of the catalogue in each of its modes, for tests against the sandbox."""

from __future__ import annotations

from prefect_together.request.catalogue import catalogue
from prefect_together.request.model_spec import Mode, ModelSpec
from prefect_together.request.request import VideoRequest

PROMPT = "A paper boat drifts down a rain-filled gutter, close to the water"
IMAGE_URL = "https://example.com/boat.png"
OTHER_IMAGE_URL = "https://example.com/harbour.png"
VIDEO_URL = "https://example.com/boat.mp4"
AUDIO_URL = "https://example.com/rain.mp3"


def every_model_and_mode() -> list[tuple[str, Mode]]:
    """(model id, mode) of everything the catalogue says can be made today."""
    return [(model, mode) for model, spec in catalogue().items() if spec.retired is None for mode in spec.modes]


def example_request(model: str, mode: Mode) -> VideoRequest:
    """A request of `model` in `mode` to which the catalogue has no objection, sized and timed where that is known."""
    spec = catalogue()[model]
    values: dict[str, object] = {"model": model, **_shape(spec)}
    if spec.prompt_required:
        values["prompt"] = PROMPT
    media = _media(spec, mode)
    if media:
        values["media"] = media
    return VideoRequest.model_validate(values)


def _shape(spec: ModelSpec) -> dict[str, object]:
    values: dict[str, object] = {}
    if spec.seconds is not None:
        values["seconds"] = spec.seconds.default or spec.seconds.shortest
    if spec.dimensions is not None:
        width, _, height = spec.dimensions.values[0].partition("x")
        values |= {"width": int(width), "height": int(height)}
    if spec.resolutions is not None:
        values["resolution"] = spec.resolutions.values[0]
    if spec.ratios is not None and spec.sizing == "resolution":
        values["ratio"] = "16:9"
    return values


def _media(spec: ModelSpec, mode: Mode) -> dict[str, object]:
    first = {"input_image": IMAGE_URL, "frame": "first"}
    last = {"input_image": OTHER_IMAGE_URL, "frame": "last"}
    match mode:
        case "t2v":
            return {}
        case "i2v":
            return {"frame_images": [first, last] if spec.keyframes and spec.keyframes.last else [first]}
        case "storyboard":
            return {"frame_images": [first, {"input_image": OTHER_IMAGE_URL, "frame": 48}, last]}
        case "ref":
            return {"reference_images": [IMAGE_URL]}
        case "v2v":
            return {"reference_videos": [{"video": VIDEO_URL}]}
        case "audio":
            return {"reference_images": [IMAGE_URL], "reference_audios": [AUDIO_URL]}
        case "continuation":
            return {"frame_videos": [{"video": VIDEO_URL}]}
        case "videoedit":
            return {"source_video": VIDEO_URL}
