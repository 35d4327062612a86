"""A base URL behind which there is no video API: one sentence instead of a table of failed rows."""

from __future__ import annotations

import pickle

import pytest

from prefect_together.api.client import open_client
from prefect_together.errors import BadParameter, NotConfigured, WrongAddress
from prefect_together.request.form import Limits
from raw_server import Act, Exchange, answers, error_body, http_answer, raw_server
from sdk_clients import REQUEST, open_api
from table_of_prompts import Harness, prompts

PAGE = "<html><body>404: this model railway shop has moved</body></html>"
TAKES = tuple(f"A cat asleep on a drum, take {take}" for take in range(12))


async def error_of(act: Act) -> Exception:
    """What a create call raises at a server that does `act`."""
    async with raw_server(act) as server, open_api("aiohttp", f"{server.url}/shop") as api:
        with pytest.raises((BadParameter, WrongAddress)) as caught:
            await api.create(REQUEST)
    return caught.value


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("body", [PAGE, "", '{"detail": "Not Found"}', error_body("Resource not found.")])
async def test_an_answer_that_says_nothing_of_the_request_comes_from_a_wrong_address(status: int, body: str) -> None:
    error = await error_of(answers(status, body))

    assert isinstance(error, WrongAddress)
    assert error.base_url.endswith("/shop")
    assert "<html>" not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        error_body("Unable to access model x.", param="model", code="model_not_available"),
        error_body("Unable to access x.", code="model_not_available"),
        error_body("The model x does not exist"),
        error_body("no such effect", param="effect"),
    ],
)
async def test_a_404_about_the_model_or_a_field_is_the_rows_own_mistake(body: str) -> None:
    assert isinstance(await error_of(answers(404, body)), BadParameter)


async def test_where_a_job_was_taken_the_address_is_right() -> None:
    async def takes_one(exchange: Exchange) -> None:
        await exchange.read_request()
        await exchange.send(http_answer(200, '{"id": "job-1"}'))
        await exchange.read_request()
        await exchange.send(http_answer(404, PAGE))

    async with raw_server(takes_one) as server, open_api("aiohttp", server.url) as api:
        await api.create(REQUEST)
        with pytest.raises(BadParameter):
            await api.create(REQUEST)


def test_the_error_says_where_the_address_is_set_and_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(WrongAddress(404, "Not Found", "http://127.0.0.1:9/shop")))  # noqa: S301

    assert (error.http_status, error.base_url) == (404, "http://127.0.0.1:9/shop")
    assert "http://127.0.0.1:9/shop (HTTP 404: Not Found)" in str(error)
    assert "TOGETHER_BASE_URL" in str(error)
    assert "base URL in the TogetherCredentials block" in str(error)


async def test_an_address_with_user_and_password_is_refused_and_not_shown() -> None:
    with pytest.raises(NotConfigured) as caught:
        async with open_client(api_key="key", base_url="http://team:hunter2@127.0.0.1:9"):
            pass

    assert "TOGETHER_BASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_run_stops_with_one_sentence_and_every_row_stays_planned(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = f"{harness.api.base_url}/shop"
    monkeypatch.setenv("TOGETHER_BASE_URL", wrong)

    ended = harness.run(prompts(*TAKES), limits=Limits(max_in_flight=2))

    assert ended.state.is_failed()
    assert isinstance(ended.result, WrongAddress)
    assert wrong in ended.state.message
    assert ended.statuses == ["planned"] * len(TAKES)
    assert sum(int(row["attempts"]) for row in ended.rows) <= 2


def test_with_the_right_address_the_same_run_goes_on(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as astray:
        astray.setenv("TOGETHER_BASE_URL", f"{harness.api.base_url}/shop")
        harness.run(prompts(*TAKES[:2]), budget_usd=0.56, limits=Limits(canary=True))

    ended = harness.run(prompts(*TAKES[:2]), budget_usd=0.56)

    assert ended.statuses == ["downloaded"] * 2


def test_a_run_at_a_wrong_address_that_was_to_send_again_leaves_every_doubt_as_it_is(harness: Harness) -> None:
    """Forgotten, the doubt would be sent again by the next run, unasked, and perhaps paid twice."""
    for take in TAKES[:3]:
        harness.api.fault("500-after", endpoint="create", prompt=take)
    before = harness.run(prompts(*TAKES[:3]))

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOGETHER_BASE_URL", f"{harness.api.base_url}/shop")
        wrong = harness.run(prompts(*TAKES[:3]), limits=Limits(resubmit_in_doubt=True, max_in_flight=1))
    after = harness.run(prompts(*TAKES[:3]))

    assert before.statuses == wrong.statuses == after.statuses == ["in_doubt"] * 3
    assert harness.api.accepted() == 3
