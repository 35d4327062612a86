"""Many clips from loopback to one disk: ours with its checks beside `curl --parallel` and bare aiohttp.

The clips are real H.264 videos, served by sendfile from another process on the same processors. Only ours flushes
each file to disk before it counts it; the goal is held against curl, which does not.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from children import Run, run_child, run_peer
from file_server import FileServer, file_server
from markdown_tables import markdown
from services import environment, scratch

HERE = Path(__file__).parent
GOAL = 0.8
AT_ONCE = 16
"""As many as a run has (`session.MAX_DOWNLOADS`)."""
CLIPS = 3
PARALLEL = ("--parallel", "--parallel-max", f"{AT_ONCE}")
FEW = 48
"""Clips of the smaller run that the memory of the larger is compared with."""

Fetch = Callable[[Sequence[str], Path], Run]


@dataclass(frozen=True, slots=True)
class Program:
    """What downloads so many URLs into a directory."""

    about: str
    fetch: Fetch


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one program."""

    mb_a_second: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_mb: float


def measure(*, rows: int, rounds: int) -> str:
    """Download `rows` clips with each program in turn, `rounds` times; return the tables as Markdown."""
    with scratch() as directory:
        clips = directory / "clips"
        clips.mkdir()
        # In a process of its own: a child's largest memory starts with its parent's.
        run_child([sys.executable, str(HERE / "noisy_clips.py"), str(clips), f"{CLIPS}"], environment={})
        size_mb = sum(path.stat().st_size for path in clips.iterdir()) / CLIPS / 1e6
        programs = {
            "curl": Program(f"curl --parallel --parallel-max {AT_ONCE}", _curl),
            "curl checked": Program("the same, then sync and sha256sum of every file", _curl_checked),
            "bare": Program("bare aiohttp, each chunk written as it comes", _peer("download_bare", directory)),
            "ours": Program("this project: resumable, checked, hashed, flushed", _peer("download_ours", directory)),
        }
        with file_server(clips) as server:
            runs = {name: list[Measured]() for name in programs}
            for _ in range(rounds):
                for name, program in programs.items():
                    runs[name].append(_measured(program, server, rows, size_mb, directory))
            few = _measured(programs["ours"], server, min(FEW, rows), size_mb, directory)
    return _tables(programs, runs, few, rows, size_mb)


def _measured(program: Program, server: FileServer, rows: int, size_mb: float, directory: Path) -> Measured:
    target = directory / "videos"
    target.mkdir()
    try:
        os.sync()  # nobody pays for what the one before left to be written
        before = server.cpu_seconds()
        run = program.fetch([f"{server.url}/{number % CLIPS}.mp4" for number in range(rows)], target)
        used = server.cpu_seconds() - before
        written = sum(path.stat().st_size for path in target.iterdir()) / 1e6
        if abs(written - size_mb * rows) > rows:
            raise RuntimeError(f"{program.about}: {written:.0f} of {size_mb * rows:.0f} MB are there")
        return Measured(written / run.body_seconds, run.cpu_seconds, used, run.peak_mb)
    finally:
        shutil.rmtree(target)


def _curl_words(urls: Sequence[str], target: Path) -> list[str]:
    config = target.parent / "curl.txt"
    config.write_text("".join(f'url = "{url}"\noutput = "{target}/{number}.mp4"\n' for number, url in enumerate(urls)))
    return [
        "curl",
        "--fail",
        "--no-progress-meter",
        "--parallel",
        "--parallel-max",
        f"{AT_ONCE}",
        "-K",
        f"{config}",
    ]


def _curl(urls: Sequence[str], target: Path) -> Run:
    return run_child(_curl_words(urls, target), environment={})


def _curl_checked(urls: Sequence[str], target: Path) -> Run:
    curl = " ".join(_curl_words(urls, target))
    files = f"find {target} -name '*.mp4' -print0 | xargs -0 -n 4 -P {os.cpu_count()}"
    return run_child(["sh", "-ec", f"{curl}; {files} sync; {files} sha256sum >/dev/null"], environment={})


def _peer(name: str, home: Path) -> Fetch:
    return lambda urls, target: run_peer(name, "-", str(target), *urls, environment=environment(home))


def _tables(
    programs: dict[str, Program], runs: dict[str, list[Measured]], few: Measured, rows: int, size_mb: float
) -> str:
    def ratio(name: str) -> float:
        """Of each round for itself: the disk is not the same in the next."""
        pairs = zip(runs[name], runs["curl"], strict=True)
        return median(one.mb_a_second / curl.mb_a_second for one, curl in pairs)

    lines = [
        [
            program.about,
            f"{median(run.mb_a_second for run in runs[name]):.0f}",
            f"{ratio(name):.2f}",
            f"{median(run.cpu_seconds for run in runs[name]) * 1000 / rows:.0f}",
            f"{median(run.server_cpu_seconds for run in runs[name]) * 1000 / rows:.0f}",
            f"{median(run.peak_mb for run in runs[name]):.0f}",
        ]
        for name, program in programs.items()
    ]
    head = ["what", "MB/s", "of curl's", "CPU ms a clip", "server CPU ms a clip", "peak MB"]
    peak_mb = median(run.peak_mb for run in runs["ours"])
    goals = [
        [f"throughput at least {GOAL} x curl's", f"{ratio('ours'):.2f}", "yes" if ratio("ours") >= GOAL else "no"],
        [
            f"memory flat: {rows} clips against {min(FEW, rows)} ({few.peak_mb:.0f} MB)",
            f"{peak_mb / few.peak_mb:.2f}",
            "yes" if peak_mb <= few.peak_mb * 1.1 else "no",
        ],
    ]
    return (
        f"{rows} clips of {size_mb:.0f} MB, {AT_ONCE} at once, medians of {len(runs['ours'])} interleaved "
        "rounds; ratios are those within a round. All write to the same disk; curl and bare aiohttp leave the writing "
        "to the system's cache, ours has each clip on the disk before it counts it.\n\n"
        + markdown(head, lines)
        + "\n"
        + markdown(["goal", "ratio", "met"], goals)
    )
