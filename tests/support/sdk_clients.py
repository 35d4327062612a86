"""The SDK over each of its transports, for tests that bring their own server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import pytest
from together import AsyncTogether, DefaultAsyncHttpxClient

from prefect_together.api.client import CREATE_TIMEOUT, VideoApi, open_client
from prefect_together.errors import TogetherVideoError
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest
from raw_server import Act, RawServer, is_silent, raw_server

Transport = Literal["aiohttp", "httpx"]
REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")
LARGE_REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat", extra_body={"image": "y" * 20_000_000})
SHORT = httpx.Timeout(0.7, connect=0.4, pool=0.3)


@asynccontextmanager
async def open_api(
    transport: Transport, base_url: str, *, max_connections: int = 10, **settings: Any
) -> AsyncGenerator[VideoApi]:
    """`aiohttp` is the client that the package opens; `httpx` the SDK's own default, which follows redirects."""
    if transport == "aiohttp":
        async with open_client(api_key="key", base_url=base_url, max_connections=max_connections) as client:
            yield VideoApi(client, encode_image=_no_images, **settings)
        return
    limits = httpx.Limits(max_connections=max_connections)
    async with AsyncTogether(
        api_key="key", base_url=base_url, http_client=DefaultAsyncHttpxClient(limits=limits)
    ) as client:
        yield VideoApi(client, encode_image=_no_images, **settings)


def _no_images(image: LocalImage) -> str:
    raise AssertionError(f"no image is read here: {image.path}")


def patience(act: Act) -> httpx.Timeout:
    """How long a call waits: not long for a server that never answers, and for any other as a busy machine needs."""
    return SHORT if act is is_silent else CREATE_TIMEOUT


async def refusal_of(
    transport: Transport, act: Act, *, tls: ssl.SSLContext | None = None
) -> tuple[TogetherVideoError, RawServer]:
    """What one create call raises at a server that does `act`."""
    async with raw_server(act, tls=tls) as server, open_api(transport, server.url, create_timeout=patience(act)) as api:
        with pytest.raises(TogetherVideoError) as caught:
            await api.create(REQUEST)
    return caught.value, server


async def refusal_at(transport: Transport, base_url: str, **settings: Any) -> TogetherVideoError:
    async with open_api(transport, base_url, **settings) as api:
        with pytest.raises(TogetherVideoError) as caught:
            await api.create(REQUEST)
    return caught.value
