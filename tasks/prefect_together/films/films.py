"""The films of a plan: which clips each has, in which order, and whether it has to be made anew. Sends nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image, ImageChops, ImageStat

from prefect_together.clips.store import OutputStore, in_thread
from prefect_together.errors import ClipInvalid, NoFrame, OutputUnwritable
from prefect_together.films.frames import frame_image
from prefect_together.films.join import Joined, Part, join_clips
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.table.plan import Plan, PlannedRow, PlannedVideo, file_stem

FOLDER = "films"
DIGESTS_FILE = f"{FOLDER}/films.json"

COMPARED_PX = (48, 48)
SAME_FRAME_DEVIATION = 12.0
"""Two frames whose brightness differs by less on average (0-255) are one frame, sent as a JPEG and encoded again."""

COPY_BYTES = 4 << 20
_RULES = 1
"""Counted up when clips are joined differently, so that films are made anew."""


@dataclass(frozen=True, slots=True)
class FilmShot:
    """A clip in a film: whose it is, where it begins and how long it is shown."""

    key: str
    row_id: str
    start_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class MissingShot:
    """A clip that a film waits for. `status` as in results.csv, or "gone" if its file is not there any more."""

    row: int
    row_id: str
    take: int
    status: str

    def __str__(self) -> str:
        take = "" if self.take == 1 else f", take {self.take}"
        return f"row {self.row} ({self.row_id}{take}): {self.status.replace('_', ' ')}"


@dataclass(frozen=True, slots=True)
class Film:
    """A film of a plan: `file` below the output directory, None while none was ever made.

    With `missing` clips, or a `problem` (like "could not be joined: ..."), it is the last one that was made.
    """

    name: str
    file: str | None
    seconds: float | None
    shots: tuple[FilmShot, ...]
    missing: tuple[MissingShot, ...] = ()
    problem: str | None = None
    is_new: bool = False

    @property
    def why_old(self) -> str | None:
        """Why the film is not made of the clips that the table asks for now; None if it is."""
        if self.missing:
            return f"waits for {', '.join(map(str, self.missing))}"
        return self.problem


@dataclass(frozen=True, slots=True)
class PlannedFilm:
    """A film as the plan has it: its file's path, and a video of each of its rows, in the table's order."""

    name: str
    file: str
    shots: tuple[tuple[PlannedRow, PlannedVideo], ...]


def planned_films(plan: Plan) -> list[PlannedFilm]:
    """The films that the rows name; several of one name where the rows have several variants or takes.

    A row that has fewer of them than others is in each of these films with the nearest that it has.
    """
    films: list[PlannedFilm] = []
    taken: set[str] = set()
    for name, rows in _rows_by_film(plan).items():
        choices = [_choices(own, plan) for own in rows]
        varied = dict.fromkeys(choice for own in choices if len(own) > 1 for choice in own)
        for variant, take in varied or {("", 1): None}:
            own_name = f"{name}{variant}" if take == 1 else f"{name}{variant}-take{take}"
            stem = file_stem(f"{name}{variant}", take)
            if stem.casefold() in taken:
                stem = f"{stem}-{hashlib.sha256(own_name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
            taken.add(stem.casefold())
            shots = ((own[0], _nearest(found, variant, take)) for own, found in zip(rows, choices, strict=True))
            films.append(PlannedFilm(own_name, f"{FOLDER}/{stem}.mp4", tuple(shots)))
    return films


def _rows_by_film(plan: Plan) -> dict[str, list[list[PlannedRow]]]:
    """The rows of each film. Rows of one id that share no video are one: a videos.csv has a row for each take."""
    films: dict[str, dict[str, list[PlannedRow]]] = {}
    for row in plan.rows:
        if row.film and row.keys:
            rows = films.setdefault(row.film, {})
            is_repeated = any(set(one.keys) & set(row.keys) for one in rows.get(row.row_id, ()))
            rows.setdefault(f"{row.row_id}\0{row.number}" if is_repeated else row.row_id, []).append(row)
    return {name: list(rows.values()) for name, rows in films.items()}


def _choices(rows: Sequence[PlannedRow], plan: Plan) -> dict[tuple[str, int], PlannedVideo]:
    """The videos of a shot by variant ("--vidu-q1", or empty) and take."""
    found: dict[tuple[str, int], PlannedVideo] = {}
    for video in (plan.videos[key] for row in rows for key in row.keys):
        _, mark, name = video.row_id.removeprefix(rows[0].row_id).rpartition("--")
        found[f"{mark}{name}", video.take] = video
    return found


def _nearest(own: Mapping[tuple[str, int], PlannedVideo], variant: str, take: int) -> PlannedVideo:
    for choice in ((variant, take), (variant, 1), ("", take)):
        if choice in own:
            return own[choice]
    return next(iter(own.values()))


async def make_films(
    plan: Plan, records: Mapping[str, VideoRecord], store: OutputStore, *, only_read: bool = False
) -> tuple[Film, ...]:
    """Make the films of a plan from the clips that are there, and say what each one is made of.

    A film is made anew only if one of its clips, or their order, has changed. One that waits for a clip, or cannot be
    made, stays as it was. With `only_read` nothing is made. Raises OutputUnwritable if the output cannot be used.
    """
    planned = planned_films(plan)
    if not planned:
        return ()
    known = _read_digests(await store.read_bytes(DIGESTS_FILE))
    wanted = {records[video.key].file for film in planned for _, video in film.shots if video.key in records}
    sizes = await store.sizes([*wanted, *(film.file for film in planned)])
    films: list[Film] = []
    for film in planned:
        films.append(await _made(film, records, store, known, sizes, only_read=only_read))
        if films[-1].is_new:  # after each, for a run that is stopped between them
            await store.write_bytes(DIGESTS_FILE, json.dumps(known, indent=1, sort_keys=True).encode())
    return tuple(films)


async def _made(
    film: PlannedFilm,
    records: Mapping[str, VideoRecord],
    store: OutputStore,
    known: dict[str, dict[str, Any]],
    sizes: Mapping[str, int],
    *,
    only_read: bool,
) -> Film:
    old = known.get(film.file)
    if old is not None and sizes.get(film.file) != old["size_bytes"]:
        old = None
    waiting = tuple(
        _missing(row, video, record.status if record else "planned")
        for row, video in film.shots
        if (record := records.get(video.key)) is None or record.state != State.DOWNLOADED
    )
    if waiting:
        return _film(film, old, missing=waiting)
    seams = _seams(film, records)
    facts = [[records[video.key].sha256, seam] for (_, video), seam in zip(film.shots, seams, strict=True)]
    digest = hashlib.sha256(json.dumps([_RULES, facts]).encode()).hexdigest()
    if old is not None and old["digest"] == digest:
        return _film(film, old)
    gone = tuple(_missing(row, video, "gone") for row, video in film.shots if records[video.key].file not in sizes)
    if gone:
        return _film(film, old, missing=gone)
    if only_read:
        return _film(film, old, problem="waits for `prefect-together join`: its clips have changed")
    try:
        joined, size_bytes = await _join(film, seams, records, store)
    except (ClipInvalid, OutputUnwritable, NoFrame) as error:
        return _film(film, old, problem=f"could not be joined: {error.reason}")
    except OSError as error:
        return _film(
            film, old, problem=f"could not be joined: {error.filename or film.file}: {error.strerror or error}"
        )
    shots = zip(film.shots, joined.starts_seconds, joined.parts_seconds, strict=True)
    known[film.file] = {
        "digest": digest,
        "seconds": joined.seconds,
        "size_bytes": size_bytes,
        "shots": [asdict(FilmShot(video.key, video.row_id, start, length)) for (_, video), start, length in shots],
    }
    return _film(film, known[film.file], is_new=True)


def _film(
    film: PlannedFilm,
    made: Mapping[str, Any] | None,
    *,
    missing: tuple[MissingShot, ...] = (),
    problem: str | None = None,
    is_new: bool = False,
) -> Film:
    if made is None:
        return Film(film.name, None, None, (), missing, problem)
    shots = tuple(FilmShot(**shot) for shot in made["shots"])
    return Film(film.name, film.file, made["seconds"], shots, missing, problem, is_new)


def _missing(row: PlannedRow, video: PlannedVideo, status: str) -> MissingShot:
    return MissingShot(row.number, video.row_id, video.take, status)


def _seams(film: PlannedFilm, records: Mapping[str, VideoRecord]) -> list[str]:
    """How each clip follows the one before it: "frame" if it was made to continue its last frame, "clip" if it
    was made to continue the whole clip, "" if they have nothing to do with each other."""
    seams = [""]
    for (_, earlier), (_, later) in zip(film.shots, film.shots[1:], strict=False):
        parameters: dict[str, Any] = json.loads(records[later.key].parameters)
        media: dict[str, Any] = parameters.get("media") or {}
        how = "clip" if media.get("frame_videos") else "frame"
        seams.append(how if earlier.key in later.sources else "")
    return seams


async def _join(
    film: PlannedFilm, seams: Sequence[str], records: Mapping[str, VideoRecord], store: OutputStore
) -> tuple[Joined, int]:
    """Join the clips into the film's file in the output; the size of the film in bytes."""
    names = [records[video.key].file for _, video in film.shots]
    lengths = [_seconds(records[video.key]) for _, video in film.shots]
    borrowed = [] if store.is_local else list(dict.fromkeys(names))
    paths = [store.local_dir / (name if store.is_local else f"{FOLDER}/{name}") for name in names]
    target, stopped = store.local_dir / film.file, Event()
    try:
        for name in borrowed:
            await _fetch(store, name, store.local_dir / FOLDER / name)
        try:
            joined = await asyncio.to_thread(_join_now, paths, seams, lengths, target, stopped)
        except asyncio.CancelledError:
            stopped.set()  # or the end of the process would wait for the thread
            raise
        size_bytes = target.stat().st_size
        await store.publish(film.file, replaces=True)
    finally:
        for name in borrowed:
            (store.local_dir / FOLDER / name).unlink(missing_ok=True)
    return joined, size_bytes


