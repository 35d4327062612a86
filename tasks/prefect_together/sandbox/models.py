"""Video models by the package's catalogue: defaults, prices, what a create call is refused for (400, 404), and what
the service only finds out later (a failed job)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from pydantic import ValidationError

from prefect_together.request.catalogue import catalogue, estimate_usd
from prefect_together.request.model_spec import Lengths, ModelSpec
from prefect_together.request.request import PARAMETERS, VideoRequest
from prefect_together.sandbox.jobs import Failure

EXAMPLE_MODEL = "model"
"""The id that the SDK's own tests send, with parameters that mean nothing: known to the sandbox only."""

UNKNOWN_PRICE_USD = 0.25
_SECONDS = 5.0
_FPS = 24


@dataclass(frozen=True)
class ModelFacts:
    """A model's defaults, and what it does not take. Only Together's own word counts as a limit here."""

    id: str
    size: tuple[int, int] | None = None
    resolution: str | None = None
    resolutions: tuple[str, ...] = ()
    resolution_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    seconds: float = _SECONDS
    lengths: Lengths | None = None
    fps: int = _FPS
    audio: bool = False
    always_audio: bool = False
    prompt_min: int = 1
    prompt_max: int = 32_000
    prompt_required: bool = False
    first_frame_required: bool = False
    needs: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()


def facts_of(model: str, *, accept_unknown: bool = False) -> ModelFacts | None:
    """What is known of a model; None for one that does not exist or was shut down."""
    spec = catalogue().get(model)
    if spec is not None and (spec.retired is None or accept_unknown):
        return _facts(spec.id)
    return ModelFacts(model) if accept_unknown or model == EXAMPLE_MODEL else None


@cache
def _facts(model: str) -> ModelFacts:
    spec = catalogue()[model]
    documented = spec.prompt_documented
    lengths = spec.seconds
    return ModelFacts(
        model,
        size=_default_size(spec),
        resolution=(spec.resolutions.default or spec.resolutions.values[0]) if spec.resolutions else None,
        resolutions=spec.resolutions.values if spec.resolutions and spec.resolutions.documented else (),
        resolution_sizes=spec.resolution_sizes,
        seconds=_default_seconds(lengths),
        lengths=lengths if lengths and lengths.documented else None,
        fps=spec.fps.values[0] if spec.fps else _FPS,
        audio=spec.audio in ("yes", "always", "on by default"),
        always_audio=spec.audio == "always",
        prompt_min=(spec.prompt_min if documented else None) or 1,
        prompt_max=(spec.prompt_max if documented else None) or 32_000,
        prompt_required=spec.prompt_required,
        first_frame_required=bool(spec.keyframes and spec.keyframes.first_required),
        needs=spec.needs,
        unsupported=tuple(entry.parameter for entry in spec.unsupported_params if entry.documented),
    )


def _default_size(spec: ModelSpec) -> tuple[int, int] | None:
    if spec.dimensions is None:
        return None
    width, _, height = (spec.dimensions.default or spec.dimensions.values[0]).partition("x")
    return int(width), int(height)


def _default_seconds(lengths: Lengths | None) -> float:
    if lengths is None:
        return _SECONDS
    if lengths.default is not None:
        return lengths.default
    return _SECONDS if lengths.allows(_SECONDS) else lengths.shortest


def price_usd(request: Mapping[str, Any]) -> float:
    """What the service charges: the lower reading of the catalogue's prices, a flat sum where none is known."""
    known = {name: value for name, value in request.items() if name in PARAMETERS}
    try:
        estimate = estimate_usd(VideoRequest.model_validate(known))
    except ValidationError:
        return UNKNOWN_PRICE_USD
    return UNKNOWN_PRICE_USD if estimate is None else estimate.low_usd


@cache
def model_list() -> list[dict[str, Any]]:
    """What GET /v1/models answers: the video models on offer, in the catalogue's order."""
    entries: list[dict[str, Any]] = []
    for spec in catalogue().values():
        price = spec.prices[0] if spec.prices else None
        video = {"example_price": price.usd, "example_description": f"per {price.unit}"} if price else {}
        if spec.is_offered:
            entries.append(
                {
                    "id": spec.id,
                    "object": "model",
                    "created": 0,
                    "type": "video",
                    "display_name": spec.id.partition("/")[2] or spec.id,
                    "organization": spec.organization,
                    "pricing": {"hourly": 0, "input": 0, "output": 0, "base": 0, "finetune": 0, "video": video},
                }
            )
    return entries


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
    if wrong := wrong_model(body):
        return wrong
    assert body is not None
    if wrong := _wrong_field(body):
        return wrong
    model = str(body["model"])
    if facts is None:
        return model_not_available(model)
    return None if model == EXAMPLE_MODEL else _wrong_prompt(body, facts)


def wrong_model(body: Mapping[str, Any] | None) -> Refusal | None:
    """Why a body is refused before anything else is read: it is no object, or names no model."""
    if body is None:
        return Refusal(400, "The body must be a JSON object.", code="invalid_json")
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        return Refusal(400, "model is required.", param="model")
    return None


def model_not_available(model: str) -> Refusal:
    return Refusal(404, f"Unable to access model {model}.", code="model_not_available", param="model")


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
    if wrong := wrong_type(request, _TYPES) or wrong_type(media, _MEDIA, at="media."):
        return wrong
    if str(request.get("output_format") or "MP4") not in ("MP4", "WEBM"):
        return Refusal(400, "output_format must be MP4 or WEBM.", param="output_format")
    return None


def wrong_type(fields: Mapping[str, Any], allowed: Mapping[str, tuple[type, ...]], *, at: str = "") -> Refusal | None:
    """The first field that nobody knows, or whose value is of the wrong type; null is as good as left out."""
    for name, value in fields.items():
        if name not in allowed:
            return Refusal(400, f"Unknown parameter: {at}{name}.", code="unknown_parameter", param=at + name)
        expected = allowed[name]
        if value is None or (isinstance(value, expected) and (bool in expected or not isinstance(value, bool))):
            continue
        words = " or ".join(kind.__name__ for kind in expected)
        return Refusal(400, f"{at}{name} must be {words}.", param=at + name)
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


def frame_pictures(request: Mapping[str, Any], frames: int) -> dict[str, str]:
    """What was sent for the `first` and the `last` of a clip's `frames`; pictures for frames between them do nothing.

    Without `frame`, one picture is the first, two are the first and the last.
    """
    media: Mapping[str, Any] = request.get("media") or {}
    sent: list[Any] = media.get("frame_images") or request.get("frame_images") or []
    found: dict[str, str] = {}
    for number, entry in enumerate(sent):
        is_object = isinstance(entry, Mapping)
        fields: Mapping[str, Any] = cast("Mapping[str, Any]", entry) if is_object else {"input_image": entry}
        at = fields.get("frame")
        if at is None:
            at = "first" if number == 0 else "last"
        elif isinstance(at, int | float):
            at = "first" if at <= 0 else "last" if at >= frames - 1 else at
        if isinstance(fields.get("input_image"), str) and at in ("first", "last"):
            found[at] = fields["input_image"]
    return found


def video_addresses(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields and URLs of all videos that were sent."""
    media: Mapping[str, Any] = request.get("media") or {}
    found: list[tuple[str, str]] = []
    for name in ("frame_videos", "reference_videos", "source_video"):
        value: Any = media.get(name) or []
        for entry in cast("list[Any]", value) if isinstance(value, list) else [value]:
            url: Any = cast("Mapping[str, Any]", entry).get("video") if isinstance(entry, Mapping) else entry
            if isinstance(url, str):
                found.append((f"media.{name}", url))
    return found
