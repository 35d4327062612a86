"""The control routes of a sandbox in another process, called from Python. Blocking; for tests and benchmarks."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from prefect_together.sandbox.scripting import Order, Scripting

TIMEOUT_SECONDS = 30.0


class SandboxControl(Scripting):
    """What `Sandbox` offers in its own process, for the sandbox at `base_url`."""

    def __init__(self, base_url: str) -> None:
        self._address = urlsplit(base_url).netloc

    def stats(self) -> dict[str, Any]:
        """Counts of requests by endpoint and answer, jobs by status, accepted by prompt, dollars billed."""
        return cast("dict[str, Any]", self._call("GET", "/sandbox/stats"))

    def jobs(self) -> list[dict[str, Any]]:
        """Every job with its prompt, status, times, reads, downloads and cost."""
        return cast("dict[str, Any]", self._call("GET", "/sandbox/state"))["jobs"]

    def requests(self) -> list[dict[str, Any]]:
        """The last requests, oldest first, with headers and bodies."""
        return cast("list[dict[str, Any]]", self._call("GET", "/sandbox/requests"))

    def clear_faults(self) -> None:
        self._call("DELETE", "/sandbox/faults")

    def expire_links(self) -> None:
        self._call("POST", "/sandbox/expire-links")

    def _order(self, order: Order, fields: Mapping[str, Any]) -> None:
        self._call("POST", f"/sandbox/{order}", fields)

    def _call(self, method: str, path: str, body: object = None) -> object:
        """Raises ValueError with the sandbox's words when it refuses, OSError when it is not there."""
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json"})
            response = connection.getresponse()
            answer: object = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{method} {path}: {answer}")
        return answer
