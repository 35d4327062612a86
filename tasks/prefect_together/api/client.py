"""The two calls of the video API over one client, and what each answer means. Waits for nothing, retries nothing.

The SDK's own retries are off on both: a repeated create can be billed twice, and a failed poll is only a missed poll.
Redirects are off too: one that is followed sends the create call again, or hides that it had arrived. Errors are raised
`from None`: the SDK's own hold what the service said, unredacted, and tracebacks are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import aiohttp
import httpx
import together
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from together import AsyncAPIResponse, AsyncTogether, DefaultAioHttpClient

from prefect_together.api.foreign_text import ForeignText
from prefect_together.api.jobs import VideoJob, parse_job
from prefect_together.clock import retry_after_seconds
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

BAD_PARAMETER_STATUSES = frozenset({400, 404, 413, 422})
ACCOUNT_STATUSES = frozenset({401, 402, 403})
NO_SUCH_ENDPOINT = frozenset({404, 405})
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
    error: Exception, *, texts: ForeignText | None = None, unproven_url: str | None = None
) -> SubmissionRefused | NeverSent | SubmissionInDoubt:
    """Say what an exception from the SDK's `videos.create` (or `images.generate`) means for the job.

    Works for the SDK on httpx and on aiohttp. Whatever is not known to be safe is `SubmissionInDoubt`. `unproven_url`
    is the base URL as long as nothing shows that the service is there: then 404 and 405 can mean that it is not.
    """
    texts = texts or ForeignText()
    if isinstance(error, together.APIStatusError):
        return _classify_status(error, texts, unproven_url)
    if isinstance(error, together.APIConnectionError):
        cause = error.__cause__
        origin = _origin(cause or error)
        if cause is not None and was_never_sent(cause) and not _was_redirected(cause, error.request):
            return NeverSent(texts.clean(f"{type(origin).__name__}: {origin}".rstrip(": ")))
        return SubmissionInDoubt(texts.clean(f"no answer: {type(origin).__name__} {origin}"))
    if isinstance(error, TimeoutError):
        return SubmissionInDoubt("no whole answer in the time that a call may take")
    return SubmissionInDoubt(texts.clean(f"answer not understood: {type(error).__name__} {error}"))


def was_never_sent(cause: BaseException) -> bool:
    """True if no connection to the service was made, so that no byte of the request left."""
    origin = _origin(cause)
    if isinstance(origin, aiohttp.ClientError):
        return isinstance(origin, _NEVER_SENT_BY_AIOHTTP)
    return isinstance(origin, _NEVER_SENT_BY_HTTPX)


def _origin(cause: BaseException) -> BaseException:
    """The aiohttp exception that httpx-aiohttp has given another name, or the cause itself."""
    return cause.__cause__ if isinstance(cause.__cause__, aiohttp.ClientError) else cause


def _was_redirected(cause: BaseException, request: httpx.Request) -> bool:
    """True if what failed was a later request: the first one had arrived, and was answered by a redirect."""
    try:
        return isinstance(cause, httpx.RequestError) and cause.request is not request
    except RuntimeError:  # httpx, for an error that was given no request
        return False


def _classify_status(
    error: together.APIStatusError, texts: ForeignText, unproven_url: str | None
) -> SubmissionRefused | SubmissionInDoubt:
    status = error.status_code
    code, message, param = error_fields(error.body, error.message, texts)
    if status in ACCOUNT_STATUSES:
        return AccountBlocked(status, code, message, param)
    if (
        status in NO_SUCH_ENDPOINT
        and unproven_url is not None
        and not _is_about_request(error.body, code, message, param)
    ):
        return WrongAddress(status, message if isinstance(error.body, Mapping) else "", unproven_url)
    if status in BAD_PARAMETER_STATUSES:
        return BadParameter(status, code, message, param)
    if status == 429 or (status == 503 and _is_refusal(error.body)):
        return RateLimited(status, code, message, retry_after_seconds(error.response.headers))
    return SubmissionInDoubt(f"HTTP {status} {message}".strip()[:300])


def _is_refusal(body: object) -> bool:
    """True for the service's own `{"error": {"message", ...}}`; a gateway before it may answer 503 in other JSON."""
    if not isinstance(body, Mapping):
        return False
    error = cast("Mapping[str, Any]", body).get("error")
    if not isinstance(error, Mapping):
        return False
    fields = cast("Mapping[str, Any]", error)
    return any(isinstance(fields.get(name), str) and fields[name] for name in ("message", "type", "code"))


