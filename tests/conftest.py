"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from postgres_server import find_programs, running_server


@pytest.fixture(scope="session")
def postgres_url() -> Generator[str]:
    """A PostgreSQL server of the test session's own."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs (initdb) are not installed: apt-get install postgresql")
    with running_server(programs) as url:
        yield url
