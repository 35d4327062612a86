"""How long it takes from the command to the first POST, and what its imports cost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from commands import FLOW, generate_videos, seconds_to_empty_flow, seconds_to_first_call
from markdown_tables import markdown
from services import environment, prefect_server, sandbox, scratch, write_prompts

from prefect_together.sandbox import SandboxProcess

SHOWN = 14


def measure(*, rows: int, rounds: int) -> str:
    """Time the command with and without a running server, each compared with an empty flow; return Markdown tables."""
    with scratch() as directory, sandbox() as api:
        table = write_prompts(directory / "prompts.csv", rows)
        alone = environment(directory / "client", sandbox_url=api.base_url)
        lines = [
            _line("no server, new PREFECT_HOME", table, directory / "new", api, alone, 1),
            _line("no server", table, directory / "alone", api, alone, rounds),
        ]
        with prefect_server(directory / "server") as server:
            served = environment(directory / "served", sandbox_url=api.base_url, api_url=server.api_url)
            lines.append(_line("a server running", table, directory / "with", api, served, rounds))
    head = ["Prefect", "first POST after s", "an empty flow's body after s", "beyond it"]
    return (
        f"The command `generate_videos.py` over {rows:,} rows, medians of {rounds} rounds (a new home: once). Without "
        "a server the empty flow takes Prefect's own temporary one.\n\n"
        + markdown(head, lines)
        + "\nWhat is imported up to the flow's body, by package, in milliseconds of its own (`-X importtime`):\n\n"
        + markdown(["package", "ms"], [[name, f"{ms:.0f}"] for name, ms in import_ms(FLOW)[:SHOWN]])
    )


def _line(
    about: str, table: Path, directory: Path, api: SandboxProcess, variables: Mapping[str, str], rounds: int
) -> list[str]:
    ours: list[float] = []
    empty: list[float] = []
    own_home = {**variables, "PREFECT_HOME": str(directory / "ours")}
    empty_home = {**variables, "PREFECT_HOME": str(directory / "empty")}
    for variables_of in (own_home, empty_home):
        Path(variables_of["PREFECT_HOME"]).mkdir(parents=True)
    if "new" not in about:  # both have run here before
        seconds_to_first_call(generate_videos(table, directory / "warm"), "create", api=api, variables=own_home)
        seconds_to_empty_flow(empty_home)
    for number in range(rounds):
        empty.append(seconds_to_empty_flow(empty_home)[0])
        command = generate_videos(table, directory / str(number))
        ours.append(seconds_to_first_call(command, "create", api=api, variables=own_home))
    first, base = median(ours), median(empty)
    return [about, f"{first:.2f}", f"{base:.2f}", f"{first - base:.2f}"]


def import_ms(script: Path) -> list[tuple[str, float]]:
    """Milliseconds that each top-level package takes to import for a flow script, the most expensive first."""
    program = f"import runpy; runpy.run_path({str(script)!r}, run_name='imported'); import prefect_together.flows.run"
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    )
    costs: Counter[str] = Counter()
    for line in ran.stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and fields[0].strip().isdigit():
            costs[fields[2].strip().split(".")[0]] += int(fields[0])
    return [(name, microseconds / 1000) for name, microseconds in costs.most_common()]
