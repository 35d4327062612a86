"""The clips that a video needs first: what of them is sent in its request."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State as RunState
from prefect.client.schemas.objects import StateDetails, StateType

from prefect_together.api.session import VideoSession
from prefect_together.clips.store import OutputStore
from prefect_together.errors import DownloadFailed, NoFrame, OutputUnwritable, SourceMissing
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.request.media import ClipRef
from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import Plan

IMAGE_FIELDS = ("frame_images", "reference_images")


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
