"""What a run leaves besides the clips: results.csv, videos.csv, index.html, made from the plan and the ledger alone."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic.alias_generators import to_camel

from prefect_together.clips.store import OutputStore
from prefect_together.errors import SourceMissing
from prefect_together.ledger.records import Unsettled, VideoRecord
from prefect_together.ledger.states import STATES, State
from prefect_together.ledger.transitions import RUN_ENDED
from prefect_together.results.outcome import advice, as_typed, kind_of
from prefect_together.results.results import RowResult, TakeResult, Totals, results_csv, totals, videos_csv
from prefect_together.results.text import dollars
from prefect_together.table.plan import Plan, PlannedVideo

if TYPE_CHECKING:
    from prefect_together.films.films import Film  # with libav, which no run waits for at its start

MAX_TEXT_CHARACTERS = 40_000
"""Longer texts are cut in the page, and say so: above the API's own limit of 32,000 for a prompt."""

_SHOWN_ELSEWHERE = {"id", "prompt", "model", "count"}
_MARKERS = re.compile(r"@@(POLICY|TITLE|DATA|STYLE|SCRIPT)@@")
_SCRIPTS = ("text", "head", "films", "view", "lines", "cards", "clips", "together", "dialog", "controls")
"""The page's one script, in the order of its parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSummary:
    """The run around the rows, as far as it is known.

    `table` is the prompt table's name, `written_at` an ISO 8601 time with offset. `is_running` says that the run still
    works and the page will be written again; `is_sandbox` that the clips are imitations and nothing was paid. `films`
    are joined from the clips. `only_stills`: the run was to end when the stills are there.
    """

    table: str | None = None
    written_at: str | None = None
    run_seconds: float | None = None
    budget_usd: float | None = None
    is_running: bool = False
    is_sandbox: bool = False
    warnings: tuple[str, ...] = ()
    films: tuple[Film, ...] = ()
    only_stills: bool = False


NO_SUMMARY = PageSummary()


def results_page(rows: Iterable[RowResult], *, title: str, summary: PageSummary = NO_SUMMARY) -> str:
    """The page, to be written as UTF-8 at the top of the output directory: clips are found relative to it.

    Some 700 bytes a video beside the text of its prompt; 10,000 rows are shown as smoothly as ten.
    """
    rows = list(rows)
    style, script = _style_and_script()
    shown = (take for row in rows for take in (row.still, *row.takes) if take is not None)
    is_remote = any((clip_source(take) or "").startswith("https://") for take in shown)
    values = {
        "POLICY": _policy(style, script, is_remote=is_remote),
        "TITLE": html.escape(title.encode(errors="replace").decode()),
        "DATA": _script_json(_content(rows, title=title, summary=summary)),
        "STYLE": style,
        "SCRIPT": script,
    }
    parts = _MARKERS.split(_page_part("page.html"))
    return "".join(values[part] if at % 2 else part for at, part in enumerate(parts))


@cache
def _page_part(name: str) -> str:
    return resources.files("prefect_together.results").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _style_and_script() -> tuple[str, str]:
    """What stands in the page's own elements, each from a new line on."""
    return f"\n{_page_part('style.css')}", "\n" + "\n".join(_page_part(f"{name}.js") for name in _SCRIPTS)