def _is_about_request(body: object, code: str | None, message: str, param: str | None) -> bool:
    """Whether an error names a field or speaks of the model, as `model_not_available` does; a page does not."""
    return isinstance(body, Mapping) and (param is not None or "model" in f"{code} {message}".lower())


def error_fields(body: object, fallback: str, texts: ForeignText | None = None) -> tuple[str | None, str, str | None]:
    """Code, message and field of an error body `{"error": {"message", "type", "param", "code"}}`, as clean texts."""
    texts = texts or ForeignText()
    if not isinstance(body, Mapping):
        return None, texts.clean(fallback), None
    outer = cast("Mapping[str, Any]", body)
    inner = outer.get("error", outer)
    if not isinstance(inner, Mapping):
        return None, texts.clean(cast("object", inner)), None
    fields = cast("Mapping[str, Any]", inner)
    code = fields.get("code") or fields.get("type")
    message, param = fields.get("message"), fields.get("param")
    return (
        texts.clean(code) if code else None,
        texts.clean(message or fallback, 1000),
        texts.clean(param) if param else None,
    )


MAX_CONNECTIONS = 100
CREATE_TIMEOUT_SECONDS = 120.0
"""Long, because an answer that comes too late is a job that may be billed and cannot be found."""
MAX_ANSWER_BYTES = 10_000_000
"""Of one answer, decompressed; a job's is some 2 kB."""
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

SANDBOX_HEADER, SANDBOX_NAME = "x-together-sandbox", "prefect-together"
"""What this package's sandbox sends with every answer, and the only sign by which it is recognized."""
TOGETHER_HOST = "api.together.ai"
PROBE_SECONDS = 5.0

# ValueError: half a JSON, bytes that are no UTF-8, a number of 5,000 digits; RecursionError: brackets without end.
_NO_ANSWER = (together.TogetherError, httpx.HTTPError, TimeoutError, ValueError, RecursionError)


class PollMissed(TogetherVideoError):
    """A retrieve call without a usable answer. It says nothing of the job: poll again later.

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
        """`client` should be one of `open_client`: it follows no redirects. `images` is the SDK's for stills."""
        # Raw: the SDK's model of the answer would be made only to be taken apart again.
        self._creates = client.with_options(max_retries=0, timeout=create_timeout).videos.with_raw_response
        self.images = client.with_options(max_retries=0, timeout=create_timeout).images.with_raw_response
        self._retrieves = client.with_options(max_retries=0, timeout=retrieve_timeout).videos.with_raw_response
        self._encode_image, self._longest_call_seconds = encode_image, longest_call_seconds
        self.texts = ForeignText(client.api_key or "")
        self._unproven_url: str | None = str(client.base_url).rstrip("/")
        self._created: set[str] = set()

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
        answer = await self.answer_to(partial(self._creates.create, **kwargs))
        job = parse_job(answer, self.texts)
        if job is None:
            raise SubmissionInDoubt(f"answered without a usable job id: {self.texts.clean(answer, 120)}")
        return self.paid(job)

    async def answer_to(self, create: Callable[[], Awaitable[AsyncAPIResponse[Any]]]) -> object:
        """The decoded answer to one call that costs money, sent exactly once. Raises as `create` does."""
        try:
            async with asyncio.timeout(self._longest_call_seconds):
                return await _body_of(await create())
        except _NO_ANSWER as error:
            raise classify_submission(error, texts=self.texts, unproven_url=self._unproven_url) from None

    def paid(self, job: VideoJob) -> VideoJob:
        """The job itself, if no other call was answered with its id; else SubmissionInDoubt."""
        if job.id in self._created:
            raise SubmissionInDoubt(f"answered with the id of another video's job, {job.id}")
        self._created.add(job.id)
        self._unproven_url = None
        return job

    async def retrieve(self, job_id: str) -> VideoJob:
        """Ask once for the state of a job.

        Raises JobNotFound (404), AccountBlocked (401, 402, 403), or PollMissed for everything else that is no answer:
        the state of another job too.
        """
        try:
            async with asyncio.timeout(self._longest_call_seconds):
                answer = await _body_of(await self._retrieves.retrieve(job_id))
        except together.APIStatusError as error:
            status = error.status_code
            if status == 404:
                raise JobNotFound(job_id) from None
            if status in ACCOUNT_STATUSES:
                raise AccountBlocked(status, *error_fields(error.body, error.message, self.texts)) from None
            pause = retry_after_seconds(error.response.headers)
            raise PollMissed(f"HTTP {status} on retrieve", pause, status in (429, 503)) from None
        except _NO_ANSWER as error:
            reason = self.texts.clean(f"{type(error).__name__} on retrieve: {error.__cause__ or error}")
            raise PollMissed(reason) from None
        job = parse_job(answer, self.texts)
        if job is None:
            raise PollMissed(f"retrieve answered without a job: {self.texts.clean(answer, 120)}")
        if job.id != job_id:
            raise PollMissed(f"retrieve answered with another job, {job.id}")
        self._unproven_url = None
        return job


