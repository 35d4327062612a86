"""One video from single parameters, under the same rules as a table's row. Reads local images, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from prefect_together.catalogue import check_request
from prefect_together.errors import Problem, TableInvalid
from prefect_together.images import load_image
from prefect_together.plan import Plan, make_plan
from prefect_together.requests import ImageInput, VideoRequest, problems_of
from prefect_together.table import PromptTable, TableRow

SOURCE = "parameters"


def plan_video(
    parameters: Mapping[str, object],
    *,
    first_frame: str | None = None,
    last_frame: str | None = None,
    reference_images: Sequence[str] = (),
    row_id: str | None = None,
    count: int = 1,
    catalogue_checks: bool = True,
) -> Plan:
    """Plan `count` takes of one video. Images are URLs, or files below the working directory.

    Raises TableInvalid with every mistake: the parameter's name stands for the column.
    """
    problems: list[Problem] = []

    def image(name: str, value: str) -> ImageInput | None:
        try:
            return load_image(value, base=str(Path.cwd()))
        except ValueError as error:
            problems.append(Problem(str(error), column=name))
            return None

    frames = [
        {"input_image": image(name, value), "frame": place}
        for name, value, place in (("first_frame", first_frame, "first"), ("last_frame", last_frame, "last"))
        if value
    ]
    references = [image("reference_images", value) for value in reference_images]
    media = {"frame_images": frames or None, "reference_images": references or None}
    if problems:
        raise TableInvalid(SOURCE, problems)
    given = {name: value for name, value in parameters.items() if value is not None}
    if frames or references:
        given["media"] = {name: value for name, value in media.items() if value}
    try:
        request = VideoRequest.model_validate(given)
    except ValidationError as error:
        wrong = [Problem(message, column=name) for name, message in problems_of(error)]
        raise TableInvalid(SOURCE, wrong) from error
    findings = check_request(request) if catalogue_checks else []
    errors = [Problem(finding.message, column=finding.field) for finding in findings if finding.is_error]
    if errors:
        raise TableInvalid(SOURCE, errors)
    warnings = tuple(Problem(finding.message, column=finding.field) for finding in findings)
    cells = {"prompt": request.prompt or "", "model": request.model}
    row = TableRow(number=1, row_id=row_id, count=count, price_usd=None, request=request, cells=cells)
    return make_plan(PromptTable(source=SOURCE, columns=tuple(cells), rows=(row,), warnings=warnings))