def _seconds(record: VideoRecord) -> float:
    return float(json.loads(record.clip)["duration_seconds"]) if record.clip else 0.0


async def _fetch(store: OutputStore, name: str, path: Path) -> None:
    """Copy a clip of a remote output to this machine, in pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size_bytes = (await store.sizes([name]))[name]
    with path.open("wb") as file:
        for start in range(0, size_bytes, COPY_BYTES):
            piece = await store.read_part(name, start, min(start + COPY_BYTES, size_bytes))
            await in_thread(file.write, piece)


def _join_now(
    paths: Sequence[Path], seams: Sequence[str], lengths: Sequence[float], target: Path, stopped: Event
) -> Joined:
    parts = [Part(paths[0])]
    for number in range(1, len(paths)):
        parts.append(part_at_seam(paths[number - 1], paths[number], seams[number], lengths[number - 1]))
    return join_clips(parts, target, stopped)


def part_at_seam(earlier: Path, later: Path, seam: str, earlier_seconds: float) -> Part:
    """The later of two clips without what the earlier one has shown already, if the pictures agree that it has.

    Raises NoFrame.
    """
    if not seam:
        return Part(later)
    beginning = frame_image(later, "first")
    if seam == "clip" and earlier_seconds > 0 and same_frame(beginning, frame_image(earlier, "first")):
        return Part(later, drop_seconds=earlier_seconds)
    return Part(later, drop_first_frame=same_frame(beginning, frame_image(earlier, "last")))


def same_frame(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are the same frame, whatever their sizes and encodings."""
    small = [picture.resize(COMPARED_PX, Image.Resampling.BOX) for picture in (one, other)]
    return max(ImageStat.Stat(ImageChops.difference(*small)).mean) < SAME_FRAME_DEVIATION


def _read_digests(content: bytes | None) -> dict[str, dict[str, Any]]:
    """What is known of the films there; nothing if the file is not what was written (they are then made anew)."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(content) if content else {}
        return {
            name: film
            for name, film in found.items()
            if film["digest"] and film["size_bytes"] and [FilmShot(**shot) for shot in film["shots"]]
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
