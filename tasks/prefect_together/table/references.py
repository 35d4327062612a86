"""References between rows, `@row-id`: which video each one means, whether it can be so, and which row comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from prefect_together.grid.columns import parameter_name
from prefect_together.problems import Problem
from prefect_together.request.catalogue import catalogue
from prefect_together.request.fields import shown
from prefect_together.request.media import ClipRef
from prefect_together.request.request import VideoRequest
from prefect_together.table.variants import LISTED, named_variants

if TYPE_CHECKING:
    from prefect_together.table.rows import TableRow


@dataclass(frozen=True, slots=True)
class Candidate:
    """A video that a reference may mean: number `place` of those of the row at `row_place` of the table."""

    row_place: int
    place: int
    request: VideoRequest
    take: int


class References:
    """The references of a table's rows. A table without any costs nothing."""

    def __init__(self, rows: Sequence[TableRow]) -> None:
        self._rows = rows
        self._refs = {place: refs for place, row in enumerate(rows) if (refs := list(_refs_of(row.requests)))}
        self._named: dict[str, list[Candidate]] = {}
        self._row_places: dict[str, list[int]] = {}
        if self._refs:
            for place, row in enumerate(rows):
                self._add(place, row)

    def _add(self, row_place: int, row: TableRow) -> None:
        if row.row_id is None:
            return
        self._row_places.setdefault(row.row_id, []).append(row_place)
        place = 0
        for request, name in named_variants(row.requests, row.varied):
            names = dict.fromkeys((row.row_id, row.video_id or f"{row.row_id}{name}"))
            for number in range(1, row.count + 1):
                candidate = Candidate(row_place, place, request.take(number), row.take + number - 1)
                for one in names:
                    self._named.setdefault(one, []).append(candidate)
                place += 1

    def find(self, ref: ClipRef, request: VideoRequest) -> Candidate:
        """The video that a reference in this request means. Raises ValueError, saying what would be right.

        Of several variants it is the one of the same model, and of the same other values that are varied.
        """
        found = self._named.get(ref.row, [])
        if not found:
            raise ValueError(f"{ref} names no row: give the id of a row of this table")
        if ref.take is not None:
            found = [one for one in found if one.take == ref.take]
            if not found:
                raise ValueError(f"{ref}: row {shown(ref.row)} has no take {ref.take}")
        for name in LISTED:
            values = {str(getattr(one.request, name)) for one in found}
            if len(values) > 1 and name != "seed":
                value = getattr(request, name)
                wanted = str(value)
                if wanted not in values:
                    raise ValueError(
                        f"{ref} could be a video of {name} {' or '.join(sorted(values))}, and this row has"
                        f" {'none' if value is None else wanted}: name one by its id in videos.csv"
                    )
                found = [one for one in found if str(getattr(one.request, name)) == wanted]
        if len(found) > 1 and request.seed is not None and len({one.request.seed for one in found}) > 1:
            found = [one for one in found if one.request.seed == request.seed] or found
        if len(found) > 1:
            takes = sorted({one.take for one in found})
            which = f"{len(takes)} takes: write @{ref.row}#{takes[0]}" if len(takes) > 1 else f"{len(found)} videos"
            raise ValueError(
                f"{ref} could be any of row {shown(ref.row)}'s {which}, or name one by its id in videos.csv"
            )
        return found[0]

    def order(self) -> list[int]:
        """The places of the rows, each behind those that it refers to. Raises CycleError."""
        if not self._refs:
            return list(range(len(self._rows)))
        graph: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(range(len(self._rows)), ()))
        for place, refs in self._refs.items():
            sources = (source for _, _, ref in refs for source in self._places_of(ref))
            graph.add(place, *dict.fromkeys(source for source in sources if source != place))
        return list(graph.static_order())

    def _places_of(self, ref: ClipRef) -> list[int]:
        if ref.row in self._row_places:
            return self._row_places[ref.row]
        return list(dict.fromkeys(one.row_place for one in self._named.get(ref.row, ())))

    def check(self, *, ids: Mapping[str, int], catalogue_checks: bool) -> tuple[list[Problem], list[Problem]]:
        """What is wrong with the references, and what is doubtful.

        `ids` are the ids of all rows, also of those that are wrong in themselves, with their numbers.
        """
        problems: dict[Problem, None] = {}
        warnings: dict[Problem, None] = {}
        for place, refs in self._refs.items():
            row = self._rows[place]

            def at(message: str, ref: ClipRef, row: TableRow = row) -> Problem:
                return Problem(message, row.number, _column_of(ref, row), row.row_id)

            for field, request, ref in refs:
                if place in self._places_of(ref) and self._rows[place].row_id == ref.row and row.video_id is None:
                    problems[at(f"{ref} is this row itself: name another one", ref)] = None
                    continue
                if ref.row in ids and ref.row not in self._named:
                    continue  # that row has mistakes of its own, which are said
                try:
                    source = self.find(ref, request)
                except ValueError as error:
                    problems[at(str(error), ref)] = None
                    continue
                if catalogue_checks and (message := _too_short(field, request, source.request)):
                    problems[at(message, ref)] = None
                if message := _other_size(field, ref, request, source.request):
                    warnings[at(message, ref)] = None
        if not problems:
            try:
                self.order()
            except CycleError as error:
                problems[self._cycle(error.args[1])] = None
        return list(problems), list(warnings)

    def _cycle(self, places: Sequence[int]) -> Problem:
        names = [f"{self._rows[place].row_id}" for place in reversed(places)]
        row = self._rows[places[0]]
        return Problem(f"the rows wait for each other in a circle: {' -> '.join(names)}", row.number, None, row.row_id)


def _refs_of(requests: Sequence[VideoRequest]) -> Iterator[tuple[str, VideoRequest, ClipRef]]:
    for request in requests:
        for field, ref in request.clip_refs():
            yield field, request, ref


def _column_of(ref: ClipRef, row: TableRow) -> str | None:
    """The table's column that names the reference, if one does."""
    for column, text in row.cells.items():
        if f"@{ref.row}" in text or (parameter_name(column) == "continues" and ref.row in text):
            return column
    return None


def _seconds(request: VideoRequest) -> float | None:
    if request.seconds is not None:
        return float(request.seconds)
    spec = catalogue().get(request.model)
    return spec.seconds.default if spec is not None and spec.seconds is not None else None


def _too_short(field: str, request: VideoRequest, source: VideoRequest) -> str | None:
    """What to say of a continuation whose length, which counts its input too, does not exceed that."""
    total, before = _seconds(request), _seconds(source)
    if field != "frame_videos" or total is None or before is None or total > before:
        return None
    return (
        f"seconds is the whole length, with the {before:g} s of the clip that is continued: {total:g} s adds nothing,"
        f" give more than {before:g}"
    )


def _other_size(field: str, ref: ClipRef, request: VideoRequest, source: VideoRequest) -> str | None:
    """What to say of a clip that goes on in another size than it was made in."""
    if field != "frame_images":
        return None
    for names in (("width", "height"), ("resolution",), ("ratio",)):
        here = tuple(getattr(request, name) for name in names)
        there = tuple(getattr(source, name) for name in names)
        if None not in (*here, *there) and here != there:
            size, other = "x".join(map(str, here)), "x".join(map(str, there))
            return f"{ref} is made in {other} and goes on in {size}: the picture is cut or stretched at the seam"
    return None
