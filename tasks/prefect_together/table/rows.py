"""A table's rows -> checked requests, with each mistake's row and column. Reads no files but the images rows name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from prefect_together.grid.columns import MEDIA_FIELDS, MediaDraft
from prefect_together.problems import Problem
from prefect_together.request.catalogue import catalogue, check_request
from prefect_together.request.checks import seed_findings
from prefect_together.request.fields import as_number, counted, shown
from prefect_together.request.images import load_image
from prefect_together.request.media import Image
from prefect_together.request.request import PARAMETERS, VideoRequest, problems_of
from prefect_together.stills.catalogue import check_still
from prefect_together.stills.models import DEFAULT_MODEL
from prefect_together.stills.request import StillRequest
from prefect_together.stills.sizes import still_size
from prefect_together.table.variants import LISTED, PromptTemplate, combinations, listed_values


@dataclass(frozen=True, slots=True)
class PromptTable:
    """A table without mistakes. `columns` are its own in their order, without those that results.csv adds.

    `source` names it in messages: the path, the address without its query, or "pasted table".
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    warnings: tuple[Problem, ...]


MAX_PRICE_USD = 10_000.0
"""Of one take. Nothing costs so much, and millions of millions would fit no database."""
MOST_TAKES = 1000
"""Videos of one row."""

_PLAIN_PARAMETERS = tuple(name for name in (*PARAMETERS, "extra_body") if name != "media")
_MEDIA_COLUMNS = frozenset({"media", *MEDIA_FIELDS, "still_prompt"})
_TEXTS = frozenset({"id", "prompt", "prompt_template", "negative_prompt", "still_prompt"})
_WITH_DECIMALS = frozenset({"seconds", "guidance_scale", "price_usd"})
_COMMENT = re.compile(r"#+\s")
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::00)?(?:\.0+)?")
_SOME_MODEL = "any/model"
PLACEHOLDER = "https://still.invalid/"
"""Stands for the still in the checks of a video's request, until the plan knows which one it is."""

