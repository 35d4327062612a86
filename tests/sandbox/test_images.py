"""The sandbox's pictures over real sockets: through Together's SDK on both of its transports, and on the wire."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
import together
from PIL import Image, ImageChops, ImageStat
from together import AsyncTogether
from together.types import ImageFile

from batch_run import wait_until
from fake_clock import FakeClock
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.images import IMAGE_MODELS
from sandbox_calls import HTTP, KEY, raw_exchange

FLUX = "black-forest-labs/FLUX.2-pro"
SCHNELL = "black-forest-labs/FLUX.1-schnell"
IMAGEN = "google/imagen-4.0-fast"
PROMPT = "a lighthouse above the sea"


@pytest.fixture
def api() -> Generator[Sandbox]:
    with Sandbox(late_seconds=30) as sandbox:
        yield sandbox


def post(api: Sandbox, **body: Any) -> httpx.Response:
    body = {"model": FLUX, "prompt": PROMPT, "width": 256, "height": 256, **body}
    return HTTP.post(f"{api.base_url}/v1/images/generations", json=body, headers=KEY)


def url_of(made: ImageFile) -> str:
    (entry,) = made.data
    assert entry.type == "url"
    return entry.url


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def drawn(api: Sandbox, **body: Any) -> bytes:
    """The bytes of one picture."""
    (entry,) = post(api, response_format="base64", **body).json()["data"]
    return base64.b64decode(entry["b64_json"])


async def test_a_picture_has_the_size_asked_for_and_comes_through_the_sdk(api: Sandbox, client: AsyncTogether) -> None:
    made = await client.images.generate(
        model=FLUX,
        prompt=PROMPT,
        n=1,
        width=1360,
        height=768,
        seed=7,
        steps=20,
        negative_prompt="rain",
        response_format="url",
        output_format="jpeg",
        extra_body={"prompt_upsampling": False},
    )
    answer = HTTP.get(url_of(made))

    assert (made.object, made.model, made.data[0].index) == ("list", FLUX, 0)
    assert "/shrt/" in url_of(made)
    assert answer.headers["content-type"] == "image/jpeg"
    picture = opened(answer.content)
    assert (picture.format, picture.size) == ("JPEG", (1360, 768))
    assert (api.calls("images"), api.calls("link"), api.calls("download"), api.accepted()) == (1, 1, 1, 0)


async def test_base64_and_png_come_through_the_sdk(client: AsyncTogether) -> None:
    made = await client.images.generate(
        model=IMAGEN, prompt=PROMPT, n=4, width=512, height=256, response_format="base64", output_format="png"
    )

    pictures = [base64.b64decode(entry.b64_json) for entry in made.data if entry.type == "b64_json"]
    assert [entry.index for entry in made.data] == [0, 1, 2, 3]
    assert [(opened(one).format, opened(one).size) for one in pictures] == [("PNG", (512, 256))] * 4
    assert len(set(pictures)) == 4


async def test_the_answer_passes_the_sdks_strict_validation(api: Sandbox) -> None:
    async with AsyncTogether(api_key="key", base_url=api.base_url, _strict_response_validation=True) as client:
        made = await client.images.generate(model=FLUX, prompt=PROMPT, width=256, height=256)

    assert HTTP.get(url_of(made)).status_code == 200


def test_the_picture_follows_prompt_and_seed_and_nothing_else(api: Sandbox) -> None:
    first, again = drawn(api, seed=3), drawn(api, seed=3)
    other_seed, other_prompt = drawn(api, seed=4), drawn(api, seed=3, prompt="a lighthouse above the sea!")

    assert first == again
    assert len({first, other_seed, other_prompt}) == 3
    assert drawn(api) != drawn(api), "without a seed each call has one of its own"
    by_url = HTTP.get(post(api, seed=3).json()["data"][0]["url"]).content
    assert by_url == first


def test_the_prompt_is_the_pictures_caption(api: Sandbox) -> None:
    one, other = (opened(drawn(api, seed=3, prompt=f"the sea {word}", width=640, height=384)) for word in ("A", "MMMM"))

    pixels = ImageStat.Stat(ImageChops.difference(one, other).crop((0, 0, 640, 240)).convert("L")).mean
    words = ImageStat.Stat(ImageChops.difference(one, other).crop((0, 250, 640, 330)).convert("L")).extrema
    assert pixels[0] < 40
    assert words[0][1] > 100


def test_a_link_needs_no_key_and_expires(api: Sandbox) -> None:
    url = post(api).json()["data"][0]["url"]

    redirect = HTTP.get(url, follow_redirects=False)
    before = HTTP.get(url)
    api.expire_links()
    after = HTTP.get(url)

    assert redirect.status_code == 302
    assert redirect.headers["location"].endswith(".jpg")
    assert (before.status_code, after.status_code) == (200, 403)
    assert all("authorization" not in one.headers for one in api.requests if one.endpoint in ("link", "download"))
    assert api.images()[0]["downloads"] == 1


async def test_a_link_expires_with_time() -> None:
    clock = FakeClock(auto=False)
    with Sandbox(clock=clock, link_seconds=100, expired_status=410) as api:
        url = post(api).json()["data"][0]["url"]
        await clock.advance(99)
        early = HTTP.get(url).status_code
        await clock.advance(2)

        assert (early, HTTP.get(url).status_code) == (200, 410)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": 7}, 400, "model"),
        ({"model": " "}, 400, "model"),
        ({"model": "minimax/video-01-director"}, 404, "model"),
        ({"model": "black-forest-labs/FLUX.99"}, 404, "model"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": 3}, 400, "prompt"),
        ({"n": 0}, 400, "n"),
        ({"n": 5}, 400, "n"),
        ({"n": True}, 400, "n"),
        ({"width": 250}, 400, "width"),
        ({"width": 260}, 400, "width"),
        ({"height": 1928}, 400, "height"),
        ({"height": "512"}, 400, "height"),
        ({"steps": 0}, 400, "steps"),
        ({"seed": 1.5}, 400, "seed"),
        ({"response_format": "b64"}, 400, "response_format"),
        ({"output_format": "gif"}, 400, "output_format"),
        ({"prompt_upsampling": "no"}, 400, "prompt_upsampling"),
        ({"reference_images": "https://example.com/a.png"}, 400, "reference_images"),
        ({"wide": 512}, 400, "wide"),
    ],
)
def test_a_wrong_request_is_refused_and_its_field_named(
    api: Sandbox, body: dict[str, Any], status: int, param: str
) -> None:
    answer = post(api, **body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert (answer.json()["error"]["code"] == "model_not_available") == (status == 404)
    assert api.stats()["images"] == 0


async def test_the_sdk_raises_its_own_errors_on_refusals(api: Sandbox, client: AsyncTogether) -> None:
    with pytest.raises(together.BadRequestError, match="prompt is required"):
        await client.images.generate(model=FLUX, prompt="")
    with pytest.raises(together.NotFoundError, match="Unable to access model"):
        await client.images.generate(model="nobody/knows", prompt=PROMPT)

    assert api.images() == []


def test_pictures_are_billed_by_megapixels_and_steps_or_each(api: Sandbox) -> None:
    post(api, model=FLUX, prompt="one", width=1000, height=1000, n=2)
    post(api, model=SCHNELL, prompt="two", width=1000, height=1000, steps=8)
    post(api, model=SCHNELL, prompt="two", width=1000, height=1000, steps=2)
    post(api, model=IMAGEN, prompt="three", width=256, height=256)

    stats = api.stats()
    prices = [IMAGE_MODELS[model].usd for model in (FLUX, SCHNELL, IMAGEN)]
    expected = 2 * prices[0] + 2 * prices[1] + prices[1] + prices[2]
    assert stats["images_by_prompt"] == {"one": 2, "two": 2, "three": 1}
    assert stats["images_billed_usd"] == stats["billed_usd"] == pytest.approx(expected)  # pyright: ignore[reportUnknownMemberType]
    assert "cost" not in json.dumps(post(api).json())
    assert [one["seed"] for one in api.images()][:2] == [api.images()[0]["seed"]] * 2


@pytest.mark.parametrize(
    ("fault", "status", "billed"),
    [
        *[(fault, int(fault), 0) for fault in ("400", "401", "402", "403", "413", "422", "429", "500", "502", "503")],
        *[(f"{fault}-after", int(fault), 1) for fault in ("429", "500", "503")],
        ("html", 200, 0),
        ("html-after", 200, 1),
        ("half-json", 200, 1),
        ("no-data", 200, 1),
        ("no-url", 200, 1),
    ],
)
def test_a_fault_meets_a_call_for_pictures_before_or_after_it_is_billed(
    api: Sandbox, fault: str, status: int, billed: int
) -> None:
    api.fault(fault, endpoint="images", prompt="lighthouse")

    other, met, next_one = post(api, prompt="a boat"), post(api), post(api)

    assert (other.status_code, met.status_code, next_one.status_code) == (200, status, 200)
    assert api.stats()["images_by_prompt"] == {"a boat": 1, PROMPT: billed + 1}
    assert api.stats()["faults_met"] == {f"images:{fault}": 1}


@pytest.mark.parametrize(("fault", "billed"), [("drop", 0), ("drop-after", 1), ("reset-after", 1)])
async def test_a_connection_can_end_before_or_after_a_picture_is_billed(
    api: Sandbox, client: AsyncTogether, fault: str, billed: int
) -> None:
    api.fault(fault, endpoint="images")

    with pytest.raises(together.APIConnectionError):
        await client.images.generate(model=FLUX, prompt=PROMPT, width=256, height=256)

    assert len(api.images()) == billed


def test_a_late_picture_is_billed_and_not_answered_in_time(api: Sandbox) -> None:
    api.fault("late", endpoint="images")
    body = json.dumps({"model": FLUX, "prompt": PROMPT}).encode()

    with pytest.raises(TimeoutError):
        raw_exchange(f"{api.base_url}/v1/images/generations", method="POST", body=body, timeout=0.3)
    assert wait_until(lambda: len(api.images()) == 1, seconds=30)


async def test_the_sdk_repeats_the_call_as_it_repeats_create(api: Sandbox) -> None:
    api.fault("503-after", endpoint="images")
    async with AsyncTogether(api_key="key", base_url=api.base_url, max_retries=1) as client:
        await client.images.generate(model=FLUX, prompt=PROMPT, width=256, height=256)

    assert api.stats()["images_by_prompt"] == {PROMPT: 2}, "paid for twice"


@pytest.mark.parametrize(("key", "status"), [("invalid", 401), ("no-credits", 402), ("forbidden", 403)])
def test_keys_are_refused_as_for_videos(api: Sandbox, key: str, status: int) -> None:
    headers = {"authorization": f"Bearer {key}"}

    answer = HTTP.post(f"{api.base_url}/v1/images/generations", json={"model": FLUX, "prompt": "x"}, headers=headers)

    assert (answer.status_code, api.images()) == (status, [])


def test_download_faults_meet_pictures_too(api: Sandbox) -> None:
    url = post(api, seed=3).json()["data"][0]["url"]
    for fault in ("410", "truncated", "no-range"):
        api.fault(fault, endpoint="download")

    gone, half, whole = (HTTP.get(url) for _ in range(3))

    assert (gone.status_code, half.status_code, whole.status_code) == (410, 200, 200)
    assert len(half.content) == len(whole.content) // 2
    assert opened(whole.content).size == (256, 256)


def test_pictures_and_their_links_survive_a_restart(tmp_path: Path) -> None:
    with Sandbox(state_dir=tmp_path) as first:
        url = post(first).json()["data"][0]["url"]
        content, billed, port = HTTP.get(url).content, first.stats()["billed_usd"], int(url.split(":")[2].split("/")[0])

    with Sandbox(state_dir=tmp_path, port=port) as second:
        assert HTTP.get(url).content == content
        assert second.stats()["billed_usd"] == billed > 0
