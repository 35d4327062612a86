"""Runs the benchmarks and writes what they print into RESULTS.md: `python benchmarks/run.py [PART ...] [--rows N]`.

Parts: overhead, floors, durations, downloads, resume, start, server, scale, waiting, in_flight, pace; without one, all.
A part that is run alone replaces its own section of RESULTS.md and leaves the others. `--smoke` runs each part at a
tiny size and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import downloads
import overhead
import resume
import scale
import server
import start

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
VERSIONS = ("prefect-together", "prefect", "together", "aiohttp", "httpx", "SQLAlchemy", "pydantic")
TITLE = """# Results

What `make bench` printed. Seconds depend on the machine and on what else it did at the time: compare by the ratios
within a table, whose programs ran in turn.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A section of RESULTS.md: its title, what makes its tables, and how large it is run."""

    title: str
    make: Callable[[int, int], str]
    rows: int = 0
    rounds: int = 0
    smoke_rows: int = 3


def program(name: str) -> Callable[[int, int], str]:
    """A benchmark that prints its own tables."""

    def make(_rows: int, _rounds: int) -> str:
        command = [sys.executable, str(HERE / f"{name}.py")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return make


PARTS = {
    "overhead": Part("Overhead", lambda rows, rounds: overhead.measure(rows=rows, rounds=rounds), 1000, 3),
    "floors": Part(
        "Overhead, beside the floors only",
        lambda rows, rounds: overhead.measure(rows=rows, rounds=rounds, letters=overhead.FLOORS),
        1000,
        3,
    ),
    "durations": Part(
        "Overhead at real durations", lambda rows, rounds: overhead.measure_durations(rows=rows, rounds=rounds), 600, 1
    ),
    "downloads": Part("Downloads", lambda rows, rounds: downloads.measure(rows=rows, rounds=rounds), 200, 3),
    "resume": Part("Resume", lambda rows, rounds: resume.measure(rows=rows, rounds=rounds), 1000, 3),
    "start": Part("Start", lambda rows, rounds: start.measure(rows=rows, rounds=rounds), 10, 3),
    "server": Part("The engine's server", lambda rows, rounds: server.measure(rows=rows, rounds=rounds), 300, 1),
    "scale": Part("Scale", lambda rows, rounds: scale.measure(rows=rows, rounds=rounds), 10_000, 1, smoke_rows=20),
    "waiting": Part("Waiting (simulated time)", program("waiting")),
    "in_flight": Part("Many jobs in flight (simulated time)", program("in_flight")),
    "pace": Part("Pace (simulated time)", program("pace")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rows", type=int, help="rows of the table, in place of each part's own")
    parser.add_argument("--rounds", type=int, help="rounds, in place of each part's own")
    parser.add_argument("--smoke", action="store_true", help="a tiny size; nothing is written")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for name in given.parts or PARTS:
        part = PARTS[name]
        rows = given.rows or (part.smoke_rows if given.smoke else part.rows)
        rounds = given.rounds or (1 if given.smoke else part.rounds)
        load = os.getloadavg()[0]
        text = f"## {part.title}\n\n{part.make(rows, rounds).strip()}\n"
        print(text, flush=True)
        if not given.smoke:
            size = f" --rows {rows} --rounds {rounds}" if part.rows else ""
            text += f"\n`python benchmarks/run.py {name}{size}`, {machine(load)}\n"
            write_section(RESULTS, name, text)
    return 0


def machine(load: float) -> str:
    """Date, versions and machine in one line."""
    packages = ", ".join(f"{package} {version(package)}" for package in VERSIONS)
    busy = f"load {load:.1f} before it began"
    where = f"{platform.system()}, {os.cpu_count()} processors, {busy}, Python {platform.python_version()}"
    return f"{datetime.now().astimezone().date()}, {where}, {packages}."


def write_section(path: Path, name: str, text: str) -> None:
    """Put the section into the file in the order of the parts, in place of its earlier form."""
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    sections: dict[str, str] = dict(re.findall(r"<!-- (\w+) -->\n(.*?)(?=<!-- \w+ -->\n|\Z)", known, flags=re.DOTALL))
    sections[name] = text
    ordered = [f"<!-- {part} -->\n{sections[part].strip()}\n" for part in PARTS if part in sections]
    path.write_text("\n".join([TITLE, *ordered]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
