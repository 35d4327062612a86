"""The 42 video models of Together AI (state of November 2026): look-up, checks and prices.

Read once from the package's own models.json, which keeps the sources of every model. Limits change: the
checks are advice that callers can switch off.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType

from pydantic import TypeAdapter

from prefect_together.request.checks import (
    UNCHECKED,
    VIDEOS,
    Finding,
    any_model_findings,
    count,
    media_findings,
    parameter_findings,
    seed_findings,
)
from prefect_together.request.fields import counted
from prefect_together.request.model_spec import ModelSpec, Price
from prefect_together.request.request import PARAMETERS, VideoRequest

STATE = "November 2026"
"""When the facts were gathered."""

CLOSE, CLOSE_TAIL, FEWEST_CHARACTERS = 0.75, 0.65, 3
"""The likeness (difflib's ratio) to a known id, the same for a name without a maker, and the characters in common, from
which on an unknown id is taken for a mistyped one."""


@cache
def catalogue() -> Mapping[str, ModelSpec]:
    """Every known model by its id, in the order of the reference: today's lists first."""
    text = files("prefect_together.request").joinpath("models.json").read_text(encoding="utf-8")
    specs = TypeAdapter(tuple[ModelSpec, ...]).validate_python(json.loads(text)["models"])
    return MappingProxyType({spec.id: spec for spec in specs})


def similar_models(model: str) -> list[str]:
    """At most three ids that an unknown `model` was probably meant to be, the likeliest first.

    Upper and lower case, the maker's name before the slash, and slips of the pen do not count.
    """
    name = model.lower()
    offered_first = sorted(catalogue().values(), key=lambda spec: not spec.is_offered)
    by_name = {spec.id.lower(): spec.id for spec in offered_first}
    if name in by_name:
        return [by_name[name]]
    tails = {known.rpartition("/")[2]: right for known, right in by_name.items()}
    if same := tails.get(name.rpartition("/")[2]):
        return [same]
    if "/" in name:
        return [by_name[match] for match in difflib.get_close_matches(name, by_name, n=3, cutoff=CLOSE)]
    longer = [tail for tail in tails if len(name) >= FEWEST_CHARACTERS and name in tail]
    close = difflib.get_close_matches(name, tails, n=3, cutoff=CLOSE_TAIL)
    return [tails[tail] for tail in dict.fromkeys([*longer, *close])][:3]


def check_request(request: VideoRequest, *, takes: int = 1) -> list[Finding]:
    """What the catalogue has against `takes` takes of a request, in the order of the API's parameters; [] if nothing.

    Of a model that is like no known one only what holds for every model is checked, with a warning.
    """
    spec = catalogue().get(request.model)
    found = [*any_model_findings(request), *seed_findings(spec, request, takes)]
    if spec is None:
        found.append(_unknown_model(request.model))
    else:
        found += [*parameter_findings(spec, request, catalogue()), *media_findings(spec, request)]
    order = {name: index for index, name in enumerate(PARAMETERS)}
    return sorted(found, key=lambda finding: order.get(finding.field.partition(".")[0], len(order)))


@lru_cache(maxsize=256)
def _unknown_model(model: str) -> Finding:
    meant = similar_models(model)
    if not meant:
        message = f"{model} is not in the catalogue of {STATE} and is sent unchecked, its price unknown"
        return Finding("model", message, is_error=False)
    message = f"{model} is not in the catalogue of {STATE}: did you mean {' or '.join(meant)}? {UNCHECKED}"
    return Finding("model", message, is_error=True)


_TIER_LINES = {"hd": 720, "fhd": 1080, "2k": 1440, "4k": 2160}
_HIGHEST_UNASKED_LINES = 1440
"""A model never makes 4k unless it is asked to."""


@dataclass(frozen=True)
class Estimate:
    """USD for one video. `basis` says how it was worked out, `as_of` when the prices were read."""

    low_usd: float
    high_usd: float
    basis: str
    as_of: str


def estimate_usd(request: VideoRequest) -> Estimate | None:
    """The cost of one video in USD, low and high reading; None if the model is unknown or no published price fits."""
    spec = catalogue().get(request.model)
    if spec is None:
        return None
    lines, sized = _lines_asked_for(spec, request)
    fitting = [price for price in spec.prices if _fits(price, request)]
    prices = _for_lines([price for price in fitting if not price.video_input], lines)
    prices += _for_lines([price for price in fitting if price.video_input], lines)
    if not prices:
        return None
    shortest, longest, length = _lengths(spec, request)
    inputs = sum(count(request.media, field) for field in VIDEOS) if spec.input_video_charged else 0
    low = min(_usd(price, shortest) for price in prices)
    longest_input = spec.seconds.longest if spec.seconds else longest  # nobody says how long an input may be
    high = max(_usd(price, longest + inputs * longest_input) for price in prices)
    sources = ", ".join(dict.fromkeys(_spelt(price, spec.price_basis) for price in prices))
    charged = f"; {counted(inputs, 'input video')} charged too" if inputs else ""
    basis = f"{sources}; {length}{sized}{charged}"
    return Estimate(round(low, 6), round(high, 6), basis, spec.price_date or "unknown")


def _fits(price: Price, request: VideoRequest) -> bool:
    if price.audio is not None and request.generate_audio is not None and price.audio != request.generate_audio:
        return False
    has_video = bool(request.media and (request.media.reference_videos or request.media.source_video))
    return has_video or not price.video_input


def _lines_asked_for(spec: ModelSpec, request: VideoRequest) -> tuple[int | None, str]:
    """The picture's lines (720, 1080 ...), None if neither asked for nor known, and how `basis` says so."""
    if request.resolution:
        return lines_of(request.resolution), f" at {request.resolution}"
    if request.width and request.height and not spec.resolutions:
        return _lines_of_area(request.width * request.height), f" at {request.width}x{request.height}"
    default = spec.resolutions.default if spec.resolutions else None
    if default:
        return lines_of(default), f" at {default} (default)"
    return None, ""


def lines_of(resolution: str) -> int | None:
    """720 for "720p", 2160 for "4k", None for what is unknown."""
    text = resolution.lower()
    found = re.fullmatch(r"(\d{3,4})p", text)
    return int(found[1]) if found else _TIER_LINES.get(text)


def _lines_of_area(pixels: int) -> int:
    """The smallest usual 16:9 size of at least about as many pixels (square 720x720 is a 540p price)."""
    for lines in (360, 480, 540, 720, 1080, 1440):
        if pixels <= lines * lines * 16 / 9 * 1.02:
            return lines
    return 2160


def _for_lines(prices: list[Price], lines: int | None) -> list[Price]:
    """The prices for this many lines: the next larger published size where there is none, [] above all."""
    general = [price for price in prices if price.resolution is None]
    sized = [(lines_of(price.resolution) or 0, price) for price in prices if price.resolution is not None]
    if not sized:
        return general
    if lines is None:
        usual = [price for at, price in sized if at <= _HIGHEST_UNASKED_LINES]
        return [*general, *(usual or [price for _, price in sized])]
    enough = sorted({at for at, _ in sized if at >= lines})
    if not enough:
        return []
    return [*general, *(price for at, price in sized if at == enough[0])]


def _lengths(spec: ModelSpec, request: VideoRequest) -> tuple[float, float, str]:
    """The shortest and the longest clip that can be meant, in seconds, and how `basis` says so."""
    if request.seconds:
        return float(request.seconds), float(request.seconds), f"{request.seconds} s"
    if spec.seconds is None:
        return 0, 0, "length unknown"
    if spec.seconds.default is not None:
        return spec.seconds.default, spec.seconds.default, f"{spec.seconds.default:g} s (default)"
    low, high = spec.seconds.shortest, spec.seconds.longest
    return low, high, f"{low:g} to {high:g} s (default length unknown)"


def _usd(price: Price, seconds: float) -> float:
    if price.unit == "video":
        return price.usd
    return price.usd * seconds / (5 if price.unit == "5 seconds" else 1)


def _spelt(price: Price, basis: str | None) -> str:
    """`$0.28 a video (720p/5s)`, `$0.16 a second at 720p`."""
    dollars = f"${price.usd:.2f}" if round(price.usd, 2) == price.usd else f"${price.usd:g}"
    per = "for 5 seconds" if price.unit == "5 seconds" else f"a {price.unit}"
    size = f" at {price.resolution}" if price.resolution else ""
    source = price.source or (basis if price.unit == "video" else "")
    return f"{dollars} {per}{size}" + (f" ({source})" if source else "")
