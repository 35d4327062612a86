"""deployments/automations.py: it can be run again, and what its notifications say, rendered by Prefect's templates."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.server.events.jinja_filters import all_filters
from prefect.server.utilities.user_templates import register_user_template_filters, render_user_template
from prefect.states import Crashed

from captured_events import captured_events, events_named
from deployment_calls import run_program
from prefect_server import PrefectServer
from prefect_together.errors import AccountBlocked
from prefect_together.results.outcome import RunOutcome
from prefect_together.results.results import RowResult, TakeResult, totals
from prefect_together.steps.events import ACCOUNT_BLOCKED, emit_budget_event, run_events
from repository import ROOT
from table_of_prompts import MODEL, load_script

AUTOMATIONS: Any = load_script(ROOT / "deployments" / "automations.py")
FLOW = SimpleNamespace(name="generate-videos")


def rendered(template: str, **context: Any) -> str:
    register_user_template_filters(all_filters)  # as the server does before its first notification
    return asyncio.run(render_user_template(template, {"flow": FLOW, **context}))


def test_a_state_without_a_message_leaves_its_line_empty() -> None:
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="denim-turtle", state=Crashed())

    said = rendered(AUTOMATIONS.STATE_BODY, flow_run=run)

    assert said.splitlines()[0] == "generate-videos / denim-turtle is Crashed."
    assert "None" not in said
    assert "Failed to render" not in said


def test_a_blocked_account_is_told_in_one_sentence_with_its_reason_and_rows() -> None:
    error = AccountBlocked(402, "credits_exhausted", "Credit limit exceeded, please add credits.")
    take = TakeResult(
        row_id="cat",
        status="refused",
        model=MODEL,
        parameters={},
        estimate_usd=0.28,
        error=str(error),
        failure_class=error.failure_class,
        attempts=1,
    )
    row = RowResult(number=2, cells={}, takes=(take,))
    outcome = RunOutcome((row,), totals((row,)), "out", "out/index.html")

    ((name, payload),) = run_events(outcome)
    said = rendered(
        AUTOMATIONS.EVENT_BODY,
        flow_run=FlowRun(id=uuid4(), flow_id=uuid4(), name="denim-turtle"),
        event=SimpleNamespace(payload=payload),
    )

    assert name == ACCOUNT_BLOCKED
    assert "the account is blocked: 1 row not sent; " in said.splitlines()[0]
    assert said.splitlines()[0].endswith("Credit limit exceeded, please add credits.")
    assert "Rows: cat\nOutput: out" in said
    assert "None" not in said


def test_a_part_of_a_budget_is_told_with_its_dollars(prefect_server: PrefectServer) -> None:
    @flow(name="a-run")
    async def a_run() -> None:
        emit_budget_event(80, committed_usd=8.1, budget_usd=10.0, output_dir="out")

    with captured_events():
        prefect_server.run(a_run)
        (event,) = events_named("together-video.run.")
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="denim-turtle")
    said = rendered(AUTOMATIONS.BUDGET_BODY, flow_run=run, event=event)

    assert said.splitlines()[0] == (
        "generate-videos / denim-turtle: 80 % of the budget reached: $8.10 of $10.00 is paid or reserved."
    )
    assert "Output: out" in said
    triggers = {alert.event: alert.trigger for alert in AUTOMATIONS.ALERTS}
    assert "generate-videos-shard" in str(triggers[event.event].match_related)
    assert "generate-videos-shard" not in str(triggers["prefect.flow-run.Failed"].match_related)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_automations_are_the_same_after_a_second_run(prefect_server: PrefectServer) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    async def save() -> None:
        hook: Any = CustomWebhookNotificationBlock.model_validate({"name": "hook", "url": "http://127.0.0.1:9/"})
        await hook.save("alerts", overwrite=True)

    prefect_server.run(save)
    script = [sys.executable, "deployments/automations.py"]

    first = run_program(prefect_server, *script, "custom-webhook/alerts")
    second = run_program(prefect_server, *script, "custom-webhook/alerts")

    async def read() -> dict[str, str]:
        async with get_client() as client:
            return {str(one.id): one.name for one in await client.read_automations()}

    assert first == second
    assert len(prefect_server.run(read)) == len(first.splitlines()) == 6
    assert run_program(prefect_server, *script, "--remove").count("removed") == 6
    assert prefect_server.run(read) == {}