def key_is_set() -> bool:
    """Whether the SDK finds a key by itself: `TOGETHER_API_KEY`, or its own store of credentials."""
    try:
        AsyncTogether(max_retries=0)
    except together.TogetherError:
        return False
    return True


class _AnswerTooLarge(httpx.ReadError):
    """An answer above `MAX_ANSWER_BYTES`: as good as none."""


class _LimitedClient(DefaultAioHttpClient):
    """The SDK's aiohttp client, which reads no more than `MAX_ANSWER_BYTES` of an answer, counted decompressed."""

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        response = await super().send(request, stream=True, **options)
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    message = f"the answer (HTTP {response.status_code}) is longer than {MAX_ANSWER_BYTES} bytes"
                    raise _AnswerTooLarge(message, request=request)
        finally:
            await response.aclose()
        decoded = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in decoded]
        return httpx.Response(
            response.status_code,
            headers=headers,
            content=bytes(content),
            request=response.request,
            extensions=response.extensions,
        )


async def _body_of(answer: AsyncAPIResponse[Any]) -> object:
    """The answer as decoded JSON; as text if it is none (a page, half a JSON)."""
    try:
        return await answer.json()
    except ValueError:
        return await answer.text()


async def is_sandbox(client: AsyncTogether) -> bool:
    """Whether this package's sandbox answers at the client's base URL. Costs one free request, none to Together."""
    if client.base_url.host == TOGETHER_HOST:
        return False
    try:
        options = client.with_options(max_retries=0, timeout=PROBE_SECONDS)
        async with asyncio.timeout(PROBE_SECONDS):
            answer = await options.get("/v3/whoami", cast_to=httpx.Response)
    except together.APIStatusError as error:
        answer = error.response
    except _NO_ANSWER:
        return False
    return answer.headers.get(SANDBOX_HEADER) == SANDBOX_NAME


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
    transport = _LimitedClient(limits=limits, follow_redirects=False)
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


current_row: ContextVar[str | None] = ContextVar("current_row", default=None)
"""The row that the calls of this context are for, for logs and spans; the tasks set it."""


def is_traced() -> bool:
    """Whether this process has an OpenTelemetry SDK set up, so that spans go somewhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def call_span(name: str, **attributes: str | float | None) -> Generator[Span]:
    """A span around one call, with these attributes; an error that leaves the context is recorded in it."""
    if not is_traced():
        yield trace.INVALID_SPAN
        return
    tracer = trace.get_tracer("prefect_together")
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT) as span:
        add_to_span(span, row=current_row.get(), **attributes)
        yield span


def add_to_span(span: Span, **attributes: str | float | None) -> None:
    """Set `together_video.NAME` for each that is not None."""
    span.set_attributes({f"together_video.{name}": value for name, value in attributes.items() if value is not None})


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
