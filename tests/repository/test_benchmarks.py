"""The benchmarks run, and their tables and RESULTS.md have the form that they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"


def run_benchmarks(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *words], capture_output=True, text=True, check=False
    )


def test_an_unknown_part_is_refused_with_its_name() -> None:
    ran = run_benchmarks("overhaed")

    assert ran.returncode == 2
    assert "overhaed" in ran.stderr


def test_a_section_replaces_its_earlier_form_and_leaves_the_others(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from run import write_section; path = Path('RESULTS.md')\n"
        "write_section(path, 'start', 'first')\n"
        "write_section(path, 'overhead', 'figures')\n"
        "write_section(path, 'start', 'second')\n"
    )

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(BENCHMARKS)}, check=True)

    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("figures") < text.index("second")
    assert text.count("<!-- start -->") == 1


@pytest.mark.bench
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("overhead", ["| ours |", "the engine's floor", "goal"]),
        ("floors", ["| ours |"]),
        ("durations", ["bare aiohttp", "this project"]),
        ("downloads", ["curl --parallel", "this project", "memory flat"]),
        ("resume", ["a finished table again", "0 creates"]),
        ("start", ["a server running", "| prefect "]),
        ("server", ["| SQLite, as a local run starts it", "PostgreSQL"]),
        ("scale", ["peak under", "first card"]),
        ("waiting", ["optimum"]),
        ("in_flight", ["in flight", "Goal"]),
        ("pace", ["refused"]),
    ],
)
def test_each_part_runs_at_a_tiny_size(part: str, words: list[str]) -> None:
    ran = run_benchmarks(part, "--smoke")

    assert ran.returncode == 0, ran.stderr
    assert all(word in ran.stdout for word in words), ran.stdout
