"""The catalogue as a listing: filtered, with what a clip of default length costs, and against the live one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from prefect_together.catalogue import Mode, ModelSpec, catalogue, estimate_usd
from prefect_together.pricing import Estimate
from prefect_together.requests import VideoRequest


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model, and the price of one clip of which nothing is set but the prompt; None if no price is known."""

    spec: ModelSpec
    price: Estimate | None

    @property
    def sizes(self) -> str:
        """Its resolutions or dimensions, the first four."""
        choices = self.spec.resolutions or self.spec.dimensions
        values = choices.values if choices else ()
        return ", ".join(values[:4]) + (" ..." if len(values) > 4 else "")

    def as_dict(self) -> dict[str, Any]:
        """All that the catalogue knows, with `estimate`, for JSON."""
        return asdict(self.spec) | {"estimate": asdict(self.price) if self.price else None}


def listed_models(
    *,
    listed: bool = False,
    mode: Mode | None = None,
    organization: str | None = None,
    max_price_usd: float | None = None,
) -> list[ListedModel]:
    """The models that pass all filters, in the catalogue's order.

    `listed`: only what Together lists today. `max_price_usd` holds the high reading of a default clip against it;
    models of unknown price do not pass it.
    """
    found: list[ListedModel] = []
    for spec in catalogue().values():
        price = estimate_usd(VideoRequest(model=spec.id, prompt="any"))
        is_cheap = max_price_usd is None or (price is not None and price.high_usd <= max_price_usd)
        is_theirs = organization is None or organization.casefold() in spec.organization.casefold()
        if is_cheap and is_theirs and (spec.listed or not listed) and (mode is None or mode in spec.modes):
            found.append(ListedModel(spec, price))
    return found


@dataclass(frozen=True, slots=True)
class LiveDifferences:
    """What `GET /v1/models` says against the catalogue. `prices` are lines on example prices that no source has."""

    live_models: int
    unknown_here: tuple[str, ...]
    not_served: tuple[str, ...]
    served_though_unlisted: tuple[str, ...]
    prices: tuple[str, ...]


def live_differences(answer: object) -> LiveDifferences:
    """Compare the answer of `GET /v1/models` (a list, or an object with `data`) with the catalogue."""
    live = {str(entry.get("id")): entry for entry in _entries(answer) if entry.get("type") == "video"}
    known = catalogue()
    return LiveDifferences(
        live_models=len(live),
        unknown_here=tuple(name for name in live if name not in known),
        not_served=tuple(name for name, spec in known.items() if spec.listed and name not in live),
        served_though_unlisted=tuple(name for name, spec in known.items() if not spec.listed and name in live),
        prices=tuple(_price_differences(live, known)),
    )


def _entries(answer: object) -> list[dict[str, Any]]:
    if isinstance(answer, dict):
        answer = cast(dict[str, object], answer).get("data")
    entries = cast(list[object], answer) if isinstance(answer, list) else []
    return [cast(dict[str, Any], entry) for entry in entries if isinstance(entry, dict)]


def _price_differences(live: Mapping[str, dict[str, Any]], known: Mapping[str, ModelSpec]) -> Iterable[str]:
    for name, entry in live.items():
        pricing: Any = entry.get("pricing")
        video: Any = cast(dict[str, Any], pricing).get("video") if isinstance(pricing, dict) else None
        example: Any = cast(dict[str, Any], video).get("example_price") if isinstance(video, dict) else None
        if name not in known or isinstance(example, bool) or not isinstance(example, int | float):
            continue
        ours = sorted({price.usd for price in known[name].prices})
        if not any(abs(example - usd) < 0.005 for usd in ours):
            described = cast(dict[str, Any], video).get("example_description") or "no description"
            spelt = ", ".join(f"${usd:g}" for usd in ours) or "no price"
            yield f"{name}: ${example:g} ({described}) live, {spelt} in the catalogue"
