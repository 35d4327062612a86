"""The sandbox's faults as they are on the wire: connections, status codes, bodies, reads and rates."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Generator
from random import Random
from typing import Any

import httpx
import pytest

from batch_run import wait_until
from prefect_together.sandbox import Sandbox, SandboxSettings
from prefect_together.sandbox.faults import ENDPOINTS, STORM, Endpoint, Faults, names, parse_rule
from prefect_together.sandbox.service import DynamicLimit
from sandbox_calls import KEY, MODEL, look, post, raw_create


@pytest.fixture
def api() -> Generator[Sandbox]:
    settings: dict[str, Any] = {"late_seconds": 30, "stall_seconds": 30, "too_large_bytes": 3_000_000}
    with Sandbox(**settings) as sandbox:
        yield sandbox


@pytest.mark.parametrize(("fault", "accepted"), [("drop", 0), ("drop-after", 1)])
def test_a_dropped_create_is_closed_without_a_byte(api: Sandbox, fault: str, accepted: int) -> None:
    api.fault(fault, endpoint="create")

    assert raw_create(api) == b""
    assert api.accepted() == accepted
    assert api.stats()["requests"]["create"] == ({"dropped": 1})


@pytest.mark.parametrize(("fault", "accepted"), [("reset", 0), ("reset-after", 1)])
def test_a_reset_create_ends_in_a_tcp_reset(api: Sandbox, fault: str, accepted: int) -> None:
    api.fault(fault, endpoint="create")

    with pytest.raises(ConnectionResetError):
        raw_create(api)
    assert api.accepted() == accepted


def test_a_late_create_is_accepted_and_not_answered_in_time(api: Sandbox) -> None:
    api.fault("late", endpoint="create")

    with pytest.raises(TimeoutError):
        raw_create(api, timeout=0.3)
    assert wait_until(lambda: api.accepted() == 1, seconds=30)
    assert post(api).status_code == 200


def test_a_late_answer_comes_in_the_end() -> None:
    with Sandbox(late_seconds=0.2) as api:
        api.fault("late", endpoint="create")
        started = time.monotonic()

        answer = post(api)

    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("fault", "status", "header", "is_json"),
    [
        ("400", 400, None, True),
        ("402", 402, None, True),
        ("408", 408, None, True),
        ("409", 409, None, True),
        ("413", 413, None, True),
        ("422", 422, None, True),
        ("429", 429, "x-ratelimit-reset", True),
        ("429-retry-after", 429, "retry-after", True),
        ("429-bare", 429, None, True),
        ("500", 500, None, True),
        ("502", 502, None, False),
        ("503", 503, None, True),
        ("503-html", 503, None, False),
        ("504", 504, None, False),
        ("524", 524, None, False),
        ("529", 529, None, True),
        ("html", 200, None, False),
    ],
)
def test_an_answer_fault_accepts_nothing_and_with_after_it_does(
    api: Sandbox, fault: str, status: int, header: str | None, is_json: bool
) -> None:
    api.fault(fault, endpoint="create")
    api.fault(f"{fault}-after", endpoint="create")

    before, before_accepted = post(api), api.accepted()
    after, after_accepted = post(api), api.accepted()

    assert (before.status_code, after.status_code) == (status, status)
    assert (before_accepted, after_accepted) == (0, 1)
    hints = {"x-ratelimit-reset", "retry-after"} & set(before.headers)
    assert hints == ({header} if header else set())
    assert ("error" in before.json()) if is_json else before.text.startswith("<!DOCTYPE html>")


def test_half_a_json_body_has_a_matching_length(api: Sandbox) -> None:
    api.fault("half-json", endpoint="create")

    answer = post(api)

    assert (answer.status_code, api.accepted()) == (200, 1)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_create_answer_can_lack_its_id_or_its_status(api: Sandbox) -> None:
    api.fault("no-id")
    api.fault("no-status", endpoint="create")

    without_id, without_status = post(api).json(), post(api).json()

    assert ("id" in without_id, "status" in without_id) == (False, True)
    assert ("id" in without_status, "status" in without_status) == (True, False)
    assert api.accepted() == 2


def test_a_hidden_job_is_404_for_its_first_reads(api: Sandbox) -> None:
    api.fault("hidden")

    job_id = post(api).json()["id"]

    assert [look(api, job_id).status_code for _ in range(3)] == [404, 404, 200]


def test_reads_go_wrong_without_using_up_the_script(api: Sandbox) -> None:
    api.script("queued", "in_progress", "completed")
    job_id = post(api).json()["id"]
    for fault in ("503", "html", "404"):
        api.fault(fault, endpoint="retrieve")

    answers = [look(api, job_id) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [503, 200, 404, 200, 200, 200]
    assert [answer.json()["status"] for answer in answers[3:]] == ["queued", "in_progress", "completed"]


def test_a_read_can_show_odd_statuses_and_a_completed_job_without_its_link_or_cost(api: Sandbox) -> None:
    job_id = post(api).json()["id"]
    for fault in ("no-status", "null-status", "odd-status"):
        api.fault(fault, endpoint="retrieve")
    odd = [look(api, job_id).json() for _ in range(3)]
    for fault in ("no-url", "no-cost"):
        api.fault(fault)
    lacking = [look(api, job_id).json() for _ in range(3)]

    assert [body.get("status", "-") for body in odd] == ["-", None, "post_processing"]
    assert [sorted(body["outputs"]) for body in lacking] == [["cost"], ["video_url"], ["cost", "video_url"]]


def test_a_missing_link_waits_for_the_job_to_be_completed(api: Sandbox) -> None:
    api.script("queued", "completed")
    api.fault("no-url")
    job_id = post(api).json()["id"]

    bodies = [look(api, job_id).json() for _ in range(3)]

    assert [(body["status"], body["outputs"] and "video_url" in body["outputs"]) for body in bodies] == [
        ("queued", None),
        ("completed", False),
        ("completed", True),
    ]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("job-fails", "failed", "internal_error"),
        ("job-moderated", "failed", "content_policy_violation"),
        ("job-cancelled", "cancelled", "cancelled"),
        ("job-stuck", "in_progress", None),
    ],
)
def test_jobs_end_badly_on_demand(api: Sandbox, fault: str, status: str, code: str | None) -> None:
    api.fault(fault)

    body = look(api, post(api).json()["id"]).json()

    assert (body["status"], body["error"] and body["error"]["code"]) == (status, code)
    assert api.stats()["billed_usd"] == 0


def test_a_fault_can_be_aimed_at_a_prompt_a_call_and_a_count(api: Sandbox) -> None:
    api.fault("500", endpoint="create", prompt="storm", after=1, count=2)

    answers = [post(api, prompt).status_code for prompt in ("storm", "calm", "storm", "calm", "storm", "storm")]

    assert answers == [200, 200, 500, 200, 500, 200]


def test_a_fault_by_rate_has_no_end_until_it_is_cleared(api: Sandbox) -> None:
    api.fault("500", endpoint="create", rate=1.0)

    before = [post(api).status_code for _ in range(3)]
    api.clear_faults()

    assert (before, post(api).status_code) == ([500, 500, 500], 200)


def test_faults_by_rate_repeat_with_their_seed() -> None:
    def drawn(seed: int) -> list[str | None]:
        faults = Faults(Random(seed))
        faults.add("503", rate=0.3)
        return [faults.draw("create", "") for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 30 < sum(name is not None for name in drawn(1)) < 90


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_storm_brings_every_fault_and_any_brings_them_evenly(endpoint: Endpoint) -> None:
    faults = Faults(Random(0))
    faults.add("storm", endpoint=endpoint, rate=0.2)
    stormy = Counter(faults.draw(endpoint, "") for _ in range(5000))
    faults.clear()
    faults.add("any", endpoint=endpoint, rate=0.2)
    windy = Counter(faults.draw(endpoint, "") for _ in range(5000))

    assert set(STORM[endpoint]) <= set(stormy)
    assert set(STORM[endpoint]) <= set(windy)
    assert set(STORM[endpoint]) <= set(names(endpoint))
    assert stormy[None] < 500
    assert 3800 < windy[None] < 4200


@pytest.mark.parametrize("text", ["429", "upload:429=0.1", "429=often"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"=|float"):
        parse_rule(text)


def test_a_fault_that_does_not_exist_is_refused(api: Sandbox) -> None:
    with pytest.raises(ValueError, match="no fault 'fire'"):
        api.fault("fire")
    with pytest.raises(ValueError, match="no fault 'cut' on create"):
        api.fault("cut", endpoint="create")


def test_the_limit_refuses_what_is_above_it_and_says_when_to_come_back() -> None:
    with Sandbox(creates_per_second=0.5) as api:
        first, second = post(api), post(api)

    assert (first.status_code, second.status_code) == (200, 429)
    assert 1.5 < float(second.headers["x-ratelimit-reset"]) <= 2


def test_the_limit_grows_to_twice_the_successful_rate() -> None:
    limit = DynamicLimit(1.0, window_seconds=10.0)
    taken = [at / 10 for at in range(600) if limit.take(at / 10) is None]

    rates = [sum(start <= at < start + 10 for at in taken) / 10 for start in (0, 10, 20)]
    assert rates[0] <= rates[1] <= rates[2]
    assert rates[0] < 2.5
    assert limit.per_second(60.0) == 2 * sum(at > 50.0 for at in taken) / 10


async def test_hundreds_of_creates_at_once_are_each_accepted_once(api: Sandbox) -> None:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=20)) as client:

        async def create(number: int) -> int:
            body = {"model": MODEL, "prompt": f"row {number}"}
            answer = await client.post(f"{api.base_url}/v2/videos", json=body, headers=KEY, timeout=30)
            return answer.status_code

        statuses = await asyncio.gather(*(create(number) for number in range(200)))

    assert set(statuses) == {200}
    assert set(api.stats()["accepted_by_prompt"].values()) == {1}
    assert api.accepted() == 200


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        SandboxSettings(speed=0)
