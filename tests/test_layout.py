"""The repository's shape: what is installed, what is a script, which way imports go (design and CONTRIBUTING)."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from table_of_prompts import load_script

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tasks" / "prefect_together"
FLOW_FILES = sorted((ROOT / "flows").glob("*.py"))
ENTRYPOINT_FILE = ROOT / "deployments" / "prefect.yaml"

PURE = frozenset(
    {
        *(
            "advice",
            "asked_wait",
            "budget",
            "canary",
            "catalogue",
            "catalogue_checks",
            "clock",
            "durations",
            "errors",
            "field_types",
        ),
        *("identity", "inputs", "jobs", "media_checks", "model_listing", "model_spec", "names", "outcome", "pacing"),
        *("parameters", "plan", "plan_report", "poll_budget", "pricing", "requests", "results", "schedule", "shares"),
        *("side_by_side", "slots", "submission", "summary", "table_columns", "tally", "typed_cells", "wording"),
    }
)
"""No I/O. They import nothing of this package but each other."""

WITH_PREFECT = frozenset(
    {
        *("approval", "artifacts", "console", "credentials", "event_backlog", "events", "plan_run", "tasks"),
        *("batch", "generate", "places", "shard_run", "shards", "shell", "table_run", "video_run"),
        *("command_line", "local_messages", "local_server", "unstored_results"),
    }
)
"""The upper layer. All other modules, those to come included, work where Prefect is not even imported."""

OLD_OPENPYXL_IS_LATE = "ignore:datetime.datetime.utcnow():DeprecationWarning:openpyxl.packaging.core"
"""The oldest openpyxl allowed says on import, from Python 3.12 on, what its later versions do not."""

TABLES_OF_NAMES = frozenset({"ledger_schema"})
"""What the pure rules may name beyond themselves: states, as words."""


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
def test_a_flow_file_holds_flows_and_nothing_else(path: Path) -> None:
    from prefect import Flow

    body = ast.parse(path.read_text()).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]

    module = load_script(path)

    assert functions
    assert all(isinstance(getattr(module, node.name), Flow) for node in functions)
    assert hasattr(module, path.stem)


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


def test_only_the_upper_layer_knows_prefect_or_what_does() -> None:
    graph = {name: own_imports(path) for name, path in modules().items()}
    knowing = {name for name, path in modules().items() if any(knows_prefect(module) for module in imports_of(path))}
    while more := {name for name, wanted in graph.items() if wanted & knowing} - knowing:
        knowing |= more

    assert knowing == WITH_PREFECT


def test_the_pure_rules_import_only_each_other() -> None:
    upward = {(name, wanted) for name in PURE for wanted in own_imports(modules()[name]) - PURE - TABLES_OF_NAMES}

    assert upward == set()


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


def test_a_dry_look_at_the_lower_layers_needs_no_prefect() -> None:
    names = sorted(f"prefect_together.{name}" for name in modules().keys() - WITH_PREFECT - {"prefect_together"})
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
    assert {"prefect_together/models.json", "prefect_together/page.html", "prefect_together/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_no_package_of_a_generic_name_is_left_importable() -> None:
    program = (
        "from importlib.util import find_spec\n"
        "print([name for name in ('flows', 'tasks', 'tests') if (found := find_spec(name)) and found.origin])"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec("prefect_together") is not None
