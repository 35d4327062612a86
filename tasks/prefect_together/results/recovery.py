"""Rebuilds a lost ledger from what a run left: videos.csv, read as the table that it is, and the clips beside it.

What they prove is entered and nothing else: a clip on disk is downloaded, a job id can be collected, a row in doubt
stays in doubt. Sends nothing, and leaves alone what the ledger knows already.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
from sqlalchemy import Connection, insert, update

from prefect_together.clips.inspection import inspect_clip
from prefect_together.clips.store import OutputStore
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import ClipInvalid
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.schema import Outcome, attempts, money, to_micro, videos
from prefect_together.ledger.states import STATES, State, Status
from prefect_together.results.already_paid import PaidRow, clips_in, paid_rows, take_up_unsaved, unsaved_jobs
from prefect_together.results.outputs import VIDEOS_FILE
from prefect_together.results.text import counted, state_counts
from prefect_together.table.plan import Plan, PlannedVideo


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was entered: videos by state, the dollars they cost or may have cost, rows that matched nothing.

    `unnamed_clips` are in videos/ and `unnamed_stills` in stills/, and of nothing that the ledger knows now: videos.csv
    has no line for a still, and a file's name alone does not prove its prompt.
    """

    states: Mapping[Status, int]
    committed_usd: float
    unmatched_rows: tuple[int, ...]
    unnamed_clips: int = 0
    unnamed_stills: int = 0

    @property
    def summary(self) -> str:
        """Like `recovered 12 downloaded, 1 in doubt: $3.64 committed`."""
        if not (self.states or self.unmatched_rows or self.unnamed_clips or self.unnamed_stills):
            return "nothing to recover: the ledger knows all that videos.csv and the clips show"
        parts = [f"recovered {state_counts(self.states) or 'nothing'}: ${self.committed_usd:,.2f} committed"]
        if self.unmatched_rows:
            parts.append(f"{counted(len(self.unmatched_rows), 'row')} of videos.csv could not be used")
        if self.unnamed_clips:
            clips = counted(self.unnamed_clips, "clip")
            parts.append(f"no line of videos.csv names {clips} in videos/: what they show would be paid for again")
        if self.unnamed_stills:
            stills = counted(self.unnamed_stills, "still")
            parts.append(
                f"{stills} in stills/ cannot be recovered: what a video yet to be made needs is paid for again"
            )
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Found:
    """One video as it is proved: its state, and the columns that go with it."""

    video: PlannedVideo
    state: State
    job_id: str | None
    cost_usd: float | None
    values: Mapping[str, Any]


async def recover(plan: Plan, ledger: Ledger, store: OutputStore, *, output_dir: str) -> Recovered:
    """Enter into the ledger what videos.csv and the clips of a local output directory prove of the plan's videos.

    `plan` is that of the directory's videos.csv. Raises OutputUnwritable if the directory cannot be read.
    """
    rows = {row.number: row for row in await paid_rows(store, VIDEOS_FILE)}
    records = await ledger.plan(list(plan.videos.values()), output_dir=output_dir)
    unsaved = {job.video_key: job.job_id for job in unsaved_jobs(store)}
    found = [
        _Found(video, State.SUBMITTED, unsaved[key], None, {})
        for key, video in plan.videos.items()
        if key in unsaved and records[key].attempts == 0
    ]
    unmatched: list[int] = []
    for planned in plan.rows:
        row = rows.get(planned.number)
        if row is None or planned.shared_with is not None:
            continue
        fresh = [plan.videos[key] for key in planned.keys if records[key].attempts == 0 and key not in unsaved]
        if proved := await asyncio.to_thread(_prove, fresh, row, store):
            found += proved
        elif fresh:
            unmatched.append(row.number)
    committed = await ledger.transaction(lambda connection: _enter(connection, found))
    if unsaved.keys() <= plan.videos.keys():
        await take_up_unsaved(ledger, store)
    named = {Path(record.file).name for record in (await ledger.records()).values() if record.state == State.DOWNLOADED}
    clips, stills = [
        set(await asyncio.to_thread(clips_in, store.local_dir / folder)) - named for folder in ("videos", "stills")
    ]
    states: Counter[Status] = Counter(STATES[one.state].status for one in found)
    return Recovered(states, committed, tuple(unmatched), len(clips), len(stills))


def _prove(fresh: Sequence[PlannedVideo], row: PaidRow, store: OutputStore) -> list[_Found]:
    """What a line proves of its videos: files by their names, job ids in the order of the takes."""
    job_ids = dict(zip((video.key for video in fresh), row.job_ids, strict=False))
    cost_usd = None if row.videos_usd is None or not job_ids else row.videos_usd / len(job_ids)
    found: list[_Found] = []
    for video in fresh:
        job_id = job_ids.get(video.key)
        file = next((name for name in row.files if _stems(name) & set(video.file_stems)), None)
        clip = _clip(store.local_dir / file) if file and store.is_local else None
        if file and clip:
            found.append(_Found(video, State.DOWNLOADED, job_id, cost_usd, {"file": file, **clip}))
        elif job_id and row.status == "failed":
            found.append(_Found(video, State.FAILED, job_id, cost_usd, {"error": row.error}))
        elif job_id:
            found.append(_Found(video, State.SUBMITTED, job_id, cost_usd, {}))
        elif row.status == "in_doubt":
            found.append(_Found(video, State.IN_DOUBT, None, None, {"error": row.error}))
    return found


def _stems(name: str) -> set[str]:
    """The stem of a file, and the one that was planned if another file had that name; see `part_file.numbered`."""
    stem = Path(name).stem
    return {stem, re.sub(r"-\d{1,2}$", "", stem)}


def _clip(path: Path) -> dict[str, Any] | None:
    """Size, digest and facts of a clip; None if it is not there or not whole."""
    try:
        facts = inspect_clip(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except (OSError, ClipInvalid, av.error.FFmpegError):
        return None
    return {
        "size_bytes": path.stat().st_size,
        "sha256": digest.hexdigest(),
        "clip": json.dumps(facts.as_dict()),
    }


def _enter(connection: Connection, found: Sequence[_Found]) -> float:
    """Write the videos, an attempt for each and the money; the dollars that are committed by it."""
    now, committed = SYSTEM_CLOCK.time(), 0
    for one in found:
        estimate, cost = to_micro(one.video.estimate_usd), to_micro(one.cost_usd)
        connection.execute(
            update(videos)
            .where(videos.c.video_key == one.video.key)
            .values(
                state=one.state,
                attempts=1,
                jobs=1,
                job_id=one.job_id,
                estimate_micro_usd=estimate,
                cost_micro_usd=cost,
                submitted_at=now,
                **one.values,
            )
        )
        connection.execute(
            insert(attempts).values(
                video_key=one.video.key,
                attempt=1,
                outcome=Outcome.IN_DOUBT if one.state == State.IN_DOUBT else Outcome.ACCEPTED,
                job_id=one.job_id,
                reserved_micro_usd=estimate or 0,
                cost_micro_usd=cost,
                error=one.values.get("error"),
                intent_at=now,
                answered_at=now,
            )
        )
        committed += cost if cost is not None else estimate or 0
    connection.execute(update(money).values(committed_micro_usd=money.c.committed_micro_usd + committed))
    return committed / 1e6
