"""How dollars, durations and counts are written, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prefect_together.ledger.states import STATES, STATUSES, State, Status
from prefect_together.request.fields import counted as counted

_AS_TEXT = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_{}[]|#"}, "<": "&lt;", ">": "&gt;"})
MESSAGE_CHARACTERS = 1500
"""Of a flow run's final state; what is longer is in its log."""
OF_THE_SANDBOX = "Made by the sandbox: imitations, nothing was paid"


def dollars(usd: float) -> str:
    """$0.28, $1,234.50; four digits where cents would show nothing."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 0.01 else f"${usd:.4f}"


def price_text(low_usd: float, high_usd: float, unknown: int = 0) -> str:
    """Like `$1.12 to $2.40 and 2 of unknown price`: what is `unknown` is in neither sum, and never said to be $0.00."""
    if unknown and high_usd == 0:
        return f"{unknown:,} of unknown price"
    price = " to ".join(dict.fromkeys((dollars(low_usd), dollars(high_usd))))
    return f"{price} and {unknown:,} of unknown price" if unknown else price


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 05 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def duration_range(low_seconds: float, high_seconds: float) -> str:
    """Like `45 s`, `45 s to 3 min 20 s`."""
    return " to ".join(dict.fromkeys((duration(low_seconds), duration(high_seconds))))


def state_counts(counts: Mapping[Status, int]) -> str:
    """Like `12 downloaded, 3 failed`: the statuses that occur, the most finished first."""
    found = [f"{counts[status]:,} {STATES[State(status)].word}" for status in STATUSES if counts.get(status)]
    return ", ".join(found) or "nothing to do"


def reserved(in_doubt_usd: float, failed_usd: float) -> str:
    """Like `$3.20 held for failed jobs without a reported cost`: what a budget counts though it may not be charged.

    Empty if there is nothing.
    """
    parts = ((in_doubt_usd, "requests in doubt"), (failed_usd, "failed jobs without a reported cost"))
    return " and ".join(f"{dollars(usd)} held for {what}" for usd, what in parts if usd)


def markdown_cell(text: str) -> str:
    """Text that stays inside its Markdown cell and is not read as Markdown or HTML."""
    return " ".join(text.split()).translate(_AS_TEXT)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table; its cells are Markdown already, see `markdown_cell`."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (columns, ["---"] * len(columns), *rows)]
