"""The result of every row, its sums, and the text of results.csv."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeGuard

from prefect_together.errors import FailureClass
from prefect_together.grid.columns import (
    CLIP_COLUMNS,
    RESULT_COLUMNS,
    STILL_RESULT_COLUMNS,
    VIDEO_COLUMNS,
    escape_cell,
    meaning_of,
    parameter_name,
)
from prefect_together.ledger.states import STATES, STATUSES, State, Status
from prefect_together.request.request import PARAMETERS
from prefect_together.table.variants import LISTED

# Excel takes a file that begins with ID for a format of its own (SYLK), unless that is quoted.
_NEEDS_QUOTES = re.compile(r'[",;\t\r\n]|^\s|\s$|^ID')
_OF_VIDEOS = frozenset({"id", "prompt", "prompt_template", "count", *LISTED})
"""What videos.csv has in columns of its own, under the API's names."""
_LINE_BREAKS = re.compile(r"[\s\x00-\x1f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeResult:
    """One video: a row has one of these, or as many as its `count` asks for (`take` 1, 2, 3 ...).

    `key` is the video's identity in plan and ledger. `file` is a POSIX path relative to the output directory
    ("videos/x.mp4"), `file_url` an https address of the same clip where the output is remote. `cost_usd` is what the
    service billed, None while it is unknown; `estimate_usd` the high reading before sending; `in_doubt_usd` and
    `failed_usd` what stays reserved for create calls without an answer, and for failed jobs without a reported cost.
    `attempts` counts the create requests that made a job or may have made one (not those refused for rate).
    `parameters` is what was sent besides model and prompt, with images abbreviated.
    """

    row_id: str
    key: str | None = None
    take: int = 1
    status: Status
    model: str
    prompt: str | None = None
    parameters: Mapping[str, object]
    job_id: str | None = None
    file: str | None = None
    file_url: str | None = None
    cost_usd: float | None = None
    estimate_usd: float | None = None
    in_doubt_usd: float = 0.0
    failed_usd: float = 0.0
    attempts: int = 0
    error: str | None = None
    failure_class: FailureClass | None = None
    duration_seconds: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    has_audio: bool | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    generation_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row of the table, as its own `cells`, with its videos.

    `number` is the row as a spreadsheet counts it (the header is row 1). `shared_with` is the number of the
    earlier identical row whose job this row shares; `takes` then repeats that row's, and no dollars are
    counted twice. `still` is what the videos begin with, if that is made for them.
    """

    number: int
    cells: Mapping[str, str]
    takes: tuple[TakeResult, ...]
    shared_with: int | None = None
    still: TakeResult | None = None

    @property
    def status(self) -> Status:
        """That of the least finished take: a row is downloaded only when all of its videos are."""
        statuses = {take.status for take in self.takes}
        for status in reversed(STATUSES):
            if status in statuses:
                return status
        return "planned"

    @property
    def failed_still(self) -> TakeResult | None:
        """The still, if a video waits for it and it does not come by waiting."""
        if self.still is None or not STATES[State(self.still.status)].is_failure:
            return None
        return self.still if any(take.status == "planned" for take in self.takes) else None

    @property
    def attempted(self) -> tuple[TakeResult, ...]:
        """Its videos; in place of those that are not sent for want of the still, the still."""
        if self.failed_still is None:
            return self.takes
        return (self.failed_still, *(take for take in self.takes if take.status != "planned"))

    @property
    def decisive(self) -> TakeResult:
        """The first video that has the row's status, one with an error before others."""
        return min(self.takes, key=lambda take: (take.status != self.status, not take.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals:
    """One model's videos, or stills. The `settled` pair covers exactly the videos of which both dollars are known.

    `clip_usd` is what a downloaded clip was charged on average, `generation_seconds` the median; None if unknown.
    """

    model: str
    videos: int
    downloaded: int
    failed: int
    clip_usd: float | None
    spent_usd: float
    settled_usd: float
    settled_estimate_usd: float
    generation_seconds: float | None

    @property
    def drift(self) -> float | None:
        """How far the bill is from the estimate: 0.1 is 10 % dearer. None while nothing can be compared."""
        return self.settled_usd / self.settled_estimate_usd - 1 if self.settled_estimate_usd > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A table's results in figures; a job shared by several rows counts once in videos and dollars.

    `in_doubt_usd` and `failed_usd` are estimates of what may have been billed with no clip to show for it:
    requests without an answer, and jobs that ended without a clip and without a known cost (whether
    Together charges for those is not documented). `unpriced_videos` counts the videos of which no price is
    known: the sums leave them out. `stills` count beside the videos, and in the dollars.
    """

    rows: int
    rows_by_status: Mapping[Status, int]
    videos: int
    stills: int
    spent_usd: float
    estimated_usd: float
    in_doubt_usd: float
    failed_usd: float
    unpriced_videos: int
    models: tuple[ModelTotals, ...]


def results_csv(columns: Sequence[str], rows: Iterable[RowResult]) -> bytes:
    """The content of results.csv: the table's own `columns` in order, then `RESULT_COLUMNS`; a line per row.

    If a row has a still, `STILL_RESULT_COLUMNS` follow.

    A row of several takes joins their job ids and files by "|", adds up cost and attempts, and names the
    take before each error. A row that shares an earlier row's job names the same file at cost and attempts
    0, so that the columns' sums are what was paid and sent. The first row with a still has its dollars in
    `cost_usd` and its calls in `attempts` too. An empty `cost_usd` is an unknown cost.

    Lines end in LF; line breaks inside a cell stay as they are, in quotes. UTF-8, with a byte order mark if
    and only if something in it is not ASCII: without one Excel misreads such text, and saving it there
    would change prompts, which would then be paid for again.
    """
    rows = list(rows)
    results = _result_columns(rows)
    own = [column for column in columns if column not in results]
    lines = [_line([*map(escape_cell, own), *results])]
    counted: set[str] = set()
    for row in rows:
        outcome = _outcome(row, counted)[: len(results)]
        lines.append(_line([*(escape_cell(row.cells.get(column, "")) for column in own), *outcome]))
    return _encoded(lines)


def videos_csv(columns: Sequence[str], rows: Iterable[RowResult]) -> bytes:
    """The content of videos.csv: a line for each video of the rows, with all that was sent for it. Bytes as above.

    It is itself a prompt table, of the same work: `id` is the row's own (empty if it has none), `video_id` and `take`
    say which of its videos it is. Then come prompt, model and every other parameter, the table's `columns` that are
    none of these, `RESULT_COLUMNS`, `STILL_RESULT_COLUMNS` if a row has a still, and `CLIP_COLUMNS`.
    """
    rows = list(rows)
    results = _result_columns(rows)
    takes: dict[str, tuple[RowResult, TakeResult]] = {}
    for row in rows:
        for take in row.takes:
            takes.setdefault(take.key or f"{take.row_id} {take.take}", (row, take))
    sent = {name for _, take in takes.values() for name in take.parameters}
    id_column = _column_of("id", columns)
    own = [column for column in columns if column not in results and _is_carried(column, columns)]
    parameters = [
        name
        for name in (*PARAMETERS, "extra_body")
        if name in sent - {"media"} and name not in map(parameter_name, own)
    ]
    header = ["id", *VIDEO_COLUMNS, "prompt", "model", *parameters, *own, *results, *CLIP_COLUMNS]
    lines = [_line(map(escape_cell, header))]
    counted: set[str] = set()
    for row, take in takes.values():
        cells = [row.cells.get(id_column, "") if id_column else "", take.row_id, str(take.take)]
        cells += [take.prompt or "", take.model]
        cells += [_cell(take.parameters.get(name)) for name in parameters]
        cells += [row.cells.get(column, "") for column in own]
        seconds = (take.duration_seconds, take.generation_seconds)
        clip = [
            *("" if value is None else f"{value:.3f}".rstrip("0").rstrip(".") for value in seconds),
            take.sha256 or "",
        ]
        outcome = _outcome(replace(row, takes=(take,), shared_with=None), counted)[: len(results)]
        lines.append(_line([*map(escape_cell, cells), *outcome, *clip]))
    return _encoded(lines)


def _result_columns(rows: Iterable[RowResult]) -> tuple[str, ...]:
    return (*RESULT_COLUMNS, *STILL_RESULT_COLUMNS) if any(row.still for row in rows) else RESULT_COLUMNS


def _is_carried(column: str, columns: Sequence[str]) -> bool:
    """Whether videos.csv has a column of the table as it stands: not what it has a column of its own for."""
    if column in (*RESULT_COLUMNS, *VIDEO_COLUMNS, *CLIP_COLUMNS):
        return False
    meant = meaning_of(column)
    return meant not in _OF_VIDEOS or column != _column_of(meant, columns)


def _column_of(name: str, columns: Sequence[str]) -> str | None:
    """The table's column that sets a parameter."""
    exact = (column for column in columns if parameter_name(column) == name)
    return next(exact, next((column for column in columns if meaning_of(column) == name), None))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def totals(rows: Iterable[RowResult]) -> Totals:
    """Count states and add up dollars."""
    rows, counts = list(rows), dict.fromkeys(STATUSES, 0)
    once: dict[object, TakeResult] = {}  # a row with another count may share some of its jobs with an earlier one
    for row in rows:
        counts[row.status] += 1
        if row.shared_with is None:
            once |= {take.key or (take.row_id, take.take, take.job_id or object()): take for take in row.takes}
    videos = list(once.values())
    takes = [*videos, *{row.still.key: row.still for row in rows if row.still is not None}.values()]
    by_model: dict[str, list[TakeResult]] = {}
    for take in takes:
        by_model.setdefault(take.model, []).append(take)

    return Totals(
        rows=sum(counts.values()),
        rows_by_status=counts,
        videos=len(videos),
        stills=len(takes) - len(videos),
        spent_usd=_usd(take.cost_usd for take in takes),
        estimated_usd=_usd(take.estimate_usd for take in takes),
        in_doubt_usd=_usd(take.in_doubt_usd for take in takes),
        failed_usd=_usd(take.failed_usd for take in takes),
        unpriced_videos=sum(take.cost_usd is None and take.estimate_usd is None for take in takes),
        models=tuple(_model_totals(model, by_model[model]) for model in sorted(by_model, key=str.casefold)),
    )


def _model_totals(model: str, takes: Sequence[TakeResult]) -> ModelTotals:
    settled = [take for take in takes if _is_known(take.cost_usd) and _is_known(take.estimate_usd)]
    clips = [take.cost_usd for take in takes if take.status == "downloaded" and _is_known(take.cost_usd)]
    generation = [take.generation_seconds for take in takes if take.generation_seconds is not None]
    return ModelTotals(
        model=model,
        videos=len(takes),
        downloaded=sum(take.status == "downloaded" for take in takes),
        failed=sum(take.status == "failed" for take in takes),
        clip_usd=_usd(clips) / len(clips) if clips else None,
        spent_usd=_usd(take.cost_usd for take in takes),
        settled_usd=_usd(take.cost_usd for take in settled),
        settled_estimate_usd=_usd(take.estimate_usd for take in settled),
        generation_seconds=median(generation) if generation else None,
    )


def _outcome(row: RowResult, counted: set[str]) -> list[str]:
    """The cells of `RESULT_COLUMNS` and `STILL_RESULT_COLUMNS`; adds its keys to those of earlier lines, `counted`."""
    takes, still = row.takes, row.still
    own = [] if row.shared_with is not None else [take for take in takes if take.key not in counted]
    own_stills = [still] if still is not None and still.key not in counted else []
    counted |= {take.key for take in (*takes, *own_stills) if take.key}
    is_known = any(_is_known(take.cost_usd) for take in (*takes, *own_stills))
    return [
        row.status,
        escape_cell("|".join(take.job_id for take in takes if take.job_id)),
        escape_cell("|".join(take.file for take in takes if take.file)),
        _number(_usd(take.cost_usd for take in (*own, *own_stills))) if is_known else "",
        str(sum(take.attempts for take in (*own, *own_stills))),
        escape_cell(_errors(takes)),
        escape_cell(still.file or "") if still is not None else "",
        _number(_usd(one.cost_usd for one in own_stills)) if still is not None and _is_known(still.cost_usd) else "",
    ]


def _errors(takes: Sequence[TakeResult]) -> str:
    """Each video's error on one line."""
    errors = [(take, _LINE_BREAKS.sub(" ", take.error).strip()) for take in takes if take.error]
    if len(takes) == 1:
        return errors[0][1] if errors else ""
    has_variants = len({take.row_id for take in takes}) > 1
    return " | ".join(f"{_name(take, has_variants=has_variants)}: {error}" for take, error in errors)


def _name(take: TakeResult, *, has_variants: bool) -> str:
    """Like `take 2`, or `boat--vidu-q1` or `boat--vidu-q1 take 2` in a row of several variants."""
    if not has_variants:
        return f"take {take.take}"
    return take.row_id if take.take == 1 else f"{take.row_id} take {take.take}"


def _encoded(lines: Iterable[str]) -> bytes:
    text = "".join(lines)
    return text.encode("utf-8" if text.isascii() else "utf-8-sig", errors="replace")


def _line(cells: Iterable[str]) -> str:
    return ",".join([_quoted(cell) if _NEEDS_QUOTES.search(cell) else cell for cell in cells]) + "\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _usd(amounts: Iterable[float | None]) -> float:
    """Their sum to a millionth of a dollar, so that ten times 0.1 is 1."""
    return round(math.fsum(amount for amount in amounts if _is_known(amount)), 6)


def _is_known(amount: float | None) -> TypeGuard[float]:
    return amount is not None and math.isfinite(amount)
