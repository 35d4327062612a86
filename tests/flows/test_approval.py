"""A plan above what was said is paid for only when a person says so: the dialog as the UI sees and answers it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from prefect_together.errors import NotApproved
from prefect_together.execution.settings import RunLocations, RunSettings
from prefect_together.flows.prompts import plan_prompts
from prefect_together.flows.run import run_plan
from prefect_together.request.form import Limits, PlanLimits
from prefect_together.results.plan_report import plan_report
from table_of_prompts import FLOWS, MODEL, Harness, load_script, prompts, table_text

CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Asked:
    """How a run that asked has ended, what its dialog said, and how many create calls were made before the answer."""

    state: Any
    dialog: str
    fields: dict[str, Any]
    sent_before: int


async def dialog_of(client: PrefectClient) -> tuple[FlowRun, str, dict[str, Any]]:
    """The run that waits for an answer, the text of its dialog, and the fields of its form."""
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    while True:
        for run in await client.read_flow_runs(flow_run_filter=paused):
            keys = run.state.state_details.run_input_keyset if run.state else None
            if keys:
                try:
                    text = json.loads(await client.read_flow_run_input(run.id, keys["description"]))
                    schema = json.loads(await client.read_flow_run_input(run.id, keys["schema"]))
                except (ObjectNotFound, PrefectHTTPStatusError):
                    continue  # it is being written
                return run, text, schema["properties"]
        await asyncio.sleep(LOOK_SECONDS)


def run_and_answer(harness: Harness, table: str, answer: dict[str, Any] | None, **parameters: Any) -> Asked:
    """Run the flow, and answer its dialog as the UI does."""
    generate_videos = load_script(FLOWS / "generate_videos.py").generate_videos
    given = {"model": MODEL, "output_dir": str(harness.output_dir), **parameters}

    async def work() -> Asked:
        run = asyncio.create_task(generate_videos(table, **given, return_state=True))
        async with get_client() as client:
            waiting, dialog, fields = await dialog_of(client)
            sent = harness.api.calls("create")
            await client.resume_flow_run(waiting.id, run_input=answer)
        return Asked(await run, dialog, fields, sent)

    return harness.prefect.run(work)


def test_a_plan_above_the_limit_waits_with_the_plan_in_the_dialog_and_goes_on_when_approved(harness: Harness) -> None:
    asking = Limits(approve_above_usd=0.30)
    asked = run_and_answer(harness, prompts(CAT, HARBOUR), {"answer": "approve"}, limits=asking, budget_usd=5.0)

    assert asked.sent_before == 0
    assert "**$0.56** for 2 new videos of 2 rows" in asked.dialog
    assert "| minimax/video-01-director | 2 | $0.56 |" in asked.dialog
    assert "Asked above $0.30. Budget: $5.00" in asked.dialog
    assert asked.fields["answer"]["enum"] == ["approve", "reject"]
    assert asked.state.name == "Completed"
    assert harness.api.accepted() == 2


def test_a_plan_that_is_rejected_ends_cancelled_and_nothing_is_sent(harness: Harness) -> None:
    asked = run_and_answer(harness, prompts(CAT), {"answer": "reject"}, limits=Limits(approve_above_usd=0))

    server_state = harness.prefect.flow_run(asked.state.state_details.flow_run_id).state
    assert server_state.is_cancelled()
    assert server_state.message == "not approved"
    assert harness.api.requests == []


def test_what_is_paid_does_not_count_and_a_plan_below_the_limit_is_not_asked_about(harness: Harness) -> None:
    harness.run(prompts(CAT))

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(approve_above_usd=0.28))

    assert ended.statuses == ["downloaded", "downloaded"]


def test_no_answer_in_time_ends_cancelled_and_nothing_is_sent(harness: Harness) -> None:
    @flow(name="asks-in-vain", persist_result=False)
    async def asks() -> Any:
        return await run_plan(
            asyncio.to_thread(plan_prompts, prompts(CAT), model=MODEL),
            locations=RunLocations(str(harness.output_dir)),
            settings=RunSettings(approve_above_usd=0.1, approval_minutes=0.02),
        )

    untyped: Any = asks  # `return_state` of an async flow is typed as if it were not async

    async def work() -> Any:
        return await untyped(return_state=True)

    state = harness.prefect.run(work)

    assert harness.prefect.flow_run(state.state_details.flow_run_id).state.is_cancelled()
    assert state.message == "not approved: no answer within 1 s"
    assert harness.api.requests == []


def test_a_video_of_unknown_price_is_counted_and_named() -> None:
    rows = [{"prompt": CAT, "model": MODEL}, {"prompt": HARBOUR, "model": "acme/dream-1"}]
    plan = plan_prompts(table_text(rows), limits=PlanLimits(catalogue_checks=False))

    report = plan_report(plan)

    assert (report.new_price, report.unknown_prices) == ("$0.28 and 1 of unknown price", 1)


@pytest.mark.parametrize(("reason", "said"), [("", "not approved"), ("late", "not approved: late")])
def test_the_error_says_why(reason: str, said: str) -> None:
    assert str(NotApproved(reason)) == said
