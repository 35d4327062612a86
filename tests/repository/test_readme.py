"""Types every command of README.md and docs/ in a shell, in order, and holds what the pages print against the output.

A fence marked `sh` or `console` is typed, a `python` one is run; one without a mark is only for the eye. Deployments
are typed by test_deployment_steps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from prefect_server import PATIENT
from prefect_together.sandbox import SandboxProcess
from repository import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
TYPED_ELSEWHERE = ("prefect ", "prefect-together deploy", "python deployments/", "docker ", "sudo ")
"""Need a server and a worker, or a machine that is run by systemd or Docker."""
END_OF_STEP = "::end of step"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Step:
    """A command, or a program, and the lines that the page shows as its output."""

    page: str
    language: str
    text: str
    shown: tuple[str, ...] = ()


def steps_of(page: Path) -> list[Step]:
    """The commands of a page, in its order."""
    steps: list[Step] = []
    for language, body in FENCE.findall(page.read_text()):
        lines = [line.strip() for line in body.splitlines()]
        if language == "python":
            steps.append(Step(page.name, language, body))
        elif language == "sh":
            steps += [Step(page.name, language, line) for line in lines if line and not line.startswith("#")]
        elif language == "console":
            for typed in "\n".join(lines).split("$ ")[1:]:
                command, *shown = typed.strip().splitlines()
                steps.append(Step(page.name, language, command, tuple(shown)))
    return [step for step in steps if not step.text.startswith(TYPED_ELSEWHERE)]


def as_pattern(line: str) -> re.Pattern[str]:
    """A shown line, with what differs from run to run left open: ports, run names, times, and `...`."""
    pattern = re.escape(line)
    for found, instead in (
        (r"\\\.\\\.\\\.", ".*"),
        (r"127\\\.0\\\.0\\\.1:\d+", r"127\\.0\\.0\\.1:\\d+"),
        (r"'[a-z]+\\-[a-z]+'", "'[a-z-]+'"),
    ):
        pattern = re.sub(found, instead, pattern)
    return re.compile(pattern)


@contextmanager
def a_copy(directory: Path) -> Generator[dict[str, str]]:
    """A copy of what a user has, and an environment whose service is a sandbox."""
    for name in ("flows", "examples", "tasks", "deployments", "Makefile", "requirements.lock", "pyproject.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, directory / name)
    (directory / ".venv").symlink_to(Path(sys.prefix))
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(directory / name, (0, 0))  # older than .venv/ready: make does not build it anew
    (directory / "my-prompts.csv").write_text("prompt\nA lighthouse in a storm\n")
    home = directory / "home"
    home.mkdir()
    with SandboxProcess() as sandbox:
        yield {
            **PATIENT,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TOGETHER_BASE_URL": sandbox.base_url,
        }


def typed(steps: list[Step], directory: Path, environment: dict[str, str]) -> list[tuple[int, list[str]]]:
    """Type the steps into one shell, as a reader would. Returns the exit code and the output lines of each."""
    script: list[str] = ["trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for number, step in enumerate(steps):
        if step.language == "python":
            (directory / f"step_{number}.py").write_text(step.text)
        script.append(f"python step_{number}.py" if step.language == "python" else step.text)
        script.append(f'printf "\\n{END_OF_STEP} %d\\n" $?')
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    parts = re.split(rf"^{END_OF_STEP} (\d+)$", ran.stdout, flags=re.MULTILINE)
    return [(int(code), output.splitlines()) for output, code in zip(parts[0::2], parts[1::2], strict=False)]


@pytest.mark.parametrize("page", [page for page in PAGES if steps_of(page)], ids=lambda page: page.name)
def test_every_command_of_the_page_works_and_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    steps = steps_of(page)

    with a_copy(tmp_path) as environment:
        results = typed(steps, tmp_path, environment)

    assert len(results) == len(steps)
    for step, (code, output) in zip(steps, results, strict=True):
        told = f"{step.text}\n" + "\n".join(output)
        assert code == 0, told
        for line in step.shown:
            assert any(as_pattern(line).search(real) for real in output), f"not printed: {line}\n{told}"
