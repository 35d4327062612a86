"""What is loaded and what is not: nobody waits for the import of what his run does not use. Modules, not seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import pytest

import prefect_together

FLOW_AND_SHELL = (
    "import prefect_together.flows.entrypoints, prefect_together.flows.{module}, prefect_together.cli.run_flow"
    ", prefect_together.cli.terminal"
)


def loaded(program: str) -> frozenset[str]:
    """The modules that are loaded when the program is through, in a process of its own."""
    show = "import json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{show}"], capture_output=True, text=True, check=True)
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["run", "planning"])
def test_a_flow_that_starts_has_loaded_nothing_that_only_some_tables_and_clips_need(module: str) -> None:
    modules = loaded(FLOW_AND_SHELL.format(module=module))

    assert {"prefect", "cyclopts"} <= modules
    for_workbooks, for_pictures, for_clips = {"openpyxl"}, {"PIL"}, {"av"}
    for_postgres, for_the_sandbox, for_servers = (
        {"sqlalchemy.orm", "asyncpg"},
        {"prefect_together.sandbox"},
        {"uvicorn"},
    )
    not_needed = for_workbooks | for_pictures | for_clips | for_postgres | for_the_sandbox | for_servers
    assert modules & (not_needed | {"psutil", "fastapi", "pyarrow.parquet"}) == set()


@pytest.mark.parametrize(
    "name",
    ["request.catalogue", "sandbox", "table.prompt_table", "ledger.ledger", "api.session", "api.poll", "api.images"],
)
def test_the_lower_layers_load_no_prefect(name: str) -> None:
    assert "prefect" not in loaded(f"import prefect_together.{name}")


def test_the_catalogue_and_the_sandbox_load_no_ledger_no_table_reader_and_no_sdk() -> None:
    modules = loaded("from prefect_together import Sandbox, known_models; known_models()")

    assert modules & {"pandas", "sqlalchemy", "together", "aiohttp", "av", "uvicorn"} == set()


def test_a_public_name_is_never_the_module_of_that_name() -> None:
    first = {name: getattr(prefect_together, name) for name in prefect_together.__all__}

    again = {name: getattr(prefect_together, name) for name in prefect_together.__all__}

    assert not any(isinstance(thing, ModuleType) for thing in again.values())
    assert again == first
