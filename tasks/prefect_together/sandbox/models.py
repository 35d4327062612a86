"""What the sandbox takes from the package's catalogue: a model's defaults, the limits it enforces, what it charges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import ValidationError

from prefect_together.request.catalogue import catalogue, estimate_usd
from prefect_together.request.model_spec import Lengths, ModelSpec
from prefect_together.request.request import PARAMETERS, VideoRequest

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
