"""Asks a person before a run spends more than was said: the flow run pauses with the plan in its dialog."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Literal
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from prefect.utilities.urls import url_for
from pydantic import Field, ValidationError

from prefect_together.errors import NotApproved
from prefect_together.ledger import VideoRecord
from prefect_together.plan import Plan, PlannedVideo
from prefect_together.run_settings import RunSettings
from prefect_together.wording import dollars, duration, markdown_cell

POLL_SECONDS = 2
GRACE_SECONDS = 600
"""The server is told to wait so much longer than the run does, or it would end the run as failed first."""


class Approval(RunInput):
    """What the dialog asks for. There is no default: a dialog that is only clicked away approves nothing."""

    answer: Literal["approve", "reject"] = Field(description="approve: send these videos. reject: end, nothing sent.")


async def ask_if_above(
    plan: Plan,
    records: Mapping[str, VideoRecord],
    *,
    settings: RunSettings,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
) -> bool:
    """Pause until a person approves, if what would be sent may cost more than `approve_above_usd`; whether it paused.

    `records` are the ledger's of the plan's videos: only what would be newly sent counts. A video of unknown price
    is always asked about. Raises NotApproved; nothing is sent then.
    """
    limit = settings.approve_above_usd
    videos = to_be_sent(plan, records, settings)
    high = sum(video.estimate_usd or 0.0 for video in videos)
    is_unknown = any(video.estimate_usd is None for video in videos)
    if limit is None or not (high > limit + 1e-9 or is_unknown):
        return False
    context = FlowRunContext.get()
    place = (url_for(context.flow_run) if context and context.flow_run else None) or "Prefect's UI"
    logger.info("%s is above %s: waiting for approval at %s", price_text(videos), dollars(limit), place)
    await _ask(plan_markdown(plan, videos, settings), seconds=settings.approval_minutes * 60)
    logger.info("approved: %s", _count(videos, "video"))
    return True


def to_be_sent(plan: Plan, records: Mapping[str, VideoRecord], settings: RunSettings) -> list[PlannedVideo]:
    """The videos that this run would newly send: not those that are paid or done."""
    return [
        video
        for key, video in plan.videos.items()
        if (record := records.get(key)) is None or settings.sends(record.state)
    ]


def price_text(videos: list[PlannedVideo]) -> str:
    """`$1.20 to $1.40 and 2 of unknown price`."""
    low, high = sum(video.low_usd or 0.0 for video in videos), sum(video.estimate_usd or 0.0 for video in videos)
    unknown = sum(video.estimate_usd is None for video in videos)
    text = dollars(high) if low == high else f"{dollars(low)} to {dollars(high)}"
    return f"{text} and {unknown} of unknown price" if unknown else text


def plan_markdown(plan: Plan, videos: list[PlannedVideo], settings: RunSettings) -> str:
    """The dialog's text: rows, videos, dollars by model, the limits."""
    keys = {video.key for video in videos}
    rows = sum(any(key in keys for key in row.keys) for row in plan.rows)
    by_model: dict[str, list[PlannedVideo]] = {}
    for video in videos:
        by_model.setdefault(video.request.model, []).append(video)
    budget = "none" if settings.budget_usd is None else f"{dollars(settings.budget_usd)} over all runs into this ledger"
    limit = "" if settings.approve_above_usd is None else dollars(settings.approve_above_usd)
    return "\n".join(
        [
            f"**{price_text(videos)}** for {_count(videos, 'new video')} of {rows:,} row{'' if rows == 1 else 's'}."
            " Nothing has been sent yet.",
            "",
            "| model | videos | dollars |",
            "|---|---|---|",
            *(f"| {markdown_cell(model)} | {len(some):,} | {price_text(some)} |" for model, some in by_model.items()),
            "",
            f"Asked above {limit}. Budget: {budget}.",
        ]
    )


def _count(videos: list[PlannedVideo], word: str) -> str:
    return f"{len(videos):,} {word}{'' if len(videos) == 1 else 's'}"


async def _ask(markdown: str, *, seconds: float) -> None:
    """Return when a person has approved. Raises NotApproved."""
    question = Approval.with_initial_data(description=markdown)
    try:
        async with asyncio.timeout(seconds):
            # A key of its own: a retry of the run asks anew, about what is to be sent then.
            given = await apause_flow_run(
                wait_for_input=question,
                timeout=round(seconds) + GRACE_SECONDS,
                poll_interval=POLL_SECONDS,
                key=uuid4().hex,
            )
    except TimeoutError as error:
        raise NotApproved(f"no answer within {duration(seconds)}") from error
    except ValidationError as error:  # resumed past the dialog
        raise NotApproved("resumed without an answer") from error
    if given.answer != "approve":
        raise NotApproved
