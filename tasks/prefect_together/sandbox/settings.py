"""How a sandbox behaves: speed, shape, clips, links, limits. Values only; faults are in `faults`."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

Shape = Literal["spec", "iso", "legacy"]
"""The three documented response shapes: OpenAPI document and SDK, newest docs, older docs (together-api.md, 2)."""

RENDER = "render"
SHARED = "shared"
TINY = "tiny"

_DISTRIBUTIONS = {"fixed": 1, "uniform": 2, "lognormal": 2, "exponential": 1}


@dataclass(frozen=True)
class Generation:
    """How long a job takes from acceptance to its end, before `speed`: a distribution over seconds."""

    kind: str
    parameters: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3`, `uniform:LOW:HIGH`, `lognormal:MEDIAN:SIGMA` or `exponential:MEAN`. Raises ValueError."""
        kind, *rest = text.strip().split(":")
        if not rest:
            kind, rest = "fixed", [kind]
        if len(rest) != _DISTRIBUTIONS.get(kind, -1):
            known = "3, uniform:2:6, lognormal:90:0.35, exponential:60"
            raise ValueError(f"{text!r} is no generation time: give it like one of {known}")
        try:
            values = tuple(float(value) for value in rest)
        except ValueError:
            raise ValueError(f"{text!r} is no generation time: {rest} are not seconds") from None
        if any(value < 0 or not math.isfinite(value) for value in values) or (kind == "lognormal" and values[0] == 0):
            raise ValueError(f"{text!r} is no generation time: seconds must be positive")
        return cls(kind, values)

    def sample(self, rng: random.Random) -> float:
        """Draw one duration in seconds."""
        first = self.parameters[0]
        if self.kind == "uniform":
            return rng.uniform(first, self.parameters[1])
        if self.kind == "lognormal":
            return math.exp(rng.gauss(math.log(first), self.parameters[1]))
        if self.kind == "exponential":
            return rng.expovariate(1 / first) if first else 0.0
        return first


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """Everything about a sandbox that stays as it is while it runs.

    `speed` divides every generation time. `clip` is "render" (each job its own clip that shows its prompt), "tiny"
    (one small clip for all), "shared" (one clip for all jobs of a size, length and rate) or the path of a file to
    serve for all jobs; `clip_bytes` pads each MP4 to that size.
    `file_host` is the host name in clip links ("localhost" makes them another origin than the API's 127.0.0.1).
    `is_marked`: answers carry the header by which clients recognize the sandbox; without it they take it for real.
    `creates_per_second` is the unannounced limit that `DynamicLimit` describes, None for no limit.
    """

    shape: Shape = "iso"
    speed: float = 1.0
    generation: Generation = field(default_factory=lambda: Generation("lognormal", (3.0, 0.3)))
    state_dir: Path | None = None
    seed: int | None = None
    clip: str = RENDER
    clip_bytes: int = 0
    render_processes: int | None = None
    answer_unknown_ids: bool = False
    accept_unknown_models: bool = False
    send_cost: bool = True
    is_marked: bool = True
    cost_factor: float = 1.0
    file_host: str = "127.0.0.1"
    link_seconds: float = 3600.0
    expired_status: int = 403
    ranges: bool = True
    etags: bool = True
    content_lengths: bool = True
    late_seconds: float = 90.0
    stall_seconds: float = 90.0
    retry_after_seconds: float = 1.0
    hidden_reads: int = 2
    too_large_bytes: int = 5_000_000_000
    creates_per_second: float | None = None
    rate_window_seconds: float = 3600.0
    keep_requests: int = 1000

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError(f"speed {self.speed} must be above 0")
