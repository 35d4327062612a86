"""Operations that share a commit: none hangs, none takes another with it, none that was handed over is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import OperationalError

from prefect_together.errors import BudgetReached
from prefect_together.ledger.engine import (
    COMMIT_TRIES,
    LedgerEngine,
    LedgerUnavailable,
    Operation,
    open_engine,
    parse_ledger_url,
)
from prefect_together.ledger.schema import tables
from prefect_together.problems import SettingsInvalid

T = TypeVar("T")


@pytest.fixture
async def engine(ledger_url: str) -> AsyncGenerator[LedgerEngine]:
    async with open_engine(ledger_url) as opened:
        yield opened


def write(name: str) -> Operation[str]:
    def operation(connection: Connection) -> str:
        connection.execute(insert(tables).values(output_dir=name, content=name, is_sandbox=False, written_at=0.0))
        return name

    return operation


def fail(error: Exception) -> Operation[str]:
    def operation(_connection: Connection) -> str:
        raise error

    return operation


async def written(engine: LedgerEngine) -> list[str]:
    names = select(tables.c.output_dir).order_by(tables.c.output_dir)
    return await engine.run(lambda connection: [str(name) for name in connection.scalars(names)])


class Flaky:
    """The doors of a database that answers the first calls with errors. `calls` counts all."""

    def __init__(self, engine: LedgerEngine, *errors: Exception) -> None:
        self._engine, self.errors, self.calls = engine, list(errors), 0

    async def run(self, work: Operation[T]) -> T:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return await self._engine.run(work)

    async def checkpoint(self) -> None: ...
    async def close(self) -> None: ...


def busy() -> OperationalError:
    return OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked"))


UNFORESEEN: list[Callable[[], Exception]] = [
    lambda: UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"),
    lambda: ValueError("embedded null byte"),
    lambda: ZeroDivisionError("division by zero"),
    lambda: OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("make_error", UNFORESEEN)
async def test_an_operation_that_raises_anything_is_answered_and_its_neighbours_are_carried_out(
    engine: LedgerEngine, make_error: Callable[[], Exception]
) -> None:
    error = make_error()

    async with asyncio.timeout(100):
        answers = await asyncio.gather(
            engine.run(write("a")), engine.run(fail(error)), engine.run(write("b")), return_exceptions=True
        )

    assert (answers[0], answers[2]) == ("a", "b")
    assert isinstance(answers[1], LedgerUnavailable)
    assert answers[1].__cause__ is error
    assert await written(engine) == ["a", "b"]


async def test_an_error_of_the_database_in_one_operation_leaves_its_neighbours_carried_out(
    engine: LedgerEngine,
) -> None:
    answers = await asyncio.gather(*(engine.run(write(name)) for name in ("a", "a", "b")), return_exceptions=True)

    assert [isinstance(answer, LedgerUnavailable) for answer in answers] == [False, True, False]
    assert await written(engine) == ["a", "b"]


async def test_a_refusal_reaches_its_caller_as_itself_and_costs_its_neighbours_no_second_commit(
    ledger_url: str,
) -> None:
    refusal = BudgetReached(1.0, 1.0, 0.28)
    async with open_engine(ledger_url) as real:
        flaky = Flaky(real)
        engine = LedgerEngine(flaky, "x")

        answers = await asyncio.gather(engine.run(write("a")), engine.run(fail(refusal)), return_exceptions=True)

        assert answers == ["a", refusal]
        assert flaky.calls == 1


async def test_a_busy_database_is_tried_again(ledger_url: str) -> None:
    async with open_engine(ledger_url) as real:
        engine = LedgerEngine(Flaky(real, *(busy() for _ in range(COMMIT_TRIES - 1))), "x")

        assert await engine.run(write("a")) == "a"
        assert await written(real) == ["a"]


async def test_a_database_that_stays_busy_is_unavailable(ledger_url: str) -> None:
    async with open_engine(ledger_url) as real:
        flaky = Flaky(real, *(busy() for _ in range(COMMIT_TRIES)))

        with pytest.raises(LedgerUnavailable, match="the ledger x cannot be used: database is locked"):
            await LedgerEngine(flaky, "x").run(write("a"))

        assert flaky.calls == COMMIT_TRIES


async def test_what_waits_at_the_same_moment_shares_a_commit(ledger_url: str) -> None:
    async with open_engine(ledger_url) as real:
        flaky = Flaky(real)
        engine = LedgerEngine(flaky, "x")

        await asyncio.gather(*(engine.run(write(f"{number:03}")) for number in range(100)))

        assert flaky.calls == 1
        assert len(await written(real)) == 100


async def test_a_commit_holds_one_class_and_takes_its_keys_in_order(engine: LedgerEngine) -> None:
    seen: list[tuple[int, str]] = []

    def note(order: tuple[int, str]) -> Operation[None]:
        def operation(_connection: Connection) -> None:
            seen.append(order)

        return operation

    orders = [(2, "a"), (1, "c"), (0, "z"), (1, "a"), (0, "b")]

    await asyncio.gather(*(engine.run(note(order), order=order) for order in orders))

    assert seen == sorted(orders)


async def test_a_cancelled_caller_does_not_take_its_operation_back(engine: LedgerEngine) -> None:
    caller = asyncio.create_task(engine.run(write("a")))
    await asyncio.sleep(0)

    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)

    assert await written(engine) == ["a"]


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8])
async def test_cancelling_every_task_loses_nothing_that_was_handed_over(ledger_url: str, turns: int) -> None:
    names = [f"{number:03}" for number in range(30)]
    async with open_engine(ledger_url) as engine:
        callers = [asyncio.create_task(engine.run(write(name), order=(int(name) % 3, name))) for name in names]
        for _ in range(turns):
            await asyncio.sleep(0)
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]

        for task in others:  # as asyncio.run does at its end
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    async with open_engine(ledger_url) as engine:
        assert await written(engine) == names


async def test_closing_waits_for_what_was_handed_over(ledger_url: str) -> None:
    async with open_engine(ledger_url) as engine:
        callers = [asyncio.create_task(engine.run(write(name))) for name in "abc"]
        await asyncio.sleep(0)

    assert await asyncio.gather(*callers) == ["a", "b", "c"]


async def test_after_a_failure_the_next_operation_is_carried_out(engine: LedgerEngine) -> None:
    with pytest.raises(LedgerUnavailable):
        await engine.run(fail(ValueError("odd")))

    await engine.run(write("a"))
    await engine.run(lambda connection: connection.execute(delete(tables)).rowcount)

    assert await written(engine) == []


async def test_callers_hear_in_the_order_in_which_they_asked_and_locks_are_taken_in_the_order_of_keys(
    engine: LedgerEngine,
) -> None:
    carried_out: list[str] = []
    heard: list[str] = []

    async def ask(key: str) -> None:
        await engine.run(lambda _connection: carried_out.append(key), order=(0, key))
        heard.append(key)

    await asyncio.gather(*(ask(key) for key in "gdbfaec"))

    assert heard == list("gdbfaec")
    assert carried_out == sorted(carried_out)


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@db/videos", "postgresql://db/videos?password=hunter2", "sqlite://me:hunter2@/x.db"]
)
def test_a_ledger_url_with_a_password_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="PGPASSWORD") as caught:
        parse_ledger_url(url)

    assert "hunter2" not in str(caught.value)