_LONGEST_CACHED = 2_000


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table.

    `number` is the row as a spreadsheet counts it (the header is row 1; in JSON lines the line's number), `row_id`
    its own id as it stands, `count` how many takes of each request it asks for, `price_usd` the price of one take if
    the table gives it, `cells` the table's own columns as text, verbatim. `requests` are one for each combination of
    the values that the parameters in `varied` list, and `still` the picture that all of them begin with, if it is to be
    made. In a videos.csv a row is one video: take `take` of `video_id`.
    """

    number: int
    row_id: str | None
    count: int
    price_usd: float | None
    requests: tuple[VideoRequest, ...]
    cells: Mapping[str, str]
    varied: tuple[str, ...] = ()
    take: int = 1
    video_id: str | None = None
    still: StillRequest | None = None


class SharedProblems:
    """Problems that many rows have alike, each kept once, with the first row and how many have it."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}

    def add(self, column: str, message: str, *, row: int) -> None:
        rows = self._rows.setdefault((column, message), [])
        if row not in rows[-1:]:
            rows.append(row)

    def problems(self) -> list[Problem]:
        return [
            Problem(
                f"{message} ({counted(len(rows), 'row')}, this is the first)" if rows[1:] else message, rows[0], column
            )
            for (column, message), rows in self._rows.items()
        ]


@dataclass(slots=True)
class _Draft:
    """One row on its way. `mistakes` are (parameter, message), `cell_mistakes` (column, message); a parameter in
    `wrong` is not looked at again."""

    number: int
    given: dict[str, object]
    of_row: frozenset[str]
    media: MediaDraft
    mistakes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    cell_mistakes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    wrong: set[str] = field(default_factory=set[str])

    def refuse(self, name: str, message: str) -> None:
        self.mistakes.append((name, message))
        self.wrong.add(name)


class RowReader:
    """Reads one row after the other; what is wrong gathers in `problems`, what is doubtful in `warnings`.

    `places` are the columns that mean something, by parameter. `defaults` are the run's own settings, by parameter,
    `unused_defaults` those that no row has taken so far, as each sets its own. `rows_by_id` are the numbers of the rows
    with ids; `rows_without_model` and `rows_without_prompt` count the rows that lack one because the table has no such
    column. `of_videos`: the table is a videos.csv, whose rows are single videos.
    """

    def __init__(
        self,
        columns: Sequence[str],
        places: Mapping[str, int],
        *,
        defaults: Mapping[str, object],
        base: str,
        catalogue_checks: bool,
        of_videos: bool = False,
    ) -> None:
        self.problems: list[Problem] = []
        self.of_defaults = SharedProblems()
        self.warnings = SharedProblems()
        self.unused_defaults = set(defaults)
        self.rows_without_model = 0
        self.rows_without_prompt = 0
        self._columns, self._places, self._defaults = columns, places, defaults
        self._base, self._catalogue_checks, self._of_videos = base, catalogue_checks, of_videos
        self._template = PromptTemplate(columns, places)
        self._order: dict[str | None, int] = {column: place for place, column in enumerate(columns)}
        self.rows_by_id: dict[str, int] = {}
        self._images: dict[str, Image | ValueError] = {}

    def read(self, number: int, cells: Sequence[str]) -> TableRow | None:
        """The row, or None if something is wrong with it."""
        texts = {name: cells[place] for name, place in self._places.items() if cells[place].strip()}
        of_row = {name: self._value(name, text, number) for name, text in texts.items()}
        draft = _Draft(number, {**self._defaults, **of_row}, frozenset(of_row), MediaDraft(self._load_image))
        self.unused_defaults &= of_row.keys()
        row_id = texts.get("id")
        self._check_id(draft, row_id)
        if not self._of_videos:  # whose prompts are filled
            self._fill_prompt(draft, cells)
        wanted = f"the number of a take, 1 to {MOST_TAKES}: leave it as it was"
        take = _take_number(draft, "video_take", wanted) if self._of_videos else 1
        count = _take_number(draft, "count", f"a number of takes: a whole number, 1 to {MOST_TAKES}")
        price_usd = _price_usd(draft)
        listed = _listed(draft, takes=count)
        requests = self._requests(draft, listed, cells, takes=count)
        still = self._still(draft, cells, requests)
        if draft.mistakes or draft.cell_mistakes:
            self._note(draft, row_id)
            return None
        if requests is None:  # it lacks a model or a prompt, which is said once for the whole table
            return None
        own = dict(zip(self._columns, cells, strict=True))
        video_id = texts.get("video_id") if self._of_videos else None
        return TableRow(number, row_id, count, price_usd, requests, own, tuple(listed), take, video_id, still)

    def _fill_prompt(self, draft: _Draft, cells: Sequence[str]) -> None:
        """The prompt of a row that has a template, its own or the run's."""
        template = draft.given.get("prompt_template")
        if template is None:
            return
        if "prompt" in draft.of_row and not self._template.names(str(template), "prompt"):
            message = "is not sent: the prompt template does not name {prompt}"
            self.warnings.add(self._name_of("prompt"), message, row=draft.number)
        prompt = self._filled(draft, "prompt_template", cells)
        if prompt is None:
            draft.wrong.add("prompt")
        draft.given["prompt"] = prompt or ""

    def _filled(self, draft: _Draft, name: str, cells: Sequence[str]) -> str | None:
        """The template of the parameter `name`, filled; None if something is wrong with it, which is noted."""
        text, problems = self._template.fill(str(draft.given[name]), cells)
        for column, message in problems:
            if column is None:
                draft.refuse(name, message)
            else:
                draft.cell_mistakes.append((column, message))
        return None if problems else text

    def _value(self, name: str, text: str, row: int) -> object:
        if name in LISTED and "|" in text:
            return [self._as_meant(name, part, row) for part in text.split("|")]
        return self._as_meant(name, text, row)

    def _as_meant(self, name: str, text: str, row: int) -> str:
        """What a spreadsheet has made something else of: 16:9 a time of day, 7.5 a number with a decimal comma."""
        if name in _TEXTS:
            return text
        meant = text = text.strip()
        if name == "ratio" and (time := _TIME_OF_DAY.fullmatch(text)):
            meant = f"{int(time.group(1))}:{int(time.group(2))}"
        elif name in _WITH_DECIMALS and _DECIMAL_COMMA.fullmatch(text):
            meant = text.replace(",", ".")
        if meant != text:
            self.warnings.add(self._name_of(name), f"{text} is read as {meant}", row=row)
        return meant

    def _check_id(self, draft: _Draft, row_id: str | None) -> None:
        if row_id is None or self._of_videos:  # whose rows have the id of the row that asked for them
            return
        first = self.rows_by_id.setdefault(row_id, draft.number)
        if first != draft.number:
            message = f"{shown(row_id)} is the id of row {first} too: an id names one row's work (count gives takes)"
            draft.refuse("id", message)

    def _requests(
        self, draft: _Draft, listed: Mapping[str, Sequence[object]], cells: Sequence[str], *, takes: int
    ) -> tuple[VideoRequest, ...] | None:
        """The request of each combination, or None; what is wrong is noted, and what is right still checked."""
        values = {name: draft.given[name] for name in _PLAIN_PARAMETERS if name in draft.given.keys() - draft.wrong}
        if not _MEDIA_COLUMNS.isdisjoint(draft.given):
            draft.media.add(draft.given, row_columns=draft.of_row)
            if "still_prompt" in draft.given:
                draft.media.add_first_frame("still_prompt", PLACEHOLDER)
            for name, message in draft.media.problems:
                draft.refuse(name, message)
                draft.wrong.add("media")
            if draft.media.media and not draft.media.problems:
                values["media"] = draft.media.media
        if "model" not in values and "model" not in draft.wrong:
            self._refuse_no_model(draft)
        found = [
            self._request({**values, **variant, **self._refilled(variant, draft, cells)}, draft, takes=takes)
            for variant in combinations(listed)
        ]
        requests = tuple(request for request in found if request is not None)
        return requests if len(requests) == len(found) else None

    def _refilled(self, variant: Mapping[str, object], draft: _Draft, cells: Sequence[str]) -> dict[str, object]:
        """The prompt of a variant, if it has a template: a column that lists several values is that of the variant."""
        template = draft.given.get("prompt_template")
        if not variant or template is None or self._of_videos or "prompt" in draft.wrong:
            return {}
        own = {self._places[name]: str(value) for name, value in variant.items() if name in self._places}
        return {"prompt": self._template.fill(str(template), [own.get(at, cell) for at, cell in enumerate(cells)])[0]}

    def _request(self, values: dict[str, object], draft: _Draft, *, takes: int) -> VideoRequest | None:
        has_model = "model" in values
        request = _validated(values, draft)
        if request is None:
            return None
        if has_model and "model" not in draft.wrong and self._catalogue_checks:
            self._check_with_catalogue(request, draft, takes)
        else:
            draft.mistakes += [(finding.field, finding.message) for finding in seed_findings(None, request, takes)]
        self._check_prompt(request, draft)
        return request if has_model else None

    def _still(
        self, draft: _Draft, cells: Sequence[str], requests: Sequence[VideoRequest] | None
    ) -> StillRequest | None:
        """What the row's videos begin with, if it is to be made; what is wrong is noted."""
        if "still_prompt" not in draft.given:
            if "still_model" in draft.of_row:
                self.warnings.add(self._name_of("still_model"), "is not used without a still_prompt", row=draft.number)
            return None
        prompt = self._filled(draft, "still_prompt", cells)
        if prompt is None or "still_prompt" in draft.wrong:
            return None
        model = str(draft.given.get("still_model") or DEFAULT_MODEL)
        width, height = still_size(requests[0] if requests else VideoRequest(model=_SOME_MODEL), model)
        try:
            still = StillRequest(model=model, prompt=prompt, width=width, height=height)
        except ValidationError as error:
            for name, message in problems_of(error):
                draft.refuse(f"still_{name}", message)
            return None
        for finding in check_still(still) if self._catalogue_checks else ():
            if finding.is_error:
                draft.refuse("still_model", finding.message)
            else:
                self.warnings.add(self._name_of("still_model"), finding.message, row=draft.number)
        return still

    def _refuse_no_model(self, draft: _Draft) -> None:
        if "model" in self._places:
            draft.refuse("model", "is empty, and no model is set for the whole run: name one")
        else:
            self.rows_without_model += 1

    def _check_with_catalogue(self, request: VideoRequest, draft: _Draft, takes: int) -> None:
        for finding in check_request(request, takes=takes):
            name = finding.field.partition(".")[0]
            if name in draft.wrong or (name == "prompt" and request.prompt is None):
                continue
            if finding.is_error:
                draft.mistakes.append((finding.field, finding.message))
            else:
                self.warnings.add(self._column_of(finding.field, draft), finding.message, row=draft.number)

    def _check_prompt(self, request: VideoRequest, draft: _Draft) -> None:
        prompt = request.prompt
        if prompt is not None:
            if not any(character.isalnum() for character in prompt):
                draft.refuse("prompt", f"{shown(prompt)} has neither a letter nor a digit: is it a line between rows?")
            if _COMMENT.match(prompt):
                message = "begins with # and is sent as a prompt: remove the row if it is a comment"
                self.warnings.add(self._column_of("prompt", draft), message, row=draft.number)
            if prompt.startswith(" ") and prompt.lstrip().startswith('"'):
                message = "begins with a space and a quote, which are sent: is there a space behind a delimiter?"
                self.warnings.add(self._column_of("prompt", draft), message, row=draft.number)
            if "{" in prompt and "prompt_template" not in draft.given and (named := self._template.named_in(prompt)):
                message = f"holds {named[0]}, which is sent as it stands: call the column prompt_template to fill it"
                self.warnings.add(self._column_of("prompt", draft), message, row=draft.number)
            return
        if "prompt" in draft.wrong:
            return
        spec = catalogue().get(request.model)
        if (spec is not None and not spec.prompt_required) or (request.media and not self._catalogue_checks):
            return
        column = next((name for name in ("prompt", "prompt_template") if name in self._places), None)
        if column:
            draft.refuse(column, "is empty: every row needs a prompt")
        else:
            self.rows_without_prompt += 1

    def _load_image(self, text: str) -> Image:
        """`load_image`, each file looked at once."""
        if len(text) > _LONGEST_CACHED:
            return load_image(text, base=self._base)
        if text not in self._images:
            try:
                self._images[text] = load_image(text, base=self._base)
            except ValueError as error:
                self._images[text] = error
        found = self._images[text]
        if isinstance(found, ValueError):
            raise ValueError(str(found)) from found
        return found

    def _note(self, draft: _Draft, row_id: str | None) -> None:
        """Put the row's mistakes down in the order of the columns; those of the run's settings once for all rows."""
        found = [Problem(message, draft.number, column, row_id) for column, message in draft.cell_mistakes]
        for name, message in dict.fromkeys(draft.mistakes):
            key, inner = self._source_of(name, draft)
            column = self._name_of(key)
            text = f"{inner}: {message}" if inner else message
            if key in self._defaults and key not in draft.of_row:
                self.of_defaults.add(column, f"{text} (set for the whole run)", row=draft.number)
            else:
                found.append(Problem(text, draft.number, column, row_id))
        self.problems += sorted(found, key=lambda problem: self._order.get(problem.column, len(self._order)))

    def _column_of(self, name: str, draft: _Draft) -> str:
        return self._name_of(self._source_of(name, draft)[0])

    def _name_of(self, key: str) -> str:
        """A parameter's column in the table's own spelling."""
        return self._columns[self._places[key]] if key in self._places else key

    def _source_of(self, name: str, draft: _Draft) -> tuple[str, str]:
        """The understood column that a parameter such as "media.frame_images.0" came from, and the place in it."""
        top, _, place = name.partition(".")
        if top != "media":
            return top, place
        column = draft.media.column_of(place)
        return column, place if column == "media" else ""


def _validated(values: dict[str, object], draft: _Draft) -> VideoRequest | None:
    """The request; if parts are wrong, they are noted and it is one of what is left (for further checks)."""
    try:
        return VideoRequest.model_validate({"model": _SOME_MODEL, **values})
    except ValidationError as error:
        for name, message in problems_of(error):
            draft.mistakes.append((name, message))
            draft.wrong.add(name.partition(".")[0])
    rest = {name: value for name, value in values.items() if name not in draft.wrong}
    try:
        return VideoRequest.model_validate({"model": _SOME_MODEL, **rest})
    except ValidationError:
        return None


def _listed(draft: _Draft, *, takes: int) -> dict[str, list[object]]:
    """The parameters that list several values, with these; what is wrong with a list is noted."""
    listed = listed_values(draft.given)
    for name, values in listed.items():
        if not all(str(value).strip() for value in values):
            draft.refuse(
                name, f"{shown('|'.join(map(str, values)))} lists an empty value: give one on each side of a |"
            )
    if (videos := takes * math.prod(map(len, listed.values()))) > MOST_TAKES:
        for name in listed:
            draft.refuse(name, f"asks with the row's other lists for {videos:,} videos: at most {MOST_TAKES:,} a row")
    return {name: values for name, values in listed.items() if name not in draft.wrong}


def _take_number(draft: _Draft, name: str, wanted: str) -> int:
    """A number of takes, or the number of one; 1 where it is not set or wrong, which is noted."""
    value = draft.given.get(name, 1)
    number = as_number(value)
    if number is None or number != int(number) or not 1 <= number <= MOST_TAKES:
        draft.refuse(name, f"{shown(value)} is not {wanted}")
        return 1
    return int(number)


def _price_usd(draft: _Draft) -> float | None:
    value = draft.given.get("price_usd")
    if value is None:
        return None
    number = as_number(value)
    if number is None or not 0 <= number <= MAX_PRICE_USD:
        draft.refuse("price_usd", f"{shown(value)} is not a price of one take in dollars, such as 0.28")
        return None
    return float(number)
