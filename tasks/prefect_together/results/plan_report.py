"""What a plan will do, row by row and in sums: files, dollars, time, what is shared or already known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.ledger.records import Known, sent_unasked
from prefect_together.ledger.states import STATES, STATUSES, State, Status
from prefect_together.problems import Problem
from prefect_together.results.text import counted, dollars, duration, duration_range, price_text, state_counts
from prefect_together.table.chains import ChainPlan, chain_plans, seconds_until_all_end, sendable
from prefect_together.table.plan import Kind, Plan, PlannedRow, PlannedVideo, price_sum
from prefect_together.table.variants import LISTED

USUAL, SLOW = 0.5, 0.9
"""The parts of a model's jobs that are faster than the low and the high reading of the time."""
SEEDS_NAMED = 5
ROWS_NAMED = 10
CHAINS_SHOWN = 20
"""More chains than these are one line."""

PlanStatus = Status | Literal["new"]
"""A video's word in results.csv; "new" if the ledger does not know it."""


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One row of the table. Dollars are for its videos and its still, 0 if an earlier row pays; None: unknown price.

    `seeds` are those of its videos, "" for none, "7", "7 to 9", or "7, 12"; `states` its videos' statuses.
    """

    row: int
    id: str
    models: tuple[str, ...]
    prompt: str
    files: tuple[str, ...]
    seeds: str
    low_usd: float | None
    high_usd: float | None
    shared_with: int | None
    states: tuple[PlanStatus, ...]
    problems: tuple[str, ...]

    @property
    def model(self) -> str:
        """The model, or like `3 models`."""
        return self.models[0] if len(self.models) == 1 else counted(len(self.models), "model")

    @property
    def state(self) -> str:
        """The statuses of its videos, or whose videos it shares."""
        return f"same as row {self.shared_with}" if self.shared_with else ", ".join(dict.fromkeys(self.states))


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model's videos, or stills. Dollars count only what is left to send. `is_learned`: the ledger has durations of
    it, or the usual range was taken; nobody waits for a still."""

    model: str
    videos: int
    to_send: int
    low_usd: float
    high_usd: float
    unknown_prices: int
    is_learned: bool

    @property
    def price(self) -> str:
        return price_text(self.low_usd, self.high_usd, self.unknown_prices)


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan in lines and sums. Dollars and seconds count only what is left to send, `..._in_all` every video.

    `grid` is like `12 rows x 3 models x 2 seeds = 72 videos`, if every row lists as many values; `row_price` what all
    videos of one row cost, paid or not, from the cheapest row to the dearest; `made_again` names those that
    are to be sent as they continue another clip than before. `waiting` counts what is not sent as the clip that it
    continues does not come. `stills` are beside the videos, and in the dollars. `committed_usd` is what the ledger has
    paid or reserved already, of which a budget is the cap too.
    """

    source: str
    rows: int
    videos: int
    stills: int
    known_stills: int
    states: Mapping[PlanStatus, int]
    to_send: int
    rows_to_send: int
    stills_to_send: int
    low_usd: float
    high_usd: float
    unknown_prices: int
    price_in_all: str
    low_seconds: float
    high_seconds: float
    models: tuple[ModelPlan, ...]
    chains: tuple[ChainPlan, ...]
    budget_usd: float | None
    committed_usd: float
    grid: str | None
    row_price: str
    shared_rows: int
    made_again: str | None
    waiting: str | None
    lines: tuple[PlanLine, ...]
    warnings: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Like `3 rows, 4 videos: $1.12 to $2.40, about 2 min 10 s to 4 min 00 s; nothing was sent`."""
        about = f"about {duration_range(self.low_seconds, self.high_seconds)}"
        time = "nothing to wait for" if self.high_seconds == 0 else about
        return f"{self.counts}: {self.price}, {time}; nothing was sent"

    @property
    def counts(self) -> str:
        """Like `3 rows, 4 videos and 2 stills (2 downloaded already)`, or with the grid before the bracket."""
        there: dict[Status, int] = {status: self.states[status] for status in STATUSES if status in self.states}
        known = f" ({state_counts(there)} already)" if there else ""
        asked = self.grid or f"{counted(self.rows, 'row')}, {counted(self.videos, 'video')}"
        stills = f" and {counted(self.stills, 'still')}" if self.stills else ""
        return f"{asked}{stills}{known}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known before it is paid, beside the warnings."""
        return tuple(note for note in (self.made_again, self.waiting, self._past_budget) if note)

    @property
    def all_warnings(self) -> list[str]:
        """Those of the table as a whole, and those of its rows."""
        return [*self.warnings, *(f"row {line.row}: {text}" for line in self.lines for text in line.problems)]

    @property
    def budget_may_end(self) -> bool:
        """Whether something may not be sent, as it would pass the budget."""
        high_usd = self.committed_usd + self.high_usd
        return self.budget_usd is not None and (high_usd > self.budget_usd + 1e-9 or self.unknown_prices > 0)

    @property
    def chains_in_short(self) -> str:
        """Like `40 chains of 3 to 5 videos, $0.42 to $0.71 each, about 4 min 30 s to 9 min 00 s each`."""
        counts = sorted({chain.videos for chain in self.chains})
        of = counted(counts[0], "video") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} videos"
        low, high = min(one.low_usd for one in self.chains), max(one.high_usd for one in self.chains)
        shortest, longest = min(one.low_seconds for one in self.chains), max(one.high_seconds for one in self.chains)
        time = duration_range(shortest, longest)
        price = price_text(low, high, sum(one.unknown_prices for one in self.chains))
        return f"{counted(len(self.chains), 'chain')} of {of}, {price} each, about {time} each"

    @property
    def chain_cells(self) -> list[tuple[str, ...]]:
        """A line for each chain: name, videos, those to send, dollars, time."""
        return [
            (one.name, f"{one.videos:,}", f"{one.to_send:,}", _price_of(one), duration(one.high_seconds))
            for one in self.chains
        ]

    @property
    def _past_budget(self) -> str | None:
        """Like `1 of 2 chains does not fit the budget of $0.60: lantern ($0.43); ...`."""
        past = [f"{chain.name} ({_price_of(chain)})" for chain in self.chains if not chain.fits]
        if self.budget_usd is None or not past:
            return None
        do = "does" if len(past) == 1 else "do"
        return (
            f"{len(past):,} of {counted(len(self.chains), 'chain')} {do} not fit the budget of"
            f" {dollars(self.budget_usd)}: {_first(past)};"
            " with whole_chains (--whole-chains) such a chain is not begun"
        )

    @property
    def unlearned_models(self) -> int:
        """How many models have no durations in the ledger yet."""
        return sum(not model.is_learned for model in self.models)

    @property
    def price(self) -> str:
        """Like `$1.12 to $2.40 and 2 of unknown price`, or `$0.28 new in this run, $0.84 in all`."""
        is_all_new = self.states.get("new") == self.videos and not self.known_stills
        return self.new_price if is_all_new else f"{self.new_price} new in this run, {self.price_in_all} in all"

    @property
    def new_price(self) -> str:
        """Like `$1.12 to $2.40 and 2 of unknown price`."""
        return price_text(self.low_usd, self.high_usd, self.unknown_prices)

    @property
    def line(self) -> str:
        """Like `3 rows, 4 videos: estimated $1.12, budget $5.00`."""
        cap = "" if self.budget_usd is None else f", budget {dollars(self.budget_usd)}"
        return f"{self.counts}: estimated {self.price}{cap}"


