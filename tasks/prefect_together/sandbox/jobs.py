"""A job's life as a function of time and of its script, the clip that comes of it, and the file that keeps jobs.

Holds no clock and no HTTP.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import TypeAdapter

from prefect_together.request.catalogue import lines_of

if TYPE_CHECKING:
    from prefect_together.sandbox.models import ModelFacts

MISSING = "(missing)"
"""In a script: the answer has no `status` at all (None stands for `"status": null`)."""

COMPLETED_WORDS = frozenset({"completed", "succeeded", "success", "done"})
FAILED_WORDS = frozenset({"failed", "cancelled", "canceled", "error", "expired", "rejected"})
"""Statuses that end a job, in lower case. Together documents completed, failed and cancelled; scripts may use all."""

QUEUED_SHARE = 0.15
"""How much of its generation time a job spends `queued`."""

Ending = Literal["completed", "failed", "cancelled", "stuck"]


@dataclass(frozen=True)
class Failure:
    """Why a job ended `failed`, in the service's words."""

    code: str
    message: str


@dataclass(frozen=True)
class Script:
    """The statuses a job shows, one a read, or from given seconds after its creation on; the last one stays.

    `statuses` may hold None and `MISSING`. A scripted `completed` waits for no rendering.
    """

    statuses: tuple[str | None, ...]
    at_seconds: tuple[float, ...] | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if not self.statuses:
            raise ValueError("a script needs at least one status")
        if self.at_seconds is not None and len(self.at_seconds) != len(self.statuses):
            raise ValueError("a script by time needs one time for each status")

    def status(self, *, reads: int, elapsed_seconds: float) -> str | None:
        if self.at_seconds is None:
            return self.statuses[min(max(reads, 1), len(self.statuses)) - 1]
        shown = self.statuses[0]
        for at, status in zip(self.at_seconds, self.statuses, strict=True):
            if elapsed_seconds >= at:
                shown = status
        return shown


@dataclass(frozen=True)
class ClipPlan:
    """What a clip must be: pixels (even), seconds, frames a second, container and sound."""

    width: int
    height: int
    seconds: float
    fps: int
    webm: bool = False
    audio: bool = False

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.fps))

    @property
    def suffix(self) -> str:
        return ".webm" if self.webm else ".mp4"


def is_completed(status: str | None) -> bool:
    """Whether a status, in whatever word and case, is one of a job that has a clip."""
    return status is not None and status.lower() in COMPLETED_WORDS


def has_ended(status: str | None) -> bool:
    """Whether a status is final."""
    return status is not None and status.lower() in COMPLETED_WORDS | FAILED_WORDS


@dataclass
class Job:
    """One accepted job. Times are unix seconds of the sandbox's clock."""

    id: str
    request: Mapping[str, Any]
    plan: ClipPlan
    created_at: float
    generation_seconds: float
    cost_usd: float
    ending: Ending = "completed"
    failure: Failure | None = None
    script: Script | None = None
    hidden_reads: int = 0
    reads: int = 0
    clip_ready_at: float | None = None
    seen_final_at: float | None = None
    downloads: int = 0
    link: str | None = field(default=None, repr=False)
    link_issued_at: float = 0.0

    @property
    def model(self) -> str:
        return str(self.request.get("model", ""))

    @property
    def prompt(self) -> str:
        return str(self.request.get("prompt") or "")

    @property
    def suffix(self) -> str:
        return self.plan.suffix

    @property
    def made_by(self) -> str:
        """The model, and the seed if there is one: what clips of one prompt differ by."""
        seed = self.request.get("seed")
        return self.model if seed is None else f"{self.model}   seed {seed}"

    @property
    def due_at(self) -> float:
        return self.created_at + self.generation_seconds

    @property
    def is_billed(self) -> bool:
        """Whether it is, or will be, charged: failed and cancelled jobs cost nothing here."""
        return is_completed(self.script.statuses[-1]) if self.script else self.ending == "completed"

    def status(self, now: float, *, next_read: bool = False) -> str | None:
        """What the last read shows at `now`, or what one more read would show."""
        elapsed = now - self.created_at
        if self.script is not None:
            return self.script.status(reads=self.reads + next_read, elapsed_seconds=elapsed)
        if elapsed < self.generation_seconds * QUEUED_SHARE:
            return "queued"
        if elapsed < self.generation_seconds or self.ending == "stuck":
            return "in_progress"
        if self.ending == "completed" and self.clip_ready_at is None:
            return "in_progress"
        return self.ending

    def span(self, now: float) -> tuple[float, float]:
        """When it was at work, as far as is known at `now`."""
        if self.script is not None:
            return self.created_at, self.seen_final_at or now
        return self.created_at, min(now, self.due_at)

    def ended_at(self, now: float) -> float:
        """When it ended, as far as a read at `now` knows."""
        return min(now, max(self.due_at, self.clip_ready_at or self.due_at))


