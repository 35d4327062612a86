"""From table rows to the videos that are wanted: identity, price, file names, shared work. Sends and writes nothing."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prefect_together.grid.columns import parameter_name
from prefect_together.problems import Problem
from prefect_together.request.catalogue import estimate_usd
from prefect_together.request.fields import counted, listed_numbers
from prefect_together.request.media import ClipRef
from prefect_together.request.request import VideoRequest
from prefect_together.stills.catalogue import estimate_still_usd
from prefect_together.stills.request import StillRequest
from prefect_together.table.references import References
from prefect_together.table.rows import PLACEHOLDER, PromptTable, TableRow
from prefect_together.table.variants import named_variants

Kind = Literal["video", "still"]


def video_key(row_id: str, take: int, fingerprint: str) -> str:
    """The identity of one video, 32 hex digits: the same row with another request is other work beside the first."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{fingerprint}/{take}/{row_id}").hex


MAX_STEM_BYTES = 120
"""With "-take1000" and ".webm.part" a name stays below 143 bytes, the shortest limit in use (eCryptfs)."""

SLUG_CHARACTERS = 40

_HASH_DIGITS = 8
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_LIKE_A_TAKE = re.compile(r"-(?=take[0-9]+$)", re.IGNORECASE)
_ORDINARY = re.compile(r"[A-Za-z0-9_.+=@(), -]*")


def file_stem(row_id: str, take: int = 1) -> str:
    """A file name without extension for one video of a row; at most `MAX_STEM_BYTES` and the take's suffix.

    An id that is a safe name already is kept as it is. Take 1 has no suffix, so that raising a row's
    `count` renames nothing; later ones end in "-take2", "-take3"... Ids that differ in case only give names
    that differ in case only: `PlannedVideo.free_file` keeps those apart.
    """
    safe = _safe_name(row_id)
    stem = safe if safe == row_id else _with_hash(safe, row_id)
    return stem if take == 1 else f"{stem}-take{take}"


def derived_id(prompt: str | None, fingerprint: str) -> str:
    """The id of a row that has none: the prompt's first words and 8 digits of the request's fingerprint.

    It is a safe file name as it stands: "a-cat-asleep-on-a-drum-3f9a21c4".
    """
    text = unicodedata.normalize("NFKC", prompt[: SLUG_CHARACTERS * 8] if prompt else "").lower()
    words = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in text).split()
    slug = unicodedata.normalize("NFC", "-".join(words))
    if len(slug) > SLUG_CHARACTERS:
        cut = slug[: SLUG_CHARACTERS + 1].rpartition("-")[0]
        slug = cut if len(cut) >= SLUG_CHARACTERS // 2 else slug[:SLUG_CHARACTERS]
    slug = _first_bytes(slug, MAX_STEM_BYTES - 1 - _HASH_DIGITS).strip("-")
    return f"{slug or 'video'}-{fingerprint[:_HASH_DIGITS]}"


def _safe_name(text: str) -> str:
    """`text` as far as a file name can hold it. What comes out goes in unchanged."""
    if not _ORDINARY.fullmatch(text):
        letters = "".join(map(_safe_character, unicodedata.normalize("NFC", text)))
        text = unicodedata.normalize("NFC", letters)
    name = text.lstrip(" .-")
    if _RESERVED.match(name):
        name = f"_{name}"
    name = _first_bytes(name, MAX_STEM_BYTES).rstrip(" .")
    return _LIKE_A_TAKE.sub("_", name) or "row"


def _safe_character(letter: str) -> str:
    """The character, "_" for one that some system reads as more than a letter, "" for an unseen one."""
    if letter.isascii():
        if _ORDINARY.fullmatch(letter):
            return letter
        return "_" if letter.isprintable() else ""
    kind = unicodedata.category(letter)
    if kind[0] == "C":
        return ""
    return "_" if kind[0] == "Z" else letter


def _first_bytes(text: str, limit: int) -> str:
    """The beginning of `text`, at most `limit` bytes of UTF-8, cut between characters."""
    return text.encode()[:limit].decode(errors="ignore")


