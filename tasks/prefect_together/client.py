"""Two calls of the video API over one client, with their answers sorted. No Prefect, no waiting, no retries.

The SDK's own retries are off on both: a repeated create can be billed twice, and a failed poll is only a missed poll.
Redirects are off too: one that is followed sends the create call again, or hides that it had arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import together
from together import AsyncAPIResponse, AsyncTogether, DefaultAioHttpClient

from prefect_together.asked_wait import asked_wait_seconds
from prefect_together.errors import (
    AccountBlocked,
    JobNotFound,
    NotConfigured,
    SubmissionInDoubt,
    TogetherVideoError,
)
from prefect_together.jobs import VideoJob, parse_job
from prefect_together.requests import LocalImage, VideoRequest
from prefect_together.submission import ACCOUNT_STATUSES, classify_submission, error_fields

MAX_CONNECTIONS = 100
CREATE_TIMEOUT_SECONDS = 120.0
"""Long, because an answer that comes too late is a job that may be billed and cannot be found."""
RETRIEVE_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10.0

NO_KEY = (
    "no API key: set TOGETHER_API_KEY, name a TogetherCredentials block (credentials_block),"
    " or try without one in the sandbox (--sandbox); nothing was sent"
)
CREATE_TIMEOUT = httpx.Timeout(CREATE_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
RETRIEVE_TIMEOUT = httpx.Timeout(RETRIEVE_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
LONGEST_CALL_SECONDS = 300.0
"""A whole call: the time-outs above start anew with every byte of an answer that trickles in."""

# ValueError: half a JSON, bytes that are no UTF-8, a number of 5,000 digits; RecursionError: brackets without end.
_NO_ANSWER = (together.TogetherError, httpx.HTTPError, TimeoutError, ValueError, RecursionError)


class PollMissed(TogetherVideoError):
    """A retrieve call without a usable answer. The job is not touched by it: look again later.

    `is_rate_limit`: the service asked for fewer calls (429, 503).
    """

    def __init__(self, reason: str, retry_after_seconds: float | None = None, is_rate_limit: bool = False) -> None:
        super().__init__(reason, retry_after_seconds, is_rate_limit)
        self.reason, self.retry_after_seconds, self.is_rate_limit = reason, retry_after_seconds, is_rate_limit

    def __str__(self) -> str:
        return self.reason


class VideoApi:
    """`POST /v2/videos` and `GET /v2/videos/{id}` through the SDK."""

    def __init__(
        self,
        client: AsyncTogether,
        *,
        encode_image: Callable[[LocalImage], str],
        create_timeout: httpx.Timeout = CREATE_TIMEOUT,
        retrieve_timeout: httpx.Timeout = RETRIEVE_TIMEOUT,
        longest_call_seconds: float = LONGEST_CALL_SECONDS,
    ) -> None:
        """`client` should be one of `open_client`: it follows no redirects."""
        # Raw: the SDK's model of the answer would be made only to be taken apart again.
        self._creating = client.with_options(max_retries=0, timeout=create_timeout).videos.with_raw_response
        self._looking = client.with_options(max_retries=0, timeout=retrieve_timeout).videos.with_raw_response
        self._encode_image, self._longest_call_seconds = encode_image, longest_call_seconds
        self._key = client.api_key or ""
        self._unproven_url: str | None = str(client.base_url).rstrip("/")

    @property
    def has_shown_a_job(self) -> bool:
        """Whether there is a video API at the base URL: it has answered with a job."""
        return self._unproven_url is None

    async def create(self, request: VideoRequest) -> VideoJob:
        """Send one create call, exactly once.

        Costs money. Raises BadParameter, WrongAddress, AccountBlocked or RateLimited (refused), NeverSent (may be sent
        again), or SubmissionInDoubt (a job may exist: never send again unasked). Reads the request's local images.
        """
        kwargs = request.create_kwargs(encode_image=self._encode_image)
        try:
            async with asyncio.timeout(self._longest_call_seconds):
                answer = await _body_of(await self._creating.create(**kwargs))
        except _NO_ANSWER as error:
            raise classify_submission(error, secret=self._key, unproven_url=self._unproven_url) from error
        job = parse_job(answer)
        if job is None:
            raise SubmissionInDoubt(f"answered without a job id: {_shortened(answer)}")
        self._unproven_url = None
        return job

    async def retrieve(self, job_id: str) -> VideoJob:
        """Ask once for the state of a job.

        Raises JobNotFound (404), AccountBlocked (401, 402, 403), or PollMissed for everything else that is no answer.
        """
        try:
            async with asyncio.timeout(self._longest_call_seconds):
                answer = await _body_of(await self._looking.retrieve(job_id))
        except together.APIStatusError as error:
            status = error.status_code
            if status == 404:
                raise JobNotFound(job_id) from error
            if status in ACCOUNT_STATUSES:
                raise AccountBlocked(status, *error_fields(error.body, error.message, secret=self._key)) from error
            pause = asked_wait_seconds(error.response.headers)
            raise PollMissed(f"HTTP {status} on retrieve", pause, status in (429, 503)) from error
        except _NO_ANSWER as error:
            raise PollMissed(f"{type(error).__name__} on retrieve: {error.__cause__ or error}") from error
        job = parse_job(answer)
        if job is None:
            raise PollMissed(f"retrieve answered without a job: {_shortened(answer)}")
        self._unproven_url = None
        return job


def key_is_set() -> bool:
    """Whether the SDK finds a key by itself: `TOGETHER_API_KEY`, or its own store of credentials."""
    try:
        AsyncTogether(max_retries=0)
    except together.TogetherError:
        return False
    return True


@asynccontextmanager
async def open_client(
    *, api_key: str | None = None, base_url: str | None = None, max_connections: int = MAX_CONNECTIONS
) -> AsyncGenerator[AsyncTogether]:
    """The SDK's client on its aiohttp transport with a bounded pool, without redirects; closed on leaving.

    Without arguments the key and URL are the SDK's own: `TOGETHER_API_KEY` and `TOGETHER_BASE_URL`.
    Raises NotConfigured if there is no key, if the URL ends in /v1 (SDK 3.x would ask for /v1/v2/videos), or if it has
    a user or password in it (the transport would send nothing).
    """
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    transport = DefaultAioHttpClient(limits=limits, follow_redirects=False)
    try:
        client = AsyncTogether(api_key=api_key, base_url=base_url, http_client=transport, max_retries=0)
    except together.TogetherError as error:
        await transport.aclose()
        raise NotConfigured(NO_KEY) from error
    if str(client.base_url).rstrip("/").endswith("/v1"):
        await client.close()
        raise NotConfigured(f"the base URL must not end in /v1: {client.base_url} (TOGETHER_BASE_URL)")
    if client.base_url.userinfo:
        await client.close()
        raise NotConfigured("the base URL must hold no user and no password (TOGETHER_BASE_URL)")
    async with client:
        yield client


async def _body_of(answer: AsyncAPIResponse[Any]) -> object:
    """The answer as decoded JSON; as text if it is none (a page, half a JSON)."""
    try:
        return await answer.json()
    except ValueError:
        return await answer.text()


def _shortened(answer: object) -> str:
    return " ".join(str(answer).split())[:120]
