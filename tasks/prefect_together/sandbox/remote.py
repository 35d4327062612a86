"""The control routes of a sandbox in another process, called from Python. Blocking; for tests and benchmarks."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit

from prefect_together.sandbox.faults import Endpoint

TIMEOUT_SECONDS = 30.0


class SandboxControl:
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

    def script(
        self,
        *statuses: str | None,
        at_seconds: Iterable[float] | None = None,
        prompt: str | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        """As `Sandbox.script`."""
        times = None if at_seconds is None else list(at_seconds)
        body = {"statuses": statuses, "at_seconds": times, "prompt": prompt, "code": code, "message": message}
        self._call("POST", "/sandbox/script", body)

    def fault(
        self,
        name: str,
        *,
        endpoint: Endpoint | None = None,
        rate: float | None = None,
        count: int | None = 1,
        after: int = 0,
        prompt: str | None = None,
    ) -> None:
        """As `Sandbox.fault`."""
        often = {"count": count} if rate is None else {"rate": rate}
        body = {"name": name, "endpoint": endpoint, "after": after, "prompt": prompt, **often}
        self._call("POST", "/sandbox/faults", body)

    def clear_faults(self) -> None:
        self._call("DELETE", "/sandbox/faults")

    def expire_links(self) -> None:
        self._call("POST", "/sandbox/expire-links")

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
