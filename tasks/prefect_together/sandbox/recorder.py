"""What was asked of the sandbox and what it answered: counts for all requests, particulars of the last ones."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

DROPPED = "dropped"


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it came in, headers in lower case. `answer` is the HTTP status, or "dropped".

    `endpoint` is create, retrieve, link (the short link), download, models, whoami or other.
    """

    endpoint: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    answer: str
    fault: str | None
    at: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Recorder:
    """Counts by endpoint and answer, and the last `keep` requests."""

    def __init__(self, keep: int) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.requests: deque[RecordedRequest] = deque(maxlen=keep)

    def add(self, request: RecordedRequest) -> None:
        self.answers[request.endpoint, request.answer] += 1
        self.requests.append(request)

    def calls(self, endpoint: str) -> int:
        return sum(count for (place, _), count in self.answers.items() if place == endpoint)

    def by_endpoint(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for (endpoint, answer), count in sorted(self.answers.items()):
            counts.setdefault(endpoint, {})[answer] = count
        return counts

    def clear(self) -> None:
        self.answers.clear()
        self.requests.clear()
