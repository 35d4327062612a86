"""Runs a table with an OpenTelemetry SDK set up, and prints the spans as JSON. A process of its own: an SDK stays.

python tests/support/traced_run.py TABLE OUTPUT_DIR
"""

from __future__ import annotations

import asyncio
import json
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from repository import FLOWS
from table_of_prompts import MODEL, load_script


def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    flow = load_script(FLOWS / "generate_videos.py").generate_videos

    asyncio.run(flow(sys.argv[1], model=MODEL, output_dir=sys.argv[2], return_state=True))

    for span in exporter.get_finished_spans():
        own = span.get_span_context()
        assert own is not None
        line = {
            "name": span.name,
            "id": own.span_id,
            "parent": span.parent.span_id if span.parent else None,
            "attributes": dict(span.attributes or {}),
            "status": span.status.status_code.name,
        }
        print(json.dumps(line, default=str))


if __name__ == "__main__":
    main()
