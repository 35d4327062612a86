"""What is paid for and would be paid for again: work that the ledger does not know, and work under another id.

A run asks before it sends anything. `unsaved-jobs.jsonl` has accepted jobs that a ledger which was away could not take;
the next run enters them.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from prefect_together.api.jobs import VideoJob
from prefect_together.clips.download import STILL_SUFFIXES, VIDEO_SUFFIXES
from prefect_together.clips.store import OutputStore
from prefect_together.errors import SubmissionInDoubt
from prefect_together.grid.columns import RESULT_COLUMNS, unescape_cell
from prefect_together.grid.source import long_cells
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import UnsavedJob, VideoRecord
from prefect_together.ledger.schema import attempts
from prefect_together.ledger.states import STATES, State
from prefect_together.problems import Problem, SettingsInvalid
from prefect_together.results.outputs import RESULTS_FILE
from prefect_together.results.text import counted, dollars, price_text
from prefect_together.table.plan import Plan

JOBS_AT_ONCE = 500
NAMED_ROWS = 3


@dataclass(frozen=True, slots=True)
class PaidRow:
    """A line of results.csv or videos.csv that says that something was sent; its number counts the header as 1.

    `still_usd` is a part of `cost_usd`.
    """

    number: int
    status: str
    job_ids: tuple[str, ...]
    files: tuple[str, ...]
    cost_usd: float | None
    still_usd: float
    error: str

    @property
    def videos_usd(self) -> float | None:
        """What its videos cost; None if that is unknown, also beside a still of known price."""
        if self.cost_usd is None or not self.still_usd:
            return self.cost_usd
        return round(self.cost_usd - self.still_usd, 6) or None


async def paid_rows(store: OutputStore, file: str = RESULTS_FILE) -> list[PaidRow]:
    """The lines of the directory's results.csv that were sent; [] if there is none, or it is somebody else's."""
    content = await store.read_bytes(file)
    if content is None:
        return []
    rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"), newline=""))
    rows.fieldnames = [name.lower() for name in rows.fieldnames or ()]  # a spreadsheet may have written them
    if not set(RESULT_COLUMNS) <= set(rows.fieldnames):
        return []
    found: list[PaidRow] = []
    with long_cells():
        lines = list(rows)
    for number, row in enumerate(lines, start=2):
        job_ids, files = (tuple(filter(None, unescape_cell(row[name] or "").split("|"))) for name in ("job_id", "file"))
        if job_ids or _number(row["attempts"]):
            usd, still_usd = _number(row["cost_usd"]), _number(row.get("still_usd")) or 0.0
            found.append(PaidRow(number, row["status"], job_ids, files, usd, still_usd, row["error"] or ""))
    return found


async def refuse_unknown_work(ledger: Ledger, store: OutputStore) -> None:
    """Raises SettingsInvalid if the output directory shows paid work that the ledger does not know.

    So it is where the ledger was deleted, emptied, replaced by an older copy, or named wrongly: everything would be
    paid for again.
    """
    rows = await paid_rows(store)
    unknown, is_new = await ledger.transaction(lambda connection: _unknown(connection, rows))
    if unknown:
        usd = sum(row.cost_usd or 0.0 for row in unknown)
        text = (
            f"{counted(len(unknown), 'row')} of {store.uri(RESULTS_FILE)} ({dollars(usd)} paid) have jobs that the"
            f" ledger {ledger.url} does not know, and would be paid for again. Put the right ledger back, or rebuild it"
            " with `prefect-together recover`, or start a new one with new_ledger (--new-ledger)"
        )
        raise SettingsInvalid.of(text, column="ledger")
    if not is_new or not store.is_local:
        return
    for folder, what in (("videos", "clip"), ("stills", "still")):
        if files := await asyncio.to_thread(clips_in, store.local_dir / folder):
            text = (
                f"{store.uri(folder)} has {counted(len(files), what)} ({files[0]} ...), and the ledger {ledger.url} is"
                " new: whatever is paid for there would be paid for again. Put the right ledger back, choose another"
                " output directory, or start a new ledger with new_ledger (--new-ledger)"
            )
            raise SettingsInvalid.of(text, column="ledger")


def _unknown(connection: Connection, rows: Sequence[PaidRow]) -> tuple[list[PaidRow], bool]:
    """The rows of whose work the ledger knows nothing, and whether it has never sent anything."""
    is_new = connection.execute(select(attempts.c.video_key).limit(1)).first() is None
    if is_new:
        return list(rows), True
    wanted = [job_id for row in rows for job_id in row.job_ids]
    known: set[str] = set()
    for start in range(0, len(wanted), JOBS_AT_ONCE):
        chunk = wanted[start : start + JOBS_AT_ONCE]
        known |= set(connection.scalars(select(attempts.c.job_id).where(attempts.c.job_id.in_(chunk))))
    return [row for row in rows if not known.issuperset(row.job_ids)], False


@dataclass(frozen=True, slots=True)
class PaidUnderAnotherId:
    """A video that would be sent, and the record of one that asks for exactly the same and is paid for."""

    row: int
    row_id: str
    record: VideoRecord
    estimate_usd: float | None


def paid_under_other_ids(
    plan: Plan, records: Mapping[str, VideoRecord], *, output_dir: str
) -> list[PaidUnderAnotherId]:
    """Videos of the plan that are new by their id alone. `records` are those of the whole ledger, by key.

    That is so when an id column was added, removed or changed between two runs: rows with ids of their own are work of
    their own. A record that the plan still has is not counted, and each record once.
    """
    paid: dict[str, list[VideoRecord]] = {}
    for key, record in records.items():
        if key not in plan.videos and _is_paid(record.state) and record.output_dir == output_dir:
            paid.setdefault(record.fingerprint, []).append(record)
    number_of = {key: row.number for row in reversed(plan.rows) for key in (row.still_key, *row.keys)}
    found: list[PaidUnderAnotherId] = []
    for key, video in plan.videos.items():
        record = records.get(key)
        if (record is None or record.jobs == 0) and paid.get(video.fingerprint):
            twin = paid[video.fingerprint].pop(0)
            found.append(PaidUnderAnotherId(number_of[key], video.row_id, twin, video.estimate_usd))
    return found


def downloaded_takes(records: Mapping[str, VideoRecord], *, output_dir: str) -> set[tuple[str, int]]:
    """The row ids and takes of the videos that are downloaded into the output directory."""
    there = (one for one in records.values() if one.status == "downloaded" and one.output_dir == output_dir)
    return {(one.row_id, one.take) for one in there if one.kind == "video"}


def rebuy_problem(found: Sequence[PaidUnderAnotherId]) -> Problem:
    """What is wrong with a plan that would pay again for these."""
    usd = sum(one.estimate_usd or 0.0 for one in found)
    price = price_text(usd, usd, sum(one.estimate_usd is None for one in found))
    named = "; ".join(f"row {one.row} ({one.row_id}) is {one.record.row_id}" for one in found[:NAMED_ROWS])
    more = f"; and {len(found) - NAMED_ROWS:,} more" if len(found) > NAMED_ROWS else ""
    states = Counter(one.record.state.value.replace("_", " ") for one in found)
    there = ", ".join(f"{count:,} {state}" for state, count in states.items())
    return Problem(
        f"{counted(len(found), 'video')} would be paid for again, up to {price}: the same prompt and parameters"
        f" are there under another id ({there}): {named}{more}. Give the rows their ids back, or pay again"
        " with rebuy (--rebuy)",
        column="id",
    )


def clips_in(folder: Path) -> list[str]:
    """The names of the clips, or stills, that lie in it."""
    return sorted(path.name for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES | STILL_SUFFIXES)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _is_paid(state: State) -> bool:
    """Whether a video in this state has, or may have, cost money."""
    return STATES[state].is_paid_without_clip or state == State.DOWNLOADED


UNSAVED_FILE = "unsaved-jobs.jsonl"
"""Beside the output: a line of JSON for each accepted job of which the ledger has only the intent."""


def keep_unsaved(store: OutputStore, job: UnsavedJob) -> Path:
    """Append the job to the file, durably, and return its path: of a remote output, the one in `local_dir`."""
    path = store.local_dir / UNSAVED_FILE
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(job)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return path


def unsaved_jobs(store: OutputStore) -> list[UnsavedJob]:
    """The jobs of the file; [] if there is none. Raises SettingsInvalid for a line that is not one."""
    path = store.local_dir / UNSAVED_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    try:
        return [UnsavedJob(**json.loads(line)) for line in lines if line.strip()]
    except (ValueError, TypeError) as error:
        raise SettingsInvalid.of(f"{path} cannot be read ({error}); it names paid jobs") from error


async def take_up_unsaved(ledger: Ledger, store: OutputStore) -> list[UnsavedJob]:
    """Enter the jobs of the file into the ledger, remove the file, and return them: they are collected, not sent again.

    Raises SettingsInvalid if the ledger has not sent one of them: another ledger has.
    """
    jobs = unsaved_jobs(store)
    records = await ledger.records(list({job.video_key for job in jobs}))
    foreign = [job for job in jobs if job.video_key not in records or records[job.video_key].attempts < job.attempt]
    if foreign:
        text = (
            f"{store.local_dir / UNSAVED_FILE} names {counted(len(foreign), 'paid job')} that the ledger {ledger.url}"
            " has not sent: name the ledger of the run that wrote it, or rebuild it with `prefect-together recover`"
        )
        raise SettingsInvalid.of(text, column="ledger")
    for job in jobs:
        with suppress(SubmissionInDoubt):  # the id is another video's: the ledger says so
            await ledger.accepted(job.video_key, job.attempt, VideoJob(job.job_id, video_url=job.link))
    forget_unsaved(store)
    return jobs


def forget_unsaved(store: OutputStore) -> None:
    """Remove the file: the ledger has what is in it."""
    (store.local_dir / UNSAVED_FILE).unlink(missing_ok=True)
