"""What a test tells a sandbox to do, in one form for one in this process and one in another: scripts and faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from prefect_together.sandbox.faults import Endpoint
from prefect_together.sandbox.jobs import Failure, Script

if TYPE_CHECKING:
    from prefect_together.sandbox.service import VideoService

Order = Literal["script", "faults"]
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
    def _order(self, order: Order, fields: Mapping[str, Any]) -> None: ...


def carry_out(service: VideoService, order: Order, fields: Mapping[str, Any]) -> None:
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