def peak_in_flight(spans: Sequence[tuple[float, float]]) -> int:
    """The most jobs at work in the same moment, from their (start, end) times."""
    events = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    peak = now = 0
    for _, step in events:
        now += step
        peak = max(peak, now)
    return peak


DEFAULT_SIZE = (1366, 768)
MAX_SIDE = 8192
MAX_SECONDS = 120.0
MAX_FPS = 120


def plan_clip(request: Mapping[str, Any], facts: ModelFacts) -> ClipPlan:
    """What the clip of `request` will be. Nonsense (0 pixels, "seconds" seconds) falls back to the model's defaults."""
    width, height = _size(request, facts)
    fps = _positive(request.get("fps"), MAX_FPS)
    seconds = _positive(request.get("seconds"), MAX_SECONDS)
    return ClipPlan(
        width=_even(width),
        height=_even(height),
        seconds=seconds or facts.seconds,
        fps=max(1, round(fps or facts.fps)),
        webm=request.get("output_format") == "WEBM",
        audio=_sound(request, facts),
    )


def resolution_size(
    resolution: str, ratio: str | None, own_sizes: Mapping[str, tuple[str, ...]]
) -> tuple[int, int] | None:
    """Pixels of `720p` and `16:9`: the model's own size nearest to that ratio, else the usual one.

    None for a resolution that nobody knows.
    """
    wanted = _ratio(ratio)
    for name, sizes in own_sizes.items():
        if name.lower() == resolution.lower():
            pixels = [(int(width), int(height)) for width, _, height in (size.partition("x") for size in sizes)]
            return min(pixels, key=lambda size: abs(math.log(size[0] / size[1] / wanted)))
    short = lines_of(resolution) or 0
    if not 16 <= short <= MAX_SIDE // 2:
        return None
    return (_even(short * wanted), short) if wanted >= 1 else (short, _even(short / wanted))


def _ratio(text: str | None) -> float:
    """Width over height; 16:9 for none and for what is no ratio ("auto")."""
    across, _, down = (text or "").partition(":")
    if across.isdecimal() and down.isdecimal() and 0 < int(across) <= 100 and 0 < int(down) <= 100:
        return int(across) / int(down)
    return 16 / 9


def _size(request: Mapping[str, Any], facts: ModelFacts) -> tuple[float, float]:
    width, height = (_positive(request.get(side), MAX_SIDE) for side in ("width", "height"))
    if width and height:
        return width, height
    resolution, ratio = request.get("resolution") or facts.resolution, request.get("ratio")
    named = None
    if isinstance(resolution, str):
        named = resolution_size(resolution, ratio if isinstance(ratio, str) else None, facts.resolution_sizes)
    across, down = named or facts.size or DEFAULT_SIZE
    if width:
        return width, min(width * down / across, MAX_SIDE)
    if height:
        return min(height * across / down, MAX_SIDE), height
    return across, down


def _sound(request: Mapping[str, Any], facts: ModelFacts) -> bool:
    if facts.always_audio:
        return True
    settings = request.get("settings")
    if isinstance(settings, Mapping) and cast("Mapping[str, object]", settings).get("audio") is False:
        return False
    wanted = request.get("generate_audio")
    return facts.audio if wanted is None else bool(wanted)


def _positive(value: object, limit: float) -> float | None:
    """`value` as a number above 0 and at most `limit`; text is read as the wire's `seconds` is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, limit) if math.isfinite(number) and number > 0 else None


def _even(pixels: float) -> int:
    """H.264 and VP8 in 4:2:0 need even sides."""
    return max(16, 2 * round(pixels / 2))


JOBS_FILE = "jobs.jsonl"
LONGEST_TEXT = 40_000
"""Inline images are longer than any prompt: they are not kept."""


class JsonLines:
    """A file of JSON objects, one a line, that is only appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        if not _ends_with_newline(path):
            self._file.write(b"\n")

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write one line at once. It outlives a kill of the sandbox, not of the machine."""
        self._file.write(json.dumps(fields).encode() + b"\n")

    def load(self) -> Iterator[dict[str, Any]]:
        """The lines of earlier runs, oldest first. A line that was cut short is left out."""
        for line in self._path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def close(self) -> None:
        self._file.close()


_KEPT = ("id", "request", "plan", "created_at", "generation_seconds", "cost_usd", "ending", "failure", "script")
"""What was decided of a job when it was accepted."""


def job_fields(job: Job) -> dict[str, Any]:
    """What is kept of a job in the file."""
    fields = asdict(job)
    return {name: fields[name] for name in _KEPT}


def job_of(fields: Mapping[str, Any]) -> Job:
    """The job of which `job_fields` were kept."""
    return TypeAdapter(Job).validate_python(fields)


def without_long_texts(value: Any) -> Any:
    """A JSON value with every very long text (an inline image) left out."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: without_long_texts(item) for name, item in fields.items()}
    if isinstance(value, list):
        return [without_long_texts(item) for item in cast("list[Any]", value)]
    return "(left out)" if isinstance(value, str) and len(value) > LONGEST_TEXT else value


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
