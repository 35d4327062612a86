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
def test_a_completed_job_may_have_no_link(outputs: object) -> None:
    job = parse_job(SPEC | {"outputs": outputs})

    assert job is not None
    assert (job.is_completed, job.video_url) == (True, None)


@pytest.mark.parametrize("status", ["succeeded", "COMPLETED", "Done"])
def test_other_words_for_completed_are_understood(status: str) -> None:
    job = parse_job(SPEC | {"status": status})

    assert job is not None
    assert (job.is_completed, job.is_failed, job.status) == (True, False, status)


@pytest.mark.parametrize("status", ["canceled", "error", "expired", "rejected", "FAILED"])
def test_other_words_for_failed_are_understood(status: str) -> None:
    job = parse_job({"id": "job-1", "status": status})

    assert job is not None
    assert (job.is_completed, job.is_failed) == (False, True)


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


@pytest.mark.parametrize("cost", [None, "much", "0.28", float("nan"), float("inf"), True, -0.28, 1e13, 10**30, [1]])
def test_a_cost_that_cannot_be_one_is_not_reported_and_says_so(cost: object) -> None:
    job = parse_job(SPEC | {"outputs": {"cost": cost, "video_url": "https://x"}})

    assert job is not None
    assert job.cost_usd is None
    assert job.cost_problem


def test_a_missing_cost_is_no_problem() -> None:
    job = parse_job(SPEC | {"outputs": {"video_url": "https://x"}})

    assert job is not None
    assert (job.cost_usd, job.cost_problem) == (None, None)


@pytest.mark.parametrize("job_id", [" ", "\t", "a b", "x" * 201, "\ud800", "job\x1b[2J", "job\u202e1", "\n", 7])
def test_what_cannot_be_an_id_makes_no_job(job_id: object) -> None:
    assert parse_job(SPEC | {"id": job_id}) is None


def test_a_job_s_texts_are_one_line_without_control_characters() -> None:
    message = "no\nFAKE LOG LINE \x1b]8;;http://evil\x07 \u202eevil\x9b"

    job = parse_job({"id": "job-1", "status": "failed\x1b[2J", "error": {"message": message, "code": "a\nb"}})

    assert job is not None
    assert job.error_message == "no FAKE LOG LINE \\x1b]8;;http://evil\\x07 \\u202eevil\\x9b"
    assert (job.error_code, job.status) == ("a b", "failed\\x1b[2J")


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
        ("Canceled", None, None, "cancelled"),
        ("rejected", None, None, "bad_parameter"),
        ("rejected", None, "flagged by our safety system", "moderation"),
        ("expired", None, None, "upstream"),
    ],
)
def test_failures_have_classes(status: str, code: str | None, message: str | None, failure_class: str) -> None:
    assert classify_failure(status, code, message) == failure_class
