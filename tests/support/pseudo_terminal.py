"""Runs a command of ours in a real pseudo-terminal, as narrow as a test asks."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours, and the movements by which a live display draws itself anew."""


@dataclass(frozen=True)
class Shown:
    """What a terminal was sent, without its codes: a live display stands there as often as it was drawn."""

    exit_code: int
    text: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split("[\r\n]+", self.text) if line.strip()]


def in_terminal(home: Path, *words: str, columns: int = 80, **environment: str) -> Shown:
    """Run `prefect-together WORDS` in a terminal of its own and wait for its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_together", *words],
        env={**own, **environment},
        cwd=home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = bytearray()
    try:
        while chunk := _read(ours):
            sent += chunk
        code = process.wait()
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    return Shown(code, CODES.sub("", sent.decode()))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # EIO: nobody has the other end open any more
        return b""
