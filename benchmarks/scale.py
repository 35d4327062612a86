"""What a row costs in time, memory and database at 100 to 10,000 rows, and how fast page and UI are afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from browsing import Seen, browse
from children import run_peer
from databases import sqlite_database
from markdown_tables import markdown
from server import Load, record
from services import environment, prefect_server, sandbox, scratch, write_prompts

IN_FLIGHT = "200"
FIXED_ROWS = 10
"""The cost of so small a run is the fixed cost of every run: it is subtracted to get the cost of a row."""
GOAL_FLAT, GOAL_PEAK_MB = 0.2, 600.0


@dataclass(frozen=True, slots=True)
class Size:
    """One run of `rows` rows. Memory and processor time are the client's, but for `server_ms_a_row`."""

    rows: int
    cpu_seconds: float
    body_seconds: float
    peak_mb: float
    server_ms_a_row: float
    backlog_seconds: float
    lost: int
    page_mb: float
    seen: Seen | None


def measure(*, rows: int, rounds: int) -> str:
    """Runs of 1 %, 10 % and all of `rows`; rounds beyond the first only repeat them. The tables as Markdown."""
    del rounds  # the largest run takes minutes, and its figures are processor time and memory
    with scratch() as directory:
        fixed = _run(directory / "fixed", FIXED_ROWS, is_browsed=False)
        sizes = [_run(directory / f"{count}", count) for count in (rows // 100, rows // 10, rows) if count > FIXED_ROWS]
    return _report(fixed, sizes or [fixed])


def _run(directory: Path, rows: int, *, is_browsed: bool = True) -> Size:
    directory.mkdir()
    table, output = write_prompts(directory / "prompts.csv", rows), directory / "out"
    with prefect_server(directory / "server") as server, sandbox(generation_seconds="1") as api:
        variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
        load = Load(lambda: run_peer("ours", str(table), str(output), IN_FLIGHT, environment=variables), rows)
        recorded, run = record(load, server, sqlite_database(directory / "server" / "prefect.db"))
        index = output / "index.html"
        seen = browse(index, server, last_row=f"{rows - 1:05}") if is_browsed else None
    return Size(
        rows=rows,
        cpu_seconds=run.cpu_seconds,
        body_seconds=run.body_seconds,
        peak_mb=run.peak_mb,
        server_ms_a_row=recorded.server_ms_a_row,
        backlog_seconds=recorded.backlog_seconds,
        lost=recorded.lost,
        page_mb=index.stat().st_size / 1e6,
        seen=seen,
    )


def _report(fixed: Size, sizes: Sequence[Size]) -> str:
    costs = [1000 * (size.cpu_seconds - fixed.cpu_seconds) / max(size.rows - fixed.rows, 1) for size in sizes]
    head = ["rows", "CPU ms a row", "peak MB", "rows a second", "server CPU ms a row", "backlog s", "task runs lost"]
    lines = [
        [
            f"{size.rows:,}",
            f"{cost:.1f}",
            f"{size.peak_mb:.0f}",
            f"{size.rows / size.body_seconds:.0f}",
            f"{size.server_ms_a_row:.1f}",
            f"{size.backlog_seconds:.1f}",
            f"{size.lost}",
        ]
        for size, cost in zip(sizes, costs, strict=True)
    ]
    spread, peak = max(costs[1:] or costs) / min(costs[1:] or costs) - 1, sizes[-1].peak_mb
    goals = [
        [f"CPU a row flat within {GOAL_FLAT:.0%}", f"{spread:.0%}", "yes" if spread <= GOAL_FLAT else "no"],
        [f"peak under {GOAL_PEAK_MB:.0f} MB", f"{peak:.0f} MB", "yes" if peak < GOAL_PEAK_MB else "no"],
    ]
    return (
        f"{IN_FLIGHT} in flight, jobs of 1 s, load {os.getloadavg()[0]:.0f} at the end. CPU and peak: of the client; "
        f"CPU without that of a run of {FIXED_ROWS} rows ({fixed.cpu_seconds:.1f} s, {fixed.peak_mb:.0f} MB), which "
        "is too much beside a hundred rows for these to count for the goal. Backlog: from the client's end to the "
        "last record.\n\n"
        + markdown(head, lines)
        + "\n"
        + markdown(["goal", "", "met"], goals)
        + "\n"
        + _browser_table(sizes)
    )


def _browser_table(sizes: Sequence[Size]) -> str:
    browsed = [(size, size.seen) for size in sizes if size.seen is not None]
    if not browsed:
        return "Chromium is not installed: page and UI were not opened.\n"
    head = [
        "rows",
        "index.html MB",
        "first card s",
        "a search s",
        "cards in the document",
        "Prefect's run page s",
        "its task runs s",
        "results artifact s",
    ]
    lines = [
        [
            f"{size.rows:,}",
            f"{size.page_mb:.1f}",
            f"{seen.page_seconds:.1f}",
            f"{seen.search_seconds:.1f}",
            f"{seen.cards}",
            f"{seen.run_seconds:.1f}",
            f"{seen.task_runs_seconds:.1f}",
            f"{seen.artifact_seconds:.1f}",
        ]
        for size, seen in browsed
    ]
    return "In Chromium, from disk and from the server that has just recorded the run:\n\n" + markdown(head, lines)