def plan_report(
    plan: Plan,
    *,
    known: Mapping[str, Known] | None = None,
    taken_files: Iterable[str] = (),
    there: Collection[tuple[str, int]] = (),
    durations: DurationStatistics | None = None,
    max_in_flight: int = 20,
    budget_usd: float | None = None,
    committed_usd: float = 0.0,
    sends: Callable[[State, Kind], bool] = sent_unasked,
) -> PlanReport:
    """Report on a plan. `known` and `taken_files` are what a ledger has of its videos and of all,
    `durations` its times. `there` are the row ids and takes of what is downloaded into the output directory.

    `sends` says in which states a run sends a video or still that the ledger has; one that it has not is `planned`.
    """
    known, durations = known or {}, durations or DurationStatistics()
    files = _files(plan, known, taken_files)
    state_of = {key: known[key].state if key in known else State.PLANNED for key in plan.videos}
    to_send, waiting = sendable(
        plan.videos,
        is_sent=lambda video: sends(state_of[video.key], video.kind),
        comes=lambda key: STATES[state_of[key]].has_clip,
    )
    videos = [video for video in plan.videos.values() if video.kind == "video"]
    to_wait = [video for video in videos if video.key not in known or known[video.key].is_awaited]
    to_wait = [video for video in to_wait if video.key not in waiting]
    models = {video.request.model for video in to_wait}
    usual, slow = ({model: durations.quantile(model, part) for model in models} for part in (USUAL, SLOW))
    of_rows, of_table = _problems(plan.warnings)
    stills, pays = plan.stills, {row.still_key: row.number for row in reversed(plan.rows)}
    states: Counter[PlanStatus] = Counter(_status(known, key) for key in plan.videos if key not in stills)
    low_usd, high_usd, unknown_prices = price_sum(to_send)
    sent = {video.key for video in to_send}
    return PlanReport(
        source=plan.source,
        rows=len(plan.rows),
        videos=len(videos),
        stills=len(stills),
        known_stills=len(stills & known.keys()),
        states=dict(states),
        to_send=len(to_send),
        rows_to_send=sum(not sent.isdisjoint((row.still_key, *row.keys)) for row in plan.rows),
        stills_to_send=len(sent & stills),
        low_usd=low_usd,
        high_usd=high_usd,
        unknown_prices=unknown_prices,
        price_in_all=_price_in_all(plan, known, to_send),
        low_seconds=seconds_until_all_end(to_wait, usual, max_in_flight),
        high_seconds=seconds_until_all_end(to_wait, slow, max_in_flight),
        models=_models(plan, to_send, durations),
        chains=chain_plans(
            plan,
            to_send,
            to_wait,
            begun={key for key, one in known.items() if one.usd != 0},
            remaining_usd=None if budget_usd is None else budget_usd - committed_usd,
            usual_seconds=usual,
            slow_seconds=slow,
        ),
        budget_usd=budget_usd,
        committed_usd=committed_usd,
        grid=_grid(plan),
        row_price=_row_price(plan),
        shared_rows=sum(row.shared_with is not None for row in plan.rows),
        made_again=_made_again([video for video in to_send if video.key not in known], there),
        waiting=_waiting(plan, waiting, state_of),
        lines=tuple(_line(plan, row, files, known, of_rows.get(row.number, ()), pays) for row in plan.rows),
        warnings=of_table,
    )


