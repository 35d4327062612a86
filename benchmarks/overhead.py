"""What the engine, the ledger and the checks add to the generation itself: ours and six peers, one after another.

All against one sandbox with jobs of two seconds and one Prefect server, in processes of their own; the rounds are
interleaved and the figures are medians, so that a busy machine affects all of them equally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from children import PeerFailed, run_peer
from markdown_tables import markdown
from services import MODEL, Server, environment, prefect_server, sandbox, scratch, write_prompts

JOB_SECONDS = 2.0
DOCUMENT_ROWS = 2
FLOORS = ("c", "e", "f", "ours")
GOAL_CPU, GOAL_WALL = 1.3, 1.2
GOAL_DURATIONS = 1.02
WHY_CPU = (
    "the SDK's calls, the clips' checks and the log lines alone need more than 0.3 x (f), see benchmarks/README.md"
)
WHY_WALL = "with jobs of 2 s, all at once, processor time dominates; and there are at most 100 polls a second"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of `peers/`; `most_rows` is for one that takes too long: its figures are scaled."""

    letter: str
    program: str
    about: str
    words: tuple[str, ...] = ()
    most_rows: int | None = None


OURS = Peer("ours", "ours", "this project: engine, ledger, checks, results, page")
PEERS = (
    Peer("a", "document_loop", "the source document's loop, one job after another", most_rows=DOCUMENT_ROWS),
    Peer("b", "async_default", "asyncio, the SDK's default client"),
    Peer("c", "async_aiohttp", "asyncio, the SDK on aiohttp, downloads by aiohttp"),
    Peer("d", "prefect_mapped", "a plain Prefect flow with mapped sync tasks"),
    Peer("e", "bare_aiohttp", "the floor without an engine: bare aiohttp"),
    Peer("f", "empty_tasks", "the engine's floor: three empty awaited tasks a row"),
    Peer("f'", "empty_tasks", "the same with Prefect's default options", words=("plain",)),
    OURS,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one peer, by row where it says so."""

    wall_seconds: float
    cpu_ms_a_row: float
    server_ms_a_row: float
    peak_mb: float
    requests_a_row: float


def measure(*, rows: int, rounds: int, letters: Sequence[str] = ()) -> str:
    """Run the peers with these letters (none: all) and return the table and the goals as Markdown."""
    chosen = [peer for peer in PEERS if not letters or peer.letter in letters]
    found: dict[str, list[Measured]] = {peer.letter: [] for peer in chosen}
    failures: dict[str, str] = {}
    with scratch() as directory, prefect_server(directory / "server") as server, sandbox() as api:
        table = write_prompts(directory / "prompts.csv", rows)
        variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
        for number in range(rounds):
            for peer in chosen:
                few = min(rows, peer.most_rows or rows)
                prompts = table if few == rows else write_prompts(directory / "few.csv", few)
                before = _requests(api.control.stats())
                try:
                    figures = _run(peer, prompts, directory / f"{peer.program}-{number}", few, rows, server, variables)
                except PeerFailed as error:
                    if peer is OURS:
                        raise
                    failures[peer.letter] = str(error).strip().splitlines()[-1][:60]
                    continue
                made = _requests(api.control.stats()) - before
                found[peer.letter].append(_with_requests(figures, made / few))
    medians = {letter: _medians(runs) for letter, runs in found.items() if runs}
    return _report(medians, failures, rows=rows, rounds=rounds)


def _run(
    peer: Peer, prompts: Path, output: Path, few: int, rows: int, server: Server, variables: Mapping[str, str]
) -> Measured:
    server.await_idle()
    cpu_before = server.cpu_seconds()
    run = run_peer(peer.program, str(prompts), str(output), *peer.words, environment=variables)
    server.await_idle()
    return Measured(
        wall_seconds=run.body_seconds * rows / few,
        cpu_ms_a_row=1000 * run.cpu_seconds / few,
        server_ms_a_row=1000 * (server.cpu_seconds() - cpu_before) / few,
        peak_mb=run.peak_mb,
        requests_a_row=0.0,
    )


def _with_requests(figures: Measured, requests_a_row: float) -> Measured:
    return Measured(
        figures.wall_seconds, figures.cpu_ms_a_row, figures.server_ms_a_row, figures.peak_mb, requests_a_row
    )


def _requests(stats: Mapping[str, Mapping[str, Mapping[str, int]]]) -> int:
    """Create and retrieve calls that the sandbox has answered."""
    return sum(sum(stats["requests"].get(endpoint, {}).values()) for endpoint in ("create", "retrieve"))


def _medians(runs: Sequence[Measured]) -> Measured:
    return Measured(
        wall_seconds=median(run.wall_seconds for run in runs),
        cpu_ms_a_row=median(run.cpu_ms_a_row for run in runs),
        server_ms_a_row=median(run.server_ms_a_row for run in runs),
        peak_mb=median(run.peak_mb for run in runs),
        requests_a_row=median(run.requests_a_row for run in runs),
    )


def _report(found: Mapping[str, Measured], failures: Mapping[str, str], *, rows: int, rounds: int) -> str:
    floor, ours = found.get("f"), found.get("ours")
    lines: list[list[str]] = []
    for peer in PEERS:
        figures = found.get(peer.letter)
        if figures is None:
            if peer.letter in failures:
                lines.append([peer.letter, f"{peer.about}: failed, {failures[peer.letter]}", *[""] * 7])
            continue
        is_scaled = peer.most_rows is not None and peer.most_rows < rows
        lines.append(
            [
                peer.letter,
                peer.about + (f", {peer.most_rows} rows scaled" if is_scaled else ""),
                f"{figures.wall_seconds:,.1f}",
                f"{figures.wall_seconds / ours.wall_seconds:.2f}" if ours else "",
                "" if is_scaled else f"{figures.cpu_ms_a_row:.1f}",
                "" if is_scaled or not ours else f"{figures.cpu_ms_a_row / ours.cpu_ms_a_row:.2f}",
                f"{figures.requests_a_row:.1f}",
                f"{figures.peak_mb:.0f}",
                f"{figures.server_ms_a_row:.1f}" if peer.letter in ("d", "f", "f'", "ours") else "",
            ]
        )
    head = [
        "",
        "what",
        "wall s",
        "wall / ours",
        "CPU ms a row",
        "CPU / ours",
        "API calls a row",
        "peak MB",
        "server CPU ms a row",
    ]
    text = (
        f"{rows:,} rows of {MODEL}, jobs of {JOB_SECONDS:g} s, all in flight, medians of {rounds} interleaved rounds. "
        "Wall: the flow's body (without an engine: from the first row to the last file). CPU: of the client process, "
        "from the body's begin to the process's end, imports before it left out.\n\n"
    )
    text += markdown(head, lines)
    if floor is None or ours is None:
        return text
    wall_limit = GOAL_WALL * (floor.wall_seconds + JOB_SECONDS)
    goals = [
        (
            f"CPU a row at most {GOAL_CPU} x (f)",
            ours.cpu_ms_a_row / floor.cpu_ms_a_row,
            ours.cpu_ms_a_row <= GOAL_CPU * floor.cpu_ms_a_row,
            WHY_CPU,
        ),
        (
            f"wall at most {GOAL_WALL} x ((f) + 2 s)",
            ours.wall_seconds / (floor.wall_seconds + JOB_SECONDS),
            ours.wall_seconds <= wall_limit,
            WHY_WALL,
        ),
    ]
    for letter in ("b", "d"):
        if letter in found:
            ratio = ours.wall_seconds / found[letter].wall_seconds
            goals.append((f"wall below ({letter})", ratio, ratio < 1.0, WHY_WALL))
    return (
        text
        + "\n"
        + markdown(
            ["goal", "ratio", "met"],
            [[goal, f"{ratio:.2f}", "yes" if met else f"no: {why}"] for goal, ratio, met, why in goals],
        )
    )


def measure_durations(*, rows: int, rounds: int, in_flight: int = 200) -> str:
    """Ours compared with bare aiohttp at realistic durations, the same for both."""
    seconds = "lognormal:90:0.35"
    walls: dict[str, list[float]] = {"bare_aiohttp": [], "ours": []}
    calls: dict[str, list[float]] = {"bare_aiohttp": [], "ours": []}
    with scratch() as directory, prefect_server(directory / "server") as server:
        table = write_prompts(directory / "prompts.csv", rows)
        for number in range(rounds):
            for program, runs in walls.items():
                server.await_idle()
                with sandbox(generation_seconds=seconds, arguments=["--seed", str(number)]) as api:
                    variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
                    output = directory / f"{program}-{number}"
                    run = run_peer(program, str(table), str(output), str(in_flight), environment=variables)
                    calls[program].append(_requests(api.control.stats()) / rows)
                runs.append(run.body_seconds)
    bare, ours = median(walls["bare_aiohttp"]), median(walls["ours"])
    text = (
        f"{rows:,} rows, {in_flight} in flight, lognormal durations of median 90 s and spread 0.35 at full length, "
        f"medians of {rounds} rounds; nothing is known of the model's durations at the start.\n\n"
    )
    lines = [
        ["e", "bare aiohttp, a poll each half second", f"{bare:.1f}", "1.00", f"{median(calls['bare_aiohttp']):.1f}"],
        ["ours", "this project", f"{ours:.1f}", f"{ours / bare:.3f}", f"{median(calls['ours']):.1f}"],
    ]
    goal = f"wall at most {GOAL_DURATIONS} x (e)"
    return (
        text
        + markdown(["", "what", "wall s", "wall / (e)", "API calls a row"], lines)
        + "\n"
        + markdown(
            ["goal", "ratio", "met"], [[goal, f"{ours / bare:.3f}", "yes" if ours / bare <= GOAL_DURATIONS else "no"]]
        )
    )
