"""Which video starts next: the canary of its model before the others, and after the videos whose clips it needs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from prefect_together.errors import SourceMissing
from prefect_together.execution.settings import RunSettings
from prefect_together.ledger.states import STATES, State
from prefect_together.results.progress import Progress
from prefect_together.table.chains import Chain, chains_of, sendable
from prefect_together.table.plan import Plan, PlannedVideo


class StartOrder:
    """Hands out videos one by one; of each model in `guarded` the first is its canary, and the others wait for it.

    Models in `known` have had their canary. A video waits for those that `sources` has for it, which are among the
    others, until `source_ended` was called for each. Without `guarded` and `sources` this is a plain queue.
    """

    def __init__(
        self,
        free: Iterable[PlannedVideo],
        guarded: Iterable[PlannedVideo] = (),
        *,
        known: Collection[str] = (),
        sources: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._ready: deque[PlannedVideo] = deque()
        self._waiting: dict[str, deque[PlannedVideo]] = {}
        self._canaries: dict[str, str] = {}
        self._known = set(known)
        self._sources = {key: set(wanted) for key, wanted in (sources or {}).items()}
        self._blocked: dict[str, tuple[PlannedVideo, bool]] = {}
        self._changed = asyncio.Event()
        for is_guarded, videos in ((False, free), (True, guarded)):
            for video in videos:
                self._add(video, is_guarded=is_guarded)

    def _add(self, video: PlannedVideo, *, is_guarded: bool) -> None:
        model = video.request.model
        if self._sources.get(video.key):
            self._blocked[video.key] = (video, is_guarded)
        elif not is_guarded or model in self._known:
            self._ready.append(video)
        elif model in self._waiting:
            self._waiting[model].append(video)
        else:
            self._waiting[model] = deque()
            self._send_as_canary(video)

    def source_ended(self, key: str, *, is_there: bool) -> list[PlannedVideo]:
        """A video has come to its end: those that waited for it alone start; without its clip, they and those behind
        them are given up, and returned."""
        given_up: list[PlannedVideo] = []
        ended = [key] if self._blocked else []
        while ended:
            one = ended.pop()
            for waiting in [waiting for waiting in self._blocked if one in self._sources[waiting]]:
                self._sources[waiting].discard(one)
                if not is_there:
                    given_up.append(self._blocked.pop(waiting)[0])
                    ended.append(waiting)
                elif not self._sources[waiting]:
                    video, is_guarded = self._blocked.pop(waiting)
                    self._add(video, is_guarded=is_guarded)
        self._changed.set()
        return given_up

    @property
    def ready(self) -> int:
        """How many videos `next` would give at once."""
        return len(self._ready)

    async def next(self) -> PlannedVideo | None:
        """The next video that may start, when there is one; None when all have been handed out."""
        while not self._ready:
            if not self._waiting and not self._blocked:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._ready.popleft()

    @property
    def is_free(self) -> bool:
        """Whether no video waits behind a canary, and none is one or may become one."""
        may_be_canary = (
            guarded and video.request.model not in self._known for video, guarded in self._blocked.values()
        )
        return not self._waiting and not self._canaries and not any(may_be_canary)

    def is_canary(self, video: PlannedVideo) -> bool:
        """Whether the others of its model wait for this video now."""
        return self._canaries.get(video.request.model) == video.key

    def release_model(self, model: str) -> None:
        """The model's canary has come through, or has not: the others start, and learn of it on their way."""
        self._canaries.pop(model, None)
        self._known.add(model)
        self._ready.extend(self._waiting.pop(model, ()))
        self._changed.set()

    def try_another(self, model: str) -> None:
        """The model's canary was not tried: the next video takes its place."""
        if waiting := self._waiting.get(model):
            self._send_as_canary(waiting.popleft())
            self._changed.set()
        else:
            self.release_model(model)

    def _send_as_canary(self, video: PlannedVideo) -> None:
        self._canaries[video.request.model] = video.key
        self._ready.append(video)


class Dependencies:
    """Which videos of a plan wait for others, by the states that a run knows.

    `elsewhere` are the states of sources that are not in the plan: other shards need not send them.
    """

    def __init__(self, plan: Plan, settings: RunSettings, progress: Progress) -> None:
        self._plan, self._settings, self._progress = plan, settings, progress
        self._settings_for_all = replace(settings, stop_after=None)
        self.elsewhere: Mapping[str, State] = {}
        self._begun_with: dict[str, list[str]] = {key: [] for key in plan.stills}
        for video in plan.videos.values() if self._begun_with else ():
            for source in self._begun_with.keys() & video.sources:
                self._begun_with[source].append(video.key)
        chains = chains_of(plan) if settings.whole_chains else ()
        self._chains = {video.key: chain for chain in chains for video in chain.videos}

    def state_of(self, key: str) -> State:
        return self._progress.states.get(key) or self.elsewhere.get(key, State.PLANNED)

    def open_sources(self, video: PlannedVideo) -> list[str]:
        """The sources of a video that this run would send whose clips are not there."""
        if not video.sources or not self._settings.sends(self.state_of(video.key)):
            return []
        return [key for key in video.sources if self.state_of(key) != State.DOWNLOADED]

    def without_source(self, todo: Collection[PlannedVideo]) -> list[tuple[PlannedVideo, str]]:
        """Those of whose open sources one is not among them, with that source."""
        keys = {video.key for video in todo}
        missing = ((video, [key for key in self.open_sources(video) if key not in keys]) for video in todo)
        return [(video, sources[0]) for video, sources in missing if sources]

    def missing(self, source: str) -> SourceMissing:
        """Why a video that continues this one is not sent."""
        found = self._plan.videos.get(source)
        name = source if found is None else None if found.kind == "still" else found.row_id
        return SourceMissing(name, STATES[self.state_of(source)].word)

    def is_needed(self, still: str) -> bool:
        """Whether some video that begins with this still is yet to be sent, if not by a run that stops after stills."""
        return any(self._is_to_be_sent(key) for key in self._begun_with.get(still, ()))

    def canaries(self, sent: Iterable[PlannedVideo]) -> set[str]:
        """One of the videos to send of each model, if it can be one that waits for no other's clip; else with its
        sources, as a canary that waits for another shard would let that shard begin without one."""
        canaries: dict[str, PlannedVideo] = {}
        for video in sorted(sent, key=lambda video: bool(self.open_sources(video))):
            canaries.setdefault(video.request.model, video)
        keys: set[str] = set()
        needed = list(canaries.values())
        while needed:
            video = needed.pop()
            keys.add(video.key)
            needed += [self._plan.videos[key] for key in self.open_sources(video) if key in self._plan.videos]
        return keys

    def chain_of(self, video: PlannedVideo) -> Chain:
        """The chain of a video; a video that is in none is one by itself."""
        return self._chains.get(video.key) or Chain(video.row_id, (video,))

    def remaining(self, video: PlannedVideo) -> Chain:
        """What is yet to be sent of the video's chain, by this run or by one that does not stop after stills."""
        chain = self.chain_of(video)
        to_send, _ = sendable(
            {one.key: one for one in chain.videos},
            is_sent=lambda one: self._is_to_be_sent(one.key) and (one.kind == "video" or self.is_needed(one.key)),
            comes=lambda key: STATES[self.state_of(key)].has_clip,
        )
        return Chain(chain.name, tuple(to_send))

    def _is_to_be_sent(self, key: str) -> bool:
        return self._settings_for_all.sends(self.state_of(key))
