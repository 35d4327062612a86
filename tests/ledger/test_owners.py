"""A claim holds as long as its run lives, and no longer. PostgreSQL: marker `postgres`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator

import pytest

from fake_clock import FakeClock
from ledger_rows import a_video, planned, sql
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.ledger.ledger import HEARTBEAT_SECONDS, open_ledger
from prefect_together.ledger.runs import CLAIM_SECONDS, process_start, this_machine, this_process

ELSEWHERE = "another-boot/pid:[1]"


@pytest.fixture
def other_process() -> Generator[subprocess.Popen[bytes]]:
    """A living process of this machine that is not this one."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


class TestWhoLives:
    """A claim holds as long as its run lives, and no longer."""

    async def is_held(
        self, ledger_file: str, *, machine: str, pid: int, start: str, silent_seconds: float = 0.0, ended: bool = False
    ) -> bool:
        """Whether the claim of such a run keeps this run away."""
        async with open_ledger(ledger_file) as ledger:
            await ledger.plan([video := a_video()])
            now = SYSTEM_CLOCK.time()
            beat = now - silent_seconds
            values = ("other", "host", machine, pid, start, now - 1e6, beat, now if ended else None)
            sql(ledger_file, "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
            sql(ledger_file, "UPDATE videos SET owner = 'other'")
            return not (await ledger.claim(video.key)).is_ours

    async def test_a_run_of_another_machine_lives_while_its_heart_beats(self, ledger_file: str) -> None:
        assert await self.is_held(ledger_file, machine=ELSEWHERE, pid=os.getpid(), start="1")

    async def test_a_run_of_another_machine_is_gone_when_it_has_been_silent(self, ledger_file: str) -> None:
        silent = CLAIM_SECONDS + 5

        assert not await self.is_held(ledger_file, machine=ELSEWHERE, pid=os.getpid(), start="1", silent_seconds=silent)

    async def test_a_run_of_this_process_that_is_over_without_having_said_so_is_gone(self, ledger_file: str) -> None:
        start = process_start(os.getpid()) or ""

        assert not await self.is_held(ledger_file, machine=this_machine(), pid=os.getpid(), start=start)

    async def test_a_run_of_a_living_process_of_this_machine_lives_even_if_silent(
        self, ledger_file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        start = process_start(other_process.pid) or ""

        assert await self.is_held(
            ledger_file, machine=this_machine(), pid=other_process.pid, start=start, silent_seconds=CLAIM_SECONDS * 10
        )

    async def test_a_run_whose_process_is_dead_is_gone_at_once(
        self, ledger_file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        start = process_start(other_process.pid) or ""
        other_process.kill()
        other_process.wait()

        assert not await self.is_held(ledger_file, machine=this_machine(), pid=other_process.pid, start=start)

    async def test_a_run_whose_number_belongs_to_another_process_now_is_gone(
        self, ledger_file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        assert not await self.is_held(ledger_file, machine=this_machine(), pid=other_process.pid, start="1")

    async def test_a_run_that_has_ended_is_gone(self, ledger_file: str) -> None:
        assert not await self.is_held(ledger_file, machine=ELSEWHERE, pid=1, start="1", ended=True)

    async def test_an_open_run_of_this_process_lives(self, ledger_url: str) -> None:
        async with open_ledger(ledger_url) as one, open_ledger(ledger_url) as other:
            await planned(one, a_video())

            assert not (await other.claim(a_video().key)).is_ours
            assert (await one.claim(a_video().key)).is_ours

    def test_this_process_has_a_start(self) -> None:
        assert this_process("r").process_start


class TestHeartbeat:
    """A beat that fails is one beat."""

    async def test_beats_that_fail_end_neither_the_run_nor_the_beating(self, ledger_file: str) -> None:
        clock = FakeClock(auto=False)
        async with open_ledger(ledger_file, clock=clock) as ledger:
            await planned(ledger, a_video())
            sql(ledger_file, "ALTER TABLE runs RENAME TO elsewhere")
            for _ in range(3):
                await clock.advance(HEARTBEAT_SECONDS)
                await ledger.save_table("out", "waits until the beat is over", is_sandbox=False)
            sql(ledger_file, "ALTER TABLE elsewhere RENAME TO runs")

            await clock.advance(HEARTBEAT_SECONDS)
            await ledger.save_table("out", "waits until the beat is over", is_sandbox=False)

            assert sql(ledger_file, "SELECT heartbeat_at FROM runs") == [(clock.time(),)]
        assert sql(ledger_file, "SELECT count(*) FROM runs WHERE ended_at IS NULL") == [(0,)]
        assert sql(ledger_file, "SELECT count(*) FROM videos WHERE owner IS NOT NULL") == [(0,)]
