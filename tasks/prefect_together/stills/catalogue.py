"""What the list of image models has against a request for a still, and what the still costs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from prefect_together.request.catalogue import CLOSE_TAIL, Estimate
from prefect_together.request.checks import UNCHECKED, Finding
from prefect_together.stills.models import STATE, ImageModel, image_models
from prefect_together.stills.request import StillRequest


def similar_image_models(model: str) -> list[str]:
    """At most three ids that an unknown `model` was probably meant to be, the likeliest first.

    Upper and lower case, the maker's name before the slash, and slips of the pen do not count.
    """
    tails = {known.lower().rpartition("/")[2]: known for known in image_models()}
    name = model.lower().rpartition("/")[2]
    if name in tails:
        return [tails[name]]
    return [tails[tail] for tail in difflib.get_close_matches(name, tails, n=3, cutoff=CLOSE_TAIL)]


def check_still(request: StillRequest) -> list[Finding]:
    """What is known against a request; [] if nothing. A model that is like no known one is not checked, but named."""
    known = image_models().get(request.model)
    return [_unknown_model(request.model)] if known is None else list(_findings(known, request))


def _unknown_model(model: str) -> Finding:
    meant = similar_image_models(model)
    if not meant:
        message = f"{model} is not among the image models of {STATE} and is sent unchecked, its price unknown"
        return Finding("model", message, is_error=False)
    message = f"{model} is not among the image models of {STATE}: did you mean {' or '.join(meant)}? {UNCHECKED}"
    return Finding("model", message, is_error=True)


def _findings(known: ImageModel, request: StillRequest) -> Iterator[Finding]:
    if not known.listed:
        message = f"{known.id} is no longer in Together's list of image models ({STATE}): expect a refusal"
        yield Finding("model", message, is_error=False)
    if request.steps is not None and not known.takes_steps:
        yield Finding("steps", f"{known.id} may not take steps: leave them out", is_error=False)
    if known.sizes and request.width and request.height and f"{request.width}x{request.height}" not in known.sizes:
        message = f"{request.width}x{request.height} is not a size of {known.id}: {', '.join(known.sizes)}"
        yield Finding("width", message, is_error=True)


def estimate_still_usd(request: StillRequest) -> Estimate | None:
    """The cost of one still in USD, low and high reading; None if its model is unknown.

    FLUX models that are billed by the megapixel cost more above their default steps, and not less below. Of a model
    that is billed by the image an older list gives the same price for a megapixel: the higher of both is the high
    reading, the lower the low one.
    """
    known = image_models().get(request.model)
    if known is None:
        return None
    megapixels = (request.width or 1024) * (request.height or 1024) / 1_000_000
    by_size = known.usd * megapixels
    if request.steps is not None and known.default_steps is not None:
        by_size *= max(1.0, request.steps / known.default_steps)
    size = f"{request.width or 1024}x{request.height or 1024}"
    if known.unit == "megapixel":
        return Estimate(round(by_size, 6), round(by_size, 6), f"${known.usd:g} a megapixel; {size}", known.price_date)
    low, high = sorted((known.usd, by_size))
    basis = f"${known.usd:g} an image, in an older list a megapixel; {size}"
    return Estimate(round(low, 6), round(high, 6), basis, known.price_date)
