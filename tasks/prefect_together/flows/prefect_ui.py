"""The run in Prefect's UI: a progress artifact while it lasts, a results table and a summary at its end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from prefect_together.clips.store import OutputStore
from prefect_together.errors import NoFrame, OutputUnwritable
from prefect_together.results.outcome import Rows, RunOutcome, advice
from prefect_together.results.outputs import PAGE_FILE, PageSummary
from prefect_together.results.progress import Progress
from prefect_together.results.results import ModelTotals, RowResult, TakeResult
from prefect_together.results.text import (
    counted,
    dollars,
    duration,
    markdown_cell,
    markdown_table,
    price_text,
    reserved,
    state_counts,
)

ROWS_NAMED = 20
ERROR_CHARACTERS = 300
CLIPS_IN_A_LINE = 3
PROMPT_CHARACTERS = 160


def summary_markdown(outcome: RunOutcome, page: PageSummary, posters: Mapping[str, bytes]) -> str:
    """What came out of the run, where it is, what it cost against the estimate, and what to do about the rest.

    `posters` are JPEGs by a clip's file.
    """
    parts = [
        [f"# {markdown_cell(outcome.counts)}"],
        _facts(outcome, page),
        _films(outcome),
        _clips(outcome, posters),
        _models(outcome.totals.models),
        _to_do(outcome),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _facts(outcome: RunOutcome, page: PageSummary) -> list[str]:
    totals = outcome.totals
    cap = "" if page.budget_usd is None else f", cap {dollars(page.budget_usd)} over all runs into this ledger"
    if cap and (reserved_text := reserved(totals.in_doubt_usd, totals.failed_usd)):
        cap += f", {reserved_text}"
    took = "" if page.run_seconds is None else f" in {duration(page.run_seconds)}"
    price = price_text(totals.estimated_usd, totals.estimated_usd, totals.unpriced_videos)
    stills = f" and {counted(totals.stills, 'still')}" if totals.stills else ""
    estimate = f"estimated {price} for all {totals.videos:,} videos{stills}"
    charged = "at the sandbox's prices" if page.is_sandbox else "charged"
    lines = [f"- **{dollars(totals.spent_usd)}** {charged}{took}; {estimate}{cap}"]
    if totals.in_doubt_usd:
        lines.append(f"- In doubt, possibly billed without a clip: {dollars(totals.in_doubt_usd)}")
    if totals.failed_usd:
        lines.append(f"- Failed jobs without a reported cost: up to {dollars(totals.failed_usd)}")
    lines.append(f"- Every clip beside its prompt: {_link_or_path(outcome.page)}, to be opened in a browser")
    lines.append(
        f"- The table with status, file and cost of each row: {_link_or_path(f'{outcome.output_dir}/results.csv')}"
    )
    return [*lines, *(f"- {markdown_cell(note)}" for note in outcome.notes)]


def _films(outcome: RunOutcome) -> list[str]:
    """The films that were joined from the clips, with what the others wait for."""
    if not outcome.films:
        return []
    rows: list[tuple[str, str, str]] = []
    for film in outcome.films:
        name = markdown_cell(film.name)
        location = f"{outcome.output_dir}/{quote(film.file)}" if film.file else None
        if location is not None and _is_link(location):
            name = f"[{name}]({location})"
        length = "" if film.seconds is None else f"{duration(film.seconds)}, {counted(len(film.shots), 'shot')}"
        old = "" if film.why_old is None else f"{'the new cut ' if film.file else ''}{film.why_old}"
        rows.append((name, length, markdown_cell(old)))
    return ["## Films", "", *markdown_table(("film", "length", ""), rows)]


def _clips(outcome: RunOutcome, posters: Mapping[str, bytes]) -> list[str]:
    takes = {take.file: take for row in outcome.rows for take in row.takes if take.file in posters}
    if not takes:
        return []
    clips = [(take, posters[file]) for file, take in takes.items() if file is not None]
    there = sum(model.downloaded for model in outcome.totals.models)
    more = f"The first {len(clips)} of {there:,}: all of them are on the page." if there > len(clips) else ""
    width = min(CLIPS_IN_A_LINE, len(clips))
    rows: list[list[str]] = []
    for start in range(0, len(clips), width):
        some = clips[start : start + width]
        filling = [" "] * (width - len(some))
        rows.append([_picture(take, jpeg) for take, jpeg in some] + filling)
        rows.append([_caption(take) for take, _ in some] + filling)
        rows.append([_prompt(take) for take, _ in some] + filling)
    return ["## Clips", "", *([more, ""] if more else []), *markdown_table([" "] * width, rows)]


def _picture(take: TakeResult, jpeg: bytes) -> str:
    text = f"![{markdown_cell(take.row_id)}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"
    return f"[{text}]({take.file_url})" if _is_link(take.file_url) else text


def _prompt(take: TakeResult) -> str:
    prompt = take.prompt or ""
    return markdown_cell(prompt if len(prompt) <= PROMPT_CHARACTERS else f"{prompt[: PROMPT_CHARACTERS - 1]}…")


def _caption(take: TakeResult) -> str:
    cost = "" if take.cost_usd is None else f", {dollars(take.cost_usd)}"
    name = markdown_cell(take.row_id[:60])
    if _is_link(take.file_url):
        return f"[{name}]({take.file_url}){cost}"
    return f"{name}{cost}"


def _models(models: Sequence[ModelTotals]) -> list[str]:
    columns = ("model", "downloaded", "failed", "dollars a clip", "usual time", "charged", "estimated", "drift")
    rows: list[list[str]] = []
    for model in models:
        estimated = dollars(model.settled_estimate_usd) if model.drift is not None else ""
        drift = "" if model.drift is None else f"{model.drift:+.0%}".replace("+0%", "none").replace("-0%", "none")
        time = "" if model.generation_seconds is None else duration(model.generation_seconds)
        clip = "" if model.clip_usd is None else dollars(model.clip_usd)
        counts = [f"{model.downloaded:,} of {model.videos:,}", f"{model.failed:,}"]
        rows.append([markdown_cell(model.model), *counts, clip, time, dollars(model.spent_usd), estimated, drift])
    note = "Estimated and drift: of the videos whose charge is known, against the higher reading."
    return ["## Models", "", *markdown_table(columns, rows), "", note]


def _to_do(outcome: RunOutcome) -> list[str]:
    found = advice(outcome.rows, only_stills=outcome.only_stills)
    if not found:
        return []
    lines = ["## What to do", ""]
    for one in found:
        count = counted(len(one.rows), "row")
        price = f", {dollars(one.estimate_usd)}" if one.estimate_usd else ""
        lines += [f"### {count}{price}: {one.what}", "", one.to_do, ""]
        for row in one.rows[:ROWS_NAMED]:
            error = next((take.error for take in row.takes if take.error), "") or ""
            said = f": {markdown_cell(error[:ERROR_CHARACTERS])}" if error else ""
            lines.append(f"- row {row.number}, **{markdown_cell(row.decisive.row_id[:60])}**{said}")
        if len(one.rows) > ROWS_NAMED:
            lines.append(f"- {len(one.rows) - ROWS_NAMED:,} more, in results.csv")
        lines.append("")
    return lines[:-1]


def _link_or_path(location: str) -> str:
    """A link where a browser can follow it; a path as code, since the UI lets no link lead to a file."""
    return f"[{markdown_cell(location)}]({location})" if _is_link(location) else f"`{location.replace('`', '')}`"


def _is_link(location: str | None) -> bool:
    if location is None:
        return False
    return location.startswith(("https://", "http://")) and not set(location) & set(' ()<>"')


TABLE_ROWS = 200
"""Videos in the results artifact, what went wrong first: Prefect's page draws all of them, seconds for a thousand. All
are in videos.csv."""
POSTERS, POSTER_WIDTH_PX, POSTER_BYTES = 12, 208, 10_000
"""As text in the summary they are a third longer: 160 KB at most."""
POSTERS_SECONDS = 8.0
"""What is not there by then (clips that have to be fetched from afar) is left out."""


async def create_progress(progress: Progress, *, budget_usd: float | None = None) -> UUID:
    """The run's progress bar."""
    return await acreate_progress_artifact(
        progress=0.0, key="together-video-progress", description=progress_text(progress, None, budget_usd=budget_usd)
    )


