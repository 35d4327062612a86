"""Graceful shutdown at SIGINT and SIGTERM: no new submits, the ledger right, one sentence instead of stack traces."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """SIGINT or SIGTERM ended the work. `exit_code` is what shells expect: 130 or 143."""

    def __init__(self, stop_signal: signal.Signals) -> None:
        super().__init__(stop_signal)
        self.signal, self.exit_code = stop_signal, 128 + stop_signal

    def __str__(self) -> str:
        return f"stopped by {'Ctrl-C' if self.signal == signal.SIGINT else self.signal.name}"

    @property
    def advice(self) -> str:
        """What the command line prints of it."""
        return f"{self}: the same command continues where this run stopped"


_noticed: list[Callable[[int], None]] = []
"""Of each `stop_signals` that is open, the innermost last: what is called for a signal whoever handles it."""


@contextmanager
def stop_signals(on_stop: Callable[[signal.Signals], None]) -> Generator[None]:
    """Calls `on_stop` in the running loop at the first SIGINT or SIGTERM; the second one ends the process at once.

    In a flow's body it takes the place of the handler of Prefect's engine, whose exception inside the loop would cancel
    everything with stack traces and leave the run Crashed. Around a flow that handler is set within, and its exception
    may be lost where it is raised (a socket's write takes any for its own): the loop learns of each signal beside it,
    as asyncio has Python write them to a socket. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    handled: list[int] = []
    stopped: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if handled:
            os._exit(128 + number)
        handled.append(number)
        loop.call_soon_threadsafe(stop, number)

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            on_stop(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _noticed.append(stop)
    for number in before:
        if len(_noticed) == 1:
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, lambda number=number: _noticed[-1](number))
        signal.signal(number, handle)
    try:
        yield
    finally:
        _noticed.pop()
        for number, handler in before.items():
            if not _noticed:
                with suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; SIGINT and SIGTERM (Prefect's Cancel too) cancel it, let its `finally` run and raise Stopped.

    Prefect's two error lines for each task run that is cancelled with it are kept out of console and log, and asyncio's
    stack trace where the exception of Prefect's own handler was raised in what is none of its business.
    """
    from prefect.exceptions import TerminationSignal  # with Prefect, which the rest does not need

    from prefect_together.prefect_internals import TASK_RUN_LINES

    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []
    level = TASK_RUN_LINES.level

    def stop(stop_signal: signal.Signals) -> None:
        received.append(stop_signal)
        TASK_RUN_LINES.setLevel(logging.CRITICAL + 1)
        task.cancel()

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), TerminationSignal):
            return
        if on_error_before is None:
            loop.default_exception_handler(context)
        else:
            on_error_before(loop, context)

    loop = asyncio.get_running_loop()
    on_error_before = loop.get_exception_handler()
    loop.set_exception_handler(on_error)
    with stop_signals(stop):
        try:
            return await task
        except asyncio.CancelledError:
            if received:
                raise Stopped(received[0]) from None
            raise
        finally:
            TASK_RUN_LINES.setLevel(level)
            loop.set_exception_handler(on_error_before)


def exit_at_signals(*, say_so: bool = False) -> None:
    """SIGINT and SIGTERM end the process at once, with 130 and 143: there is nothing to clean up."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        if say_so:
            say_stopped(number)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def say_stopped(number: int) -> None:
    os.write(2, f"{Stopped(signal.Signals(number)).advice}\n".encode())  # a signal may come in the middle of a print
