"""The 42 video models of Together AI (state of November 2026): look-up, checks and prices. Sends nothing.

Read once from the package's own models.json, which keeps the sources of every model. Limits change: the
checks are advice that callers can switch off.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType

from pydantic import TypeAdapter

from prefect_together.catalogue_checks import Finding, any_model_findings, parameter_findings
from prefect_together.inputs import Media
from prefect_together.media_checks import media_findings, places
from prefect_together.model_spec import (
    Choices,
    Keyframes,
    Lengths,
    Mode,
    ModelSpec,
    Price,
    Rates,
    Unsupported,
)
from prefect_together.pricing import Estimate, estimate
from prefect_together.requests import PARAMETERS, VideoRequest

__all__ = [
    "STATE",
    "Choices",
    "Estimate",
    "Finding",
    "Keyframes",
    "Lengths",
    "Mode",
    "ModelSpec",
    "Price",
    "Rates",
    "Unsupported",
    "catalogue",
    "check_request",
    "estimate_usd",
    "mode_of",
    "similar_models",
]

STATE = "November 2026"
"""When the facts were gathered."""


@cache
def catalogue() -> Mapping[str, ModelSpec]:
    """Every known model by its id, in the order of the reference: today's lists first."""
    text = files("prefect_together").joinpath("models.json").read_text(encoding="utf-8")
    specs = TypeAdapter(tuple[ModelSpec, ...]).validate_python(json.loads(text)["models"])
    return MappingProxyType({spec.id: spec for spec in specs})


def similar_models(model: str) -> list[str]:
    """At most three known ids that `model` may have been meant to be, the likeliest first."""
    by_name = {known.lower(): known for known in catalogue()}
    name = model.lower()
    same_tail = [known for known in catalogue() if known.lower().rpartition("/")[2] == name.rpartition("/")[2]]
    close = [by_name[match] for match in difflib.get_close_matches(name, by_name, n=3, cutoff=0.6)]
    return list(dict.fromkeys([*same_tail, *close]))[:3]


def mode_of(request: VideoRequest) -> Mode:
    """What kind of generation the request asks for, by the `media` that it brings."""
    media = request.media or Media()
    spec = catalogue().get(request.model)
    modes = spec.modes if spec else ()
    if media.source_video:
        return "videoedit"
    if media.frame_videos:
        return "continuation"
    if "audio" in modes and (media.reference_audios or media.audio_inputs):
        return "audio"
    if media.reference_videos:
        return "v2v" if "v2v" in modes else "ref"
    if media.reference_images:
        return "ref"
    if media.frame_images:
        found = places(media.frame_images, last_frame=None)
        between = "middle" in found or ("unknown" in found and "storyboard" in modes)
        return "storyboard" if between else "i2v"
    return "audio" if spec is None and (media.reference_audios or media.audio_inputs) else "t2v"


def check_request(request: VideoRequest) -> list[Finding]:
    """What the catalogue has against the request, in the order of the API's parameters; [] if nothing.

    An unknown model is a warning: only what holds for every model is checked then.
    """
    spec = catalogue().get(request.model)
    found = [*any_model_findings(request)]
    if spec is None:
        found.append(_unknown_model(request.model))
    else:
        found += [*parameter_findings(spec, request, catalogue()), *media_findings(spec, request)]
    order = {name: index for index, name in enumerate(PARAMETERS)}
    return sorted(found, key=lambda finding: order.get(finding.field.partition(".")[0], len(order)))


def estimate_usd(request: VideoRequest) -> Estimate | None:
    """The cost of one video in USD, low and high reading; None if the model or its price is unknown."""
    spec = catalogue().get(request.model)
    return None if spec is None else estimate(spec, request)


@lru_cache(maxsize=256)
def _unknown_model(model: str) -> Finding:
    meant = similar_models(model)
    spelt = [known for known in meant if known.lower() == model.lower()]
    if spelt:
        message = f"{model} is not a model's id, did you mean {spelt[0]}? Upper and lower case matter"
        return Finding("model", message, is_error=True)
    hint = f": did you mean {' or '.join(meant)}?" if meant else ""
    message = f"{model} is not in the catalogue of {STATE} and is sent unchecked, its price unknown{hint}"
    return Finding("model", message, is_error=False)
