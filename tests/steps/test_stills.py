"""The two tasks of a still in somebody's own flow, at a server that makes one and serves it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from prefect import flow

from prefect_server import PrefectServer
from prefect_together.api.client import open_client
from prefect_together.api.session import VideoSession, open_session
from prefect_together.errors import ClipInvalid, StillGone, SubmissionInDoubt
from prefect_together.steps.stills import create_still, download_still
from prefect_together.stills.request import StillRequest
from raw_server import Act, Exchange, RawServer, answers, http_answer, raw_server

REQUEST = StillRequest(model="black-forest-labs/FLUX.2-pro", prompt="a lighthouse", width=320, height=256)


def picture(kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((320, 256), 60).convert("RGB").save(stream, kind)
    return stream.getvalue()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def makes_a_still(content: bytes, *, status: int = 200) -> Act:
    """Answers a POST with the link to a still, and a GET with `content`."""

    async def act(exchange: Exchange) -> None:
        while True:
            head = await exchange.read_head()
            if head.startswith("GET "):
                await exchange.send(http_answer(status, content, {"Content-Type": "image/jpeg"}))
                continue
            length = int(head.lower().partition("content-length:")[2].split()[0])
            await exchange.reader.readexactly(length)
            url = f"{exchange.server.url}/still.jpg"
            await exchange.send(http_answer(200, json.dumps({"id": "img-1", "data": [{"url": url}]})))

    return act


@asynccontextmanager
async def session_at(act: Act) -> AsyncGenerator[tuple[VideoSession, RawServer]]:
    async with (
        raw_server(act) as server,
        open_session(open_client(api_key="key", base_url=server.url)) as session,
    ):
        yield session, server


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "still.jpg"), ("PNG", "still.png"), ("WEBP", "still.webp")])
def test_create_and_download_make_a_picture_named_after_its_kind(
    prefect_server: PrefectServer, tmp_path: Path, kind: str, name: str
) -> None:
    content = picture(kind)

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> None:
        async with session_at(makes_a_still(content)) as (session, server):
            job = await create_still(REQUEST, session=session)
            still = await download_still(job, tmp_path / "still.jpg", request=REQUEST, session=session)
        assert (still.path, still.media.width, still.media.height) == (tmp_path / name, 320, 256)
        assert not any("asked for" in warning for warning in still.warnings)
        assert (server.posts, server.gets) == (1, 1)

    prefect_server.run(own)

    assert (tmp_path / name).read_bytes() == content
    assert files_in(tmp_path) == [name]


def test_a_call_of_unknown_outcome_is_made_once_whatever_retries_the_task_has(prefect_server: PrefectServer) -> None:
    posts: list[int] = []

    @flow(name="somebodys-own", persist_result=False)
    async def own() -> None:
        async with session_at(answers(500, "{}")) as (session, server):
            try:
                await create_still.with_options(retries=3, retry_delay_seconds=0)(REQUEST, session=session)
            finally:
                posts.append(server.posts)

    with pytest.raises(SubmissionInDoubt, match=r"possibly billed, \$0\.03"):
        prefect_server.run(own)

    assert posts == [1]


async def test_a_dead_link_says_that_the_still_must_be_made_again(tmp_path: Path) -> None:
    async with session_at(makes_a_still(b"gone", status=404)) as (session, _):
        job = await create_still.fn(REQUEST, session=session)
        with pytest.raises(StillGone, match=r"paid \$0\.03.*dead"):
            await download_still.fn(job, tmp_path / "still.jpg", session=session)

    assert files_in(tmp_path) == []


async def test_a_picture_of_another_size_is_taken_with_a_warning(tmp_path: Path) -> None:
    wider = REQUEST.model_copy(update={"width": 512})

    async with session_at(makes_a_still(picture())) as (session, _):
        job = await create_still.fn(wider, session=session)
        still = await download_still.fn(job, tmp_path / "still.jpg", request=wider, session=session)

    assert still.warnings == ("asked for 512x256, black-forest-labs/FLUX.2-pro made 320x256: taken as it is",)


async def test_what_is_no_whole_picture_leaves_no_file(tmp_path: Path) -> None:
    async with session_at(makes_a_still(picture()[:-500])) as (session, _):
        job = await create_still.fn(REQUEST, session=session)
        with pytest.raises(ClipInvalid, match="not a whole JPEG, PNG or WebP"):
            await download_still.fn(job, tmp_path / "still.jpg", session=session)

    assert files_in(tmp_path) == []


def test_prefect_repeats_downloads_only() -> None:
    assert (create_still.retries, download_still.retries) == (0, 2)
