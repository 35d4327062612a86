"""The databases of a Prefect server as seen from outside: their size and their processor time."""

from __future__ import annotations

import runpy
import subprocess
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil

TESTS = Path(__file__).parents[1] / "tests" / "support"


@dataclass(frozen=True, slots=True)
class Database:
    """Its URL for Prefect (empty: Prefect's default), and the resources it has used."""

    url: str
    size_bytes: Callable[[], int]
    cpu_seconds: Callable[[], float]


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A throw-away server; `url` is without a database's name."""

    url: str
    pid: int

    def new_database(self, name: str) -> Database:
        """An empty database."""
        self.say(f"CREATE DATABASE {name}")
        return Database(
            url=f"{self.url.replace('postgresql:', 'postgresql+asyncpg:')}/{name}",
            size_bytes=lambda: int(self.say(f"SELECT pg_database_size('{name}')")),
            cpu_seconds=self.cpu_seconds,
        )

    def say(self, statement: str) -> str:
        """What psql prints of it."""
        command = ["psql", f"{self.url}/postgres", "-qAtc", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def cpu_seconds(self) -> float:
        """Of all its processes that live; Prefect keeps its connections, so theirs do."""
        postmaster = psutil.Process(self.pid)
        used = [process.cpu_times() for process in [postmaster, *postmaster.children()]]
        return sum(times.user + times.system for times in used)


@contextmanager
def postgres_server() -> Generator[PostgresServer | None]:
    """The PostgreSQL server that the tests start; None where its programs are not installed."""
    of_the_tests = runpy.run_path(str(TESTS / "postgres_server.py"))
    find_programs = cast("Callable[[], Path | None]", of_the_tests["find_programs"])
    running_server = cast("Callable[[Path], AbstractContextManager[str]]", of_the_tests["running_server"])
    programs = find_programs()
    if programs is None:
        yield None
        return
    with running_server(programs) as url:
        server = PostgresServer(url, pid=0)
        directory = Path(server.say("SHOW data_directory"))
        yield PostgresServer(url, pid=int((directory / "postmaster.pid").read_text().split()[0]))


def sqlite_database(path: Path) -> Database:
    """The file, with what is still in its write-ahead log; it runs within the server's process."""

    def size_bytes() -> int:
        return sum(part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal")) if part.exists())

    return Database(url="", size_bytes=size_bytes, cpu_seconds=lambda: 0.0)
