"""Two runs at once over the same ledger and output directory: no row is bought twice, both end with right results."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_run import Run, WarmRuns, wait_until, write_table
from postgres_server import throw_away_database
from prefect_together.ledger.ledger import open_ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.sandbox import SandboxProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 100
SECONDS = 120.0
"""A run that needs longer waits for somebody who does not come."""


@pytest.fixture(scope="module")
def sandbox() -> Generator[SandboxProcess]:
    with SandboxProcess(arguments=["--generation-seconds", "uniform:0.5:1.5", "--clip", "tiny"]) as process:
        yield process


@dataclass(frozen=True)
class Work:
    """A table whose prompts nobody else has, and where its runs work."""

    runs: WarmRuns
    sandbox: SandboxProcess
    folder: Path
    ledger: str
    tag: str

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def start(self, *words: str) -> Run:
        places = ("--output-dir", str(self.output), "--ledger", self.ledger)
        return self.runs.start(str(self.folder / "table.csv"), *places, "--max-in-flight", "8", *words)

    def accepted(self) -> Counter[str]:
        """Accepted jobs by prompt, of this table alone."""
        by_prompt: dict[str, int] = self.sandbox.control.stats()["accepted_by_prompt"]
        return Counter({prompt: count for prompt, count in by_prompt.items() if self.tag in prompt})

    async def records(self) -> dict[str, VideoRecord]:
        async with open_ledger(self.ledger) as ledger:
            return {record.row_id: record for record in (await ledger.records()).values()}

    def results(self) -> list[dict[str, str]]:
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    async def assert_each_is_there_once(self) -> None:
        """Every row bought once, its file whole, its line in results.csv right, nothing half done beside it."""
        records = await self.records()
        assert set(self.accepted().values()) == {1}
        assert len(self.accepted()) == len(records) == ROWS
        assert {record.state for record in records.values()} == {State.DOWNLOADED}
        for record in records.values():
            content = (self.output / record.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == record.sha256
        lines = {line["id"]: (line["status"], line["job_id"], line["file"]) for line in self.results()}
        assert lines == {row_id: ("downloaded", record.job_id, record.file) for row_id, record in records.items()}
        assert len(list((self.output / "videos").iterdir())) == ROWS


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def work(request: pytest.FixtureRequest, runs: WarmRuns, sandbox: SandboxProcess, tmp_path: Path) -> Work:
    ledger = str(tmp_path / "out" / "ledger.db") if request.param == "sqlite" else throw_away_database(request)
    tag = uuid.uuid4().hex[:8]
    write_table(tmp_path / "table.csv", rows=ROWS, prompt=f"A cat of {tag}")
    return Work(runs, sandbox, tmp_path, ledger, tag)


async def test_two_runs_started_together_share_the_work(work: Work) -> None:
    first, second = work.start(), work.start()

    assert (first.wait(SECONDS), second.wait(SECONDS)) == (0, 0)
    await work.assert_each_is_there_once()
    assert f"{ROWS} downloaded of {ROWS} rows" in first.log.read_text()
    assert f"{ROWS} downloaded of {ROWS} rows" in second.log.read_text()


async def test_a_run_that_starts_in_the_middle_of_another_takes_a_part_of_it(work: Work) -> None:
    first = work.start()
    assert wait_until(lambda: len(work.accepted()) >= ROWS // 3, seconds=SECONDS)

    second = work.start()

    assert (first.wait(SECONDS), second.wait(SECONDS)) == (0, 0)
    await work.assert_each_is_there_once()


async def test_a_run_takes_over_from_one_that_is_killed_beside_it(work: Work) -> None:
    first, second = work.start(), work.start()
    assert wait_until(lambda: len(work.accepted()) >= ROWS // 3, seconds=SECONDS)

    first.kill()
    killed_at = time.monotonic()
    code = second.wait(SECONDS)

    records = await work.records()
    in_doubt = {row_id for row_id, record in records.items() if record.state == State.IN_DOUBT}
    assert set(work.accepted().values()) == {1}
    assert all(records[row_id].state == State.DOWNLOADED for row_id in records.keys() - in_doubt)
    assert code == (1 if in_doubt else 0)
    assert len(in_doubt) <= 8
    assert time.monotonic() - killed_at < 60, "claims of a dead process of this machine lapse at once"


async def test_what_one_run_leaves_in_doubt_does_not_keep_the_other_waiting(work: Work) -> None:
    work.sandbox.control.fault("drop-after", endpoint="create", count=None, prompt=f"{work.tag}, take 00")
    first, second = work.start(), work.start()

    codes = first.wait(SECONDS), second.wait(SECONDS)

    states = Counter(record.state for record in (await work.records()).values())
    assert codes == (1, 1)
    assert set(work.accepted().values()) == {1}
    assert states == {State.DOWNLOADED: ROWS - 10, State.IN_DOUBT: 10}


def test_processes_that_open_a_new_ledger_in_the_same_moment_all_get_it(runs: WarmRuns, tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", rows=3, prompt=f"A dog of {tmp_path.name} {uuid.uuid4().hex}")
    words = (str(tmp_path / "table.csv"), "--output-dir", str(tmp_path / "out"))

    started = [runs.start(*words) for _ in range(4)]

    assert [run.wait(SECONDS) for run in started] == [0] * 4
    with closing(sqlite3.connect(tmp_path / "out" / "ledger.db")) as ledger:
        assert ledger.execute("SELECT count(*) FROM runs WHERE ended_at IS NOT NULL").fetchone() == (4,)
