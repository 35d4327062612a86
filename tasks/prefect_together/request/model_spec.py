"""What is known about one video model, as read from models.json. No checks, no prices worked out.

`documented` says how strong a fact is: Together's own word (a request against it is wrong), or known
from other hosts only (worth a warning).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["t2v", "i2v", "ref", "v2v", "audio", "storyboard", "continuation", "videoedit"]
"""From text, frames, references, reference videos, sound, many keyframes, a clip to go on, a clip to edit."""

MediaField = Literal[
    "frame_images",
    "reference_images",
    "frame_videos",
    "reference_videos",
    "source_video",
    "audio_inputs",
    "reference_audios",
]
Audio = Literal["no", "yes", "always", "on by default", "optional", "unknown"]


@dataclass(frozen=True)
class Lengths:
    """Clip lengths in seconds: single `values` or a range. `default` is the model's own, None if unknown."""

    documented: bool
    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    whole: bool = False
    default: float | None = None

    def allows(self, seconds: float) -> bool:
        """Whether a clip may be so long."""
        if self.values:
            return seconds in self.values
        if self.whole and seconds != int(seconds):
            return False
        return self.shortest <= seconds <= self.longest

    @property
    def shortest(self) -> float:
        return min(self.values) if self.values else (self.low or 0)

    @property
    def longest(self) -> float:
        return max(self.values) if self.values else (self.high or 0)

    def __str__(self) -> str:
        if self.values:
            return " or ".join(f"{value:g}" for value in self.values)
        return f"{self.low:g} to {self.high:g}{' (whole seconds)' if self.whole else ''}"


@dataclass(frozen=True)
class Choices:
    """Values of a text parameter, spelt as they are sent. `elsewhere`: other hosts'."""

    documented: bool
    values: tuple[str, ...]
    default: str | None = None
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """Frames a second that the model makes; the first one is its default."""

    documented: bool
    values: tuple[int, ...]


@dataclass(frozen=True)
class Keyframes:
    """Which frames can be fixed by a picture, and how many (`most`); `anywhere` for a storyboard."""

    documented: bool
    first: bool
    last: bool
    first_required: bool
    most: int
    anywhere: bool

    def __str__(self) -> str:
        if self.anywhere:
            return f"up to {self.most} frames"
        return "the first and the last frame" if self.last else "the first frame only"


@dataclass(frozen=True)
class Unsupported:
    """A parameter (or `settings.audio`, in `extra_body`) with which jobs fail, and who says so."""

    parameter: str
    documented: bool
    why: str


@dataclass(frozen=True)
class Price:
    """One published price in USD and what it holds for (None: anything). `source` "" is Together's list."""

    usd: float
    unit: Literal["video", "second", "5 seconds"]
    resolution: str | None = None
    audio: bool | None = None
    video_input: bool | None = None
    source: str = ""


@dataclass(frozen=True)
class Retired:
    """Who shut a model down and when (ISO date), by which source, and the id of a model to use instead."""

    by: str
    date: str
    successor: str
    source: str


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalogue, state of November 2026; None or empty where nothing is known.

    `listing` is what `listed` rests on; a model may be listed although it is `retired`. `reference_limits` maps the
    fields of `media` (frame images aside) that the model takes to the most items, None for no known limit; `needs` are
    fields of which one must be given. `price_text`, `price_unit` and `price_basis` are the sources' own words,
    `price_date` when they were read.
    """

    id: str
    organization: str
    listed: bool
    listing: str
    modes: tuple[Mode, ...]
    prompt_min: int | None
    prompt_max: int | None
    prompt_required: bool
    audio: Audio
    prices: tuple[Price, ...]
    price_unit: str | None
    price_text: str | None
    price_basis: str | None
    price_date: str | None
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()
    retired: Retired | None = None
    prompt_documented: bool = True
    seconds: Lengths | None = None
    sizing: Literal["pixels", "resolution"] | None = None
    sizing_documented: bool = False
    dimensions: Choices | None = None
    resolutions: Choices | None = None
    resolution_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    ratios: Choices | None = None
    fps: Rates | None = None
    keyframes: Keyframes | None = None
    reference_limits: Mapping[MediaField, int | None] = field(default_factory=dict["MediaField", "int | None"])
    inputs_documented: bool = True
    inputs_unclear: tuple[MediaField, ...] = ()
    needs: tuple[MediaField, ...] = ()
    frames_or_references: bool = False
    negative_prompt_max: int | None = None
    seed_low: int | None = None
    seed_high: int | None = None
    unsupported_params: tuple[Unsupported, ...] = ()
    only_params: tuple[str, ...] = ()
    input_video_charged: bool = False

    @property
    def is_offered(self) -> bool:
        """Whether to offer it to somebody who chooses: listed by Together, and not shut down by its maker."""
        return self.listed and self.retired is None