def _price_of(chain: ChainPlan) -> str:
    return price_text(chain.low_usd, chain.high_usd, chain.unknown_prices)


def _first(names: Sequence[str]) -> str:
    """Like `dawn, noon and 9 more`."""
    more = f" and {len(names) - ROWS_NAMED:,} more" if len(names) > ROWS_NAMED else ""
    return f"{', '.join(names[:ROWS_NAMED])}{more}"


def _made_again(new: Sequence[PlannedVideo], there: Collection[tuple[str, int]]) -> str | None:
    """Like `b, c#2 are made again, as what they begin with has changed: $0.28`."""
    keys = {video.key for video in new}
    again = [video for video in new if (video.row_id, video.take) in there and not keys.isdisjoint(video.sources)]
    if not again:
        return None
    they = "is made again, as what it begins with" if len(again) == 1 else "are made again, as what they begin with"
    return f"{_first([video.label for video in again])} {they} has changed: {price_text(*price_sum(again))}"


def _waiting(plan: Plan, waiting: Mapping[str, str], state_of: Mapping[str, State]) -> str | None:
    """Like `2 videos are not sent, as what they continue does not come: dawn (failed)`."""
    if not waiting:
        return None
    sources = [plan.videos[key] for key in dict.fromkeys(waiting.values())]
    names = [
        f"{'the still of ' if one.kind == 'still' else ''}{one.row_id} ({STATES[state_of[one.key]].word})"
        for one in sources
    ]
    they = "is not sent, as what it continues" if len(waiting) == 1 else "are not sent, as what they continue"
    return f"{counted(len(waiting), 'video')} {they} does not come in this run: {_first(names)}"


def _models(plan: Plan, to_send: Sequence[PlannedVideo], durations: DurationStatistics) -> tuple[ModelPlan, ...]:
    videos = Counter(video.request.model for video in plan.videos.values())
    sent: dict[str, list[PlannedVideo]] = {model: [] for model in videos}
    for video in to_send:
        sent[video.request.model].append(video)
    pictures = {video.request.model for video in plan.videos.values() if video.kind == "still"}
    found: list[ModelPlan] = []
    for model in sorted(videos, key=str.casefold):
        is_learned = model in pictures or durations.count(model) > 0
        found.append(ModelPlan(model, videos[model], len(sent[model]), *price_sum(sent[model]), is_learned))
    return tuple(found)


def _row_price(plan: Plan) -> str:
    """Like `$1.12`, or `$1.12 to $2.40` where rows or readings differ."""
    takes = [[plan.videos[key] for key in (row.still_key, *row.keys) if key is not None] for row in plan.rows]
    lows, highs, unknown = zip(*map(price_sum, takes or [[]]), strict=True)
    return price_text(min(lows), max(highs), max(unknown))


