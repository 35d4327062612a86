"""Makes the automations that tell people about runs: failed, crashed, money in doubt, budget reached, account blocked.

    python deployments/automations.py slack-webhook/video-alerts

The argument is a notification block that exists, as TYPE/NAME. Running it again changes nothing but what has changed
here; an automation that was switched off in the UI stays off. `--remove` takes them away.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import AutomationCore, EventTrigger, Posture, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from prefect_together.execution.events import ACCOUNT_BLOCKED, BUDGET_REACHED, IN_DOUBT

FLOWS = ["generate-videos", "generate-video", "collect-videos"]
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
        return EventTrigger(
            expect={self.event},
            match={"prefect.resource.id": "prefect.flow-run.*" if is_state else "together-video.run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )


ALERTS = (
    Alert("together-video: failed", "prefect.flow-run.Failed", "Videos failed: {{ flow_run.name }}", STATE_BODY),
    Alert("together-video: crashed", "prefect.flow-run.Crashed", "Run crashed: {{ flow_run.name }}", STATE_BODY),
    Alert("together-video: in doubt", IN_DOUBT, "Money in doubt: {{ flow_run.name }}", EVENT_BODY),
    Alert("together-video: budget reached", BUDGET_REACHED, "Budget reached: {{ flow_run.name }}", EVENT_BODY),
    Alert("together-video: account blocked", ACCOUNT_BLOCKED, "Account blocked: {{ flow_run.name }}", EVENT_BODY),
)


async def make_automations(block: str) -> dict[str, UUID]:
    """Make or bring up to date one automation an alert; returns their ids by name. Raises ObjectNotFound."""
    block_type, _, name = block.partition("/")
    made: dict[str, UUID] = {}
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, block_type)
        for alert in ALERTS:
            there = await client.read_automations_by_name(alert.name)
            automation = AutomationCore(
                name=alert.name,
                description="Made by deployments/automations.py; change it there.",
                enabled=there[0].enabled if there else True,
                trigger=alert.trigger,
                actions=[SendNotification(block_document_id=document.id, subject=alert.subject, body=alert.body)],
            )
            if there:
                await client.update_automation(there[0].id, automation)
            made[alert.name] = there[0].id if there else await client.create_automation(automation)
    return made


async def remove_automations() -> list[str]:
    """Delete them; returns the names of those that were there."""
    removed: list[str] = []
    async with get_client() as client:
        for alert in ALERTS:
            for automation in await client.read_automations_by_name(alert.name):
                await client.delete_automation(automation.id)
                removed.append(alert.name)
    return removed


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", nargs="?", metavar="TYPE/NAME", help="for example slack-webhook/video-alerts")
    parser.add_argument("--remove", action="store_true", help="delete the automations")
    given = parser.parse_args(words)
    if not given.remove and "/" not in (given.block or ""):
        parser.error("name the notification block as TYPE/NAME, for example slack-webhook/video-alerts")
    if not get_current_settings().api.url:
        print("no Prefect server: start one (`prefect server start`) and set PREFECT_API_URL", file=sys.stderr)
        return 2
    if given.remove:
        print("\n".join(f"removed: {name}" for name in asyncio.run(remove_automations())) or "nothing to remove")
        return 0
    try:
        made = asyncio.run(make_automations(given.block))
    except ObjectNotFound:
        print(f"there is no block {given.block}: make it in the UI, or see `prefect block ls`", file=sys.stderr)
        return 2
    print("\n".join(f"{name}: {automation_id}" for name, automation_id in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
