"""Makes the automations that tell people about runs: failed, crashed, money in doubt, budget, account blocked.

    python deployments/automations.py slack-webhook/video-alerts

The argument is a notification block that exists, as TYPE/NAME. Running it again changes nothing but what has changed
here; an automation that was switched off in the UI stays off. `--remove` takes them away.

    python deployments/automations.py --each-clip archive/production

runs that deployment (FLOW/DEPLOYMENT) for each clip that a run has downloaded, with the clip's path or URL as its
parameter `clip`: a clip is a Prefect asset, and its materialization an event.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.events import AutomationCore, EventTrigger, Posture, RunDeployment, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from prefect_together.steps.assets import SUCCEEDED
from prefect_together.steps.events import ACCOUNT_BLOCKED, BUDGET_REACHED, IN_DOUBT, budget_event

FLOWS = ["generate-videos", "generate-video", "collect-videos"]
SHARDS = ["generate-videos-shard"]
"""Their states say nothing that the run which started them does not."""
STATE_BODY = """\
{{ flow.name }} / {{ flow_run.name }} is {{ flow_run.state.name }}.

{{ (flow_run.state.message or '')|truncate(700) }}

{{ flow_run|ui_url or '' }}
"""
EVENT_BODY = """\
{{ flow.name }} / {{ flow_run.name }}: {{ event.payload.message }}.

Rows: {{ event.payload.row_ids|join(", ") }}
Output: {{ event.payload.output_dir }}

{{ flow_run|ui_url or '' }}
"""
BUDGET_BODY = """\
{{ flow.name }} / {{ flow_run.name }}: {{ event.payload.message }}.

Output: {{ event.payload.output_dir }}

{{ flow_run|ui_url or '' }}
"""


@dataclass(frozen=True)
class Alert:
    """An event about one of our flows, and what is said about it."""

    name: str
    event: str
    subject: str
    body: str

    @property
    def trigger(self) -> EventTrigger:
        """Each event of a run of these flows at once, however the run was started."""
        is_state = self.event.startswith("prefect.flow-run.")
        return each(self.event, "prefect.flow-run.*") if is_state else each(self.event, "together-video.run.*", SHARDS)


def each(event: str, about: str, more_flows: Sequence[str] = ()) -> EventTrigger:
    """Each such event of our flows, at once."""
    return EventTrigger(
        expect={event},
        match={"prefect.resource.id": about},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": [*FLOWS, *more_flows]},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


ALERTS = (
    Alert("together-video: failed", "prefect.flow-run.Failed", "Videos failed: {{ flow_run.name }}", STATE_BODY),
    Alert("together-video: crashed", "prefect.flow-run.Crashed", "Run crashed: {{ flow_run.name }}", STATE_BODY),
    Alert("together-video: in doubt", IN_DOUBT, "Money in doubt: {{ flow_run.name }}", EVENT_BODY),
    Alert("together-video: budget at 80 %", budget_event(80), "80 % of the budget: {{ flow_run.name }}", BUDGET_BODY),
    Alert("together-video: budget reached", BUDGET_REACHED, "Budget reached: {{ flow_run.name }}", EVENT_BODY),
    Alert("together-video: account blocked", ACCOUNT_BLOCKED, "Account blocked: {{ flow_run.name }}", EVENT_BODY),
)


EACH_CLIP = "together-video: each clip"
CLIP_PARAMETERS = {"clip": {"__prefect_kind": "jinja", "template": "{{ event.payload.file }}"}}


async def make_automations(block: str) -> dict[str, UUID]:
    """Make or bring up to date one automation an alert; returns their ids by name. Raises ObjectNotFound."""
    block_type, _, name = block.partition("/")
    made: dict[str, UUID] = {}
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, block_type)
        for alert in ALERTS:
            notify = SendNotification(block_document_id=document.id, subject=alert.subject, body=alert.body)
            made[alert.name] = await _make(client, alert.name, alert.trigger, notify)
    return made


async def run_for_each_clip(deployment: str) -> dict[str, UUID]:
    """Make the automation that runs a deployment for each new clip; its id by name. Raises ObjectNotFound."""
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        action = RunDeployment(
            source="selected", deployment_id=found.id, parameters=CLIP_PARAMETERS, job_variables=None
        )
        return {EACH_CLIP: await _make(client, EACH_CLIP, each(SUCCEEDED, "*", SHARDS), action)}


async def _make(
    client: PrefectClient, name: str, trigger: EventTrigger, action: SendNotification | RunDeployment
) -> UUID:
    there = await client.read_automations_by_name(name)
    automation = AutomationCore(
        name=name,
        description="Made by deployments/automations.py; change it there.",
        enabled=there[0].enabled if there else True,
        trigger=trigger,
        actions=[action],
    )
    if not there:
        return await client.create_automation(automation)
    await client.update_automation(there[0].id, automation)
    return there[0].id


async def remove_automations() -> list[str]:
    """Delete them; returns the names of those that were there."""
    removed: list[str] = []
    async with get_client() as client:
        for name in (*(alert.name for alert in ALERTS), EACH_CLIP):
            for automation in await client.read_automations_by_name(name):
                await client.delete_automation(automation.id)
                removed.append(name)
    return removed


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", nargs="?", metavar="TYPE/NAME", help="for example slack-webhook/video-alerts")
    parser.add_argument("--each-clip", metavar="FLOW/DEPLOYMENT", help="run it for each new clip")
    parser.add_argument("--remove", action="store_true", help="delete the automations")
    given = parser.parse_args(words)
    if given.each_clip and "/" not in given.each_clip:
        parser.error("name the deployment as FLOW/DEPLOYMENT, for example archive/production")
    if not (given.remove or given.each_clip) and "/" not in (given.block or ""):
        parser.error("name the notification block as TYPE/NAME, for example slack-webhook/video-alerts")
    if not get_current_settings().api.url:
        print("no Prefect server: start one (`prefect server start`) and set PREFECT_API_URL", file=sys.stderr)
        return 2
    if given.remove:
        print("\n".join(f"removed: {name}" for name in asyncio.run(remove_automations())) or "nothing to remove")
        return 0
    made: dict[str, UUID] = {}
    try:
        if given.block:
            made |= asyncio.run(make_automations(given.block))
    except ObjectNotFound:
        print(f"there is no block {given.block}: make it in the UI, or see `prefect block ls`", file=sys.stderr)
        return 2
    try:
        if given.each_clip:
            made |= asyncio.run(run_for_each_clip(given.each_clip))
    except ObjectNotFound:
        print(f"there is no deployment {given.each_clip}: see `prefect deployment ls`", file=sys.stderr)
        return 2
    print("\n".join(f"{name}: {automation_id}" for name, automation_id in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
