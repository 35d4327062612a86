"""A service that answers wrongly: secrets, ids, money, sizes, over the real SDK and a real socket."""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Generator

import pytest

from fake_clock import FakeClock
from prefect_together.api.client import MAX_ANSWER_BYTES, PollMissed, VideoApi, is_sandbox, open_client
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget, job_failed, wait
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.session import open_session
from prefect_together.errors import AccountBlocked, NoLink, RateLimited, SubmissionInDoubt, TogetherVideoError
from prefect_together.request.images import encode_image
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.faults import ODD_COSTS, ODD_IDS

KEY = "tgp_v1_a-very-secret-key"
REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")


@pytest.fixture
def sandbox() -> Generator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncGenerator[VideoApi]:
    async with open_client(api_key=KEY, base_url=sandbox.base_url) as client:
        yield VideoApi(client, encode_image=encode_image)


async def error_of_create(api: VideoApi) -> TogetherVideoError:
    with pytest.raises(TogetherVideoError) as caught:
        await api.create(REQUEST)
    return caught.value


# Secrets


@pytest.mark.parametrize("fault", ["echo", "401-echo", "echo-after"])
async def test_a_key_that_create_repeats_is_in_no_error_and_no_traceback(
    sandbox: Sandbox, api: VideoApi, fault: str
) -> None:
    sandbox.fault(fault, endpoint="create")

    error = await error_of_create(api)

    assert "[key]" in str(error)
    assert KEY not in "".join(traceback.format_exception(error))
    assert isinstance(error, AccountBlocked if fault == "401-echo" else SubmissionInDoubt)


async def test_a_key_that_retrieve_repeats_is_in_no_error(sandbox: Sandbox, api: VideoApi) -> None:
    job = await api.create(REQUEST)
    sandbox.fault("echo", endpoint="retrieve")

    with pytest.raises(PollMissed, match=r"\[key\]") as caught:
        await api.retrieve(job.id)

    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_failed_job_s_message_repeats_no_key_and_steers_no_terminal(sandbox: Sandbox, api: VideoApi) -> None:
    message = f"bad\nFAKE LOG LINE \x1b[2J\u202e Authorization: Bearer {KEY}"
    sandbox.script("failed", code="upstream", message=message)
    job = await api.create(REQUEST)

    error = job_failed(await api.retrieve(job.id))

    assert "upstream: bad FAKE LOG LINE \\x1b[2J\\u202e Authorization: Bearer [key]" in str(error)


# Ids


@pytest.mark.parametrize("fault", sorted(ODD_IDS))
async def test_an_id_that_cannot_be_one_leaves_the_create_in_doubt(sandbox: Sandbox, api: VideoApi, fault: str) -> None:
    sandbox.fault(fault, endpoint="create")

    error = await error_of_create(api)

    assert isinstance(error, SubmissionInDoubt)
    assert (len(str(error)) < 300, "\x1b" in str(error)) == (True, False)
    assert sandbox.accepted() == 1


async def test_of_two_creates_with_one_id_the_second_is_in_doubt(sandbox: Sandbox, api: VideoApi) -> None:
    first = await api.create(REQUEST)
    sandbox.fault("same-id", endpoint="create")

    error = await error_of_create(api)

    assert isinstance(error, SubmissionInDoubt)
    assert first.id in str(error)


async def test_the_state_of_another_job_is_a_missed_poll(sandbox: Sandbox, api: VideoApi) -> None:
    job, other = await api.create(REQUEST), await api.create(REQUEST)
    sandbox.fault("other-id", endpoint="retrieve")

    with pytest.raises(PollMissed, match=f"another job, {job.id}"):
        await api.retrieve(other.id)

    assert (await api.retrieve(other.id)).id == other.id


# Money


@pytest.mark.parametrize("fault", sorted(ODD_COSTS))
async def test_a_cost_that_cannot_be_one_is_not_reported(sandbox: Sandbox, api: VideoApi, fault: str) -> None:
    sandbox.fault(fault, endpoint="retrieve")
    job = await api.create(REQUEST)

    done = await api.retrieve(job.id)

    assert (done.is_completed, done.cost_usd) == (True, None)
    assert done.cost_problem


async def test_a_503_whose_error_is_a_text_leaves_the_create_in_doubt(sandbox: Sandbox, api: VideoApi) -> None:
    sandbox.fault("503-text", endpoint="create")
    in_doubt = await error_of_create(api)
    sandbox.fault("503", endpoint="create")
    refused = await error_of_create(api)

    assert isinstance(in_doubt, SubmissionInDoubt)
    assert isinstance(refused, RateLimited)


# Sizes


@pytest.mark.parametrize("endpoint", ["create", "retrieve"])
async def test_a_huge_packed_answer_is_not_read_to_its_end(sandbox: Sandbox, api: VideoApi, endpoint: str) -> None:
    job = await api.create(REQUEST)
    sandbox.fault("huge", endpoint="create" if endpoint == "create" else "retrieve")

    with pytest.raises(TogetherVideoError, match=f"longer than {MAX_ANSWER_BYTES} bytes") as caught:
        await (api.create(REQUEST) if endpoint == "create" else api.retrieve(job.id))

    assert isinstance(caught.value, SubmissionInDoubt if endpoint == "create" else PollMissed)


# Statuses and links


@pytest.mark.parametrize("word", ["succeeded", "COMPLETED", "done"])
async def test_a_link_under_any_word_for_completed_is_fetched(sandbox: Sandbox, api: VideoApi, word: str) -> None:
    sandbox.script("queued", word)
    job = await api.create(REQUEST)

    done = await waited(api, job)

    assert (done.status, bool(done.video_url), done.cost_usd is not None) == (word, True, True)


async def test_a_completed_job_without_a_link_has_its_cost_and_is_fetched_later(sandbox: Sandbox) -> None:
    sandbox.fault("no-url", endpoint="retrieve", count=None)
    async with open_session(open_client(api_key=KEY, base_url=sandbox.base_url), clock=FakeClock()) as session:
        job = await session.api.create(REQUEST)

        done = await waited(session.api, job)
        with pytest.raises(NoLink, match=rf"paid \$0\.\d\d, no link: ask Together with job id {job.id}"):
            await session.fresh_link(job.id)
        sandbox.clear_faults()
        link = await session.fresh_link(job.id)

    assert (done.video_url, done.cost_usd is not None) == (None, True)
    assert link.startswith("http://")


async def waited(api: VideoApi, job: VideoJob) -> VideoJob:
    clock = FakeClock()
    return await wait(
        api,
        job.id,
        model="m",
        submitted_at=clock.time(),
        deadline=clock.time() + 3600.0,
        durations=DurationStatistics(),
        poll_budget=PollBudget(clock=clock),
        clock=clock,
    )


# The sandbox's mark


@pytest.mark.parametrize("is_marked", [True, False])
async def test_the_sandbox_is_recognized_by_its_header_alone(is_marked: bool) -> None:
    with Sandbox(is_marked=is_marked) as sandbox:
        async with open_client(api_key=KEY, base_url=sandbox.base_url) as client:
            found = await is_sandbox(client)

    assert found == is_marked


async def test_an_address_where_nobody_answers_is_not_the_sandbox() -> None:
    async with open_client(api_key=KEY, base_url="http://127.0.0.1:1") as client:
        assert not await is_sandbox(client)
