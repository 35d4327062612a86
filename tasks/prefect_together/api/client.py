"""Two calls of the video API over one client, with their answers sorted. No Prefect, no waiting, no retries.

The SDK's own retries are off on both: a repeated create can be billed twice, and a failed poll is only a missed poll.
Redirects are off too: one that is followed sends the create call again, or hides that it had arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import httpx
import together
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from together import AsyncAPIResponse, AsyncTogether, DefaultAioHttpClient

from prefect_together.api.jobs import VideoJob, parse_job
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    JobNotFound,
    NeverSent,
    NotConfigured,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
    TogetherVideoError,
    WrongAddress,
)
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest
from prefect_together.retry_after import asked_wait_seconds

BAD_PARAMETER_STATUSES = frozenset({400, 404, 413, 422})
ACCOUNT_STATUSES = frozenset({401, 402, 403})
NO_SUCH_PLACE = frozenset({404, 405})
"""What servers of another kind answer: no such path, or nothing that can be posted to (RFC 9110, 15.5.6)."""

# The aiohttp transport reports a connection that the server closed *after* it got the request as httpx.ConnectTimeout
# (httpx-aiohttp 0.2.0 maps every ClientConnectionError to it), so there the aiohttp exception beneath decides.
# A proxy error is one of CONNECT (or SOCKS): the tunnel to the service was refused.
_NEVER_SENT_BY_AIOHTTP = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_NEVER_SENT_BY_HTTPX = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def classify_submission(
    error: Exception, *, secret: str = "", unproven_url: str | None = None
) -> SubmissionRefused | NeverSent | SubmissionInDoubt:
    """Say what an exception from the SDK's `videos.create` means for the job.

    Works for the SDK on httpx and on aiohttp. Whatever is not known to be safe is `SubmissionInDoubt`. `unproven_url`
    is the base URL as long as nothing shows that the service is there: then 404 and 405 can mean that it is not.
    """
    if isinstance(error, together.APIStatusError):
        return _classify_status(error, secret, unproven_url)
    if isinstance(error, together.APIConnectionError):
        cause = error.__cause__
        told = _beneath(cause or error)
        if cause is not None and was_never_sent(cause) and not _was_redirected(cause, error.request):
            return NeverSent(f"{type(told).__name__}: {told}".rstrip(": "))
        return SubmissionInDoubt(f"no answer: {type(told).__name__} {told}".strip()[:300])
    if isinstance(error, TimeoutError):
        return SubmissionInDoubt("no whole answer in the time that a call may take")
    return SubmissionInDoubt(f"answer not understood: {type(error).__name__} {error}".strip()[:300])


def was_never_sent(cause: BaseException) -> bool:
    """True if no connection to the service was made, so that no byte of the request left."""
    told = _beneath(cause)
    return isinstance(told, _NEVER_SENT_BY_AIOHTTP if isinstance(told, aiohttp.ClientError) else _NEVER_SENT_BY_HTTPX)


def _beneath(cause: BaseException) -> BaseException:
    """The aiohttp exception that httpx-aiohttp has given another name, or the cause itself."""
    return cause.__cause__ if isinstance(cause.__cause__, aiohttp.ClientError) else cause


def _was_redirected(cause: BaseException, request: httpx.Request) -> bool:
    """True if what failed was a later request: the first one had arrived, and was answered by a redirect."""
    try:
        return isinstance(cause, httpx.RequestError) and cause.request is not request
    except RuntimeError:  # httpx, for an error that was given no request
        return False


def _classify_status(
    error: together.APIStatusError, secret: str, unproven_url: str | None
) -> SubmissionRefused | SubmissionInDoubt:
    status = error.status_code
    code, message, param = error_fields(error.body, error.message, secret=secret)
    if status in ACCOUNT_STATUSES:
        return AccountBlocked(status, code, message, param)
    if status in NO_SUCH_PLACE and unproven_url is not None and not _is_about_request(error.body, code, message, param):
        return WrongAddress(status, message if isinstance(error.body, Mapping) else "", unproven_url)
    if status in BAD_PARAMETER_STATUSES:
        return BadParameter(status, code, message, param)
    if status == 429 or (status == 503 and _is_refusal(error.body)):
        return RateLimited(status, code, message, asked_wait_seconds(error.response.headers))
    return SubmissionInDoubt(f"HTTP {status} {message}".strip()[:300])


def _is_refusal(body: object) -> bool:
    """True for the service's own `{"error": ...}`; a gateway before it may answer 503 in JSON of another shape."""
    return isinstance(body, Mapping) and bool(cast("Mapping[str, Any]", body).get("error"))


def _is_about_request(body: object, code: str | None, message: str, param: str | None) -> bool:
    """Whether an error names a field or speaks of the model, as `model_not_available` does; a page does not."""
    return isinstance(body, Mapping) and (param is not None or "model" in f"{code} {message}".lower())


def error_fields(body: object, fallback: str, *, secret: str = "") -> tuple[str | None, str, str | None]:
    """Code, message and field of an error body `{"error": {"message", "type", "param", "code"}}`.

    A service that repeats the key in its message must not bring it into logs: `secret` is taken out.
    """

    def said(value: object, limit: int = 300) -> str:
        text = " ".join(str(value).split())
        return (text.replace(secret, "[key]") if secret else text)[:limit]

    if not isinstance(body, Mapping):
        return None, said(fallback), None
    outer = cast("Mapping[str, Any]", body)
    inner = outer.get("error", outer)
    if not isinstance(inner, Mapping):
        return None, said(cast("object", inner)), None
    fields = cast("Mapping[str, Any]", inner)
    code = fields.get("code") or fields.get("type")
    message, param = fields.get("message"), fields.get("param")
    return said(code) if code else None, said(message or fallback, 1000), said(param) if param else None


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


row_at_work: ContextVar[str | None] = ContextVar("row_at_work", default=None)
"""The row that the calls of this context are for; the tasks set it."""


def is_traced() -> bool:
    """Whether this process has an OpenTelemetry SDK set up, so that spans go somewhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def call_span(name: str, **known: str | float | None) -> Generator[Span]:
    """The span of one call, with what is known of it; an error that leaves the context is recorded in it."""
    if not is_traced():
        yield trace.INVALID_SPAN
        return
    tracer = trace.get_tracer("prefect_together")
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT) as span:
        add_to_span(span, row=row_at_work.get(), **known)
        yield span


def add_to_span(span: Span, **known: str | float | None) -> None:
    """Set `together_video.NAME` for each that is not None."""
    span.set_attributes({f"together_video.{name}": value for name, value in known.items() if value is not None})


class TracedApi(VideoApi):
    """The same calls, each in a span."""

    async def create(self, request: VideoRequest) -> VideoJob:
        with call_span("create_video", model=request.model) as span:
            job = await super().create(request)
            add_to_span(span, job_id=job.id, status=job.status)
            return job

    async def retrieve(self, job_id: str) -> VideoJob:
        with call_span("retrieve_video", job_id=job_id) as span:
            job = await super().retrieve(job_id)
            add_to_span(span, model=job.model, status=job.status, cost_usd=job.cost_usd)
            return job
