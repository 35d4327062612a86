"""Local runs made clean: a Prefect server for the length of one run where none is set, and an orderly end on signals.

Imports nothing of Prefect: `prepare_local_prefect` must run before Prefect reads its settings. Prefect's own temporary
server (3.8.8) has no UI, dies from the Ctrl-C that was meant for its client, prints its stack traces into the user's
shell, needs 24 ms a task run and loses what it has not recorded in 5 s. So the same server is started here as a session
of its own, with a log file, with the UI, and with the services that a single local run has no use for switched off.
"""

from __future__ import annotations

import asyncio
import atexit
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

from dotenv import dotenv_values

from prefect_together.collector import collect_seldom
from prefect_together.errors import NotConfigured

T = TypeVar("T")

NO_ANALYTICS = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

SERVER_SETTINGS = {
    # Measured on 3.8.8: 24 ms of the server's processor time a task run with the defaults, 7 ms with batches,
    # 3.7 ms and a quarter of the disk space without the copy of each event that only the Events page reads.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    # Prefect's own queues drop what comes when 10,000 events wait.
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_together.local_messages",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # No deployments, schedules, workers or automations run on the server of one script.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}

NO_RUN_FLAGS = frozenset({"-h", "--help", "--version", "--dry-run"})
"""Command-line flags that end without a run: no server is started for them."""


class LocalPrefect:
    """A Prefect server that lives as long as this process and until it has recorded what it was told."""

    def __init__(self, *, port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.port, self.log_path = port, log_path
        self.ui_url = f"http://127.0.0.1:{port}"
        self.wait_at_exit = False
        self._process = process

    def wait_until_ready(self, timeout_seconds: float = 90.0) -> None:
        """Returns when the server answers: about 3 s after its start, 8 s in a new PREFECT_HOME.

        From then on the end of this process waits until the run is recorded. Raises NotConfigured with the log's path.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotConfigured(f"Prefect's local server did not start: see {self.log_path}") from error
        finally:
            connection.close()
        if status != 200:
            raise NotConfigured(f"Prefect's local server answers {status}: see {self.log_path}")
        self.wait_at_exit = True

    def close(self, *, wait_seconds: float = 300.0) -> None:
        """Lets the server end when its backlog is recorded, and waits for that at most `wait_seconds`.

        Not waiting loses nothing: the server ends by itself, in the background.
        """
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        notice_seconds = min(4.0, wait_seconds)
        try:
            self._process.wait(notice_seconds)
        except subprocess.TimeoutExpired:
            if wait_seconds > notice_seconds:
                print("Prefect's server is recording the rest of the run ...", file=sys.stderr)
                self._wait(wait_seconds - notice_seconds)

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            print("Prefect's server goes on recording in the background", file=sys.stderr)

    def close_at_exit(self) -> None:
        """For `atexit`, which comes after Prefect's own threads have sent their last events."""
        self.close(wait_seconds=300.0 if self.wait_at_exit else 0.0)
        if self._process.returncode is None:
            self._process.returncode = 0  # it outlives us on purpose: no ResourceWarning


def prepare_local_prefect(arguments: Sequence[str] | None = None) -> LocalPrefect | None:
    """To be called first thing in a flow script's `__main__` path, before Prefect is imported.

    Without a configured API URL: analytics off, a server started on a free port of 127.0.0.1 beside the imports to
    come, and PREFECT_API_URL pointed at it. Returns None and changes nothing where an API URL is set or Prefect is
    already imported; starts nothing for `arguments` (by default the command line's) that end without a run.
    From here on Ctrl-C and SIGTERM end the process with one sentence, until `run_script` takes over, and garbage is
    collected less often.
    """
    end_at_signals(with_a_word=True)
    collect_seldom()
    if "prefect" in sys.modules or api_is_configured(os.environ, Path.cwd()):
        return None
    for name, value in NO_ANALYTICS.items():
        os.environ.setdefault(name, value)
    if NO_RUN_FLAGS.intersection(sys.argv[1:] if arguments is None else arguments) or os.name == "nt":
        return None  # Windows hands no sockets down: Prefect's own temporary server will do
    local = _start_server(_prefect_home(os.environ))
    os.environ["PREFECT_API_URL"] = f"{local.ui_url}/api"
    atexit.register(local.close_at_exit)
    return local


def _start_server(home: Path) -> LocalPrefect:
    home.mkdir(parents=True, exist_ok=True)
    log_path = home / "prefect-together-server.log"
    with socket.socket() as listener, log_path.open("wb") as log:
        # Bound here and handed down: no other program can take the port, and early calls wait instead of failing.
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = int(listener.getsockname()[1])
        environment = {**SERVER_SETTINGS, **os.environ, "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api"}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "prefect_together.local_server", str(listener.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C is for the client alone
        )
    return LocalPrefect(port=port, process=process, log_path=log_path)


def _prefect_home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser()


def api_is_configured(environment: Mapping[str, str], directory: Path) -> bool:
    """Whether Prefect would find an API URL: in the environment, in `directory`'s .env, prefect.toml or pyproject.toml,
    or in the active profile. Reads what Prefect reads, in a millisecond instead of an import's second."""
    if environment.get("PREFECT_API_URL") or dotenv_values(directory / ".env").get("PREFECT_API_URL"):
        return True
    if _table(_toml(directory / "prefect.toml"), "api").get("url"):
        return True
    if _table(_toml(directory / "pyproject.toml"), "tool", "prefect", "api").get("url"):
        return True
    profiles_path = environment.get("PREFECT_PROFILES_PATH")
    home = _prefect_home(environment)
    profiles = _toml(Path(profiles_path).expanduser() if profiles_path else home / "profiles.toml")
    active = environment.get("PREFECT_PROFILE") or str(profiles.get("active", ""))
    return bool(_table(profiles, "profiles", active).get("PREFECT_API_URL"))


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # Prefect itself says what is wrong with it


def _table(document: dict[str, object], *names: str) -> dict[str, object]:
    for name in names:
        below = document.get(name)
        if not isinstance(below, dict):
            return {}
        document = cast(dict[str, object], below)
    return document


class Stopped(Exception):
    """SIGINT or SIGTERM ended the work. `exit_code` is what shells expect: 130 or 143."""

    def __init__(self, stop_signal: signal.Signals) -> None:
        super().__init__(stop_signal)
        self.signal, self.exit_code = stop_signal, 128 + stop_signal

    def __str__(self) -> str:
        return f"stopped by {'Ctrl-C' if self.signal == signal.SIGINT else self.signal.name}"

    @property
    def advice(self) -> str:
        """What a shell says of it."""
        return f"{self}: the same command goes on where this run stopped"


@contextmanager
def stop_signals(on_stop: Callable[[signal.Signals], None]) -> Generator[None]:
    """Calls `on_stop` in the running loop at the first SIGINT or SIGTERM; the second one ends the process at once.

    For use in a flow's body: Prefect's engine has set its own handler by then, whose exception inside the loop would
    cancel everything with stack traces and leave the run Crashed. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        loop.call_soon_threadsafe(on_stop, signal.Signals(number))

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; SIGINT and SIGTERM (Prefect's Cancel too) cancel it, let its `finally` run and raise Stopped.

    Prefect's two error lines for each task run that is cancelled with it are kept out of console and log.
    """
    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []
    task_lines = logging.getLogger("prefect.task_runs")
    level = task_lines.level

    def stop(stop_signal: signal.Signals) -> None:
        received.append(stop_signal)
        task_lines.setLevel(logging.CRITICAL + 1)
        task.cancel()

    with stop_signals(stop):
        try:
            return await task
        except asyncio.CancelledError:
            if received:
                raise Stopped(received[0]) from None
            raise
        finally:
            task_lines.setLevel(level)


def end_at_signals(*, with_a_word: bool = False) -> None:
    """SIGINT and SIGTERM end the process at once, as 130 and 143: there is nothing to put in order."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        if with_a_word:
            _say_stopped(number)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def _say_stopped(number: int) -> None:
    os.write(2, f"{Stopped(signal.Signals(number)).advice}\n".encode())  # a signal may come in the middle of a print


def run_script(body: Callable[[], int], *, local: LocalPrefect | None = None) -> NoReturn:
    """Ends the process with `body()`'s exit code; Ctrl-C and SIGTERM at any moment give 130 and 143, no stack trace."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        _say_stopped(number)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the one for which asyncio puts its own
    signal.signal(signal.SIGTERM, terminate)
    try:
        exit_code = body()
    except KeyboardInterrupt:
        _say_stopped(signal.SIGINT)
        exit_code = 130
    finally:
        end_at_signals()
    if local is not None and exit_code in (130, 143):
        local.wait_at_exit = False
    # What follows is Prefect sending its last events, in threads of its own.
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    logging.getLogger("APILogWorker").setLevel(logging.ERROR)
    logging.getLogger("prefect.events.utilities").setLevel(logging.CRITICAL)  # a last heartbeat comes too late
    sys.stdout.flush()
    sys.exit(exit_code)
