"""Stopping a run in the middle: no new submits, a ledger that is right at once, and a next run that goes on."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry

from batch_run import WarmRuns, wait_until, write_table
from prefect_together.sandbox import SandboxProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROWS = 60
SECONDS = 200.0
ON_THE_WAY_SECONDS = 0.3
"""A request that was written before the signal may be read by a busy sandbox so much later."""
DEPLOYMENT = "stop-test"


@pytest.fixture(scope="module")
def sandbox() -> Generator[SandboxProcess]:
    arguments = ["--generation-seconds", "uniform:1:2", "--clip", "tiny", "--keep-requests", "100000"]
    with SandboxProcess(arguments=arguments) as process:
        yield process


@dataclass(frozen=True)
class Table:
    """A table of its own and what sandbox and ledger say of it."""

    folder: Path
    tag: str
    sandbox: SandboxProcess

    @property
    def words(self) -> tuple[str, ...]:
        return (str(self.folder / "table.csv"), "--output-dir", str(self.folder / "out"), "--max-in-flight", "8")

    def creates_at(self) -> list[float]:
        """When the create calls came in, unix seconds."""
        requests = self.sandbox.control.requests()
        ours = [one for one in requests if one["endpoint"] == "create" and self.tag in str(one["body"])]
        return [one["at"] for one in ours]

    def accepted(self) -> Counter[str]:
        by_prompt: dict[str, int] = self.sandbox.control.stats()["accepted_by_prompt"]
        return Counter({prompt: count for prompt, count in by_prompt.items() if self.tag in prompt})

    def states(self) -> Counter[str]:
        return Counter(dict(self._ledger("SELECT state, count(*) FROM videos GROUP BY state")))

    def is_put_in_order(self) -> bool:
        """No intent is open and no claim is left."""
        left = "SELECT count(*) FROM videos WHERE state = 'submitting' OR owner IS NOT NULL"
        return self._ledger(left) == [(0,)]

    def _ledger(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder / 'out' / 'ledger.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
def table(tmp_path: Path, sandbox: SandboxProcess) -> Table:
    tag = uuid.uuid4().hex[:8]
    write_table(tmp_path / "table.csv", rows=ROWS, prompt=f"A cat of {tag}")
    return Table(tmp_path, tag, sandbox)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_submits_and_leaves_the_ledger_right(
    runs: WarmRuns, table: Table, number: signal.Signals, exit_code: int
) -> None:
    table.sandbox.control.fault("late", endpoint="create", after=10, prompt=table.tag)
    run = runs.start(*table.words)
    assert wait_until(lambda: len(table.accepted()) >= 20 or run.exit_code is not None, seconds=SECONDS)

    run.send(number)
    sent_at = time.time()
    assert wait_until(table.is_put_in_order, seconds=60)

    assert run.wait(SECONDS) == exit_code
    assert max(table.creates_at()) < sent_at + ON_THE_WAY_SECONDS
    states = table.states()
    assert states["in_doubt"] == 1, "the call that was not answered"
    assert len(table.accepted()) == states.total() - states["planned"]
    assert "Traceback" not in run.log.read_text()

    assert runs.start(*table.words).wait(SECONDS) == 1
    assert table.states() == {"downloaded": ROWS - 1, "in_doubt": 1}
    assert set(table.accepted().values()) == {1}


@contextmanager
def served(runs: WarmRuns, log: Path) -> Generator[tuple[SyncPrefectClient, UUID]]:
    """The installed flow under `serve`, which logs to a file; yields Prefect's client and the deployment's id."""
    program = (
        "from prefect.types.entrypoint import EntrypointType; from prefect_together.flows import generate_videos\n"
    )
    program += f"generate_videos.serve(name={DEPLOYMENT!r}, entrypoint_type=EntrypointType.MODULE_PATH)"
    environment = runs.environment | {"PREFECT_API_URL": runs.api_url, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with (
        SyncPrefectClient(runs.api_url) as api,
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=log.parent,
        ) as server,
    ):
        try:
            assert wait_until(lambda: deployment_id(api) is not None, seconds=SECONDS, every_seconds=0.2), (
                log.read_text()
            )
            found = deployment_id(api)
            assert found
            yield api, found
        finally:
            server.terminate()
            server.wait(SECONDS)


def deployment_id(api: SyncPrefectClient) -> UUID | None:
    try:
        return api.read_deployment_by_name(f"generate-videos/{DEPLOYMENT}").id
    except ObjectNotFound:
        return None


def set_state(api: SyncPrefectClient, run_id: UUID, state: State) -> None:
    answer = api.set_flow_run_state(run_id, state)
    assert answer.status == SetStateStatus.ACCEPT, answer


def test_cancel_and_retry_in_prefect_repeat_nothing_that_is_paid(runs: WarmRuns, table: Table, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    table.sandbox.control.fault("429", endpoint="create", after=20, count=None, prompt=table.tag)
    with served(runs, log) as (api, deployment):
        parameters = {"prompts": table.words[0], "output_dir": table.words[2], "limits": {"max_in_flight": 8}}
        run_id = api.create_flow_run_from_deployment(deployment, parameters=parameters).id

        def state() -> StateType | None:
            return api.read_flow_run(run_id).state_type

        assert wait_until(lambda: len(table.accepted()) == 20, seconds=SECONDS, every_seconds=0.05), state()
        set_state(api, run_id, State(type=StateType.CANCELLING))
        assert wait_until(lambda: state() == StateType.CANCELLED, seconds=SECONDS, every_seconds=0.1), state()
        assert wait_until(table.is_put_in_order, seconds=60)
        # The flow says Cancelled by itself; `serve` says it again a little later, over whatever the state is by then.
        assert wait_until(lambda: "Cancelled flow run" in log.read_text(), seconds=SECONDS, every_seconds=0.1), (
            log.read_text()
        )
        cancelled_at = len(table.creates_at())
        time.sleep(1)  # nothing is to happen: there is no event for that
        assert len(table.creates_at()) == cancelled_at

        table.sandbox.control.clear_faults()
        set_state(api, run_id, AwaitingRetry())
        assert wait_until(lambda: state() == StateType.COMPLETED, seconds=SECONDS, every_seconds=0.1), state()
        assert set(table.accepted().values()) == {1}
        assert table.states() == {"downloaded": ROWS}

        creates = len(table.creates_at())
        set_state(api, run_id, AwaitingRetry())
        assert wait_until(lambda: api.read_flow_run(run_id).run_count == 3, seconds=SECONDS)
        assert wait_until(lambda: state() == StateType.COMPLETED, seconds=SECONDS, every_seconds=0.1), state()
        assert len(table.creates_at()) == creates
