"""What the service says of a job, in all its shapes."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_together.api.jobs import classify_failure, parse_job

SPEC: dict[str, Any] = {
    "id": "job-1",
    "object": "video",
    "model": "m",
    "status": "completed",
    "created_at": 1_700_000_000,
    "completed_at": 1_700_000_090,
    "size": "1280x720",
    "seconds": "5",
    "outputs": {"cost": 0.28, "video_url": "https://x/shrt/a"},
}
ISO = SPEC | {"created_at": "2023-11-14T22:13:20Z", "completed_at": "2023-11-14T22:14:50Z"}
LEGACY: dict[str, Any] = {
    "id": "job-1",
    "model": "m",
    "status": "completed",
    "info": {"user_id": "u", "errors": None},
    "inputs": {"prompt": "a cat"},
    "created_at": "2023-11-14T22:13:20.000Z",
    "claimed_at": "2023-11-14T22:13:21Z",
    "done_at": "2023-11-14T22:14:50Z",
    "outputs": {"cost": 0.28, "video_url": "https://x/shrt/a"},
}


@pytest.mark.parametrize("body", [SPEC, ISO, LEGACY], ids=["spec", "iso", "legacy"])
def test_all_three_shapes_say_the_same(body: dict[str, Any]) -> None:
    job = parse_job(body)

    assert job is not None
    assert (job.id, job.status, job.model, job.video_url) == ("job-1", "completed", "m", "https://x/shrt/a")
    assert (job.cost_usd, job.generation_seconds, job.is_completed) == (0.28, 90.0, True)


@pytest.mark.parametrize("outputs", [None, {}, {"cost": 0.28}, {"video_url": None}, {"video_url": ""}])
def test_completed_without_a_link_is_not_done(outputs: object) -> None:
    job = parse_job(SPEC | {"outputs": outputs})

    assert job is not None
    assert not job.is_completed
    assert not job.is_failed


@pytest.mark.parametrize("status", [None, "", "queued", "in_progress", "reticulating", 7])
def test_an_unknown_status_is_not_final(status: object) -> None:
    job = parse_job({"id": "job-1", "status": status})

    assert job is not None
    assert not job.is_completed
    assert not job.is_failed


@pytest.mark.parametrize("body", ["<html>", None, [], {}, {"id": None}, {"id": ""}, {"error": {"message": "x"}}])
def test_what_has_no_id_is_no_job(body: object) -> None:
    assert parse_job(body) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"error": {"message": "bad fps", "code": "unsupportedParameter"}}, "bad fps"),
        ({"error": "bad fps"}, "bad fps"),
        ({"info": {"errors": [{"message": "bad fps"}]}}, "bad fps"),
        ({"info": {"errors": ["bad fps", "worse"]}}, "bad fps"),
        ({"info": {"errors": "bad fps"}}, "bad fps"),
        ({"error": None, "info": {"errors": None}}, None),
    ],
)
def test_the_error_text_is_found_wherever_it_stands(fields: dict[str, object], message: str | None) -> None:
    job = parse_job({"id": "job-1", "status": "failed", **fields})

    assert job is not None
    assert job.is_failed
    assert job.error_message == message


@pytest.mark.parametrize("cost", [None, "much", float("nan"), True])
def test_a_cost_that_is_no_number_is_unknown(cost: object) -> None:
    job = parse_job(SPEC | {"outputs": {"cost": cost, "video_url": "https://x"}})

    assert job is not None
    assert job.cost_usd is None


@pytest.mark.parametrize(
    ("status", "code", "message", "failure_class"),
    [
        ("failed", "unsupportedParameter", "negativePrompt is not supported", "bad_parameter"),
        ("failed", "invalidDuration", None, "bad_parameter"),
        ("failed", "missingFrameImagesForImageToVideoModel", None, "bad_parameter"),
        ("failed", "InvalidParameter", "content type", "bad_parameter"),
        ("failed", None, "seconds must be between 2 and 15", "bad_parameter"),
        ("failed", "contentFiltered", None, "moderation"),
        ("failed", None, "Your prompt was flagged by our safety system", "moderation"),
        ("failed", None, "NSFW", "moderation"),
        ("failed", None, "internal error", "upstream"),
        ("failed", None, None, "upstream"),
        ("cancelled", None, None, "cancelled"),
    ],
)
def test_failures_have_classes(status: str, code: str | None, message: str | None, failure_class: str) -> None:
    assert classify_failure(status, code, message) == failure_class
