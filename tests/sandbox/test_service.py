"""The sandbox's API over real sockets, with Together's SDK on both of its transports."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import together
from together import AsyncTogether

from catalogue_examples import every_model_and_mode, example_request
from fake_clock import FakeClock
from prefect_together.request.catalogue import check_request, estimate_usd
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import MISSING, Sandbox
from prefect_together.sandbox.service import TINY_CLIP
from prefect_together.sandbox.settings import Shape

MODEL = "minimax/video-01-director"
SEEDANCE = "ByteDance/Seedance-2.5"
TINY = TINY_CLIP.read_bytes()
HTTP = httpx.Client()
"""One for all tests: making one takes longer than a test."""


@pytest.fixture
def api() -> Generator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def post(api: Sandbox, body: dict[str, Any], *, key: str | None = "key", agent: str = "test") -> httpx.Response:
    headers = {"user-agent": agent} | ({"authorization": f"Bearer {key}".strip()} if key is not None else {})
    return HTTP.post(f"{api.base_url}/v2/videos", json=body, headers=headers)


def look(api: Sandbox, job_id: str) -> dict[str, Any]:
    return HTTP.get(f"{api.base_url}/v2/videos/{job_id}", headers={"authorization": "Bearer key"}).json()


def failure(api: Sandbox, **parameters: object) -> str | None:
    """The error code that a job with these parameters ends with, None if it completes."""
    answer = post(api, {"prompt": "a lighthouse", **parameters})
    assert answer.status_code == 200, answer.text
    error = look(api, answer.json()["id"])["error"]
    return error and error["code"]


async def test_a_job_goes_from_queued_to_a_clip_through_the_sdk(api: Sandbox, client: AsyncTogether) -> None:
    api.script("queued", "in_progress", "completed")

    job = await client.videos.create(model=MODEL, prompt="a lighthouse", seconds="5")
    seen = [await client.videos.retrieve(job.id) for _ in range(4)]
    assert seen[-1].outputs is not None
    async with httpx.AsyncClient(follow_redirects=True) as files:
        clip = await files.get(seen[-1].outputs.video_url)

    assert [look.status for look in seen] == ["queued", "in_progress", "completed", "completed"]
    assert clip.content == TINY
    assert clip.headers["content-type"] == "video/mp4"
    assert (api.accepted("a lighthouse"), api.calls("retrieve"), api.calls("download")) == (1, 4, 1)


def test_the_short_link_redirects_and_needs_no_key(api: Sandbox) -> None:
    job = look(api, post(api, {"model": MODEL, "prompt": "a lighthouse"}).json()["id"])

    answer = HTTP.get(job["outputs"]["video_url"])

    assert "/shrt/" in job["outputs"]["video_url"]
    assert answer.status_code == 302
    assert HTTP.get(answer.headers["location"]).status_code == 200
    assert all("authorization" not in one.headers for one in api.requests if one.endpoint == "download")


def test_requests_are_recorded_with_headers_and_body(api: Sandbox) -> None:
    post(api, {"model": MODEL, "prompt": "a lighthouse", "seconds": "5"}, key="secret", agent="teller/1")

    (seen,) = api.requests
    assert (seen.endpoint, seen.answer, seen.headers["user-agent"]) == ("create", "200", "teller/1")
    assert seen.headers["authorization"] == "Bearer secret"
    assert seen.body == {"model": MODEL, "prompt": "a lighthouse", "seconds": "5"}


def test_a_job_lives_by_the_injected_clock(api: Sandbox) -> None:
    clock = FakeClock(auto=False)
    with Sandbox(generation_seconds=100, clock=clock) as slow:
        job_id = post(slow, {"model": MODEL, "prompt": "a lighthouse"}).json()["id"]
        statuses: list[str] = []
        for seconds in (1, 14, 5, 79, 1):
            asyncio.run(clock.advance(seconds))
            statuses.append(look(slow, job_id)["status"])

        assert statuses == ["queued", "in_progress", "in_progress", "in_progress", "completed"]


async def test_a_script_by_time_holds_for_every_prompt_that_matches() -> None:
    clock = FakeClock(auto=False)
    with Sandbox(clock=clock) as api:
        api.script("queued", "failed", at_seconds=(0, 50), prompt="storm", code="InvalidParameter")

        stormy = post(api, {"model": MODEL, "prompt": "a storm at sea"}).json()["id"]
        calm = post(api, {"model": MODEL, "prompt": "a calm sea"}).json()["id"]
        before = look(api, stormy)["status"]
        await clock.advance(50)
        after = look(api, stormy)

        assert (before, after["status"], after["error"]["code"]) == ("queued", "failed", "InvalidParameter")
        assert look(api, calm)["status"] == "completed"


def test_statuses_can_be_null_missing_and_unheard_of(api: Sandbox) -> None:
    api.script(None, MISSING, "archived", "completed")

    job_id = post(api, {"model": MODEL, "prompt": "a lighthouse"}).json()["id"]
    bodies = [look(api, job_id) for _ in range(4)]

    assert bodies[0]["status"] is None
    assert "status" not in bodies[1]
    assert [body["status"] for body in bodies[2:]] == ["archived", "completed"]


@pytest.mark.parametrize(
    ("shape", "created_at", "error"),
    [
        ("spec", float, ("error", "message")),
        ("iso", str, ("error", "message")),
        ("legacy", str, ("info", "errors")),
    ],
)
def test_each_documented_shape_is_spoken(shape: Shape, created_at: type, error: tuple[str, str]) -> None:
    with Sandbox(shape=shape) as api:
        api.script("completed")
        api.script("failed", code="InvalidParameter", message="fps out of range")
        done, failed = [look(api, post(api, {"model": MODEL, "prompt": "a lighthouse"}).json()["id"]) for _ in range(2)]

    assert isinstance(done["created_at"], created_at)
    assert done["outputs"]["video_url"].startswith("http://127.0.0.1:")
    assert isinstance(done["outputs"]["cost"], int if shape == "spec" else float)
    assert "fps out of range" in str(failed[error[0]][error[1]])
    assert failed.get("outputs") is None
    assert ("inputs" in done) == (shape == "legacy")


async def test_the_spec_shape_passes_the_sdks_strict_validation() -> None:
    with Sandbox(shape="spec") as api:
        async with AsyncTogether(api_key="key", base_url=api.base_url, _strict_response_validation=True) as client:
            created = await client.videos.create(model=MODEL, prompt="a lighthouse")
            job = await client.videos.retrieve(created.id)

    assert created.status == "in_progress"
    assert job.outputs is not None
    assert job.outputs.cost == 1


@pytest.mark.parametrize(
    ("key", "agent", "status"),
    [
        (None, "test", 401),
        ("", "test", 401),
        ("invalid", "test", 401),
        ("no-credits", "test", 402),
        ("forbidden", "test", 403),
        ("key", "", 403),
    ],
)
def test_callers_are_refused_in_the_services_error_shape(
    api: Sandbox, key: str | None, agent: str, status: int
) -> None:
    answer = post(api, {"model": MODEL, "prompt": "a lighthouse"}, key=key, agent=agent)

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert api.accepted() == 0


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "a lighthouse"}, 400, "model"),
        ({"model": 7, "prompt": "a lighthouse"}, 400, "model"),
        ({"model": MODEL, "prompt": "a lighthouse", "framerate": 24}, 400, "framerate"),
        ({"model": MODEL, "prompt": "a lighthouse", "width": "1366"}, 400, "width"),
        ({"model": MODEL, "prompt": "a lighthouse", "fps": True}, 400, "fps"),
        ({"model": MODEL, "prompt": "a lighthouse", "output_format": "AVI"}, 400, "output_format"),
        ({"model": MODEL, "prompt": "a lighthouse", "media": {"pictures": []}}, 400, "media.pictures"),
        ({"model": MODEL, "prompt": "a lighthouse", "media": []}, 400, "media"),
        ({"model": MODEL}, 400, "prompt"),
        ({"model": MODEL, "prompt": "x"}, 400, "prompt"),
        ({"model": MODEL, "prompt": "x" * 3001}, 400, "prompt"),
        ({"model": "minimax/video-99", "prompt": "a lighthouse"}, 404, "model"),
    ],
)
def test_a_wrong_request_is_refused_and_its_field_named(
    api: Sandbox, body: dict[str, Any], status: int, param: str
) -> None:
    answer = post(api, body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert api.accepted() == 0


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(api: Sandbox, raw: bytes) -> None:
    headers = {"authorization": "Bearer key", "content-type": "application/json"}

    answer = HTTP.post(f"{api.base_url}/v2/videos", content=raw, headers=headers)

    assert answer.status_code == 400
    assert api.accepted() == 0


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"model": "minimax/hailuo-02", "negative_prompt": "rain"}, "unsupportedParameter"),
        ({"model": SEEDANCE, "ratio": "16:9"}, "unsupportedParameter"),
        ({"model": SEEDANCE, "settings": {"audio": False}}, "unsupportedParameter"),
        ({"model": SEEDANCE, "seconds": "31"}, "invalidDuration"),
        ({"model": SEEDANCE, "seconds": "long"}, "invalidDuration"),
        ({"model": "Wan-AI/wan2.7-t2v", "resolution": "720p"}, "InvalidParameter"),
        ({"model": "Wan-AI/wan2.7-t2v", "resolution": "720P"}, None),
        ({"model": "kwaivgI/kling-2.1-standard"}, "missingFrameImagesForImageToVideoModel"),
        ({"model": "Wan-AI/wan2.7-r2v"}, "InvalidParameter"),
        ({"model": MODEL, "frame_images": [{"input_image": "https://example.com/a.png"}]}, None),
        ({"model": MODEL, "seconds": 5}, None),
    ],
)
def test_what_a_model_does_not_take_fails_after_it_was_accepted(
    api: Sandbox, parameters: dict[str, Any], code: str | None
) -> None:
    assert failure(api, **parameters) == code


@pytest.mark.parametrize(("model", "mode"), every_model_and_mode())
def test_every_model_is_served_in_every_mode(shared_api: Sandbox, model: str, mode: Any) -> None:
    request = example_request(model, mode)

    answer = post(shared_api, request.create_kwargs())
    job = look(shared_api, answer.json()["id"])

    assert not [finding for finding in check_request(request) if finding.is_error]
    assert (answer.status_code, job["status"], job["error"]) == (200, "completed", None)
    assert job["seconds"] == request.seconds or request.seconds is None


@pytest.fixture(scope="module")
def shared_api() -> Generator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def test_the_cost_is_the_catalogues_estimate(api: Sandbox) -> None:
    request = VideoRequest(model=SEEDANCE, prompt="a lighthouse", seconds="8", resolution="480p")
    estimate = estimate_usd(request)

    job = look(api, post(api, request.create_kwargs()).json()["id"])

    assert estimate is not None
    assert job["outputs"]["cost"] == estimate.low_usd == api.stats()["billed_usd"]


def test_the_cost_can_be_left_out_or_higher_than_the_estimate() -> None:
    body = {"model": MODEL, "prompt": "a lighthouse"}
    with Sandbox(send_cost=False) as silent, Sandbox(cost_factor=2) as dear:
        outputs = [look(api, post(api, body).json()["id"])["outputs"] for api in (silent, dear)]

    assert "cost" not in outputs[0]
    assert outputs[1]["cost"] == pytest.approx(0.56)  # pyright: ignore[reportUnknownMemberType]


def test_an_unknown_id_is_404_unless_told_otherwise(api: Sandbox) -> None:
    with Sandbox(answer_unknown_ids=True) as friendly:
        known = look(friendly, "anything")

    assert look(api, "anything")["error"]["code"] == "not_found"
    assert (known["id"], known["status"]) == ("anything", "completed")


async def test_the_models_and_the_key_can_be_asked_for(client: AsyncTogether) -> None:
    models = cast("list[dict[str, Any]]", await client.get("/v1/models", cast_to=object))
    whoami = await client.get("/v3/whoami", cast_to=object)

    director = next(model for model in models if model["id"] == MODEL)
    assert (director["type"], director["pricing"]["video"]["example_price"]) == ("video", 0.28)
    assert cast("dict[str, Any]", whoami)["type"] == "project_api_key"


async def test_the_sdk_raises_its_own_errors_on_refusals(api: Sandbox, client: AsyncTogether) -> None:
    with pytest.raises(together.BadRequestError, match="model is required"):
        await client.videos.create(model=MODEL, prompt="a lighthouse", extra_body={"model": 3})
    with pytest.raises(together.NotFoundError, match="not found"):
        await client.videos.retrieve("0b0e9b5e-0000-4000-8000-000000000000")

    assert api.accepted() == 0


def test_the_stats_count_answers_jobs_and_dollars(api: Sandbox) -> None:
    for prompt in ("a lighthouse", "a lighthouse", "a boat"):
        post(api, {"model": MODEL, "prompt": prompt})
    post(api, {"model": MODEL, "prompt": "a boat"}, key="no-credits")

    stats = api.stats()
    assert stats["requests"] == {"create": {"200": 3, "402": 1}}
    assert stats["accepted_by_prompt"] == {"a lighthouse": 2, "a boat": 1}
    assert stats["billed_usd"] == pytest.approx(0.84)  # pyright: ignore[reportUnknownMemberType]
    assert stats["jobs"] == {"completed": 3}


def test_jobs_survive_a_restart_over_the_same_state_directory(tmp_path: Path) -> None:
    body = {"model": MODEL, "prompt": "a lighthouse"}
    with Sandbox(state_dir=tmp_path) as first:
        first.script("failed", code="InvalidParameter", message="no")
        failed, done = (post(first, body).json()["id"] for _ in range(2))
    with (tmp_path / "jobs.jsonl").open("ab") as file:
        file.write(b'{"id": "cut short')

    with Sandbox(state_dir=tmp_path) as second:
        post(second, body)
        assert look(second, failed)["error"]["code"] == "InvalidParameter"
        assert look(second, done)["status"] == "completed"
    with Sandbox(state_dir=tmp_path) as third:
        assert third.accepted("a lighthouse") == 3
