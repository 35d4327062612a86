"""A Prefect server for the length of one run where none is set, and a clean end of the process on signals.

Imports nothing of Prefect: `prepare_prefect` must run before Prefect reads its settings. Prefect's own temporary
server (3.8.8) has no UI, dies from the Ctrl-C that was meant for its client, prints its stack traces into the user's
shell, needs 24 ms a task run and loses what it has not recorded in 5 s. So the same server is started here as a session
of its own, with a log file, with the UI, and with the services that a single local run has no use for switched off.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

from dotenv import dotenv_values

from prefect_together.clips.store import redacted
from prefect_together.errors import NotConfigured
from prefect_together.execution.signals import exit_at_signals, say_stopped

THRESHOLDS = (20_000, 5, 5)
"""For `gc.set_threshold`. Python's own are 700 (2,000 since 3.13), 10 and 10."""


def raise_gc_thresholds() -> None:
    """For a program of ours, first thing: what imports make stays for good.

    Collecting it in vain, with Python's own thresholds, costs a fifth of the time to the first row (measured on 3.11).
    """
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def raised_gc_thresholds() -> Generator[None]:
    """Around a run of many rows: what is imported already is frozen, and new objects are collected less often.

    A row makes thousands of objects; collected with Python's own thresholds they cost a quarter of a run's processor
    time (measured on Python 3.11, see benchmarks/README.md).
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


ANSWER_SECONDS = 15.0
NO_ANALYTICS = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

SERVER_SETTINGS = {
    # Measured on 3.8.8: 24 ms of the server's processor time a task run with the defaults, 7 ms with batches,
    # 3.7 ms and a quarter of the disk space without the copy of each event that only the Events page reads.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    # Prefect's own queues drop what comes when 10,000 events wait.
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_together.cli.local_messages",
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


class LocalPrefect:
    """A Prefect server that lives as long as this process and until it has recorded what it was sent.

    `wait_at_exit`: the end of this process waits for that.
    """

    def __init__(self, *, port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.port, self.log_path = port, log_path
        self.ui_url = f"http://127.0.0.1:{port}"
        self.wait_at_exit = False
        self._process = process

    def wait_until_ready(self, timeout_seconds: float = 90.0) -> None:
        """Returns when the server answers: about 3 s after its start, 8 s in a new PREFECT_HOME.

        Raises NotConfigured with the log's path.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotConfigured(f"Prefect's local server did not start{self._reason()}: see {self.log_path}") from error
        finally:
            connection.close()
        if status != 200:
            raise NotConfigured(f"Prefect's local server answers {status}: see {self.log_path}")

    def _reason(self) -> str:
        with suppress(OSError):
            if "Can't locate revision" in self.log_path.read_text(errors="replace"):
                database = self.log_path.with_name("prefect.db")
                return f", as a newer Prefect has written {database} (upgrade Prefect, or set PREFECT_HOME)"
        return ""

    def close(self, *, wait_seconds: float) -> None:
        """Lets the server end when its backlog is recorded, and waits for that at most `wait_seconds`.

        Not waiting loses nothing: the server ends by itself, in the background.
        """
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        quiet_seconds = min(4.0, wait_seconds)
        if self._ends_within(quiet_seconds) or wait_seconds == quiet_seconds:
            return
        print("Prefect's server is recording the rest of the run ...", file=sys.stderr)
        if not self._ends_within(wait_seconds - quiet_seconds):
            print("Prefect's server continues to record in the background", file=sys.stderr)

    def _ends_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close_at_exit(self) -> None:
        """For `atexit`, which comes after Prefect's own threads have sent their last events."""
        self.close(wait_seconds=300.0 if self.wait_at_exit else 0.0)
        if self._process.returncode is None:
            self._process.returncode = 0  # it outlives us on purpose: no ResourceWarning


def needs_local_server() -> bool:
    """Whether no Prefect server is set for this process, so that a run needs one of its own."""
    return "prefect" not in sys.modules and not api_is_configured(os.environ, Path.cwd())


