"""What a sandbox is told to do wrong: faults by rate or count, scripted statuses, and how a test orders them.

How a fault looks on the wire is in `answers`.
"""

from __future__ import annotations

import http.client
import json
import math
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from prefect_together.sandbox.jobs import Failure, Script

if TYPE_CHECKING:
    from prefect_together.sandbox.service import VideoService

Endpoint = Literal["create", "retrieve", "images", "download"]
"""`images` is the call that makes pictures; `download` fetches clips and pictures."""
ENDPOINTS: tuple[Endpoint, ...] = ("create", "retrieve", "images", "download")

ANSWERS = {
    "400": "invalid_request_error",
    "401": "invalid key",
    "402": "credits exhausted",
    "403": "forbidden",
    "404": "not found",
    "413": "body too large",
    "422": "invalid parameter",
    "408": "request timeout",
    "409": "conflict",
    "429": "rate limit, with x-ratelimit-reset",
    "429-retry-after": "rate limit, with Retry-After",
    "429-bare": "rate limit, without a hint",
    "500": "server error, JSON",
    "502": "bad gateway, HTML",
    "503": "overloaded, JSON error body",
    "503-html": "overloaded, HTML",
    "504": "gateway timeout, HTML",
    "524": "a proxy's time-out page",
    "529": "overloaded, JSON",
    "503-text": "overloaded, JSON whose error is a text",
    "html": "200 with an HTML page",
    "echo": "200 with a text that repeats the Authorization header",
    "401-echo": "invalid key, with a message that repeats the Authorization header",
    "huge": "200 with 200 MB of JSON, packed by gzip",
    "drop": "connection closed without an answer",
    "reset": "connection reset without an answer",
}
"""Answers in place of the real one: on create and images nothing is accepted, with `-after` behind the name it is."""

CREATE = {
    "late": "accepted, and answered later than a client waits",
    "half-json": "accepted, and answered 200 with half a JSON body",
    "no-id": "accepted, and answered without the job's id",
    "blank-id": "accepted, and answered with a blank id",
    "long-id": "accepted, and answered with an id of 5,000 characters",
    "odd-id": "accepted, and answered with control characters and half a character in the id",
    "same-id": "accepted, and answered with the id of an earlier job",
    "no-status": "accepted, and answered without a status",
    "hidden": "accepted, and 404 on the first reads",
    "job-fails": "the job fails upstream",
    "job-moderated": "the job fails for its content",
    "job-cancelled": "the job is cancelled",
    "job-stuck": "the job never ends",
}
IMAGES = {
    "late": "made and billed, and answered later than a client waits",
    "half-json": "made and billed, and answered 200 with half a JSON body",
    "no-data": "made and billed, and answered without a picture",
    "no-url": "made and billed, and answered without the picture's URL",
}
RETRIEVE = {
    "late": "answered later than a client waits",
    "half-json": "200 with half a JSON body",
    "no-status": "no status field",
    "null-status": "status null",
    "odd-status": "a status nobody knows",
    "no-url": "completed without a video_url",
    "no-cost": "completed without a cost",
    "other-id": "the state of another job",
    "cost-huge": "completed at 10,000,000,000,000 dollars",
    "cost-negative": "completed at less than nothing",
    "cost-nan": "completed at NaN dollars",
    "cost-text": "completed, the cost a text",
    "cost-null": "completed, the cost null",
}
ODD_COSTS: Mapping[str, object] = {
    "cost-huge": 1e13,
    "cost-negative": -0.28,
    "cost-nan": math.nan,
    "cost-text": "free",
    "cost-null": None,
}
ODD_IDS = {"blank-id": "  ", "long-id": "x" * 5000, "odd-id": "job-\x1b[2J\ud800"}
DOWNLOAD = {
    "410": "link expired",
    "late": "nothing is sent for a long time",
    "stall": "silence after half of the file",
    "cut": "closed after half of the file",
    "cut-reset": "reset after half of the file",
    "no-range": "200 and the whole file for a Range",
    "no-length": "chunked, without Content-Length",
    "no-etag": "without ETag and Last-Modified",
    "corrupt": "the right length with a damaged middle",
    "garbage": "the right length of noise",
    "truncated": "half a file, with half a file's Content-Length",
    "too-large": "announces gigabytes, and sends them",
    "endless": "sends gigabytes unannounced",
}

