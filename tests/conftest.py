"""Fixtures that several test files share, and the environment that keeps every test from the user's own Prefect."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from postgres_server import find_programs, running_server
from prefect_server import ISOLATED, PrefectServer, running_prefect


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module imports Prefect, which reads its settings then."""
    home = tempfile.TemporaryDirectory(prefix="prefect-together-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "TOGETHER_"))]:
        del os.environ[name]
    os.environ.update(ISOLATED, PREFECT_HOME=home.name)


@pytest.fixture(scope="session")
def prefect_server() -> Generator[PrefectServer]:
    """A Prefect server of the test session's own; a test names it and runs its flows in `prefect_server.run(...)`."""
    with running_prefect(Path(os.environ["PREFECT_HOME"])) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Generator[str]:
    """A PostgreSQL server of the test session's own."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs (initdb) are not installed: apt-get install postgresql")
    with running_server(programs) as url:
        yield url
