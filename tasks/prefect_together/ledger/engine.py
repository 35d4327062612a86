"""Runs small synchronous operations on the ledger's database, many of them in one commit; knows nothing of videos.

All operations that are waiting at the same moment run in one transaction, so that a thousand rows share a few
fsyncs. SQLite is used from one thread of its own, PostgreSQL through asyncpg; the operations are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import TogetherVideoError
from prefect_together.ledger.schema import metadata, videos
from prefect_together.problems import SettingsInvalid, missing_extra

T = TypeVar("T")
Operation = Callable[[Connection], T]

BUSY_SECONDS = 60
COMMIT_TRIES = 5
MAX_BATCH = 500
GATHER_SECONDS = 0.02
"""While several callers share a commit, the next one waits so long for more: each costs an fsync and a thread hop."""


PATIENCE_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 30.0)
"""Pauses between tries while a database that has worked is away: restarted, locked, without a network. 90 s in all."""


SQLITE_AWAY = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    )
)
"""Primary codes of what may pass, unlike a missing table."""


class LedgerUnavailable(TogetherVideoError):
    """The ledger's database cannot be reached or written. Nothing is sent without it."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"the ledger {self.url} cannot be used: {self.reason}"


class _Away(Exception):
    """The database stays away: all that wait get the same answer, at once."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _Runner(Protocol):
    async def run(self, work: Operation[T]) -> T: ...
    async def checkpoint(self) -> None: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class _Waiting:
    order: tuple[int, str]
    operation: Operation[Any]
    future: asyncio.Future[Any]


class LedgerEngine:
    """Access to the database: `await engine.run(operation)` returns the operation's result once it is durable."""

    def __init__(self, runner: _Runner, url: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._runner, self.url, self._clock = runner, url, clock
        self._has_worked = False
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._last_batch = 0

    async def run(self, operation: Operation[T], *, order: tuple[int, str] = (1, "")) -> T:
        """Run an operation in the next transaction and return its result after the commit.

        An operation raises before it has written, or not at all: it shares its transaction with others.
        `order` is (class, key): a transaction holds one class only and takes its locks in the order of the keys, as
        every other worker does, so that two workers cannot wait for each other. Those of one transaction get their
        results in the order in which they asked.
        Once handed over, the operation is carried out even if the caller is cancelled.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(order, operation, future))
        self._start_writing()
        return await future  # cancelled with the caller; the operation is carried out anyway

    def _start_writing(self) -> None:
        """Start the writer unless it runs; start another if it was cancelled before it could begin."""
        if self._waiting and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write())
            self._writer.add_done_callback(lambda _writer: self._start_writing())

    async def _write(self) -> None:
        """Write until nothing waits. What was handed over is carried out, even if every task is being cancelled."""
        while self._waiting:
            if self._last_batch > 1:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(GATHER_SECONDS)
            batch = self._next_batch()
            self._last_batch = len(batch)
            await self._answer(batch)

    async def _answer(self, batch: list[_Waiting]) -> None:
        """Commit a batch and tell each caller its result. A failing operation must not take others with it."""
        results: list[Any]
        by_key = sorted(batch, key=lambda waiting: waiting.order)
        try:
            results = await self._commit([waiting.operation for waiting in by_key])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for the callers, who wait for an answer
            if len(batch) > 1 and not isinstance(error, _Away):
                for waiting in batch:
                    await self._answer([waiting])
                return
            reason = error.reason if isinstance(error, _Away) else error
            results = [self._unavailable(reason) for _ in batch]
        of_each = {id(waiting): result for waiting, result in zip(by_key, results, strict=True)}
        for waiting in batch:
            result = of_each[id(waiting)]
            if waiting.future.done():
                continue
            if isinstance(result, BaseException):
                waiting.future.set_exception(result)
                waiting.future.exception()  # seen: the caller may have been cancelled
            else:
                waiting.future.set_result(result)

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        failure = LedgerUnavailable(self.url, str(getattr(error, "orig", None) or error))
        failure.__cause__ = error
        return failure

    def _next_batch(self) -> list[_Waiting]:
        first_class = min(waiting.order[0] for waiting in self._waiting)
        batch = [waiting for waiting in self._waiting if waiting.order[0] == first_class][:MAX_BATCH]
        chosen = {id(waiting) for waiting in batch}
        self._waiting = [waiting for waiting in self._waiting if id(waiting) not in chosen]
        return batch

    async def _commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        own: list[Exception] = []  # of an operation, not of the database

        def work(connection: Connection) -> list[Any]:
            results: list[Any] = []
            for operation in operations:
                try:
                    results.append(operation(connection))
                except TogetherVideoError as refusal:
                    results.append(refusal)
                except Exception as error:  # noted only: it is raised again
                    own.append(error)
                    raise
            return results

        tries, pauses = 1, iter(PATIENCE_SECONDS if self._has_worked else ())
        while True:
            try:
                results = await self._to_its_end(work)
            except Exception as error:  # drivers say in many ways that a database is away; others are raised
                if isinstance(error, DBAPIError) and _was_rolled_back_for_others(error):
                    tries += 1
                    if tries > COMMIT_TRIES:
                        raise
                elif not _is_away(error) or (error in own and not isinstance(error, DBAPIError)):
                    raise
                elif (pause := next(pauses, None)) is not None:
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._clock.sleep(pause)
                else:
                    self._has_worked = False  # what comes next is tried once, until one gets through
                    raise _Away(error) from error
            else:
                self._has_worked = True
                return results

    async def _to_its_end(self, work: Operation[T]) -> T:
        """Run a transaction whoever is cancelled meanwhile; one that was itself cancelled was rolled back, and is
        run again."""
        running = asyncio.ensure_future(self._runner.run(work))
        while True:
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                if running.cancelled():
                    running = asyncio.ensure_future(self._runner.run(work))

    async def close(self) -> None:
        """Wait for what was handed over, then close the database."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])
            await asyncio.sleep(0)  # a writer that was cancelled has a successor by then
        await self._runner.close()


class _SqliteRunner:
    """SQLite in one thread: cheaper by far than a thread hop for each statement."""

    def __init__(self, url: URL) -> None:
        self._engine: Engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
        event.listen(self._engine, "connect", _set_up_sqlite)
        event.listen(self._engine, "begin", _begin_immediate)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    async def run(self, work: Operation[T]) -> T:
        def transaction() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        done = asyncio.wrap_future(self._thread.submit(transaction))
        while True:  # a thread cannot be cancelled: its result is waited for, whatever happens to this task
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                continue

    async def checkpoint(self) -> None:
        """Bring what is in the -wal file into the database's own: it may be all that is left after a crash."""

        def run() -> None:
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()


class _PostgresRunner:
    def __init__(self, url: URL) -> None:
        from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine  # brings the whole ORM with it

        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            # A worker that is frozen in mid-transaction must not stop all others.
            connect_args={"server_settings": {"lock_timeout": "30s", "idle_in_transaction_session_timeout": "60s"}},
        )

    async def run(self, work: Operation[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def checkpoint(self) -> None:
        """PostgreSQL sees to it itself."""

    async def close(self) -> None:
        await self._engine.dispose()


@asynccontextmanager
async def open_engine(url: str, *, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[LedgerEngine]:
    """Open the database at a path (SQLite) or URL (`sqlite:///...`, `postgresql://...`), making its tables if needed.

    Raises SettingsInvalid for a URL of another kind, LedgerUnavailable if the database does not answer.
    """
    parsed = parse_ledger_url(url)
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            await asyncio.to_thread(Path(parsed.database).parent.mkdir, parents=True, exist_ok=True)
        runner: _Runner = _SqliteRunner(parsed)
    else:
        runner = _PostgresRunner(parsed)
    engine = LedgerEngine(runner, shown, clock)
    try:
        if await engine.run(_create_tables):
            await runner.checkpoint()
        yield engine
    finally:
        await engine.close()


def parse_ledger_url(url: str) -> URL:
    """A path means SQLite; drivers are ours to choose. Raises SettingsInvalid, for a URL with a password too."""
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsInvalid.of(f"not a database URL: {error}", column="ledger") from error
    if parsed.password is not None or "password" in parsed.query:
        message = (
            "there is a password in this URL, and Prefect stores parameters in clear text: leave it out, and set"
            " PGPASSWORD, or a ~/.pgpass, where this run and the workers are"
        )
        raise SettingsInvalid.of(message, column="ledger")
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        if find_spec("asyncpg") is None:
            raise SettingsInvalid.of(missing_extra("asyncpg, for PostgreSQL,", "postgres"), column="ledger")
        return parsed.set(drivername="postgresql+asyncpg")
    raise SettingsInvalid.of(f"{backend}: a ledger is a path or a sqlite:// or postgresql:// URL", column="ledger")


def _create_tables(connection: Connection) -> bool:
    """Whether there were none."""
    if connection.dialect.name == "postgresql":
        # Two runs that start at once must not both create the tables.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7364001)")
    is_new = not inspect(connection).has_table(videos.name)
    metadata.create_all(connection)
    return is_new


def _set_up_sqlite(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # transactions are begun by _begin_immediate alone
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an intent must survive a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_away(error: Exception) -> bool:
    """Whether the database cannot be reached or written now, and may be later; the transaction may yet be carried out.

    asyncpg's own errors come out of connecting alone: a server that starts or stops. SQLite's own are told by code.
    """
    if isinstance(error, DBAPIError):
        if isinstance(error.orig, sqlite3.Error):
            return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in SQLITE_AWAY
        return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return isinstance(error, OSError) or type(error).__module__.startswith("asyncpg.")


def _was_rolled_back_for_others(error: DBAPIError) -> bool:
    """A deadlock or a busy database: the transaction left no trace and may be run again."""
    text = str(error.orig).lower()
    if isinstance(error, OperationalError) and ("database is locked" in text or "database is busy" in text):
        return True
    return any(words in text for words in ("deadlock detected", "could not serialize", "lock timeout"))


async def is_cancelled_during(work: Awaitable[object]) -> bool:
    """Wait; True if cancelled meanwhile: the caller has something to finish or to say before it ends."""
    try:
        await work
    except asyncio.CancelledError:
        return True
    return False


class HasEngine(Protocol):
    """What runs its operations in an engine's transactions."""

    engine: LedgerEngine


P = ParamSpec("P")
OwnerT = TypeVar("OwnerT", bound=HasEngine)
Statement = Callable[Concatenate[OwnerT, Connection, P], T]
Method = Callable[Concatenate[OwnerT, P], Coroutine[Any, Any, T]]


def in_transaction(*, order: int = 1) -> Callable[[Statement[OwnerT, P, T]], Method[OwnerT, P, T]]:
    """Turn a method over an open connection into a coroutine method that runs it in the ledger's next transaction.

    `order` is the class of its locks, which it takes by its first argument if that is a key; see `LedgerEngine.run`.
    """

    def decorate(method: Statement[OwnerT, P, T]) -> Method[OwnerT, P, T]:
        @wraps(method)
        async def run(self: OwnerT, /, *args: P.args, **kwargs: P.kwargs) -> T:
            key = args[0] if args and isinstance(args[0], str) else ""
            return await self.engine.run(
                lambda connection: method(self, connection, *args, **kwargs), order=(order, key)
            )

        return run

    return decorate
