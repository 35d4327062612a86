"""The clips that a video needs first: who waits for whom, and what of them is sent in its request."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State as RunState
from prefect.client.schemas.objects import StateDetails, StateType

from prefect_together.api.session import VideoSession
from prefect_together.clips.store import OutputStore
from prefect_together.errors import DownloadFailed, NoFrame, OutputUnwritable, SourceMissing
from prefect_together.execution.settings import RunSettings
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import STATES, State
from prefect_together.request.media import ClipRef
from prefect_together.request.request import VideoRequest
from prefect_together.results.progress import Progress
from prefect_together.table.chains import Chain, chains_of, sendable
from prefect_together.table.plan import Plan, PlannedVideo

IMAGE_FIELDS = ("frame_images", "reference_images")


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


class SourceClips:
    """What a run over a plan knows of the clips that other videos of it need."""

    def __init__(
        self, plan: Plan, *, ledger: Ledger, session: VideoSession, store: OutputStore, max_inline_characters: int
    ) -> None:
        self._ledger, self._session, self._store = ledger, session, store
        self._max_bytes = max_inline_characters * 3 // 4
        self._needed = frozenset(key for video in plan.videos.values() for key in video.sources)
        self._downloads: dict[str, UUID] = {}

    def note_download(self, key: str, task_run_id: UUID | None) -> None:
        """Keep the task run that has downloaded a clip, if another video needs that."""
        if task_run_id is not None and key in self._needed:
            self._downloads[key] = task_run_id

    def task_runs(self, keys: tuple[str, ...]) -> list[RunState[Any]]:
        """The task runs of this flow run that have downloaded these, for `wait_for`: edges of the graph in the UI."""
        found = (StateDetails(task_run_id=self._downloads[key]) for key in keys if key in self._downloads)
        return [RunState(type=StateType.COMPLETED, state_details=details, data=True) for details in found]

    async def filled(self, request: VideoRequest) -> tuple[VideoRequest, dict[str, str]]:
        """The request with frames as base64 text and clips as fresh links; and the SHA-256 of each picture in it.

        Raises SourceMissing if a clip is not there or gives no such frame or link.
        """
        refs = request.clip_refs()
        if not refs:
            return request, {}
        keys = [ref.key for _, ref in refs if ref.key is not None]
        records = await self._ledger.records(list(dict.fromkeys(keys)))
        replacements: dict[ClipRef, str] = {}
        digests: dict[str, str] = {}
        for field, ref in refs:
            record = records.get(ref.key or "")
            name = None if record is not None and record.kind == "still" else str(ref)
            if record is None or record.state != State.DOWNLOADED:
                raise SourceMissing(name, "its clip is not there" if record is None else record.status)
            try:
                if field in IMAGE_FIELDS:
                    replacements[ref], digests[str(ref)] = await self._picture(ref, record, request)
                else:
                    replacements[ref] = await self._session.fresh_link(str(record.job_id))
            except (NoFrame, OutputUnwritable, DownloadFailed) as error:
                raise SourceMissing(name, str(error)) from error
        return request.with_clips(lambda ref: replacements[ref]), digests

    async def _picture(self, ref: ClipRef, record: VideoRecord, request: VideoRequest) -> tuple[str, str]:
        """The picture that is meant, as base64 text that fits into a request, and its SHA-256 (hex)."""
        from prefect_together.films.frames import frame_jpeg, jpeg_of, still_image  # with libav, where there are chains

        content = await self._content(record.file)
        size = (request.width, request.height) if request.width and request.height else None
        if ref.frame is None:
            picture = await asyncio.to_thread(
                lambda: jpeg_of(still_image(content), max_bytes=self._max_bytes, size=size)
            )
        else:
            picture = await asyncio.to_thread(frame_jpeg, content, ref.frame, max_bytes=self._max_bytes, size=size)
        return base64.b64encode(picture.jpeg).decode("ascii"), picture.sha256

    async def _content(self, file: str) -> Any:
        """The clip's path where it lies on this machine, else its bytes."""
        if self._store.is_local:
            return self._store.local_dir / file
        content = await self._store.read_bytes(file)
        if content is None:
            raise NoFrame(f"{file} is no longer in the output")
        return content
