"""The repository's shape: what is installed, what is a script, which way imports go (design and CONTRIBUTING)."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from repository import ROOT
from table_of_prompts import load_script

PACKAGE = ROOT / "tasks" / "prefect_together"
FLOW_FILES = sorted((ROOT / "flows").glob("*.py"))
ENTRYPOINT_FILE = ROOT / "deployments" / "prefect.yaml"

WINGS = {
    "errors": 0,
    "clock": 0,
    "problems": 1,
    "request": 2,
    "clips": 2,
    "grid": 3,
    "stills": 3,
    "table": 4,
    "api": 4,
    "ledger": 5,
    "credentials": 5,
    "films": 6,
    "results": 7,
    "prefect_internals": 7,
    "steps": 8,
    "execution": 9,
    "shards": 10,
    "flows": 11,
    "deployments": 12,
    "cli": 13,
    "__main__": 14,
}
"""A wing imports only wings with a lower number. The package's `__init__` names all, lazily."""

SANDBOX_USES = frozenset({"sandbox", "request", "clock", "errors", "problems"})
"""The imitated service stands beside the wings; whoever starts one imports it when it is asked for."""

WITHOUT_PREFECT = 6
"""Wings up to this number work where Prefect is not even imported."""

PREFECT_INTERNALS = frozenset({"prefect_internals", "cli.local_server", "cli.local_messages"})
"""All that relies on what Prefect does not document; the last two run in the local server's process."""

DOCUMENTED = (
    "prefect.artifacts",
    "prefect.blocks.abstract",
    "prefect.blocks.core",
    "prefect.cache_policies",
    "prefect.client.base",
    "prefect.client.orchestration",
    "prefect.client.schemas",
    "prefect.context",
    "prefect.deployments",
    "prefect.events.emit_event",
    "prefect.exceptions",
    "prefect.flow",
    "prefect.flow_runs",
    "prefect.input",
    "prefect.logging.get_run_logger",
    "prefect.runner",
    "prefect.settings",
    "prefect.states",
    "prefect.tasks",
    "prefect.types.entrypoint",
    "prefect.utilities.urls",
    "prefect.workers",
)
"""Modules and names of Prefect's API reference."""

DOCUMENTED_PACKAGES = frozenset({"prefect", "prefect.events", "prefect.logging"})
"""Of which only the names above are taken."""

LARGEST_MODULE_LINES = 450

OLD_OPENPYXL_IS_LATE = "ignore:datetime.datetime.utcnow():DeprecationWarning:openpyxl.packaging.core"
"""The oldest openpyxl allowed says on import, from Python 3.12 on, what its later versions do not."""