def _with_hash(safe: str, row_id: str) -> str:
    mark = "-" + hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return _first_bytes(safe, MAX_STEM_BYTES - len(mark)).rstrip(" .-") + mark


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """One video that the table asks for, or the still that videos of a row begin with: `kind`.

    `estimate_usd` is the high reading of its price (what is reserved), `low_usd` the low one; None if unknown.
    `sources` are the keys of the videos whose clips, and of the still, that it needs first.
    """

    key: str
    row_id: str
    take: int
    fingerprint: str
    request: VideoRequest | StillRequest
    low_usd: float | None
    estimate_usd: float | None
    sources: tuple[str, ...] = ()
    kind: Kind = "video"

    @property
    def label(self) -> str:
        """What logs and task runs call it: the row's id, and of a second take `#2`, as the table refers to it."""
        return self.row_id if self.take == 1 else f"{self.row_id}#{self.take}"

    @property
    def extension(self) -> str:
        """The file's, dot included; MP4 unless WEBM is asked for, and JPEG for a still."""
        if self.kind == "still":
            return ".jpg"
        return ".webm" if self.request.output_format == "WEBM" else ".mp4"

    @property
    def file_stems(self) -> tuple[str, str, str]:
        """Possible names of its file without extension, best first: the first that no other work has is taken."""
        stem = file_stem(self.row_id, self.take)
        return stem, f"{stem}-{self.fingerprint[:8]}", f"{stem}-{self.key}"

    def free_file(self, taken: Collection[str]) -> str:
        """Its path below the output directory: the first of its names that is not in `taken` (casefolded paths)."""
        names = [f"{self.kind}s/{stem}{self.extension}" for stem in self.file_stems]
        return next(name for name in names if name.casefold() not in taken)


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the table, as its own `cells`, and the keys of its videos in the order of their takes.

    `number` is the row as a spreadsheet counts it. `shared_with` is the number of the earlier row whose job it shares,
    if all its videos are those of that row. `film` names the film that its clips are joined into,
    `still_key` the still that they begin with; neither is among its videos.
    """

    number: int
    cells: Mapping[str, str]
    row_id: str
    keys: tuple[str, ...]
    shared_with: int | None
    film: str | None = None
    still_key: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run will do, before it does it. `videos` has the stills too, each before the videos of its row."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    videos: Mapping[str, PlannedVideo]
    warnings: tuple[Problem, ...]

    @property
    def stills(self) -> frozenset[str]:
        """The keys of the stills."""
        return frozenset(key for key, video in self.videos.items() if video.kind == "still")


def price_sum(videos: Collection[PlannedVideo]) -> tuple[float, float, int]:
    """Dollars at the lower and the higher reading of each price, and how many are of unknown price: in neither sum."""
    low_usd, high_usd = sum(one.low_usd or 0.0 for one in videos), sum(one.estimate_usd or 0.0 for one in videos)
    return round(low_usd, 6), round(high_usd, 6), sum(one.estimate_usd is None for one in videos)


def make_plan(table: PromptTable) -> Plan:
    """Give every row its identity, its still if it has one, and its videos.

    A row has `count` videos of each combination of the values that it lists. Takes of a row with a seed count it up.
    Rows without ids that ask for the same request share its video, or its still; rows with ids of their own do not.
    What repeats is warned about.
    """
    videos: dict[str, PlannedVideo] = {}
    first_row_of: dict[str, int] = {}
    rows: list[PlannedRow] = []
    sharing: list[int] = []
    paid_twice: list[int] = []
    overlapping: list[int] = []
    id_of_request: dict[str, str | None] = {}
    stills = [_still(row) for row in table.rows]
    for row, still, asked in zip(table.rows, stills, _all_videos(table.rows, stills), strict=True):
        if still is not None:
            videos.setdefault(still.key, still)
        takes = {video.key: video for video in reversed(asked)}
        keys = tuple(dict.fromkeys(video.key for video in asked))
        new = [takes[key] for key in keys if key not in videos]
        if len(keys) < len(asked):
            overlapping.append(row.number)
        if len(new) < len(keys):
            sharing.append(row.number)
        if {id_of_request.setdefault(video.fingerprint, row.row_id) for video in new} - {row.row_id}:
            paid_twice.append(row.number)
        shared_with = None if new else first_row_of[keys[0]]
        for video in new:
            first_row_of[video.key] = row.number
            videos[video.key] = video
        row_id = row.row_id or derived_id(asked[0].request.prompt, asked[0].fingerprint)
        rows.append(PlannedRow(row.number, row.cells, row_id, keys, shared_with, _film(row), still and still.key))
    repeats = _repeats(sharing, paid_twice, overlapping)
    return Plan(table.source, table.columns, tuple(rows), videos, (*table.warnings, *repeats))


def _all_videos(rows: Sequence[TableRow], stills: Sequence[PlannedVideo | None]) -> list[list[PlannedVideo]]:
    """The videos of each row, sources before those that refer to them."""
    references = References(rows)
    found: list[list[PlannedVideo]] = [[] for _ in rows]

    def key_of(request: VideoRequest, ref: ClipRef) -> ClipRef:
        source = references.find(ref, request)
        return ref.model_copy(update={"key": found[source.row_place][source.place].key})

    for place in references.order():
        found[place] = _videos(rows[place], stills[place], key_of)
    return found


def _film(row: TableRow) -> str | None:
    cells = (text.strip() for column, text in row.cells.items() if parameter_name(column) == "film")
    return next((text for text in cells if text), None)


def _still(row: TableRow) -> PlannedVideo | None:
    """The still of a row, if it has one. All its videos begin with it."""
    if row.still is None:
        return None
    fingerprint = row.still.fingerprint()
    row_id = row.row_id or derived_id(row.still.prompt, fingerprint)
    estimate = estimate_still_usd(row.still)
    return PlannedVideo(
        key=video_key(row_id, 1, fingerprint),
        row_id=row_id,
        take=1,
        fingerprint=fingerprint,
        request=row.still,
        low_usd=estimate and estimate.low_usd,
        estimate_usd=estimate and estimate.high_usd,
        kind="still",
    )


def _videos(
    row: TableRow, still: PlannedVideo | None, key_of: Callable[[VideoRequest, ClipRef], ClipRef]
) -> list[PlannedVideo]:
    """All videos of a row: `count` takes of each variant. `key_of` puts the source's key into a reference."""
    found: list[PlannedVideo] = []
    for request, name in named_variants(row.requests, row.varied):
        filled = request.with_clips(partial(key_of, request))
        if still is not None:
            filled = filled.with_image(PLACEHOLDER, ClipRef(row=still.row_id, key=still.key))
        found += _takes(row, filled, variant=name)
    return found


