"""What it takes to run a finished table again, and to take up a table whose jobs were submitted by an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from children import run_child
from commands import calls, generate_videos, seconds_to_empty_flow, seconds_to_first_call
from markdown_tables import markdown
from services import Server, environment, prefect_server, sandbox, scratch, write_prompts

GOAL_SECONDS = 2.0
SLOW_JOB_SECONDS = "100000"
STILL_GENERATING = 1
"""The exit code of a run whose jobs are left for a later one."""


def measure(*, rows: int, rounds: int) -> str:
    """Run both cases and an empty flow in turn; return the table as Markdown."""
    with scratch() as directory, prefect_server(directory / "server") as server:
        table = write_prompts(directory / "prompts.csv", rows)
        finished = _finished(table, directory, server, rounds)
        submitted = _submitted(table, directory, server, rounds)
    head = ["what", "s", "an empty flow's start", "beyond it", f"goal: under {GOAL_SECONDS:g} s", "calls that it made"]
    return (
        f"The command `generate_videos.py` over {rows:,} rows, medians of {rounds} rounds, with a Prefect server "
        "running.\n\n" + markdown(head, [finished, submitted])
    )


def _finished(table: Path, directory: Path, server: Server, rounds: int) -> list[str]:
    ours: list[float] = []
    empty: list[float] = []
    with sandbox(generation_seconds="0.1") as api:
        variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
        command = generate_videos(table, directory / "finished")
        run_child(command, environment=variables)
        before = calls(api)
        for _ in range(rounds):
            server.await_idle()
            empty.append(seconds_to_empty_flow(variables)[0])
            ours.append(run_child(command, environment=variables).all_seconds)
        made = calls(api) - before
    return _line("a finished table again, to the end", ours, empty, f"{made}")


def _submitted(table: Path, directory: Path, server: Server, rounds: int) -> list[str]:
    ours: list[float] = []
    empty: list[float] = []
    with sandbox(generation_seconds=SLOW_JOB_SECONDS) as api:
        variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
        command = generate_videos(table, directory / "submitted")
        leave = [*command, "--max-wait-minutes", "0.01"]
        run_child(leave, environment=variables, exit_codes=[STILL_GENERATING])
        before = calls(api, "create")
        for _ in range(rounds):
            server.await_idle()
            empty.append(seconds_to_empty_flow(variables)[0])
            ours.append(seconds_to_first_call(command, "retrieve", api=api, variables=variables))
        made = calls(api, "create") - before
    return _line("submitted jobs taken up, to the first poll", ours, empty, f"{made} creates")


def _line(about: str, ours: Sequence[float], empty: Sequence[float], made: str) -> list[str]:
    seconds, base = median(ours), median(empty)
    met = "met" if seconds - base < GOAL_SECONDS else "not met"
    return [about, f"{seconds:.2f}", f"{base:.2f}", f"{seconds - base:.2f}", met, made]
