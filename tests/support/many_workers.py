"""Runs a table over several real Prefect workers, kills one of them in the middle, and counts what was bought.

    python tests/support/many_workers.py --rows 1000 --workers 4 --kill

One PostgreSQL (Prefect's database, and the ledger's), one Prefect server, one sandbox that counts what it accepts, and
`prefect worker start` for each worker. With --apart each worker has a pid namespace of its own (needs root): as on
machines of their own, a dead one is known by its silence only. Prints the figures; exit code 1 if a row was bought
twice or not at all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import psutil

from batch_run import wait_until, write_table
from postgres_server import find_programs, running_server
from prefect_server import PATIENT
from prefect_together.sandbox import SandboxProcess
from repository import ROOT

T = TypeVar("T")

BIN = Path(sys.executable).parent
POOL = "together-video"
START_SECONDS = 150.0
ASKED_AGAIN = 4


@dataclass
class Worker:
    """A `prefect worker start` and its runs' processes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def family(self) -> list[psutil.Process]:
        try:
            worker = psutil.Process(self.process.pid)
            return [*worker.children(recursive=True), worker]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL it with everything that it has started, as a machine dies."""
        family = self.family()
        for process in family:
            process.suspend()
        for process in family:
            process.kill()
        self.process.wait(30)


@dataclass
class Site:
    """What the workers share, and the workers."""

    api_url: str
    ledger: str
    sandbox: SandboxProcess
    folder: Path
    workers: list[Worker] = field(default_factory=list[Worker])

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TOGETHER_"))}
        return own | {
            **PATIENT,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "TOGETHER_API_KEY": "sandbox-key",
            "TOGETHER_BASE_URL": self.sandbox.base_url,
        }

    def prefect(self, *words: str) -> str:
        """What Prefect's command line prints, typed in the project's root. Raises if it fails."""
        done = subprocess.run(
            [str(BIN / "prefect"), *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def deploy(self) -> None:
        self.prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        self.prefect("--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")

    def start_worker(self, *, limit: int = 1, apart: bool = False) -> Worker:
        name = f"worker-{len(self.workers) + 1}"
        log = self.folder / f"{name}.log"
        words = [str(BIN / "prefect"), "worker", "start", "--pool", POOL, "--name", name, "--limit", str(limit)]
        if apart:
            words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *words]
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, env=self.environment, cwd=self.folder, stdout=out, stderr=out, start_new_session=True
            )
        self.workers.append(worker := Worker(name, process, log))
        return worker

    def stop_workers(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        self.workers.clear()

    def accepted(self, tag: str) -> Counter[str]:
        """Accepted jobs by prompt, of the table with this tag."""
        by_prompt: dict[str, int] = self.sandbox.control.stats()["accepted_by_prompt"]
        return Counter({prompt: count for prompt, count in by_prompt.items() if tag in prompt})

    def ask(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """The result of `work(client)` with a client of the site's server."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        async def main() -> T:
            async with get_client() as client:
                return await work(client)

        with temporary_settings({PREFECT_API_URL: self.api_url}):
            for _ in range(ASKED_AGAIN):
                with suppress(httpx.HTTPError):  # a server that has more to do than it can answers 500
                    return asyncio.run(main())
            return asyncio.run(main())

    def start_run(self, parameters: Mapping[str, Any]) -> UUID:
        """Start `generate-videos` on the workers."""

        async def create(client: Any) -> UUID:
            deployment = await client.read_deployment_by_name("generate-videos/generate-videos")
            run = await client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters))
            return run.id

        return self.ask(create)

    def run_of(self, run_id: UUID) -> Any:
        async def read(client: Any) -> Any:
            return await client.read_flow_run(run_id)

        return self.ask(read)

    def shards_of(self, run_id: UUID) -> list[Any]:
        """The runs that it has started, in the order of their names."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

        wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))

        async def read(client: Any) -> list[Any]:
            return sorted(await client.read_flow_runs(flow_run_filter=wanted), key=lambda run: run.name)

        return self.ask(read)

    def cancel(self, run_id: UUID) -> None:
        """What the UI's button does."""
        from prefect.states import Cancelling

        async def cancel(client: Any) -> None:
            await client.set_flow_run_state(run_id, Cancelling())

        self.ask(cancel)

    def wait_for(self, run_id: UUID, *, seconds: float) -> Any:
        """The run as soon as it has ended. Raises TimeoutError with what the workers said."""
        if not wait_until(lambda: self.run_of(run_id).state.is_final(), seconds=seconds, every_seconds=1.0):
            logs = "\n".join(worker.log.read_text()[-3000:] for worker in self.workers)
            raise TimeoutError(f"run {run_id} still goes on after {seconds} s:\n{logs}")
        return self.run_of(run_id)

    def joined(self) -> int:
        """How many shards have taken their plan out of the ledger, of the runs that go on; 0 before there is one."""
        words = ["psql", self.ledger, "-Atc", "SELECT count(*) FROM shared_runs"]
        asked = subprocess.run(words, capture_output=True, text=True, check=False)
        return int(asked.stdout.strip() or 0)


