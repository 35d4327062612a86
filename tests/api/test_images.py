"""The call for a still over real sockets, on both transports: its answers mean what those to a create call mean."""

from __future__ import annotations

import json

import pytest

from prefect_together.api.images import create_image
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    TogetherVideoError,
    WrongAddress,
)
from prefect_together.stills.request import StillRequest
from raw_server import (
    HTML,
    PAGE,
    Act,
    answers,
    closes_after_request,
    error_body,
    http_answer,
    is_silent,
    raw_server,
    resets_after_request,
    sends,
)
from sdk_clients import REQUEST as VIDEO
from sdk_clients import Transport, open_api, patience

REQUEST = StillRequest(model="black-forest-labs/FLUX.2-pro", prompt="a lighthouse", width=1000, height=800, seed=7)
URL = "https://cdn.example/still.jpg?signature=a%2Fb"


def still(url: object = URL, **more: object) -> str:
    return json.dumps(
        {"id": "img-1", "model": REQUEST.model, "data": [{"index": 0, "url": url, "type": "url"}], **more}
    )


async def refusal_of(transport: Transport, act: Act, *, posts: int = 1) -> TogetherVideoError:
    async with raw_server(act) as server, open_api(transport, server.url, create_timeout=patience(act)) as api:
        with pytest.raises(TogetherVideoError) as caught:
            await create_image(api, REQUEST)
    assert server.posts == posts
    return caught.value


async def test_a_still_is_a_completed_job_with_its_link_at_the_price_of_the_catalogue(transport: Transport) -> None:
    async with raw_server(answers(200, still())) as server, open_api(transport, server.url) as api:
        job = await create_image(api, REQUEST)

    assert (job.id, job.is_completed, job.video_url, job.cost_usd) == ("img-1", True, URL, 0.03)
    assert server.heads[0].startswith("POST /v1/images/generations ")
    assert json.loads(server.bodies[0]) == {
        "model": REQUEST.model,
        "prompt": "a lighthouse",
        "width": 1000,
        "height": 800,
        "seed": 7,
        "n": 1,
        "response_format": "url",
        "prompt_upsampling": False,
    }


async def test_a_still_without_an_id_is_called_after_its_link(transport: Transport) -> None:
    async with raw_server(answers(200, still(id=None))) as server, open_api(transport, server.url) as api:
        job = await create_image(api, REQUEST)

    assert job.id.startswith("still-")
    assert job.video_url == URL


@pytest.mark.parametrize(
    "body",
    [
        '{"id": "img-1", "data": []}',
        '{"id": "img-1", "data": [{"b64_json": "abcd"}]}',
        still("data:image/png;base64,abcd"),
        still("file:///etc/passwd"),
        still("https://cdn.example/\u202e.jpg"),
        still(17),
        "null",
        "[1]",
        '{"id": "img-1", "da',
        PAGE,
    ],
)
async def test_an_answer_without_a_usable_link_is_in_doubt(transport: Transport, body: str) -> None:
    assert isinstance(await refusal_of(transport, answers(200, body)), SubmissionInDoubt)


@pytest.mark.parametrize("act", [closes_after_request, resets_after_request, is_silent, sends(http_answer(500, PAGE))])
async def test_no_answer_is_in_doubt_and_sent_once(transport: Transport, act: Act) -> None:
    assert isinstance(await refusal_of(transport, act), SubmissionInDoubt)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, BadParameter), (422, BadParameter), (402, AccountBlocked), (403, AccountBlocked), (429, RateLimited)],
)
async def test_a_refusal_is_raised_as_what_it_is_and_not_repeated(
    transport: Transport, status: int, error: type[TogetherVideoError]
) -> None:
    assert type(await refusal_of(transport, answers(status, error_body("no")))) is error


async def test_an_address_without_an_images_api_is_wrong(transport: Transport) -> None:
    assert isinstance(await refusal_of(transport, answers(404, PAGE, HTML)), WrongAddress)


async def test_what_never_left_may_be_sent_again(transport: Transport) -> None:
    async with open_api(transport, "http://127.0.0.1:1") as api:
        with pytest.raises(NeverSent):
            await create_image(api, REQUEST)


async def test_the_id_of_another_job_is_in_doubt(transport: Transport) -> None:
    async with raw_server(answers(200, still())) as server, open_api(transport, server.url) as api:
        await api.create(VIDEO)
        with pytest.raises(SubmissionInDoubt, match="another video's job"):
            await create_image(api, REQUEST)
