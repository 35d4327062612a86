"""The two steps of a still as Prefect tasks: create, download. As safe against retries as those of a video."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect.cache_policies import NO_CACHE

from prefect_together.api.images import create_image
from prefect_together.api.jobs import VideoJob
from prefect_together.api.session import VideoSession
from prefect_together.api.submit import Journal
from prefect_together.clips.download import DownloadedClip
from prefect_together.prefect_internals import task_run_id
from prefect_together.steps.tasks import (
    download_can_be_repeated,
    logger_for,
    open_or_shared,
    submitted_once,
    task,
    was_not_accepted,
)
from prefect_together.stills.catalogue import estimate_still_usd
from prefect_together.stills.request import StillRequest
from prefect_together.stills.sizes import size_warning


@task(
    name="create-still",
    task_run_name="create still {row}",
    cache_policy=NO_CACHE,
    retries=0,
    retry_condition_fn=was_not_accepted,
    persist_result=False,
)
async def create_still(
    request: StillRequest,
    *,
    row: str = "still",
    credentials_block: str | None = None,
    session: VideoSession | None = None,
    journal: Journal | None = None,
    give_up_at: float | None = None,
) -> VideoJob:
    """Have one picture made (`POST /v1/images/generations`). Costs money; makes at most one.

    The job that is returned is completed and has its link, for a limited time: `download_still` takes it. Its
    `cost_usd` is the catalogue's price, since the service names none. Arguments, retries and errors are those of
    `create_video`.
    """
    logger = logger_for(row)  # first: nothing may fail between the payment and the return of the link
    async with open_or_shared(session, credentials_block) as parts:
        create, estimate = partial(create_image, parts.api, request), estimate_still_usd(request)
        job = await submitted_once(create, estimate, session=parts, journal=journal, give_up_at=give_up_at)
    logger.info("%s: still %s made", row, job.id)
    return job


@task(
    name="download-still",
    task_run_name="download still {row}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=download_can_be_repeated,
)
async def download_still(
    job: VideoJob,
    target: Path | str,
    *,
    request: StillRequest | None = None,
    row: str = "still",
    credentials_block: str | None = None,
    session: VideoSession | None = None,
) -> DownloadedClip:
    """Download the picture of a still, check that it is a whole JPEG, PNG or WebP, and put it under its final name.

    Free and safe to repeat as long as the link works. A picture of another size than `request` asked for is paid for,
    and so taken, with a warning. The suffix of `target`, whose directory must exist, follows the
    kind of picture. Raises DownloadFailed: StillGone, ClipInvalid, ClipTooLarge, OutputUnwritable.
    """
    logger = logger_for(row)
    async with open_or_shared(session, credentials_block) as parts:
        picture = await parts.download_still(job, Path(target))
    if request is not None and (other := size_warning(request, picture.media.width, picture.media.height)):
        picture = replace(picture, warnings=(*picture.warnings, other))
    logger.info("%s: still %s downloaded to %s, %d bytes", row, job.id, picture.path, picture.size_bytes)
    for warning in picture.warnings:
        logger.warning("%s: %s", row, warning)
    return replace(picture, task_run_id=task_run_id())
