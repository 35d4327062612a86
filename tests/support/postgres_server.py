"""A throw-away PostgreSQL server for tests: initdb into a temporary directory, a fresh database a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest


def find_programs() -> Path | None:
    """The folder of PostgreSQL's programs, where initdb is."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextmanager
def running_server(programs: Path) -> Generator[str]:
    """A server on a free port of 127.0.0.1; yields its URL without a database name."""
    home = Path(mkdtemp(prefix="postgres-"))
    if is_root := os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(home, "postgres")
    user = "postgres" if is_root else None
    groups: list[str] | None = [] if is_root else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(home / "data")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", data, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=user,
            group=user,
            extra_groups=groups,
        )

    run("initdb", "-U", "tester", "-A", "trust")
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    run("pg_ctl", "-w", "-o", options, "-l", str(home / "log"), "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def restart(url: str) -> None:
    """Restart the test session's server as an upgrade does: every connection breaks, and it is there again at once."""
    asked = ["psql", f"{url}/postgres", "-Atc", "SHOW data_directory"]
    data = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    programs = find_programs()
    assert programs is not None
    is_root = os.getuid() == 0
    groups: list[str] | None = [] if is_root else None
    user = "postgres" if is_root else None
    words = [programs / "pg_ctl", "-D", data, "-w", "-m", "fast", "-l", str(Path(data).parent / "log"), "restart"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd="/", user=user, group=user, extra_groups=groups)


def throw_away_database(request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database on the test session's server. Skips where PostgreSQL is not installed."""
    server: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex[:12]}"
    subprocess.run(["psql", f"{server}/postgres", "-qc", f"CREATE DATABASE {name}"], check=True)
    return f"{server}/{name}"