@contextmanager
def running_site(
    folder: Path, *, postgres: str, generation_seconds: str, name: str = "site", clip: str = "tiny"
) -> Generator[Site]:
    """PostgreSQL's two databases, a Prefect server over one of them, a sandbox; no worker yet."""
    for database in (f"{name}_prefect", f"{name}_ledger"):
        subprocess.run(["psql", f"{postgres}/postgres", "-qc", f"CREATE DATABASE {database}"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ("--generation-seconds", generation_seconds, "--clip", clip, "--state-dir", str(folder / "sandbox"))
    with SandboxProcess(arguments=list(settings)) as sandbox:
        site = Site(f"http://127.0.0.1:{port}/api", f"{postgres}/{name}_ledger", sandbox, folder)
        database = f"{postgres}/{name}_prefect".replace("postgresql://", "postgresql+asyncpg://")
        environment = {**site.environment, "PREFECT_API_DATABASE_CONNECTION_URL": database}
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if not wait_until(lambda: answers(f"{site.api_url}/health"), seconds=START_SECONDS, every_seconds=0.5):
                raise TimeoutError((folder / "server.log").read_text()[-3000:])
            site.deploy()
            yield site
        finally:
            site.stop_workers()
            family = psutil.Process(server.pid).children(recursive=True)
            os.killpg(server.pid, signal.SIGTERM)
            psutil.wait_procs(family, timeout=10)
            for process in family:
                if process.is_running():
                    process.kill()
            server.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server's
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def worker_of(site: Site, run: Any) -> Worker | None:
    """The worker below which a run's process is."""
    wanted = str(run.id)
    for worker in site.workers:
        for process in worker.family():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == wanted.replace("-", ""):
                    return worker
            except psutil.Error:
                continue
    return None


def figures(site: Site, *, rows: int, workers: int, in_flight: int, kill: str, apart: bool) -> Iterator[str]:
    """Run one table over so many workers, and say what came of it, line by line."""
    tag = f"table-{workers}-{kill}-{time.time_ns()}"
    table = site.folder / f"{tag}.csv"
    write_table(table, rows=rows, prompt=f"A cat of {tag}")
    for _ in range(workers):
        site.start_worker(apart=apart)
    parameters = {
        "prompts": str(table),
        "output_dir": str(site.folder / tag),
        "locations": {"ledger": site.ledger},
        "limits": {"max_in_flight": in_flight, "shards": workers},
    }
    started = time.monotonic()
    run_id = site.start_run(parameters)
    if kill != "none":
        wait_until(lambda: sum(site.accepted(tag).values()) >= rows // 3, seconds=600, every_seconds=0.2)
        victim_run = site.run_of(run_id) if kill == "parent" else site.shards_of(run_id)[0]
        victim = worker_of(site, victim_run)
        assert victim is not None, "no worker runs it"
        victim.kill()
        before = site.accepted(tag)
        yield f"killed {victim.name} ({victim_run.name}) when {sum(before.values())} of {rows} jobs were accepted"
        if kill == "parent":
            wait_until(
                lambda: all(run.state.is_final() for run in site.shards_of(run_id)), seconds=900, every_seconds=2
            )
            run_id = site.start_run(parameters)
    run = site.wait_for(run_id, seconds=1800)
    took = time.monotonic() - started
    site.stop_workers()
    accepted = site.accepted(tag)
    twice = sum(count > 1 for count in accepted.values())
    yield f"{workers} workers, {in_flight} in flight: {took:.0f} s; {run.state.name}: {run.state.message}"
    yield f"  accepted once {sum(count == 1 for count in accepted.values())}, more than once {twice}"
    for shard in site.shards_of(run_id):
        yield f"  {shard.name}: {shard.state.name}: {shard.state.message}"
    if twice or len(accepted) != rows:
        yield "  WRONG"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=100, help="over all workers; one worker alone gets its part")
    parser.add_argument("--generation-seconds", default="uniform:4:8")
    parser.add_argument("--kill", choices=("shard", "parent", "none"), default="shard")
    parser.add_argument("--apart", action="store_true", help="each worker in a pid namespace of its own")
    parser.add_argument("--alone", action="store_true", help="one worker too, for comparison")
    given = parser.parse_args()
    programs = find_programs()
    assert programs is not None, "apt-get install postgresql"
    lines: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="workers-", ignore_cleanup_errors=True) as folder,
        running_server(programs) as postgres,
        running_site(Path(folder), postgres=postgres, generation_seconds=given.generation_seconds) as site,
    ):
        runs = [(given.workers, given.in_flight, given.kill)]
        if given.alone:
            runs = [(1, given.in_flight // given.workers, "none"), (given.workers, given.in_flight, "none"), *runs]
        for workers, in_flight, kill in runs:
            for line in figures(
                site, rows=given.rows, workers=workers, in_flight=in_flight, kill=kill, apart=given.apart
            ):
                print(line, flush=True)
                lines.append(line)
    return 1 if any("WRONG" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