def _policy(style: str, script: str, *, is_remote: bool) -> str:
    """Let the page's own script and style run and nothing else; only remote clips and stills come from the network."""
    files = f"'self' file:{' https:' if is_remote else ''}"
    return (
        f"default-src 'none'; script-src {_csp_hash(script)}; style-src {_csp_hash(style)};"
        f" img-src data: {files};"
        " base-uri 'none'; form-action 'none'; require-trusted-types-for 'script';"
        f" media-src {files}"
    )


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script_json(content: object) -> str:
    """JSON that cannot end the script element: < is escaped, and all but ASCII (U+2028, lone surrogates)."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _content(rows: Sequence[RowResult], *, title: str, summary: PageSummary) -> dict[str, object]:
    sent = {name for row in rows for take in row.takes for name in take.parameters}
    columns = [name for name in (rows[0].cells if rows else ()) if name not in _SHOWN_ELSEWHERE | sent]
    parameters: dict[tuple[tuple[str, str], ...], int] = {}
    videos: list[dict[str, object]] = []
    for row in rows:
        cells = [_cut(row.cells.get(column, "")) for column in columns]
        takes = Counter(take.row_id for take in row.takes)
        for take in row.takes:
            shown = tuple((name, _shown(value)) for name, value in take.parameters.items())
            video = _video(row, take, takes=takes[take.row_id])
            video["parameters"] = parameters.setdefault(shown, len(parameters))
            if any(cells):
                video["cells"] = cells
            videos.append(video)
    return {
        "title": title,
        "summary": _summary(summary),
        "films": _films(rows, summary.films),
        "totals": _totals(totals(rows)),
        "reasons": _reasons(rows, summary),
        "columns": columns,
        "parameters": list(parameters),
        "videos": videos,
    }


def _video(row: RowResult, take: TakeResult, *, takes: int) -> dict[str, object]:
    """One video as the page's script reads it, without what is unknown; one of `takes` of its id."""
    video: dict[str, object] = {
        "row": row.number,
        "id": take.row_id,
        "take": take.take if takes > 1 else None,
        "takes": takes if takes > 1 else None,
        "sharedWith": row.shared_with,
        "status": take.status,
        "reason": None if take.status == "downloaded" else kind_of(take),
        "model": take.model,
        "prompt": None if take.prompt is None else _cut(take.prompt),
        "jobId": take.job_id,
        "file": take.file,
        "source": clip_source(take),
        "still": None if row.still is None or take.status == "downloaded" else clip_source(row.still),
        "stillUsd": None if row.still is None else _finite(row.still.cost_usd),
        "costUsd": _finite(take.cost_usd),
        "estimateUsd": _finite(take.estimate_usd),
        "attempts": take.attempts,
        "error": None if take.error is None else _cut(take.error),
        "seconds": _finite(take.duration_seconds),
        "fps": _finite(take.fps),
        "width": take.width,
        "height": take.height,
        "hasAudio": take.has_audio,
        "bytes": take.size_bytes,
        "sha256": take.sha256,
        "generationSeconds": _finite(take.generation_seconds),
    }
    return {name: value for name, value in video.items() if value is not None}


def _reasons(rows: Sequence[RowResult], summary: PageSummary) -> dict[str, object]:
    """What to do about each reason why a clip is not there, and the rows that have their status for it."""
    return {
        one.kind: {
            "rows": Counter(row.status for row in one.rows if one.kind in map(kind_of, _deciding(row))),
            "note": f"{one.what[0].upper()}{one.what[1:]}. {as_typed(one.to_do, mark='`')}",
        }
        for one in advice(rows, only_stills=summary.only_stills)
    }


def _deciding(row: RowResult) -> list[TakeResult]:
    """The takes that have the row's status, or the still that keeps them from being sent."""
    if row.status == "planned" and row.failed_still:
        return [row.failed_still]
    return [take for take in row.takes if take.status == row.status]


def clip_source(take: TakeResult) -> str | None:
    """Where the page plays the clip from: an https address, or a percent-encoded path below its own folder.

    Anything else (another scheme, an absolute path, a way up) is not linked: None.
    """
    if take.status != "downloaded":
        return None
    if take.file_url is not None and take.file_url.startswith("https://"):
        return take.file_url
    if take.file is None:
        return None
    parts = take.file.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return None
    return "/".join(quote(part, safe="", errors="replace") for part in parts)


def _summary(summary: PageSummary) -> dict[str, object]:
    return {
        "table": summary.table,
        "writtenAt": summary.written_at,
        "runSeconds": _finite(summary.run_seconds),
        "budgetUsd": _finite(summary.budget_usd),
        "isRunning": summary.is_running,
        "isSandbox": summary.is_sandbox,
        "warnings": list(summary.warnings),
    }


def _films(rows: Sequence[RowResult], films: Sequence[Film]) -> list[dict[str, object]]:
    """Each film with its chapters, and why it is not made of what the table asks for, if it is not."""
    prompts = {take.key: take.prompt for row in rows for take in row.takes}
    return [
        {
            "name": film.name,
            "source": None if film.file is None else quote(film.file),
            "seconds": _finite(film.seconds),
            "whyOld": film.why_old,
            "shots": [
                {"id": shot.row_id, "start": shot.start_seconds, "prompt": _cut(prompts.get(shot.key) or "")}
                for shot in film.shots
            ],
        }
        for film in films
    ]


def _totals(total: Totals) -> dict[str, object]:
    """The fields of `Totals` and `ModelTotals`, named as JavaScript names them."""
    models = [_camel_case(asdict(model) | {"drift": model.drift}) for model in total.models]
    return _camel_case(asdict(total) | {"models": models})


def _camel_case(fields: Mapping[str, Any]) -> dict[str, object]:
    return {to_camel(name): _finite(value) if isinstance(value, float) else value for name, value in fields.items()}


