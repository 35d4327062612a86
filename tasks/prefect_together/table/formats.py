"""JSON, Markdown and plain lists as records of text. CSV is in `grid`, what has types in `frames` and `excel`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from prefect_together.errors import Problem
from prefect_together.request.fields import counted, parsed_json, shown
from prefect_together.table.columns import UNDERSTOOD, parameter_name
from prefect_together.table.frames import Record, as_text, nested_problem

_LEAST_PROMPT_WORDS = 3
_MOST_LINES_NAMED = 20
_MARKDOWN_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_UNESCAPED_BAR = re.compile(r"(?<!\\)\|")


class _NumberAsWritten(str):
    """A JSON number, every digit kept."""

    __slots__ = ()


def json_records(text: str, *, problems: list[Problem], warnings: list[Problem]) -> list[Record]:
    """The objects of a JSON text as records under one header: all their keys in the order in which they appear.

    One object a line (rows are numbered by lines), or one after the other, a list of objects, an object of objects by
    their ids, or an object with one such list (rows are numbered from 1).
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    read = [(number, _objects_of_line(line)) for number, line in lines]
    wrong = [(number, error) for number, error in read if isinstance(error, ValueError)]
    if not wrong and len(read) > 1:
        return _records([(number, cells) for number, cells in read if not isinstance(cells, ValueError)], problems)
    try:
        objects = list(_objects(_values(text), warnings))
    except ValueError as error:
        is_other_kind = len(wrong) == len(read) or (len(wrong) > 3 and len(wrong) * 2 > len(read))
        if not wrong or is_other_kind:
            problems.append(Problem(str(error)))
            return [(0, [])]
        problems += [Problem(str(error), row=number) for number, error in wrong[:_MOST_LINES_NAMED]]
        if (more := len(wrong) - _MOST_LINES_NAMED) > 0:
            problems.append(Problem(f"{counted(more, 'more line')} cannot be read either"))
        return _records([(number, cells) for number, cells in read if not isinstance(cells, ValueError)], problems)
    return _records(list(enumerate(objects, start=1)), problems)


def _records(objects: Sequence[tuple[int, Mapping[str, object]]], problems: list[Problem]) -> list[Record]:
    places: dict[str, int] = {}
    rows: list[tuple[int, dict[str, str]]] = []
    for number, values in objects:
        cells: dict[str, str] = {}
        for name, value in values.items():
            if problem := nested_problem(name, value, row=number):
                problems.append(problem)
            cells[name] = str(value) if isinstance(value, str) else as_text(_plain(value))
            places.setdefault(name, len(places))
        rows.append((number, cells))
    return [(0, list(places)), *((number, [cells.get(name, "") for name in places]) for number, cells in rows)]


def _objects_of_line(line: str) -> dict[str, object] | ValueError:
    try:
        value = parsed_json(line, _decoder.decode)
    except ValueError as error:
        return error
    if not isinstance(value, dict):
        return ValueError('is not a JSON object of a row: {"prompt": "..."} is right')
    return cast("dict[str, object]", value)


def _values(text: str) -> list[object]:
    """The JSON values that stand one after the other in a text. Raises ValueError in plain words."""
    values: list[object] = []
    at = 0
    while at < len(text):
        if text[at].isspace() or (text[at] == "," and values):
            at += 1
            continue
        value, at = cast("tuple[object, int]", parsed_json(text, partial(_decoder.raw_decode, idx=at)))
        values.append(value)
    return values


def _objects(values: Sequence[object], warnings: list[Problem]) -> Iterator[dict[str, object]]:
    """The rows among JSON values. Raises ValueError for what is no object."""
    if len(values) == 1 and isinstance(values[0], dict):
        yield from _objects_of(cast("dict[str, object]", values[0]), warnings)
        return
    for value in values:
        for item in cast("list[object]", value) if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise ValueError(f'holds {json.dumps(item)[:60]} where an object of a row belongs: {{"prompt": "..."}}')
            yield cast("dict[str, object]", item)


