"""What the engine's server spends on a run: processor time, backlog, growth of its database, on SQLite and PostgreSQL.

Each kind of server records the same two loads: empty task runs, and this project's rows (three task runs, two events,
four log lines each). The client is stopped by nothing the server does; what the server has not recorded when the client
has ended is its backlog.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

from children import Run, run_peer
from databases import Database, PostgresServer, postgres_server, sqlite_database
from markdown_tables import markdown
from services import IDLE_FRACTION, Server, environment, prefect_server, sandbox, scratch, write_prompts

from prefect_together.cli.local_prefect import SERVER_SETTINGS

IN_FLIGHT = "200"
TASK_RUNS_A_ROW = 3
LOOK_SECONDS = 0.5
IDLE_SECONDS = 15.0
"""How long the server must have next to nothing to do before what is not recorded counts as lost."""
BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
}
NO_EVENT_COPY = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A server and its database."""

    about: str
    is_postgres: bool
    settings: Mapping[str, str]


KINDS = (
    Kind("SQLite, Prefect's defaults", False, {}),
    Kind("SQLite, batches of 200", False, BATCHES),
    Kind("SQLite, as a local run starts it", False, SERVER_SETTINGS),
    Kind("PostgreSQL, Prefect's defaults", True, {}),
    Kind("PostgreSQL, batches of 200", True, BATCHES),
    Kind("PostgreSQL, batches of 200, no Events page", True, BATCHES | NO_EVENT_COPY),
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one load cost a server and its database."""

    server_ms_a_row: float
    database_ms_a_row: float
    backlog_seconds: float
    bytes_a_row: float
    lost: int


@dataclass(frozen=True, slots=True)
class Load:
    """A run to be recorded, and its rows of three task runs each."""

    run: Callable[[], Run]
    rows: int


def measure(*, rows: int, rounds: int) -> str:
    """Both loads on every kind of server; the table as Markdown."""
    lines: list[list[str]] = []
    with scratch() as directory, sandbox(generation_seconds="1") as api, postgres_server() as postgres:
        table = write_prompts(directory / "prompts.csv", rows)
        for number, kind in enumerate(KINDS):
            if kind.is_postgres and postgres is None:
                lines.append([f"{kind.about}: PostgreSQL is not installed", *["-"] * 7])
                continue
            with _server(kind, directory / f"server_{number}", postgres) as (server, database):
                variables = environment(directory / "client", sandbox_url=api.base_url, api_url=server.api_url)
                output = directory / f"out-{number}"
                _run("ours", write_prompts(directory / "few.csv", 3), output / "few", variables)()
                runs = [_run("empty_tasks", table, output / "empty", variables) for _ in range(rounds)]
                empty = [record(Load(run, rows), server, database)[0] for run in runs]
                runs = [_run("ours", table, output / f"{one}", variables) for one in range(rounds)]
                ours = [record(Load(run, rows), server, database)[0] for run in runs]
            lines.append(_line(kind, empty, ours))
    head = [
        "server",
        "CPU ms a task run",
        "CPU ms a row",
        "of the database",
        "rows a second",
        "backlog s",
        "kB a row",
        "records lost",
    ]
    return (
        f"{rows:,} rows of three empty task runs each, then {rows:,} rows of this project, {IN_FLIGHT} in flight, "
        f"jobs of 1 s; medians of {rounds} rounds. CPU of the server's process; PostgreSQL's own processes apart. Rows "
        "a second: what one processor is busy with entirely. Backlog: from the client's end to the last record. "
        "PostgreSQL does not wait for the disk here (fsync=off).\n\n" + markdown(head, lines)
    )


def _run(peer: str, table: Path, output: Path, variables: Mapping[str, str]) -> Callable[[], Run]:
    return lambda: run_peer(peer, str(table), str(output), *([IN_FLIGHT] * (peer == "ours")), environment=variables)


@contextmanager
def _server(kind: Kind, home: Path, postgres: PostgresServer | None) -> Generator[tuple[Server, Database]]:
    if not kind.is_postgres:
        with prefect_server(home, settings=kind.settings) as server:
            yield server, sqlite_database(home / "prefect.db")
        return
    assert postgres is not None
    database = postgres.new_database(home.name)
    address = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url}
    with prefect_server(home, settings={**kind.settings, **address}) as server:
        yield server, database


def record(load: Load, server: Server, database: Database) -> tuple[Recorded, Run]:
    """Run a load and wait until the server has recorded all of it, or nothing more comes."""
    server.await_idle()
    expected = task_runs_recorded(server) + TASK_RUNS_A_ROW * load.rows
    cpu, cpu_of_database, size = server.cpu_seconds(), database.cpu_seconds(), database.size_bytes()
    run = load.run()
    backlog_seconds, lost = _await_records(server, expected)
    server.await_idle()
    recorded = Recorded(
        server_ms_a_row=1000 * (server.cpu_seconds() - cpu) / load.rows,
        database_ms_a_row=1000 * (database.cpu_seconds() - cpu_of_database) / load.rows,
        backlog_seconds=backlog_seconds,
        bytes_a_row=(database.size_bytes() - size) / load.rows,
        lost=lost,
    )
    return recorded, run


def _await_records(server: Server, expected: int) -> tuple[float, int]:
    """Seconds until so many task runs are recorded as ended, and how many were not when the server was idle again."""
    started = changed = busy = time.monotonic()
    count, cpu = task_runs_recorded(server), server.cpu_seconds()
    while count < expected and time.monotonic() - busy < IDLE_SECONDS:
        time.sleep(LOOK_SECONDS)
        if (cpu_now := server.cpu_seconds()) - cpu > IDLE_FRACTION * IDLE_SECONDS:
            cpu, busy = cpu_now, time.monotonic()
        if (now := task_runs_recorded(server)) != count:
            count, changed = now, time.monotonic()
    return changed - started, expected - count


def task_runs_recorded(server: Server) -> int:
    """Task runs that the server has as completed, over all flow runs."""
    body = json.dumps({"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}).encode()
    request = urllib.request.Request(  # noqa: S310  our own server
        f"{server.api_url}/task_runs/count", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        return cast("int", json.load(answer))


def _line(kind: Kind, empty: list[Recorded], ours: list[Recorded]) -> list[str]:
    a_row = median(one.server_ms_a_row for one in ours)
    return [
        kind.about,
        f"{median(one.server_ms_a_row for one in empty) / TASK_RUNS_A_ROW:.1f}",
        f"{a_row:.1f}",
        f"{median(one.database_ms_a_row for one in ours):.1f}",
        f"{1000 / a_row:.0f}",
        f"{median(one.backlog_seconds for one in ours):.1f}",
        f"{median(one.bytes_a_row for one in ours) / 1000:.0f}",
        f"{sum(one.lost for one in [*empty, *ours])}",
    ]
