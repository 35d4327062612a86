"""Real Prefect workers over one table, ledger and Prefect's own database in PostgreSQL, and what is killed in the
middle. A thousand rows by hand: `python tests/support/many_workers.py --rows 1000 --workers 4 --alone`."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_run import wait_until, write_table
from many_workers import Site, running_site, worker_of
from postgres_server import restart

pytestmark = [pytest.mark.scale, pytest.mark.postgres, pytest.mark.timeout(600)]

SECONDS = 240.0


@pytest.fixture(scope="module")
def site(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    folder = tmp_path_factory.mktemp("site")
    name = f"site_{uuid.uuid4().hex[:8]}"
    with running_site(folder, postgres=postgres_url, generation_seconds="uniform:2:4", name=name) as running:
        yield running


@dataclass(frozen=True)
class Table:
    """A table whose prompts nobody else has, on its way over a site's workers."""

    site: Site
    tag: str
    rows: int

    @property
    def output(self) -> Path:
        return self.site.folder / self.tag

    def start(self, *, shards: int, in_flight: int) -> uuid.UUID:
        path = self.site.folder / f"{self.tag}.csv"
        write_table(path, rows=self.rows, prompt=f"A cat of {self.tag}")
        places = {"prompts": str(path), "output_dir": str(self.output), "locations": {"ledger": self.site.ledger}}
        return self.site.start_run({**places, "limits": {"shards": shards, "max_in_flight": in_flight}})

    def wait_until_sent(self, count: int) -> None:
        sent = wait_until(
            lambda: sum(self.site.accepted(self.tag).values()) >= count, seconds=SECONDS, every_seconds=0.2
        )
        assert sent, [worker.log.read_text()[-2000:] for worker in self.site.workers]

    def statuses(self) -> dict[str, str]:
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            return {line["id"]: line["status"] for line in csv.DictReader(file)}

    def assert_each_row_was_bought_once(self, run: Any) -> None:
        """Rows whose create call was on its way when a worker died are in doubt, not sent again; few can be."""
        statuses = list(self.statuses().values())
        assert set(self.site.accepted(self.tag).values()) == {1}
        assert len(statuses) == self.rows
        assert set(statuses) <= {"downloaded", "in_doubt"}, run.state.message
        assert statuses.count("in_doubt") <= 4
        assert run.state.is_completed() == (statuses.count("in_doubt") == 0)
        assert len(list((self.output / "videos").glob("*.mp4"))) == statuses.count("downloaded")
        assert list(self.output.glob(".plan-*")) == []


@pytest.fixture
def workers(site: Site) -> Generator[Site]:
    yield site
    site.stop_workers()


def table_on(site: Site, rows: int) -> Table:
    return Table(site, f"table-{uuid.uuid4().hex[:8]}", rows)


def test_a_killed_worker_loses_nothing_and_buys_nothing_twice(workers: Site) -> None:
    table = table_on(workers, rows=200)
    for _ in range(3):
        workers.start_worker()
    run_id = table.start(shards=3, in_flight=12)
    assert wait_until(lambda: workers.joined() == 2, seconds=SECONDS, every_seconds=0.2)
    table.wait_until_sent(sum(workers.accepted(table.tag).values()) + 20)

    killed = workers.shards_of(run_id)[0]
    victim = worker_of(workers, killed)
    assert victim is not None
    victim.kill()
    run = workers.wait_for(run_id, seconds=SECONDS)

    table.assert_each_row_was_bought_once(run)
    assert f"({killed.name}) ended early: Crashed" in run.state.message
    states = {shard.name: shard.state.name for shard in workers.shards_of(run_id)}
    assert states.pop(killed.name) == "Crashed"
    assert list(states.values()) == ["Completed"]


def test_a_single_worker_with_room_for_one_run_comes_to_the_end_alone(workers: Site) -> None:
    table = table_on(workers, rows=12)
    workers.start_worker(limit=1)

    run_id = table.start(shards=3, in_flight=12)
    run = workers.wait_for(run_id, seconds=SECONDS)

    assert run.state.is_completed(), run.state.message
    assert run.state.message == "12 downloaded of 12 rows, $3.36. sandbox: nothing is billed"
    assert {shard.state.name for shard in workers.shards_of(run_id)} == {"Cancelled"}
    table.assert_each_row_was_bought_once(run)


def test_cancel_ends_the_shards_too_and_the_same_run_again_goes_on(workers: Site) -> None:
    table = table_on(workers, rows=60)
    for _ in range(2):
        workers.start_worker()
    run_id = table.start(shards=2, in_flight=8)
    table.wait_until_sent(20)

    workers.cancel(run_id)
    cancelled = workers.wait_for(run_id, seconds=SECONDS)
    over = wait_until(
        lambda: all(shard.state.is_final() for shard in workers.shards_of(run_id)), seconds=60, every_seconds=1
    )
    sent = sum(workers.accepted(table.tag).values())
    run = workers.wait_for(table.start(shards=2, in_flight=20), seconds=SECONDS)

    assert cancelled.state.is_cancelled()
    assert over
    assert {shard.state.name for shard in workers.shards_of(run_id)} == {"Cancelled"}
    assert sent < 60
    table.assert_each_row_was_bought_once(run)


def test_two_runs_of_one_deployment_at_once_into_one_directory_share_the_work(workers: Site) -> None:
    """As where a schedule starts a run before the last one has ended."""
    table = table_on(workers, rows=60)
    workers.start_worker(limit=2)

    first, second = (table.start(shards=1, in_flight=6) for _ in range(2))
    runs = [workers.wait_for(run_id, seconds=SECONDS) for run_id in (first, second)]

    for run in runs:
        assert run.state.message == "60 downloaded of 60 rows, $16.80. sandbox: nothing is billed" or (
            run.state.message.startswith("60 downloaded of 60 rows, $16.80 ($")
        )
        table.assert_each_row_was_bought_once(run)


def test_postgresql_restarted_in_mid_run_is_waited_for_by_every_shard(workers: Site, postgres_url: str) -> None:
    table = table_on(workers, rows=120)
    for _ in range(3):
        workers.start_worker()
    run_id = table.start(shards=3, in_flight=12)
    assert wait_until(lambda: workers.joined() == 2, seconds=SECONDS, every_seconds=0.2)
    table.wait_until_sent(40)

    restart(postgres_url)
    run = workers.wait_for(run_id, seconds=SECONDS)

    table.assert_each_row_was_bought_once(run)
    assert run.state.is_completed(), run.state.message
