"""What the commands of `prefect-together` print: tables and lines for a terminal or a pipe. Decides nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any, cast

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefect_together.request.catalogue import Estimate, catalogue, estimate_usd
from prefect_together.request.model_spec import Mode, ModelSpec
from prefect_together.request.request import VideoRequest
from prefect_together.results.text import OF_THE_SANDBOX, counted, dollars, duration, price_text, reserved, state_counts

if TYPE_CHECKING:
    from prefect_together.films.films import Film
    from prefect_together.ledger.states import Status
    from prefect_together.ledger.view import LedgerView
    from prefect_together.results.plan_report import PlanReport
    from prefect_together.results.results import Totals

PIPE_COLUMNS = 200
"""Width where there is no terminal: rows should not be broken into 80 columns for grep."""
WIDE_COLUMNS = 120
"""Of a terminal on which no columns need be stacked."""
WORD_CHARACTERS = 32
"""A longer word may be broken: no model's id is."""
PROMPT_CHARACTERS = 60
DOUBTS_SHOWN = 50
Cells = tuple[str, ...]


def film_lines(films: Iterable[Film], output_dir: str) -> list[str]:
    """A line for each film: where it is and how long; and one for what it waits for."""
    lines: list[str] = []
    for film in films:
        if film.file is not None and film.seconds is not None:
            made = ", made now" if film.is_new else ""
            shots = counted(len(film.shots), "shot")
            lines.append(f"{output_dir.rstrip('/')}/{film.file}  {duration(film.seconds)}, {shots}{made}")
        if film.why_old is not None:
            lines.append(f"film {film.name}{'' if film.file is None else ': the new cut'} {film.why_old}")
    return lines


def print_models(models: Sequence[ListedModel]) -> None:
    """A line a model; `listed` is Together's own list."""
    rows: list[Cells] = []
    for model in models:
        spec = model.spec
        price = _range(model.price.low_usd, model.price.high_usd) if model.price else "unknown"
        seconds = str(spec.seconds) if spec.seconds else ""
        listed = f"shut down {spec.retired.date}" if spec.retired else "yes" if spec.listed else "no"
        rows.append((spec.id, listed, ", ".join(spec.modes), seconds, model.sizes, price))
    columns = ("model", "listed", "modes", "seconds", "sizes", "one default clip")
    _print_table(columns, rows, stacked=((2, 4),))
    _print(f"{len(models)} models. Prices are published readings, low to high; what is billed is the service's word.")


def print_differences(found: LiveDifferences) -> None:
    """What differs between the live catalogue and ours."""
    _print(f"{found.live_models} video models are served.")
    parts = (
        ("served, unknown here (sent unchecked)", found.unknown_here),
        ("listed here, not served", found.not_served),
        ("served, though no longer listed", found.served_though_unlisted),
        ("other prices", found.prices),
    )
    for title, names in parts:
        if names:
            _print(f"{title}:")
            for name in names:
                _print(f"  {name}")
    if not any(names for _, names in parts):
        _print("The catalogue agrees with them.")


def print_plan(report: PlanReport) -> None:
    """What is asked for in all and by model, the rows, what is to be known of them, and the sums."""
    if report.grid or len(report.models) > 1:
        _print(f"{report.counts}, {report.row_price} a row")
        models: list[Cells] = [
            (model.model, f"{model.videos:,}", f"{model.to_send:,}", model.price) for model in report.models
        ]
        _print_table(("model", "videos", "to send", "dollars"), models)
    rows: list[Cells] = []
    for line in report.lines:
        price = _range(line.low_usd, line.high_usd)
        files = line.files[0]
        if len(line.files) > 1:
            files += f" and {len(line.files) - 1} more" + (f", seeds {line.seeds}" if line.seeds else "")
        prompt = shorten(_plain(line.prompt), PROMPT_CHARACTERS, placeholder=" ...")
        rows.append((str(line.row), line.id, line.model, prompt, files, price, line.state))
    _print_table(("row", "id", "model", "prompt", "file", "dollars", "status"), rows, stacked=((1, 2), (3, 4)))
    from prefect_together.results.plan_report import CHAINS_SHOWN

    if len(report.chains) > CHAINS_SHOWN:
        _print(report.chains_in_short)
    elif report.chains:
        _print_table(("chain", "videos", "to send", "dollars", "up to"), report.chain_cells)
    for warning in report.all_warnings:
        _print(f"warning: {warning}")
    for note in report.notes:
        _print(note)
    _print(report.summary)
    if report.unlearned_models and report.high_seconds:
        unlearned = f"{report.unlearned_models} of {len(report.models)} models"
        _print(f"The time of {unlearned} is a guess: the ledger has no jobs of theirs yet.")
    if report.budget_usd is not None and report.budget_may_end:
        _print(f"The budget of {dollars(report.budget_usd)} may not be enough: what would pass it is not sent.")