COMPLETED_ONLY = frozenset({"no-url", "no-cost", *ODD_COSTS})
"""Faults of a read that shows `completed`: they wait for one."""

STORM: Mapping[Endpoint, tuple[str, ...]] = {
    "create": (
        *("408", "409", "429", "429-retry-after", "429-bare", "500", "502", "503", "503-html", "504", "524"),
        *("529", "html", "drop", "reset", "late", "half-json", "no-id", "no-status", "hidden"),
        *("408-after", "409-after", "500-after", "502-after", "503-html-after", "504-after", "524-after"),
        *("html-after", "drop-after", "reset-after"),
    ),
    "images": (
        *("408", "409", "429", "429-retry-after", "429-bare", "500", "502", "503", "503-html", "504", "524"),
        *("529", "html", "drop", "reset", *IMAGES),
        *("408-after", "409-after", "500-after", "502-after", "503-html-after", "504-after", "524-after"),
        *("html-after", "drop-after", "reset-after"),
    ),
    "retrieve": (
        *("404", "408", "409", "429", "429-retry-after", "429-bare", "500", "502", "503", "503-html", "504"),
        *("524", "529", "html", "drop", "reset", *RETRIEVE),
    ),
    "download": (
        *("403", "404", "408", "410", "429", "429-retry-after", "429-bare", "500", "502", "503", "503-html"),
        *("504", "524", "529", "html", "drop", "reset", *(name for name in DOWNLOAD if name != "endless")),
    ),
}
"""What `storm` and `any` draw from: all that a good client survives. Left out: what stops a batch for good (400, 401,
402, 413, 422), jobs that fail, a refusal of a job that was accepted (429-after), and gigabytes unannounced."""


def names(endpoint: Endpoint) -> list[str]:
    """Every fault that an endpoint knows."""
    own = {"create": CREATE, "retrieve": RETRIEVE, "images": IMAGES, "download": DOWNLOAD}[endpoint]
    after = [f"{name}-after" for name in ANSWERS] if endpoint in ("create", "images") else []
    return [*ANSWERS, *after, *own, "storm", "any"]


@dataclass
class Rule:
    """One fault to come: where, how likely, for whom.

    `after` matching requests pass before the first, then each meets it with probability `rate`, at most `count` times.
    """

    name: str
    endpoint: Endpoint
    rate: float = 1.0
    count: int | None = None
    after: int = 0
    prompt: str | None = None
    seen: int = 0
    met: int = 0

    def matches(self, endpoint: Endpoint, prompt: str) -> bool:
        return (
            self.endpoint == endpoint
            and (self.prompt is None or self.prompt in prompt)
            and (self.count is None or self.met < self.count)
        )


@dataclass
class Faults:
    """The rules in force, and how often each fault was met."""

    rng: random.Random
    rules: list[Rule] = field(default_factory=list[Rule])
    met: Counter[str] = field(default_factory=Counter[str])

    def add(
        self,
        name: str,
        *,
        endpoint: Endpoint | None = None,
        rate: float = 1.0,
        count: int | None = None,
        after: int = 0,
        prompt: str | None = None,
    ) -> None:
        """Put a fault in force; without `endpoint`, wherever it is known. Raises ValueError for an unknown name."""
        places: list[Endpoint] = [place for place in ENDPOINTS if name in names(place) and endpoint in (None, place)]
        if not places:
            raise ValueError(f"no fault {name!r}{f' on {endpoint}' if endpoint else ''}")
        if not 0 <= rate <= 1:
            raise ValueError(f"fault {name}: rate {rate} is not between 0 and 1")
        self.rules += [Rule(name, place, rate=rate, count=count, after=after, prompt=prompt) for place in places]

    def clear(self) -> None:
        self.rules.clear()

    def draw(self, endpoint: Endpoint, prompt: str, *, is_completed: bool = True) -> str | None:
        """The fault that this request meets, or None. The first rule that hits wins.

        `is_completed` says whether a read would show `completed`.
        """
        barred = frozenset[str]() if is_completed else COMPLETED_ONLY
        for rule in self.rules:
            if rule.name in barred or not rule.matches(endpoint, prompt):
                continue
            rule.seen += 1
            if rule.seen <= rule.after:
                continue
            if name := self._hit(rule, barred):
                rule.met += 1
                self.met[f"{endpoint}:{name}"] += 1
                return name
        return None

    def _hit(self, rule: Rule, barred: frozenset[str]) -> str | None:
        """`storm` draws once for each fault and takes one of those that came up, `any` draws once for all."""
        drawn_from = [name for name in STORM[rule.endpoint] if name not in barred]
        if rule.name == "storm":
            hits = [name for name in drawn_from if self.rng.random() < rule.rate]
            return self.rng.choice(hits) if hits else None
        if rule.rate < 1 and self.rng.random() >= rule.rate:
            return None
        return self.rng.choice(drawn_from) if rule.name == "any" else rule.name