async def update_progress(
    artifact_id: UUID, progress: Progress, seconds_left: float | None, *, budget_usd: float | None = None
) -> None:
    """Update the artifact of `create_progress`. Raises what Prefect's client raises."""
    percent = 100.0 * progress.finished / progress.total if progress.total else 0.0
    text = progress_text(progress, seconds_left, budget_usd=budget_usd)
    await aupdate_progress_artifact(artifact_id=artifact_id, progress=percent, description=text)


def progress_text(progress: Progress, seconds_left: float | None, *, budget_usd: float | None = None) -> str:
    """One line: counts by state, dollars so far, projected and the cap, time left."""
    if not progress.total:
        return "starting"
    reserved_text = reserved(progress.reserved_in_doubt_usd, progress.reserved_failed_usd)
    cap = "" if budget_usd is None else f", cap {dollars(budget_usd)}{reserved_text and f' ({reserved_text})'}"
    parts = [
        state_counts(progress.by_status),
        f"{progress.money}{cap}",
    ]
    if seconds_left:
        parts.append(f"about {duration(seconds_left)} left")
    return " · ".join(parts)


async def publish_results(
    outcome: RunOutcome, page: PageSummary, store: OutputStore, *, served_at: str | None = None
) -> None:
    """The results table and the summary, with pictures, of a run that has ended, in whatever way.

    Where the output directory is `served_at` a URL, page and clips are linked, and the page has a link of its own.
    """
    if served_at is not None:
        outcome = at_address(outcome, served_at)
        await acreate_link_artifact(
            link=outcome.page,
            link_text="Every clip beside its prompt",
            key="together-video-page",
            description=outcome.counts,
        )
    lines = [_line(row, take) for row in outcome.rows for take in row.takes]
    lines.sort(key=lambda line: line["status"] == "downloaded")
    table = lines[:TABLE_ROWS]
    left_out = len(lines) - len(table)
    note = f" {left_out:,} more are in videos.csv." if left_out else ""
    await acreate_table_artifact(
        table=table, key="together-video-results", description=f"{outcome.counts}. What is not there comes first.{note}"
    )
    posters = await posters_of(outcome.rows, store)
    await acreate_markdown_artifact(
        markdown=summary_markdown(outcome, page, posters),
        key="together-video-summary",
        description=f"{outcome.counts}, {dollars(outcome.totals.spent_usd)}: clips, models compared, what to do",
    )