def _shown(value: object) -> str:
    """A parameter as text: plain values as they are, lists and objects as JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping | list | tuple):
        return _cut(json.dumps(value, ensure_ascii=False, default=str))
    return _cut(str(value))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text):,} characters, cut here)"


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


RESULTS_FILE = "results.csv"
VIDEOS_FILE = "videos.csv"
PAGE_FILE = "index.html"


def row_results(
    plan: Plan, records: Mapping[str, VideoRecord], unsettled: Mapping[str, Unsettled], store: OutputStore
) -> tuple[RowResult, ...]:
    """The table's rows in the table's order, with what the ledger knows of their videos."""
    takes = {
        key: _take(video, records.get(key), unsettled.get(key, Unsettled()), store)
        for key, video in plan.videos.items()
    }
    stills = [takes[row.still_key] if row.still_key is not None else None for row in plan.rows]
    return tuple(
        RowResult(
            number=row.number,
            cells=row.cells,
            takes=tuple(_behind(still, takes[key]) for key in row.keys),
            shared_with=row.shared_with,
            still=still,
        )
        for row, still in zip(plan.rows, stills, strict=True)
    )


def _behind(still: TakeResult | None, take: TakeResult) -> TakeResult:
    """A video that was not sent for want of its still, with what is known of that, whichever run it was."""
    if still is None or not still.error or still.status == "downloaded" or take.status != "planned":
        return take
    error = SourceMissing(None, f"{STATES[State(still.status)].word}: {still.error}")
    return replace(take, error=str(error), failure_class=error.failure_class)


async def write_outputs(store: OutputStore, plan: Plan, rows: tuple[RowResult, ...], summary: PageSummary) -> None:
    """Write results.csv, videos.csv and index.html, each whole or not at all. Raises OutputUnwritable."""
    page = results_page(rows, title=Path(plan.source).stem or "Videos", summary=summary)
    await store.write_bytes(RESULTS_FILE, results_csv(plan.columns, rows))
    await store.write_bytes(VIDEOS_FILE, videos_csv(plan.columns, rows))
    await store.write_bytes(PAGE_FILE, page.encode())


def _take(video: PlannedVideo, record: VideoRecord | None, unsettled: Unsettled, store: OutputStore) -> TakeResult:
    if record is None:
        parameters = video.request.parameters(with_prompt=False)
        parameters.pop("model", None)
        return TakeResult(
            row_id=video.row_id,
            key=video.key,
            take=video.take,
            status="planned",
            model=video.request.model,
            prompt=video.request.prompt,
            parameters=parameters,
            estimate_usd=video.estimate_usd,
        )
    parameters = json.loads(record.parameters)
    parameters.pop("model", None)
    clip: dict[str, Any] = json.loads(record.clip) if record.clip else {}
    is_there = record.state == State.DOWNLOADED
    return TakeResult(
        row_id=video.row_id,
        key=video.key,
        take=video.take,
        status=record.status,
        model=record.model,
        prompt=record.prompt,
        parameters=parameters,
        job_id=record.job_id,
        file=record.file if is_there else None,
        file_url=store.uri(record.file) if is_there and not store.is_local else None,
        cost_usd=record.cost_usd,
        estimate_usd=video.estimate_usd if record.estimate_usd is None else record.estimate_usd,
        in_doubt_usd=unsettled.in_doubt_usd + _unanswered_usd(record),
        failed_usd=unsettled.failed_usd,
        attempts=record.jobs,
        error=_error(record),
        failure_class=record.failure_class,
        duration_seconds=clip.get("duration_seconds"),
        fps=clip.get("fps"),
        width=clip.get("width"),
        height=clip.get("height"),
        has_audio=clip.get("has_audio"),
        size_bytes=record.size_bytes,
        sha256=record.sha256,
        generation_seconds=record.generation_seconds,
    )


def _unanswered_usd(record: VideoRecord) -> float:
    """Of a call whose run ended before the answer came, which no run has marked as in doubt yet."""
    return record.estimate_usd or 0.0 if (record.state, record.status) == (State.SUBMITTING, "in_doubt") else 0.0


def _error(record: VideoRecord) -> str | None:
    if record.state == State.COMPLETED and record.error:
        return f"paid, but not downloaded: {record.error}; run again to fetch it"
    if record.status == "in_doubt":
        price = "an unknown price" if record.estimate_usd is None else dollars(record.estimate_usd)
        return f"possibly billed, {price}: {record.error or RUN_ENDED}"
    return record.error
