"""The summary of a finished run as Markdown, for Prefect's UI: pictures, money by model, what to do. Pure text.

Of Markdown it uses what both UIs (3.8.8) show: tables, code, http links and pictures in the text itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefect_together.advice import advice
from prefect_together.outcome import RunOutcome
from prefect_together.results import ModelTotals, TakeResult
from prefect_together.wording import dollars, duration, markdown_cell

ROWS_NAMED = 20
ERROR_CHARACTERS = 300
CLIPS_IN_A_LINE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the summary shows beside the outcome. `posters` are JPEGs by a clip's file; None: no cap."""

    budget_usd: float | None = None
    run_seconds: float | None = None
    is_sandbox: bool = False
    posters: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


def summary_markdown(outcome: RunOutcome, shown: Shown) -> str:
    """What came out of the run, where it is, what it cost against the estimate, and what to do about the rest."""
    parts = [
        [f"# {markdown_cell(outcome.counts)}"],
        _facts(outcome, shown),
        _clips(outcome, shown.posters),
        _money(outcome.totals.models),
        _to_do(outcome),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _facts(outcome: RunOutcome, shown: Shown) -> list[str]:
    totals = outcome.totals
    cap = "" if shown.budget_usd is None else f", cap {dollars(shown.budget_usd)} over all runs into this ledger"
    took = "" if shown.run_seconds is None else f" in {duration(shown.run_seconds)}"
    estimate = f"estimated {dollars(totals.estimated_usd)} for all {totals.videos:,} videos"
    lines = [f"- **{dollars(totals.spent_usd)}** charged{took}; {estimate}{cap}"]
    if shown.is_sandbox:
        lines[0] += ". Made by the sandbox: imitations, nothing was paid"
    if totals.in_doubt_usd:
        lines.append(f"- In doubt, possibly billed without a clip: {dollars(totals.in_doubt_usd)}")
    if totals.failed_usd:
        lines.append(f"- Failed jobs whose cost was not told: up to {dollars(totals.failed_usd)}")
    lines.append(f"- Every clip beside its prompt: {_place(outcome.page)}, to be opened in a browser")
    lines.append(f"- The table with status, file and cost of each row: {_place(f'{outcome.output_dir}/results.csv')}")
    return [*lines, *(f"- {markdown_cell(note)}" for note in outcome.notes)]


def _clips(outcome: RunOutcome, posters: Mapping[str, bytes]) -> list[str]:
    takes = {take.file: take for row in outcome.rows for take in row.takes if take.file in posters}
    if not takes:
        return []
    clips = [(take, posters[file]) for file, take in takes.items() if file is not None]
    there = sum(model.downloaded for model in outcome.totals.models)
    more = f" The first {len(clips)} of {there:,}: all of them are on the page." if there > len(clips) else ""
    width = min(CLIPS_IN_A_LINE, len(clips))
    lines = ["## Clips", "", *([more.strip(), ""] if more else [])]
    lines += [f"|{'   |' * width}", f"|{'---|' * width}"]
    for start in range(0, len(clips), width):
        some = clips[start : start + width]
        filling = "   |" * (width - len(some))
        lines.append(f"|{''.join(f' {_picture(take, jpeg)} |' for take, jpeg in some)}{filling}")
        lines.append(f"|{''.join(f' {_caption(take, outcome)} |' for take, _ in some)}{filling}")
    return lines


def _picture(take: TakeResult, jpeg: bytes) -> str:
    text = f"![{markdown_cell(take.row_id)}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"
    return f"[{text}]({take.file_url})" if _is_link(take.file_url) else text


def _caption(take: TakeResult, outcome: RunOutcome) -> str:
    cost = "" if take.cost_usd is None else f", {dollars(take.cost_usd)}"
    name = markdown_cell(take.row_id)[:60]
    if _is_link(take.file_url):
        return f"[{name}]({take.file_url}){cost}"
    return f"{name}{cost}"


def _money(models: Sequence[ModelTotals]) -> list[str]:
    lines = [
        "## Cost by model",
        "",
        "| model | videos | downloaded | charged | estimated | drift | usual time |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in models:
        estimated = dollars(model.settled_estimate_usd) if model.drift is not None else ""
        drift = "" if model.drift is None else f"{model.drift:+.0%}".replace("+0%", "none").replace("-0%", "none")
        time = "" if model.generation_seconds is None else duration(model.generation_seconds)
        cells = [markdown_cell(model.model), f"{model.videos:,}", f"{model.downloaded:,}", dollars(model.spent_usd)]
        lines.append(f"| {' | '.join([*cells, estimated, drift, time])} |")
    return [*lines, "", "Estimated and drift: of the videos whose charge is known, against the higher reading."]


def _to_do(outcome: RunOutcome) -> list[str]:
    found = advice(outcome.rows)
    if not found:
        return []
    lines = ["## What to do", ""]
    for one in found:
        count = f"{len(one.rows):,} row{'' if len(one.rows) == 1 else 's'}"
        price = f", {dollars(one.estimate_usd)}" if one.estimate_usd else ""
        lines += [f"### {count}{price}: {one.what}", "", one.to_do, ""]
        for row in one.rows[:ROWS_NAMED]:
            error = next((take.error for take in row.takes if take.error), "") or ""
            said = f": {markdown_cell(error[:ERROR_CHARACTERS])}" if error else ""
            lines.append(f"- row {row.number}, **{markdown_cell(row.takes[0].row_id[:60])}**{said}")
        if len(one.rows) > ROWS_NAMED:
            lines.append(f"- {len(one.rows) - ROWS_NAMED:,} more, in results.csv")
        lines.append("")
    return lines[:-1]


def _place(place: str) -> str:
    """A link where a browser can follow it; a path as code, since the UI lets no link lead to a file."""
    return f"[{markdown_cell(place)}]({place})" if _is_link(place) else f"`{place.replace('`', '')}`"


def _is_link(place: str | None) -> bool:
    return place is not None and place.startswith(("https://", "http://")) and not set(place) & set(' ()<>"')
