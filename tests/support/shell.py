"""Runs flow files as a person does: in a process and a HOME of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from repository import FLOWS


def in_shell(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real thing, in a process and a HOME of its own, without any Prefect settings but those given."""
    return subprocess.run(
        [sys.executable, str(FLOWS / "generate_videos.py"), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect"), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def in_shell_started(home: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """The same without waiting for its end; the test sees to that."""
    return subprocess.Popen(
        [sys.executable, str(FLOWS / "generate_videos.py"), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect"), **environment},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
