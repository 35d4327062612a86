"""In which order the videos of a run may start: at once, or behind the one of their model that goes first. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable

from prefect_together.plan import PlannedVideo


class StartOrder:
    """Hands out videos one by one; of each model in `guarded` the first is its canary, and the others wait for it.

    Models in `known` have had their canary; without `guarded` videos this is a plain queue.
    """

    def __init__(
        self, free: Iterable[PlannedVideo], guarded: Iterable[PlannedVideo] = (), *, known: Collection[str] = ()
    ) -> None:
        self._ready = deque(free)
        self._waiting: dict[str, deque[PlannedVideo]] = {}
        self._canaries: dict[str, str] = {}
        self._changed = asyncio.Event()
        for video in guarded:
            model = video.request.model
            if model in known:
                self._ready.append(video)
            elif model in self._waiting:
                self._waiting[model].append(video)
            else:
                self._waiting[model] = deque()
                self._send_as_canary(video)

    async def next(self) -> PlannedVideo | None:
        """The next video that may start, when there is one; None when all have been handed out."""
        while not self._ready:
            if not self._waiting:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._ready.popleft()

    @property
    def is_free(self) -> bool:
        """Whether no video waits behind a canary, and none is a canary."""
        return not self._waiting and not self._canaries

    def is_canary(self, video: PlannedVideo) -> bool:
        """Whether the others of its model wait for this video now."""
        return self._canaries.get(video.request.model) == video.key

    def let_go(self, model: str) -> None:
        """The model's canary has come through, or has not: the others start, and learn of it on their way."""
        self._canaries.pop(model, None)
        self._ready.extend(self._waiting.pop(model, ()))
        self._changed.set()

    def try_another(self, model: str) -> None:
        """The model's canary was not tried: the next video takes its place."""
        if waiting := self._waiting.get(model):
            self._send_as_canary(waiting.popleft())
            self._changed.set()
        else:
            self.let_go(model)

    def _send_as_canary(self, video: PlannedVideo) -> None:
        self._canaries[video.request.model] = video.key
        self._ready.append(video)