def _takes(row: TableRow, first: VideoRequest, *, variant: str) -> list[PlannedVideo]:
    fingerprint = first.fingerprint()
    own_id = row.row_id or derived_id(first.prompt, fingerprint)
    row_id = f"{row.video_id or own_id}{variant}"
    estimate = None if row.price_usd is not None else estimate_usd(first)
    sources = tuple(dict.fromkeys(ref.key for _, ref in first.clip_refs() if ref.key is not None))
    takes: list[PlannedVideo] = []
    for number in range(1, row.count + 1):
        request, take = first.take(number), row.take + number - 1
        if request is not first:
            fingerprint = request.fingerprint()
        # A seed tells the takes apart: each is the same work as take 1 of a row that begins with its seed.
        key_id = own_id if request is first else row.row_id or derived_id(request.prompt, fingerprint)
        takes.append(
            PlannedVideo(
                key=video_key(key_id, take if first.seed is None else 1, fingerprint),
                row_id=row_id,
                take=take,
                fingerprint=fingerprint,
                request=request,
                low_usd=estimate.low_usd if estimate else row.price_usd,
                estimate_usd=estimate.high_usd if estimate else row.price_usd,
                sources=sources,
            )
        )
    return takes


def _repeats(sharing: list[int], paid_twice: list[int], overlapping: list[int]) -> list[Problem]:
    """Warnings about rows that ask for what an earlier row asks for."""
    warnings: list[Problem] = []
    if sharing:
        share = "shares its video" if len(sharing) == 1 else "share its video"
        message = f"{_rows_that_repeat(sharing)} and {share}: give rows an id, or a count, to get several takes"
        warnings.append(Problem(message))
    if paid_twice:
        pay = "is paid for again" if len(paid_twice) == 1 else "are paid for again"
        message = f"{_rows_that_repeat(paid_twice)} under another id and {pay}: remove the ids to share the video"
        warnings.append(Problem(message))
    if overlapping:
        rows = f"{counted(len(overlapping), 'row')} ({listed_numbers(overlapping)})"
        ask = "asks" if len(overlapping) == 1 else "ask"
        message = f"{rows} {ask} for the same video twice, by equal values or by takes that count a seed up"
        warnings.append(Problem(f"{message}: it is made once"))
    return warnings


def _rows_that_repeat(numbers: list[int]) -> str:
    """`2 rows (4, 9) repeat an earlier row`."""
    repeat = "repeats" if len(numbers) == 1 else "repeat"
    return f"{counted(len(numbers), 'row')} ({listed_numbers(numbers)}) {repeat} an earlier row"
