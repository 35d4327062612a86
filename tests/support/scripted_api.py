"""A `VideoApi` without a network: answers as a test has laid down, and a log of what was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from prefect_together.api.client import VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.clock import Clock
from prefect_together.request.request import VideoRequest

Answer = VideoJob | Exception | Callable[[], Awaitable[VideoJob]]


class ScriptedApi(VideoApi):
    """Gives its answers one by one; the last one stays. `asked_at` are unix seconds of the clock."""

    def __init__(self, *answers: Answer, clock: Clock, log: list[str] | None = None) -> None:
        self._answers, self._clock = deque(answers), clock
        self.log: list[str] = [] if log is None else log
        self.asked_at: list[float] = []

    async def create(self, request: VideoRequest) -> VideoJob:
        self.log.append("create")
        return await self._answer()

    async def retrieve(self, job_id: str) -> VideoJob:
        self.log.append(f"retrieve {job_id}")
        return await self._answer()

    @property
    def calls(self) -> int:
        return len(self.asked_at)

    async def _answer(self) -> VideoJob:
        self.asked_at.append(self._clock.time())
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, VideoJob) else await answer()