def _objects_of(whole: dict[str, object], warnings: list[Problem]) -> Iterator[dict[str, object]]:
    """The rows of one object: itself, the objects in it by their ids, or those of the one list in it."""
    if any(parameter_name(name) in UNDERSTOOD for name in whole):
        yield whole
        return
    if whole and all(isinstance(value, dict) for value in whole.values()):
        for name, value in whole.items():
            yield {"id": name, **cast("dict[str, object]", value)}
        return
    lists = [name for name, value in whole.items() if isinstance(value, list)]
    if len(lists) != 1:
        yield whole
        return
    warnings.append(Problem(f"the rows are those of the list {lists[0]!r}; what stands beside it is not read"))
    yield from _objects([whole[lists[0]]], warnings)


def _plain(value: object) -> object:
    """A nested value with its numbers as numbers again."""
    if isinstance(value, _NumberAsWritten):
        return json.loads(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, object]", value).items()}
    return [_plain(item) for item in cast("list[object]", value)] if isinstance(value, list) else value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in dict(pairs) if names.count(name) > 1] if len(dict(pairs)) < len(names) else []
    if twice:
        raise ValueError(f"{twice[0]!r} stands in a JSON object twice")
    return dict(pairs)


_decoder = json.JSONDecoder(
    parse_int=_NumberAsWritten,
    parse_float=_NumberAsWritten,
    parse_constant=_NumberAsWritten,
    object_pairs_hook=_without_repeats,
)


def is_markdown_table(text: str) -> bool:
    """Whether a Markdown table stands in the text: a line with bars, and below it one of dashes."""
    return _markdown_start(text.splitlines()) is not None


def markdown_records(text: str, *, warnings: list[Problem]) -> list[Record]:
    """The first Markdown table of a text; rows are numbered by lines."""
    lines = text.splitlines()
    start = _markdown_start(lines)
    assert start is not None
    rows: list[Record] = [(start + 1, _markdown_cells(lines[start]))]
    for number, line in enumerate(lines[start + 2 :], start=start + 3):
        if "|" not in line:
            break
        rows.append((number, _markdown_cells(line)))
    end = start + 1 + len(rows)
    if _markdown_start(lines[end:]) is not None:
        warnings.append(Problem("only the first of several Markdown tables is read"))
    elif others := [line for line in (*lines[:start], *lines[end:]) if line.strip()]:
        what = f"{counted(len(others), 'line')} around the Markdown table"
        warnings.append(Problem(f"{what} not read, such as {shown(others[0].strip())}"))
    return rows


def _markdown_start(lines: Sequence[str]) -> int | None:
    for at in range(len(lines) - 1):
        if "|" in lines[at] and "-" in lines[at + 1] and _MARKDOWN_RULE.fullmatch(lines[at + 1]):
            return at
    return None


def _markdown_cells(line: str) -> list[str]:
    text = line.strip()
    cells = [cell.strip().replace("\\|", "|") for cell in _UNESCAPED_BAR.split(text)]
    return cells[text.startswith("|") : len(cells) - (len(cells) > 1 and text.endswith("|") and not cells[-1])]


def list_records(text: str, *, has_header: bool, warnings: list[Problem]) -> list[Record]:
    """One prompt a line, as it stands; blank lines and lines that begin with # are passed over."""
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1) if line.strip()]
    prompts = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if len(prompts) < len(lines):
        warnings.append(Problem(f"lines that begin with # are passed over ({len(lines) - len(prompts):,})"))
    if not has_header:
        warnings.append(Problem(f"has no header: each of {counted(len(prompts), 'line')} is read as one prompt"))
        prompts.insert(0, (0, "prompt"))
    return [(number, [line.strip()]) for number, line in prompts]


def are_prompts(text: str) -> bool:
    """Whether every line is plainly a prompt: several words."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(lines) and all(len(line.split()) >= _LEAST_PROMPT_WORDS for line in lines)