def at_address(outcome: RunOutcome, served_at: str) -> RunOutcome:
    """The outcome with the addresses under which its output directory is served, in place of paths."""
    rows = [
        replace(
            row,
            takes=tuple(
                replace(take, file_url=f"{served_at}/{quote(take.file)}") if take.file else take for take in row.takes
            ),
        )
        for row in outcome.rows
    ]
    return replace(outcome, rows=Rows(rows), output_dir=served_at, page=f"{served_at}/{PAGE_FILE}")


async def posters_of(rows: Sequence[RowResult], store: OutputStore) -> dict[str, bytes]:
    """JPEGs of the first clips, by their file. A clip of which none can be made is left out."""
    from prefect_together.films.frames import poster  # libav and Pillow, which no run waits for at its start

    files = [take.file for row in rows for take in row.takes if take.file is not None]
    found: dict[str, bytes] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(POSTERS_SECONDS):
            for file in list(dict.fromkeys(files))[:POSTERS]:
                with suppress(NoFrame, OutputUnwritable):
                    clip = Path(store.uri(file)) if store.is_local else await store.read_bytes(file)
                    if clip is not None:
                        found[file] = await asyncio.to_thread(
                            poster, clip, width_px=POSTER_WIDTH_PX, max_bytes=POSTER_BYTES
                        )
    return found


def _line(row: RowResult, take: TakeResult) -> dict[str, object]:
    return {
        "row": row.number,
        "id": take.row_id,
        "status": take.status,
        "cost_usd": "" if take.cost_usd is None else round(take.cost_usd, 6),
        "model": take.model,
        "error": (take.error or "")[:300],
        "prompt": (take.prompt or "")[:200],
        "file": take.file_url or take.file or "",
        "job_id": take.job_id or "",
    }