def prepare_prefect() -> LocalPrefect | None:
    """To be called before Prefect is imported: it reads its settings then.

    Where no API URL is set: analytics off, a server started on a free port of 127.0.0.1 while Prefect is imported, and
    PREFECT_API_URL pointed at it. Returns None and changes nothing where an API URL is set or Prefect is imported.
    """
    if not needs_local_server():
        return None
    for name, value in NO_ANALYTICS.items():
        os.environ.setdefault(name, value)
    if os.name == "nt":
        return None  # Windows hands no sockets down: Prefect's own temporary server will do
    print("starting a local Prefect server", file=sys.stderr)
    local = _start_server(_prefect_home(os.environ))
    os.environ["PREFECT_API_URL"] = f"{local.ui_url}/api"
    os.environ["PREFECT_UI_URL"] = f"{local.ui_url}/v2"  # else the links that Prefect logs open its older UI
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
            [sys.executable, "-W", "ignore", "-m", "prefect_together.cli.local_server", str(listener.fileno())],
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
    names, tables = _prefect_settings(environment, directory)
    return bool(names.get("PREFECT_API_URL")) or any(_table(table, "api").get("url") for table in tables)


def team_is_configured(environment: Mapping[str, str], directory: Path) -> bool:
    """Whether Prefect would find a setting of `flows.team_settings`, where it looks for an API URL."""
    names, tables = _prefect_settings(environment, directory)
    is_named = any(name.upper().startswith("PREFECT_INTEGRATIONS_TOGETHER_") for name in names)
    return is_named or any(_table(table, "integrations", "together") for table in tables)


def _prefect_settings(
    environment: Mapping[str, str], directory: Path
) -> tuple[Mapping[str, object], Sequence[dict[str, object]]]:
    """Settings by the names of their variables, first come first, and those that are TOML tables."""
    profiles_path = environment.get("PREFECT_PROFILES_PATH")
    home = _prefect_home(environment)
    profiles = _toml(Path(profiles_path).expanduser() if profiles_path else home / "profiles.toml")
    active = environment.get("PREFECT_PROFILE") or str(profiles.get("active", ""))
    found = (environment, dotenv_values(directory / ".env"), _table(profiles, "profiles", active))
    names: dict[str, object] = {}
    for source in reversed(found):
        names |= {name: value for name, value in source.items() if value}
    pyproject = _table(_toml(directory / "pyproject.toml"), "tool", "prefect")
    return names, [_toml(directory / "prefect.toml"), pyproject]


async def prefect_problem() -> str | None:
    """In a sentence, why Prefect's API cannot be used: nothing answers, it answers an error; None if it can be.

    It takes 15 s at most, and 5 ms where the API answers.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    client = get_client(httpx_settings={"timeout": ANSWER_SECONDS})  # its own: a flow run's would try for a minute
    url = redacted(str(client.api_url))
    try:
        async with asyncio.timeout(ANSWER_SECONDS), client:
            await client.read_flows(limit=1)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        key = " (PREFECT_API_KEY or PREFECT_API_AUTH_STRING is missing or wrong)" if code in (401, 403) else ""
        return f"Prefect's server at {url} answers {code}{key}"
    except (httpx.HTTPError, OSError, PrefectException, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or "no answer"
        return f"Prefect's server at {url} cannot be reached ({reason})"
    return None


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


def as_program(body: Callable[[], int]) -> NoReturn:
    """Ends the process with `body()`'s exit code; Ctrl-C and SIGTERM at any moment give 130 and 143, no stack trace.

    Garbage is collected less often from here on.
    """
    exit_at_signals(say_so=True)
    raise_gc_thresholds()
    try:
        exit_code = body()
    except KeyboardInterrupt:
        say_stopped(signal.SIGINT)
        exit_code = 130
    finally:
        exit_at_signals()
    if "prefect" in sys.modules:
        from prefect_together.prefect_internals import end_quietly

        end_quietly()
    sys.stdout.flush()
    sys.exit(exit_code)


@contextmanager
def signals_raised() -> Generator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt (for which asyncio puts a handler of its own) and SystemExit, 143."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        say_stopped(number)
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