def parse_rule(text: str) -> tuple[str, Endpoint | None, float]:
    """Read `NAME=RATE` or `ENDPOINT:NAME=RATE`. Raises ValueError."""
    name, sign, rate = text.partition("=")
    place, colon, rest = name.partition(":")
    endpoint: Endpoint | None = next((one for one in ENDPOINTS if one == place), None)
    if not sign or (colon and endpoint is None):
        raise ValueError(f"{text!r}: give a fault as NAME=RATE or create:NAME=RATE")
    return (rest if colon else name), endpoint, float(rate)


Command = Literal["script", "faults"]
"""Also the last part of the control route's path."""


class Scripting(ABC):
    """The two calls; how an order gets to its sandbox is for those who inherit. Raises ValueError for a wrong one."""

    def script(
        self,
        *statuses: str | None,
        at_seconds: Iterable[float] | None = None,
        prompt: str | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        """Lay down what the next job shows at each read; the last status stays.

        With `at_seconds` the statuses count from those seconds after creation on, with `prompt` the script holds for
        every later job whose prompt contains it. `code` and `message` are the error of a `failed` status. None
        stands for `"status": null`, `MISSING` for no status.
        """
        times = None if at_seconds is None else list(at_seconds)
        fields = {"statuses": statuses, "at_seconds": times, "prompt": prompt, "code": code, "message": message}
        self._order("script", fields)

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
        """Put a fault of `faults` in force: for the next request that fits, or the next `count`, None for all.

        With `rate` it meets that share of all requests that fit, without end. `after` requests that fit pass
        unharmed before it; `prompt` picks requests by a part of their prompt.
        """
        often = {"count": count} if rate is None else {"rate": rate}
        self._order("faults", {"name": name, "endpoint": endpoint, "after": after, "prompt": prompt, **often})

    @abstractmethod
    def _order(self, order: Command, fields: Mapping[str, Any]) -> None: ...


def carry_out(service: VideoService, order: Command, fields: Mapping[str, Any]) -> None:
    """Do what was ordered, on the service's own loop. Raises ValueError, KeyError or TypeError for a wrong order."""
    if order == "script":
        service.script(_script_of(fields), prompt=fields.get("prompt"))
    else:
        service.faults.add(**fields)


def _script_of(fields: Mapping[str, Any]) -> Script:
    at, code = fields.get("at_seconds"), fields.get("code")
    return Script(
        tuple(fields["statuses"]),
        at_seconds=None if at is None else tuple(float(seconds) for seconds in at),
        failure=Failure(str(code), str(fields.get("message") or code)) if code else None,
    )


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

    def images(self) -> list[dict[str, Any]]:
        """Every picture with its prompt, seed, size, downloads and cost."""
        return cast("dict[str, Any]", self._call("GET", "/sandbox/state"))["images"]

    def requests(self) -> list[dict[str, Any]]:
        """The last requests, oldest first, with headers and bodies."""
        return cast("list[dict[str, Any]]", self._call("GET", "/sandbox/requests"))

    def clear_faults(self) -> None:
        self._call("DELETE", "/sandbox/faults")

    def expire_links(self) -> None:
        self._call("POST", "/sandbox/expire-links")

    def _order(self, order: Command, fields: Mapping[str, Any]) -> None:
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
