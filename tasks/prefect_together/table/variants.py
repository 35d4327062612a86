"""What one row asks for: its prompt filled from other columns, and a video for each combination of listed values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from prefect_together.grid.columns import parameter_name
from prefect_together.request.fields import shown, values_of
from prefect_together.request.request import VideoRequest

LISTED = (
    *("model", "width", "height", "resolution", "ratio", "seconds", "fps", "steps", "guidance_scale", "seed"),
    *("output_format", "output_quality", "generate_audio"),
)
"""The parameters that may list several values, `a|b`, in the API's order. In a text a bar is a bar, in images it
separates those of one video."""

_VALUE_CHARACTERS = 40
_UNSAFE = re.compile(r"[^\w.+-]+")
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def single_values(given: Mapping[str, object]) -> dict[str, object]:
    """The same, with that one value where a parameter that may list several lists only one."""
    listed = {name: values_of(given[name]) for name in LISTED if name in given}
    return {**given, **{name: values[0] for name, values in listed.items() if len(values) == 1}}


def listed_values(given: Mapping[str, object]) -> dict[str, list[object]]:
    """The parameters of a row that list several values, with these."""
    found = {name: values_of(given[name]) for name in LISTED if name in given}
    return {name: values for name, values in found.items() if len(values) > 1}


def combinations(listed: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Every combination of one value for each parameter; one, of none, if nothing lists several."""
    for values in product(*listed.values()):
        yield dict(zip(listed, values, strict=True))


def named_variants(requests: Sequence[VideoRequest], varied: Sequence[str]) -> Iterator[tuple[VideoRequest, str]]:
    """Each request of a row with what its videos' ids have behind the row's: "--vidu-q1--seed-7", or nothing."""
    if not varied:
        yield requests[0], ""
        return
    names: set[str] = set()
    for request in requests:
        name = "--".join(_value_name(name, getattr(request, name)) for name in LISTED if name in varied)
        if name in names:  # models of one name by two makers, or values that are alike in their first characters
            name = f"{name}-{request.fingerprint()[:8]}"
        names.add(name)
        yield request, f"--{name}"


def _value_name(name: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if name == "model":
        return _UNSAFE.sub("-", text.rpartition("/")[2])[:_VALUE_CHARACTERS]
    return f"{name}-{_UNSAFE.sub('-', text)}"[:_VALUE_CHARACTERS]


class PromptTemplate:
    """Fills `{column}` from a row's own cells; `{{` and `}}` are braces. Nothing else has a meaning in it."""

    def __init__(self, columns: Sequence[str], places: Mapping[str, int]) -> None:
        self._columns = columns
        self._places = dict(places)
        self._places |= {parameter_name(column): place for place, column in reversed(list(enumerate(columns)))}
        self._places |= {column: place for place, column in enumerate(columns)}

    def fill(self, template: str, cells: Sequence[str]) -> tuple[str, list[tuple[str | None, str]]]:
        """The prompt, and what is wrong, as (column or None for the template itself, message)."""
        problems: list[tuple[str | None, str]] = []

        def filled(found: re.Match[str]) -> str:
            text, name = found[0], found[1]
            if name is None:
                if len(text) == 1:
                    problems.append((None, f"has a single {text}: write {text}{text} for a brace"))
                return text[0]
            place = self.place_of(name)
            if place is None:
                problems.append((None, f"{{{name}}} {self._unknown(name)}"))
                return ""
            value = cells[place].strip()
            if not value:
                problems.append((self._columns[place], f"is empty, and the prompt template needs {{{name}}}"))
            return value

        prompt = _PLACE.sub(filled, template)
        return prompt, list(dict.fromkeys(problems))

    def place_of(self, name: str) -> int | None:
        """Where the column of this name is, as it is spelt or as the API would spell it."""
        name = name.strip()
        return self._places.get(name, self._places.get(parameter_name(name)))

    def names(self, template: str, column: str) -> bool:
        """Whether it has a place for this column."""
        wanted = self.place_of(column)
        return any(found[1] and self.place_of(found[1]) == wanted for found in _PLACE.finditer(template))

    def named_in(self, prompt: str) -> list[str]:
        """The columns that a plain prompt names in braces, as it does."""
        return [found[0] for found in _PLACE.finditer(prompt) if found[1] and self.place_of(found[1]) is not None]

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._columns, n=1)
        if close:
            return f"is not a column: did you mean {{{close[0]}}}?"
        return f"is not a column, which are {shown(', '.join(self._columns), limit=200)}: write {{{{ for a brace"
