"""The package's flows in somebody's own flow, notebook or deployment: nothing of their process is changed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import cloudpickle
import pandas
import pytest
from prefect import Flow, flow
from prefect.flows import load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType

from batch_run import wait_until
from prefect_together import flows as own_flows
from prefect_together import read_table
from prefect_together.flows import generate_videos
from prefect_together.prefect_internals import process_is_own
from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import Limits
from prefect_together.results.outcome import RunOutcome
from prefect_together.table.plan import make_plan
from table_of_prompts import MODEL, Harness, prompts

CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"
FLOW_NAMES = [name for name in own_flows.__all__ if isinstance(getattr(own_flows, name), Flow)]


def is_prefects_own(log_filter: Any) -> bool:
    """Prefect adds filters to loggers of its own at any time."""
    return type(log_filter).__module__.startswith("prefect.")


def process_settings() -> dict[str, list[Any]]:
    """What a run could change of its process."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    return {
        "gc": [gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()],
        "levels": [(logger.name, logger.level) for logger in loggers if logger.level],
        "filters": [one for holder in [*loggers, *handlers] for one in holder.filters if not is_prefects_own(one)],
        "signals": [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": list(os.environ.items()),
    }


def changed(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> set[Any]:
    return {pair for name in before for pair in set(before[name]) ^ set(after[name])}


def test_a_run_in_a_foreign_flow_changes_no_setting_of_its_process(harness: Harness) -> None:
    import_module("av")  # which sets the level of its own logger
    seen: list[dict[str, list[Any]]] = []

    @flow(name="somebodys-own", persist_result=False)
    async def foreign() -> RunOutcome:
        seen.append(process_settings())
        run = asyncio.create_task(
            generate_videos(prompts(CAT, HARBOUR), model=MODEL, output_dir=str(harness.output_dir))
        )
        await asyncio.to_thread(wait_until, lambda: harness.api.calls("create") > 0, seconds=60)
        seen.append(process_settings())
        outcome = await run
        seen.append(process_settings())
        return outcome

    outcome = harness.prefect.run(foreign)

    before, during, after = seen
    assert changed(before, during) == set()
    assert changed(before, after) == set()
    assert outcome.exit_code == 0
    assert harness.api.accepted() == 2


def test_cancelled_with_its_foreign_flow_the_run_leaves_its_results_and_pays_nothing_twice(harness: Harness) -> None:
    harness.api.script("in_progress", prompt=CAT)

    @flow(name="somebodys-own", persist_result=False)
    async def foreign() -> None:
        run = asyncio.create_task(generate_videos(prompts(CAT), model=MODEL, output_dir=str(harness.output_dir)))
        await asyncio.to_thread(wait_until, lambda: harness.api.calls("retrieve") > 0, seconds=60)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    harness.prefect.run(foreign)
    first = (harness.output_dir / "results.csv").read_text()
    harness.run(prompts(CAT), limits=Limits(max_wait_minutes=0.01))

    assert "submitted" in first
    assert harness.api.accepted() == 1


@pytest.mark.parametrize("kind", ["a checked table", "a plan", "a path", "a DataFrame"])
def test_what_a_table_is_in_python(kind: str, harness: Harness, tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(prompts(CAT, HARBOUR))
    checked = read_table(str(path), defaults={"model": MODEL})
    kinds = {
        "a checked table": (checked, "<PromptTable>"),
        "a plan": (make_plan(checked), "<Plan>"),
        "a path": (path, str(path)),
        "a DataFrame": (pandas.read_csv(path), "<DataFrame>"),
    }
    table: Any = kinds[kind][0]

    ended = harness.run(table, model=MODEL if kind in ("a path", "a DataFrame") else None)

    assert ended.statuses == ["downloaded", "downloaded"]
    assert harness.prefect.flow_run(ended.run_id).parameters["prompts"] == kinds[kind][1]


def test_a_flow_with_other_options_stores_a_dataframe_as_shortly(harness: Harness) -> None:
    renamed: Any = generate_videos.with_options(name="mine", retries=0)
    table = pandas.DataFrame({"prompt": [CAT], "model": [MODEL]})

    async def work() -> Any:
        return await renamed(table, output_dir=str(harness.output_dir), return_state=True)

    state = harness.prefect.run(work)

    assert state.is_completed(), state.message
    assert renamed.name == "mine"
    assert harness.prefect.flow_run(state.state_details.flow_run_id).parameters["prompts"] == "<DataFrame>"


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (read_table(prompts(CAT), defaults={"model": MODEL}), {"model": MODEL}, r"checked already: give model to"),
        (7, {}, r"a table is a path, a URL, text or a DataFrame, not int"),
    ],
)
def test_what_would_be_ignored_is_a_mistake(harness: Harness, table: Any, options: dict[str, str], said: str) -> None:
    ended = harness.run(table, **{"model": None, **options})

    assert isinstance(ended.result, SettingsInvalid)
    assert said in str(ended.result)


def test_the_form_has_a_text_area_for_the_table() -> None:
    schema = generate_videos.parameters.model_dump()

    assert schema["properties"]["prompts"]["type"] == "string"
    assert "anyOf" not in schema["properties"]["prompts"]
    assert schema["required"] == ["prompts"]


@pytest.mark.parametrize("name", FLOW_NAMES)
@pytest.mark.parametrize("kind", list(EntrypointType))
async def test_a_deployment_of_an_imported_flow_finds_it_again(name: str, kind: EntrypointType) -> None:
    deployed = getattr(own_flows, name)

    deployment = await deployed.ato_deployment(name="mine", entrypoint_type=kind)
    assert deployment.entrypoint is not None
    found = load_flow_from_entrypoint(deployment.entrypoint)

    assert (found.name, found.fn) == (deployed.name, deployed.fn)
    if kind == EntrypointType.MODULE_PATH:
        assert deployment.entrypoint == f"prefect_together.flows.entrypoints.{name}"


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_a_flow_is_the_same_after_pickling(name: str) -> None:
    wanted = getattr(own_flows, name)

    pickled: bytes = cast("Any", cloudpickle).dumps(wanted)
    again = cloudpickle.loads(pickled)

    assert (again.name, again.fn, again.parameters) == (wanted.name, wanted.fn, wanted.parameters)


def test_a_process_that_prefect_started_for_a_run_is_the_runs_own(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.runtime import flow_run

    @flow(name="asks", persist_result=False)
    async def asks() -> tuple[bool, bool]:
        before = process_is_own()
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(flow_run.get_id()))
        return before, process_is_own()

    assert harness.prefect.run(asks) == (False, True)
    assert not process_is_own()


def test_a_process_that_serve_started_is_the_runs_own_and_not_a_subflows(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow(name="asks", persist_result=False)
    async def asks() -> bool:
        return process_is_own()

    @flow(name="asks-twice", persist_result=False)
    async def asks_twice() -> tuple[bool, bool]:
        return process_is_own(), await asks()

    monkeypatch.setenv("PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS", "false")

    assert harness.prefect.run(asks_twice) == (True, False)
