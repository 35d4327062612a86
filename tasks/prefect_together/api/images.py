"""The call of the images API: one still, answered at once with its link. What an answer means is `client`'s to say."""

from __future__ import annotations

import hashlib
from functools import partial

from prefect_together.api.client import VideoApi, add_to_span, call_span
from prefect_together.api.foreign_text import ForeignText
from prefect_together.api.jobs import VideoJob, first_item, mapping
from prefect_together.errors import SubmissionInDoubt
from prefect_together.request.media import is_web_address
from prefect_together.stills.catalogue import estimate_still_usd
from prefect_together.stills.request import StillRequest

LONGEST_URL = 10_000
"""Characters."""


async def create_image(api: VideoApi, request: StillRequest) -> VideoJob:
    """Send one call for a still, exactly once; the job that comes back is completed and has its link.

    Costs money, by the catalogue's price: the answer names none. Raises as `VideoApi.create` does, SubmissionInDoubt
    also for an answer without a usable link.
    """
    with call_span("create_still", model=request.model) as span:
        answer = await api.answer_to(partial(api.images.generate, **request.create_kwargs()))
        job = api.paid(_parsed(answer, request, api.texts))
        add_to_span(span, job_id=job.id, status=job.status)
        return job


def _parsed(answer: object, request: StillRequest, texts: ForeignText) -> VideoJob:
    """The job of `{id, model, data: [{url}]}`; without an id it is called after its link."""
    fields = mapping(answer)
    url = _url(fields.get("data"), texts)
    if url is None:
        raise SubmissionInDoubt(f"answered without a usable link: {texts.clean(answer, 120)}")
    estimate = estimate_still_usd(request)
    return VideoJob(
        id=texts.job_id(fields.get("id")) or f"still-{hashlib.sha256(url.encode()).hexdigest()[:32]}",
        status="completed",
        model=request.model,
        video_url=url,
        cost_usd=None if estimate is None else estimate.high_usd,
    )


def _url(data: object, texts: ForeignText) -> str | None:
    """The link of the only picture, if it is one that would survive cleaning."""
    url = mapping(first_item(data)).get("url")
    if not isinstance(url, str) or texts.clean(url, LONGEST_URL) != url or not is_web_address(url):
        return None
    return url
