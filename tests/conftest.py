"""Fixtures that several test files share, and the environment that keeps every test from the user's own Prefect."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
from hypothesis import settings

from postgres_server import find_programs, running_server, throw_away_database
from prefect_server import ISOLATED, PrefectServer, running_prefect

if TYPE_CHECKING:  # not for every test: they read tables, and load the SDK
    from batch_harness import BatchHarness
    from batch_run import WarmRuns
    from prefect_together.ledger.ledger import Ledger
    from prefect_together.sandbox import SandboxProcess
    from sdk_clients import Transport
    from table_of_prompts import Harness

settings.register_profile("busy", deadline=None)  # a busy machine may stop in the middle of any example
settings.load_profile("busy")

LIVE_NAMES = frozenset({"TOGETHER_LIVE", "TOGETHER_API_KEY", "TOGETHER_BASE_URL"})
"""What `make live` is told of the real service."""

PREFECT_SOCKET, WHOLE_PREFECT_SOCKET = pytest.StashKey[socket.socket](), pytest.StashKey[socket.socket]()
"""Bound before the tests begin, so that the servers' ports are known then; a server starts when it is needed."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module imports Prefect, which reads its settings then."""
    home = tempfile.TemporaryDirectory(prefix="prefect-together-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    kept = LIVE_NAMES if os.environ.get("TOGETHER_LIVE") == "1" else frozenset[str]()
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "TOGETHER_"))]:
        if name not in kept:
            del os.environ[name]
    os.environ.update(ISOLATED, PREFECT_HOME=home.name, PREFECT_API_SSL_CERT_FILE=str(one_certificate(Path(home.name))))
    for key in (PREFECT_SOCKET, WHOLE_PREFECT_SOCKET):
        listener = config.stash[key] = socket.socket()
        config.add_cleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        # Prefect 3.8.8 does not close the client with which a flow run asks its server for the default result storage.
        leaked = rf"unclosed <socket.*raddr=\('127.0.0.1', {listener.getsockname()[1]}\)>"
        config.addinivalue_line("filterwarnings", f"ignore:{leaked}:ResourceWarning")  # during the tests
        warnings.filterwarnings("ignore", leaked, ResourceWarning)  # after them, when pytest looks for what is left


def one_certificate(folder: Path) -> Path:
    """A file of certificates that is read in no time: Prefect reads it for each client, and certifi's takes 50 ms."""
    file = folder / "certificate.pem"
    all_of_them = Path(certifi.where()).read_text()
    end = "-----END CERTIFICATE-----"
    file.write_text(all_of_them[: all_of_them.index(end) + len(end)] + "\n")
    return file


@pytest.fixture(scope="session")
def prefect_server(pytestconfig: pytest.Config) -> Generator[PrefectServer]:
    """A Prefect server of the test session's own; a test names it and runs its flows in `prefect_server.run(...)`."""
    with running_prefect(Path(os.environ["PREFECT_HOME"]), pytestconfig.stash[PREFECT_SOCKET]) as server:
        yield server


WHOLE = {"EVENT_PERSISTER", "TRIGGERS", "REPOSSESSOR"}
"""Services that a local run's server goes without."""


@pytest.fixture(scope="session")
def whole_prefect_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Generator[PrefectServer]:
    """A server that also keeps events, runs automations, and takes slots back whose lease has lapsed."""
    settings = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "true" for service in WHOLE}
    home = tmp_path_factory.mktemp("whole-prefect")
    with running_prefect(home, pytestconfig.stash[WHOLE_PREFECT_SOCKET], **settings) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Generator[str]:
    """A PostgreSQL server of the test session's own."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs (initdb) are not installed: apt-get install postgresql")
    with running_server(programs) as url:
        yield url


@pytest.fixture
def harness(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Harness]:
    """A place from which to run tables: Prefect, a sandbox in this process with its key, an empty output directory."""
    from table_of_prompts import opened_harness

    with opened_harness(prefect_server, tmp_path / "out", monkeypatch) as opened:
        yield opened


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each of the SDK's transports, for `sdk_clients.open_api`."""
    return request.param


@pytest.fixture(scope="module")
def runs(sandbox: SandboxProcess, tmp_path_factory: pytest.TempPathFactory) -> Generator[WarmRuns]:
    """A warm process to start runs from, against the test module's own `sandbox`."""
    from batch_run import WarmRuns

    with WarmRuns(tmp_path_factory.mktemp("home"), base_url=sandbox.base_url) as warm:
        yield warm


@pytest.fixture
def batch_harness(prefect_server: PrefectServer, tmp_path: Path) -> BatchHarness:
    """A place from which batches run over a scripted service, in real time."""
    from batch_harness import BatchHarness

    return BatchHarness(prefect_server, tmp_path)


@pytest.fixture
def timeless_place(prefect_server: PrefectServer, tmp_path: Path) -> BatchHarness:
    """The same where hours pass in moments."""
    from batch_harness import BatchHarness
    from fake_clock import FakeClock

    return BatchHarness(prefect_server, tmp_path, FakeClock())


@pytest.fixture
def ledger_file(tmp_path: Path) -> str:
    """The path of a ledger on SQLite."""
    return str(tmp_path / "ledger.db")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, ledger_file: str) -> str:
    """A ledger of each kind, by its path or URL."""
    return ledger_file if request.param == "sqlite" else throw_away_database(request)


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncGenerator[Ledger]:
    """An open ledger of each kind."""
    from prefect_together.ledger.ledger import open_ledger

    async with open_ledger(ledger_url) as opened:
        yield opened
