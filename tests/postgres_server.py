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
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(home, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(home / "data")
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*as_user, str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust"], **quiet)  # pyright: ignore[reportArgumentType, reportCallIssue]
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    control = [*as_user, str(programs / "pg_ctl"), "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", str(home / "log"), "start"], **quiet)  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        yield f"postgresql://tester@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # pyright: ignore[reportArgumentType, reportCallIssue]
        shutil.rmtree(home, ignore_errors=True)


def throw_away_database(request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database on the test session's server. Skips where PostgreSQL is not installed."""
    server: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex[:12]}"
    subprocess.run(["psql", f"{server}/postgres", "-qc", f"CREATE DATABASE {name}"], check=True)
    return f"{server}/{name}"
