"""The image models of Together AI (state of October 2026): what each costs and takes. Checks nothing, sends nothing.

Read once from image_models.json. Together's documents list one price for each model, "per MP". A later one says that
only the models it serves itself are billed by the megapixel, and the others by the image, at their provider's price:
`unit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from pydantic import TypeAdapter

STATE = "October 2026"
"""When the facts were gathered."""

DEFAULT_MODEL = "black-forest-labs/FLUX.2-dev"
"""Where nobody names one: the cheapest FLUX model that Together lists."""


@dataclass(frozen=True)
class ImageModel:
    """One image model. `usd` is the listed price for one `unit`, read at `price_date`, at `default_steps` or fewer.

    `sizes` ("1024x1024") are the only ones it takes, `least_pixels` and `most_pixels` bound width x height; empty or
    None where nothing is known. `sized_by_ratio`: it may give another size of the same shape than was asked for.
    """

    id: str
    listed: bool
    usd: float
    unit: Literal["megapixel", "image"]
    price_date: str
    sources: tuple[str, ...]
    default_steps: int | None = None
    takes_steps: bool = False
    takes_prompt_upsampling: bool = False
    sized_by_ratio: bool = False
    sizes: tuple[str, ...] = ()
    least_pixels: int | None = None
    most_pixels: int | None = None
    sizes_source: str = ""


@cache
def image_models() -> Mapping[str, ImageModel]:
    """Every known model by its id: those that are listed today first."""
    text = files("prefect_together.stills").joinpath("image_models.json").read_text(encoding="utf-8")
    found = TypeAdapter(tuple[ImageModel, ...]).validate_python(json.loads(text)["models"])
    return MappingProxyType({model.id: model for model in found})
