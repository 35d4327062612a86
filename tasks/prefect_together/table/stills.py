"""The still of a row: its own columns made into a checked request for the picture that the row's videos begin with."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from prefect_together.request.checks import Finding
from prefect_together.request.request import VideoRequest, problems_of
from prefect_together.stills.catalogue import check_still
from prefect_together.stills.models import DEFAULT_MODEL
from prefect_together.stills.request import StillRequest
from prefect_together.stills.sizes import still_size

PLACEHOLDER = "https://still.invalid/"
"""Stands for the picture in the checks of a video's request, until the plan knows which one it is."""


def still_of(
    given: Mapping[str, object], prompt: str, video: VideoRequest, *, catalogue_checks: bool
) -> tuple[StillRequest | None, list[Finding]]:
    """The still for `video` with this prompt, by the row's and the run's settings; and what there is to say of it.

    A finding's field is the column. The request is None if it cannot be one.
    """
    model = str(given.get("still_model") or DEFAULT_MODEL)
    width, height = still_size(video, model)
    try:
        still = StillRequest(model=model, prompt=prompt, width=width, height=height)
    except ValidationError as error:
        return None, [Finding(f"still_{name}", message, is_error=True) for name, message in problems_of(error)]
    found = check_still(still) if catalogue_checks else []
    return still, [Finding("still_model", one.message, is_error=one.is_error) for one in found]