def print_status(view: LedgerView) -> None:
    """Statuses, dollars, models, what is in doubt, and who works on it."""
    totals = view.totals
    counts: Counter[Status] = Counter(record.status for record in view.records.values())
    stills = sum(record.kind == "still" for record in view.records.values())
    and_stills = f" and {counted(stills, 'still')}" if stills else ""
    _print(f"{view.url}: {len(view.records) - stills:,} videos{and_stills}, {state_counts(counts)}")
    paid = "at the sandbox's prices, nothing is billed" if view.is_sandbox else "paid"
    money = [f"{dollars(totals.paid_usd)} {paid}", f"{dollars(totals.committed_usd)} paid or reserved"]
    money.append(reserved(totals.in_doubt_usd, totals.unsettled_failed_usd))
    _print(", ".join(part for part in money if part))
    if view.is_sandbox:
        _print(f"{OF_THE_SANDBOX}.")
    rows: list[Cells] = []
    for model, durations in view.durations.items():
        records = [record for record in view.records.values() if record.model == model]
        done = sum(record.state == "downloaded" for record in records)
        paid = sum(record.cost_usd or 0.0 for record in records)
        usual = duration(median(durations)) if durations else ""
        rows.append((model, f"{len(records):,}", f"{done:,}", dollars(paid), usual))
    _print_table(("model", "videos", "downloaded", "paid", "median time"), rows)
    for run in view.runs:
        machine = "here" if run.is_here else "on another machine"
        _print(f"at work {machine}: process {run.pid}, since {moment(run.started_at)}")
    _print_doubts(view)


def _print_doubts(view: LedgerView) -> None:
    if not view.doubts:
        return
    _print("Create calls without an answer, possibly billed:")
    rows: list[Cells] = []
    for doubt in view.doubts[:DOUBTS_SHOWN]:
        now = "in doubt" if doubt.is_open else "settled since"
        sent_at, usd = moment(doubt.sent_at), dollars(doubt.reserved_usd)
        rows.append((doubt.row_id, str(doubt.take), doubt.model, sent_at, str(doubt.attempt), usd, now, doubt.reason))
    columns = ("id", "take", "model", "sent at", "attempt", "dollars", "now", "why")
    _print_table(columns, rows, stacked=((0, 2), (3, 7)))
    if len(view.doubts) > DOUBTS_SHOWN:
        _print(f"and {len(view.doubts) - DOUBTS_SHOWN:,} more (--json has them all)")
    if any(doubt.is_open for doubt in view.doubts):
        _print("Look for them in the account's usage by time; --resubmit-in-doubt sends them again.")


def print_totals(totals: Totals, written: Iterable[str], *, is_sandbox: bool) -> None:
    """What the results written anew say, and where they are."""
    counts = state_counts(totals.rows_by_status)
    _print(f"{counts} of {totals.rows:,} rows, {dollars(totals.spent_usd)}")
    if is_sandbox:
        _print(f"{OF_THE_SANDBOX}.")
    for location in written:
        _print(f"  {location}")


def moment(unix_seconds: float) -> str:
    """Local time with its offset, as it is looked for in an account's usage."""
    return datetime.fromtimestamp(unix_seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _range(low_usd: float | None, high_usd: float | None) -> str:
    return "unknown" if low_usd is None or high_usd is None else price_text(low_usd, high_usd)


def _print_table(columns: Cells, rows: Iterable[Cells], *, stacked: Sequence[tuple[int, int]] = ()) -> None:
    """Cells are as wide as their longest word, such as a model's id, and fold only where they all are too wide.

    On a narrow terminal the second column of each `stacked` pair stands below the first.
    """
    console = _console()
    lines = [columns, *(tuple(_plain(cell) for cell in row) for row in rows)]
    if console.width < WIDE_COLUMNS:
        lower = dict(stacked)
        lines = [
            tuple(
                "\n".join((cell, line[lower[index]])) if index in lower else cell
                for index, cell in enumerate(line)
                if index not in lower.values()
            )
            for line in lines
        ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    head, *body = lines
    for name, width in zip(head, _widths(lines, console.width - 2 * (len(head) - 1)), strict=True):
        table.add_column(Text(name), overflow="fold", width=width)
    for line in body:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)


def _plain(text: str) -> str:
    """One line without control characters: a prompt must not steer the terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _widths(lines: Sequence[Cells], total: int) -> list[int]:
    """A width for each column: the widest narrow first, to their longest word and only then below it."""
    columns = list(zip(*lines, strict=True))
    widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    for least in ([min(word, WORD_CHARACTERS) for word in words], [1] * len(words)):
        while sum(widths) > total and (wider := [i for i, width in enumerate(widths) if width > least[i]]):
            widths[max(wider, key=lambda i: widths[i])] -= 1
    return widths


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)


def _print(text: str) -> None:
    """One text, in lines of the terminal's width."""
    columns = _console().width if sys.stdout.isatty() else sys.maxsize
    indent = " " * (len(text) - len(text.lstrip(" ")))
    print(wrapped(_plain(text), columns, first=indent, rest=f"{indent}  "))


def wrapped(text: str, columns: int, *, first: str = "", rest: str = "") -> str:
    """Text in lines of whole words, indented by `first` and `rest`: a path, a URL or a model's id is not broken."""
    return fill(
        text, columns, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


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
    retired: bool = False,
    mode: Mode | None = None,
    organization: str | None = None,
    max_price_usd: float | None = None,
) -> list[ListedModel]:
    """The models that pass all filters, in the catalogue's order.

    `listed`: only what Together lists today. `retired`: also what was shut down. `max_price_usd` is compared with the
    high reading of a default clip; models of unknown price do not pass it.
    """
    found: list[ListedModel] = []
    for spec in catalogue().values():
        price = estimate_usd(VideoRequest(model=spec.id, prompt="any"))
        is_cheap = max_price_usd is None or (price is not None and price.high_usd <= max_price_usd)
        is_theirs = organization is None or organization.casefold() in spec.organization.casefold()
        is_there = (retired or spec.retired is None) and (spec.listed or not listed)
        if is_cheap and is_theirs and is_there and (mode is None or mode in spec.modes):
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
        not_served=tuple(name for name, spec in known.items() if spec.is_offered and name not in live),
        served_though_unlisted=tuple(name for name, spec in known.items() if not spec.is_offered and name in live),
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


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))
