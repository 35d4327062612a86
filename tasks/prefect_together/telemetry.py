"""OpenTelemetry spans of the calls to the service, below Prefect's of the task runs. No SDK, no exporter, no Prefect.

Who wants traces installs `prefect[otel]` and starts the run under `opentelemetry-instrument`; Prefect then makes a span
of each flow run and task run, and each HTTP call of a video is one below it. Without an SDK no span is ever made: the
calls are then those of `VideoApi` itself.

create_video, retrieve_video, download_video: `together_video.row`, `.job_id`, `.model`, `.status`, `.cost_usd`,
`.size_bytes`, as far as known. No prompt, link or key.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from prefect_together.client import VideoApi
from prefect_together.jobs import VideoJob
from prefect_together.requests import VideoRequest

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
