"""What the tests of several files of the sandbox share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from together import AsyncTogether, DefaultAioHttpClient

from prefect_together.sandbox import Sandbox


@pytest.fixture(params=["aiohttp", "httpx"])
async def client(request: pytest.FixtureRequest, api: Sandbox) -> AsyncGenerator[AsyncTogether]:
    """The SDK, over each of its transports, at the sandbox `api` of the test's file."""
    transport = DefaultAioHttpClient() if request.param == "aiohttp" else None
    async with AsyncTogether(api_key="key", base_url=api.base_url, http_client=transport, max_retries=0) as opened:
        yield opened
