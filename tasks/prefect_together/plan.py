"""From table rows to the videos that are wanted: identity, price, file names, shared work. Sends and writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_together.catalogue import estimate_usd
from prefect_together.errors import Problem
from prefect_together.identity import video_key
from prefect_together.names import derived_id, file_stem
from prefect_together.requests import VideoRequest

if TYPE_CHECKING:  # pandas comes with the table, and not everything that has a plan reads one
    from prefect_together.table import PromptTable, TableRow


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """One video that the table asks for.

    `estimate_usd` is the high reading of its price (what is reserved), `low_usd` the low one; None if unknown.
    `file_stems` are possible names without extension, best first: the first that no other work has is taken.
    """

    key: str
    row_id: str
    take: int
    fingerprint: str
    request: VideoRequest
    low_usd: float | None
    estimate_usd: float | None
    file_stems: Sequence[str]

    @property
    def extension(self) -> str:
        """The file's, dot included; MP4 unless WEBM is asked for."""
        return ".webm" if self.request.output_format == "WEBM" else ".mp4"

    def free_file(self, taken: Collection[str]) -> str:
        """Its path below the output directory: the first of its names that is not in `taken` (casefolded paths)."""
        names = [f"videos/{stem}{self.extension}" for stem in self.file_stems]
        return next(name for name in names if name.casefold() not in taken)


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the table, as its own `cells`, and the keys of its videos in the order of their takes.

    `number` is the row as a spreadsheet counts it. `shared_with` is the number of the earlier row whose job it shares,
    if all its videos are those of that row.
    """

    number: int
    cells: Mapping[str, str]
    row_id: str
    keys: tuple[str, ...]
    shared_with: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run will do, before it does it."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    videos: Mapping[str, PlannedVideo]
    warnings: tuple[Problem, ...]

    @property
    def high_usd(self) -> float:
        """What all videos of known price cost at most, in dollars."""
        return sum(video.estimate_usd or 0.0 for video in self.videos.values())

    @property
    def low_usd(self) -> float:
        """The sum at the lower reading of each price; what is unknown counts nothing."""
        return sum(video.low_usd or 0.0 for video in self.videos.values())

    @property
    def unknown_prices(self) -> int:
        """How many videos have no known price."""
        return sum(video.estimate_usd is None for video in self.videos.values())


def make_plan(table: PromptTable) -> Plan:
    """Give every row its identity and its videos. Identical rows without ids share their videos, with a warning."""
    videos: dict[str, PlannedVideo] = {}
    first_row_of: dict[str, int] = {}
    rows: list[PlannedRow] = []
    repeated: list[int] = []
    for row in table.rows:
        fingerprint = row.request.fingerprint()
        row_id = row.row_id or derived_id(row.request.prompt, fingerprint)
        keys = tuple(video_key(row_id, take, fingerprint) for take in range(1, row.count + 1))
        if any(key in videos for key in keys):
            repeated.append(row.number)
        shared_with = first_row_of.get(keys[0]) if all(key in videos for key in keys) else None
        for take, key in enumerate(keys, start=1):
            if key not in videos:
                first_row_of[key] = row.number
                videos[key] = _planned(row, row_id, take, key, fingerprint)
        rows.append(PlannedRow(row.number, row.cells, row_id, keys, shared_with))
    warnings = table.warnings
    if repeated:
        message = (
            f"{len(repeated)} row{'s repeat' if len(repeated) > 1 else ' repeats'} an earlier row and"
            f" share{'' if len(repeated) > 1 else 's'} its video: give rows an id, or a count, to get several takes"
        )
        warnings = (*warnings, Problem(message, row=repeated[0]))
    return Plan(table.source, table.columns, tuple(rows), videos, warnings)


def _planned(row: TableRow, row_id: str, take: int, key: str, fingerprint: str) -> PlannedVideo:
    estimate = None if row.price_usd is not None else estimate_usd(row.request)
    stem = file_stem(row_id, take=take)
    return PlannedVideo(
        key=key,
        row_id=row_id,
        take=take,
        fingerprint=fingerprint,
        request=row.request,
        low_usd=estimate.low_usd if estimate else row.price_usd,
        estimate_usd=estimate.high_usd if estimate else row.price_usd,
        file_stems=(stem, f"{stem}-{fingerprint[:8]}", f"{stem}-{key}"),
    )