@cache
def imports_of(path: Path, *, at_once: bool = False) -> frozenset[str]:
    """Modules that a file imports when it runs, or `at_once` when it is imported; not those for type checks only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return frozenset(found)


def modules() -> Mapping[str, Path]:
    """Every module of the package by its name below it (`sandbox.server`); the package itself by its own."""
    found: dict[str, Path] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "prefect_together"] = path
    return found


def own_imports(path: Path, *, at_once: bool = False) -> set[str]:
    """The modules of the package that a file imports."""
    known = modules()
    names = {name.removeprefix("prefect_together.") for name in imports_of(path, at_once=at_once)}
    return {name for name in names if name in known and name != "prefect_together"}


def knows_prefect(module: str) -> bool:
    return module == "prefect" or module.startswith("prefect.")


def test_tasks_holds_only_the_package() -> None:
    assert [path.name for path in (ROOT / "tasks").iterdir() if path.name != "__pycache__"] == ["prefect_together"]
    assert (PACKAGE / "py.typed").is_file()


def test_flows_and_tests_are_no_packages() -> None:
    assert not any((ROOT / place / "__init__.py").exists() for place in ("flows", "tests", "tasks"))


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: path.name)
def test_a_flow_file_bears_the_name_of_no_importable_module(path: Path) -> None:
    command = [sys.executable, "-c", f"import importlib.util; print(importlib.util.find_spec({path.stem!r}))"]

    found = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "None"


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: path.name)
def test_a_flow_file_says_what_it_is_and_imports_its_flow_from_the_package(path: Path) -> None:
    from prefect_together import flows

    head, *body = ast.parse(path.read_text()).body

    flow = getattr(load_script(path), path.stem)

    assert isinstance(head, ast.Expr)
    assert "Schedule:" in ast.unparse(head)
    assert "Secrets:" in ast.unparse(head)
    assert len(body) == 1
    assert flow is getattr(flows, path.stem)


def entrypoints() -> list[str]:
    if not ENTRYPOINT_FILE.exists():
        return []
    content: dict[str, Any] = yaml.safe_load(ENTRYPOINT_FILE.read_text())
    return [deployment["entrypoint"] for deployment in content["deployments"]]


@pytest.mark.parametrize("entrypoint", entrypoints())
def test_every_entrypoint_of_the_deployments_loads(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.flows import load_flow_from_entrypoint

    monkeypatch.chdir(ROOT)

    flow = load_flow_from_entrypoint(entrypoint)

    assert flow.fn.__name__ == entrypoint.partition(":")[2]


def wing_of(module: str) -> str:
    return module.partition(".")[0]


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*.py") if path.name != "__init__.py"]


def test_the_package_has_at_most_six_modules_beside_its_wings() -> None:
    assert len(files_in(PACKAGE)) <= 6


def test_every_module_is_small_enough_to_read() -> None:
    assert {
        name for name, path in modules().items() if len(path.read_text().splitlines()) > LARGEST_MODULE_LINES
    } == set()


@pytest.mark.parametrize("wing", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_wing_says_what_it_is_for_and_is_small_enough_to_read(wing: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text()))
    assert 3 <= len(files_in(PACKAGE / wing)) <= (15 if wing == "sandbox" else 9)


def test_wings_import_only_downwards() -> None:
    upward: set[str] = set()
    for name, path in modules().items():
        wing = wing_of(name)
        for wanted in (wing_of(module) for module in own_imports(path)):
            allowed = wanted in SANDBOX_USES if wing == "sandbox" else wanted in ("sandbox", wing)
            if not allowed and (wing == "sandbox" or WINGS[wanted] >= WINGS[wing]):
                upward.add(f"{name} -> {wanted}")

    assert upward == set()


def test_the_lower_wings_import_no_prefect() -> None:
    lower = [name for name in modules() if WINGS.get(wing_of(name), 0) <= WITHOUT_PREFECT and name != "credentials"]

    assert {name for name in lower if any(knows_prefect(one) for one in imports_of(modules()[name]))} == set()


def test_only_one_module_relies_on_what_prefect_does_not_document() -> None:
    internal: set[str] = set()
    for name, path in modules().items():
        wanted = {module for module in imports_of(path) if knows_prefect(module)}
        undocumented = {module for module in wanted if not module.startswith(DOCUMENTED)} - DOCUMENTED_PACKAGES
        if undocumented and name not in PREFECT_INTERNALS:
            internal |= {f"{name} -> {module}" for module in undocumented}

    assert internal == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own_imports(path, at_once=True) - {name} for name, path in modules().items()}
    while graph:
        leaves = {name for name, wanted in graph.items() if not wanted & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}


def test_importing_the_package_imports_neither_prefect_nor_pandas() -> None:
    program = "import sys, prefect_together; print([name for name in ('prefect', 'pandas') if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_importing_the_lower_wings_loads_no_prefect() -> None:
    lower = [name for name in modules() if WINGS.get(wing_of(name), 0) <= WITHOUT_PREFECT and name != "credentials"]
    names = sorted(
        f"prefect_together.{name}" for name in lower if not name.endswith("__main__") and name != "prefect_together"
    )
    program = f"import sys, {', '.join(names)}; print('prefect' in sys.modules)"

    command = [sys.executable, "-W", "error", "-W", OLD_OPENPYXL_IS_LATE, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"prefect_together"}
    assert {
        "prefect_together/request/models.json",
        *(f"prefect_together/results/page/{path.name}" for path in (PACKAGE / "results" / "page").iterdir()),
        "prefect_together/py.typed",
        "prefect_together/deployments/prefect.yaml",
    } <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    program = "from prefect_together import flows; print(flows.__file__, flows.generate_videos.name)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "installed"))
    assert done.stdout.strip().endswith(" generate-videos")


def test_no_package_of_a_generic_name_is_left_importable() -> None:
    program = (
        "from importlib.util import find_spec\n"
        "print([name for name in ('flows', 'tasks', 'tests') if (found := find_spec(name)) and found.origin])"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec("prefect_together") is not None
