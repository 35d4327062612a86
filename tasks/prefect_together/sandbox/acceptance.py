"""What the service says of a create body at once (400, 404), and what it only finds out later (a failed job)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_together.sandbox.jobs import Failure
from prefect_together.sandbox.models import EXAMPLE_MODEL, ModelFacts

_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "prompt": (str,),
    "width": (int,),
    "height": (int,),
    "resolution": (str,),
    "ratio": (str,),
    "seconds": (str, int, float),
    "fps": (int,),
    "steps": (int,),
    "guidance_scale": (int, float),
    "seed": (int,),
    "negative_prompt": (str,),
    "output_format": (str,),
    "output_quality": (int,),
    "generate_audio": (bool,),
    "media": (dict,),
    "settings": (dict,),
    "frame_images": (list,),  # deprecated at the top level, still taken
    "reference_images": (list,),
}
_MEDIA: dict[str, tuple[type, ...]] = {
    "frame_images": (list,),
    "reference_images": (list,),
    "frame_videos": (list,),
    "reference_videos": (list,),
    "source_video": (str, dict),
    "audio_inputs": (list,),
    "reference_audios": (list,),
}


@dataclass(frozen=True)
class Refusal:
    """Why a create call is answered with an error: nothing is accepted, nothing billed."""

    http_status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = "invalid_parameter"
    param: str | None = None


def refusal_of(body: Mapping[str, Any] | None, facts: ModelFacts | None) -> Refusal | None:
    """Why the service does not take `body`, None if it does.

    `body` is None for what is no JSON object, `facts` for a model that does not exist.
    """
    if body is None:
        return Refusal(400, "The body must be a JSON object.", code="invalid_json")
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        return Refusal(400, "model is required.", param="model")
    if wrong := _wrong_field(body):
        return wrong
    if facts is None:
        message = f"Unable to access model {model}."
        return Refusal(404, message, code="model_not_available", param="model")
    return None if model == EXAMPLE_MODEL else _wrong_prompt(body, facts)


def failure_of(request: Mapping[str, Any], facts: ModelFacts) -> Failure | None:
    """Why the job will fail after it was accepted, None if it will not. Codes as documented (together-api.md, 3)."""
    if request["model"] == EXAMPLE_MODEL:
        return None
    for name in facts.unsupported:
        if _is_set(request, name):
            return Failure("unsupportedParameter", f"Parameter '{name}' is not supported by model {facts.id}.")
    if wrong := _wrong_length(request.get("seconds"), facts):
        return wrong
    resolution = request.get("resolution")
    if resolution is not None and facts.resolutions and resolution not in facts.resolutions:
        known = ", ".join(facts.resolutions)
        return Failure("InvalidParameter", f"Invalid resolution '{resolution}', expected one of {known}.")
    media: Mapping[str, Any] = request.get("media") or {}
    given = {name for name, value in (*media.items(), *request.items()) if value}
    if facts.first_frame_required and not given & {"frame_images", "frame_videos"}:
        message = f"Model {facts.id} is an image-to-video model and needs a first frame in frame_images."
        return Failure("missingFrameImagesForImageToVideoModel", message)
    if facts.needs and not given.intersection(facts.needs):
        return Failure("InvalidParameter", f"Model {facts.id} needs {' or '.join(facts.needs)}.")
    return None


def _is_set(request: Mapping[str, Any], name: str) -> bool:
    """Whether a parameter, or a part of one (`settings.audio`), was sent."""
    outer, dot, inner = name.partition(".")
    value = request.get(outer)
    return value is not None and (not dot or (isinstance(value, Mapping) and inner in value))


def _wrong_length(seconds: object, facts: ModelFacts) -> Failure | None:
    if seconds is None or facts.lengths is None:
        return None
    try:
        length = float(str(seconds))
    except ValueError:
        length = -1.0
    if length > 0 and facts.lengths.allows(length):
        return None
    return Failure("invalidDuration", f"Duration {seconds} is not supported, expected {facts.lengths} seconds.")


def _wrong_field(request: Mapping[str, Any]) -> Refusal | None:
    media: Mapping[str, Any] = request["media"] if isinstance(request.get("media"), Mapping) else {}
    for allowed, fields, at in ((_TYPES, request, ""), (_MEDIA, media, "media.")):
        for name, value in fields.items():
            if name not in allowed:
                return Refusal(400, f"Unknown parameter: {at}{name}.", code="unknown_parameter", param=at + name)
            if value is None:
                continue
            expected = allowed[name]
            if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
                words = " or ".join(kind.__name__ for kind in expected)
                return Refusal(400, f"{at}{name} must be {words}.", param=at + name)
    if str(request.get("output_format") or "MP4") not in ("MP4", "WEBM"):
        return Refusal(400, "output_format must be MP4 or WEBM.", param="output_format")
    return None


def _wrong_prompt(request: Mapping[str, Any], facts: ModelFacts) -> Refusal | None:
    length = len(request.get("prompt") or "")
    if length == 0:
        if facts.prompt_required:
            return Refusal(400, "prompt is required for this model.", param="prompt")
        return None
    if not facts.prompt_min <= length <= facts.prompt_max:
        limits = f"between {facts.prompt_min} and {facts.prompt_max} characters"
        return Refusal(400, f"prompt must be {limits}, it has {length}.", param="prompt")
    return None