def _price_in_all(plan: Plan, known: Mapping[str, Known], to_send: Iterable[PlannedVideo]) -> str:
    """What is charged or reserved already, at the prices of then, and what is left to send, at those of today."""
    sent = [(known[key].usd, known[key].usd) for key in plan.videos if key in known]
    prices = [(0.0, 0.0), *sent, *((video.low_usd, video.estimate_usd) for video in to_send)]
    low, high = (sum(usd for usd in column if usd is not None) for column in zip(*prices, strict=True))
    return price_text(round(low, 6), round(high, 6), sum(high_usd is None for _, high_usd in prices))


_PLURALS = {
    **{name: name for name in ("seconds", "fps", "steps")},
    "output_format": "formats",
    "generate_audio": "sound settings",
    "output_quality": "qualities",
}


def _grid(plan: Plan) -> str | None:
    """The plan as a product, if it is one and some row lists several values."""
    shapes = {_shape([plan.videos[key] for key in row.keys]) for row in plan.rows}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    videos = {len(row.keys) for row in plan.rows}
    variants, all_videos = math.prod(count for _, count in shape), len(plan.videos) - len(plan.stills)
    takes = next(iter(videos)) // variants
    if not shape or videos != {variants * takes} or all_videos != len(plan.rows) * variants * takes:
        return None
    parts = [counted(len(plan.rows), "row"), *(f"{count} {_PLURALS.get(name, f'{name}s')}" for name, count in shape)]
    if takes > 1:
        parts.append(f"{takes} takes")
    return f"{' x '.join(parts)} = {counted(all_videos, 'video')}"


def _shape(videos: Sequence[PlannedVideo]) -> tuple[tuple[str, int], ...]:
    """How many values of each parameter are among a row's requests, of those that have several."""
    if len(videos) == 1:
        return ()
    counts = ((name, len({getattr(video.request, name) for video in videos})) for name in LISTED)
    return tuple((name, count) for name, count in counts if count > 1)


def _files(plan: Plan, known: Mapping[str, Known], taken_files: Iterable[str]) -> dict[str, str]:
    """The names that the ledger will give, in the order in which it gives them."""
    taken = {file.casefold() for file in taken_files}
    files: dict[str, str] = {}
    for key, video in plan.videos.items():
        files[key] = known[key].file if key in known else video.free_file(taken)
        taken.add(files[key].casefold())
    return files


def _line(
    plan: Plan,
    row: PlannedRow,
    files: Mapping[str, str],
    known: Mapping[str, Known],
    problems: tuple[str, ...],
    pays: Mapping[str | None, int],
) -> PlanLine:
    """`pays` are the numbers of the rows that stills are counted with: the first that has each."""
    takes = [plan.videos[key] for key in row.keys]
    shared = row.shared_with is not None
    still = plan.videos.get(row.still_key or "") if pays[row.still_key] == row.number else None
    paid = takes if still is None else [still, *takes]
    low_usd, high_usd, unknown = price_sum([] if shared else paid)
    return PlanLine(
        row=row.number,
        id=row.row_id,
        models=tuple(dict.fromkeys(take.request.model for take in takes)),
        prompt=takes[0].request.prompt or "",
        files=tuple(files[key] for key in row.keys),
        seeds=_seeds([take.request.seed for take in takes]),
        low_usd=None if unknown else low_usd,
        high_usd=None if unknown else high_usd,
        shared_with=row.shared_with,
        states=tuple(_status(known, key) for key in row.keys),
        problems=problems,
    )


def _seeds(seeds: list[int | None]) -> str:
    known = sorted({seed for seed in seeds if seed is not None})
    if len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{known[0]} to {known[-1]}"
    return ", ".join([*map(str, known[:SEEDS_NAMED]), *(["..."] if len(known) > SEEDS_NAMED else [])])


def _status(known: Mapping[str, Known], key: str) -> PlanStatus:
    return known[key].status if key in known else "new"


def _problems(warnings: Iterable[Problem]) -> tuple[dict[int, tuple[str, ...]], tuple[str, ...]]:
    """The warnings by row, and those of the table as a whole."""
    of_rows: dict[int, tuple[str, ...]] = {}
    of_table: list[str] = []
    for warning in warnings:
        if warning.row is None:
            of_table.append(str(warning))
        else:
            column = f"{warning.column}: " if warning.column else ""
            of_rows[warning.row] = (*of_rows.get(warning.row, ()), f"{column}{warning.message}")
    return of_rows, tuple(of_table)
