"""Every command on README.md, docs/ and deployments/README.md names what there is: commands, options, settings.

Those that need no server are typed by test_readme, the deployment by test_deployment_steps. Here each is only taken
apart, as its own program would do it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError, MissingArgumentError
from prefect import settings
from prefect.exceptions import ParameterTypeError, SignatureMismatchError

from prefect_together.cli.commands import app as command_line
from prefect_together.flows.team_settings import PREFIX, TogetherSettings
from prefect_together.sandbox.__main__ import command_parser
from repository import ROOT
from table_of_prompts import FLOWS, load_script

PAGES = [ROOT / "README.md", ROOT / "deployments" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(prefect|prefect-together|python|make) ")
AN_ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def commands_of(page: Path) -> Iterator[str]:
    """The page's commands of the programs that are looked at, from fences and from the text; lines put together."""
    text = page.read_text()
    lines = [line for fence in FENCE.findall(text) for line in fence.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in lines:
        command = " ".join(re.split(r"\|\||&|  #|\d?>", line.strip().removeprefix("$ "))[0].split())
        if COMMAND.match(command) and "..." not in command and "--help" not in command:
            yield re.sub(r"\bID\b", AN_ID, command)


COMMANDS = sorted({(page.name, command) for page in PAGES for command in commands_of(page)})


def bound_by(app: App, words: list[str]) -> dict[str, Any]:
    """The arguments that a program makes of its words; none where the text names a command without them.

    Raises CycloptsError for an unknown command or option.
    """
    try:
        _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except MissingArgumentError:
        return {}
    return dict(bound.arguments)


def check_prefect(words: list[str]) -> None:
    app = import_module("prefect.cli._app")._app  # `prefect.cli.app` is a function over it

    arguments = bound_by(app, [word for word in words if word != "--no-prompt"])  # its program takes that one first
    if words[:2] == ["deployment", "run"] and arguments:
        deployed = arguments["name"].partition("/")[0].replace("-", "_")
        flow = load_script(FLOWS / f"{deployed}.py").__dict__[deployed]
        given: list[str] = arguments.get("params") or []
        flow.validate_parameters({name: _value(text) for name, _, text in (one.partition("=") for one in given)})


def _value(text: str) -> Any:
    """As Prefect takes it: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_python(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.is_file()
    if script.parent == FLOWS:
        app = App(version_flags=[])
        app.default(getattr(load_script(script), script.stem).fn)
        bound_by(app, words[1:])


def check(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "prefect":
        check_prefect(words)
    elif program == "python":
        check_python(words)
    elif program == "make":
        assert re.search(rf"^{re.escape(words[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "sandbox":
        command_parser().parse_args(words[1:])
    else:
        bound_by(command_line, words)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}" for page, command in COMMANDS])
def test_a_documented_command_has_the_options_that_are_given_to_it(page: str, command: str) -> None:
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        "prefect worker start --no-such-option",
        "prefect no-such-command",
        "prefect deployment run generate-videos/generate-videos -p no_such=1",
        "prefect deployment run generate-videos/generate-videos -p prompts=a -p 'limits={\"shards\": 0}'",
        "python flows/generate_videos.py t.csv --no-such-option 1",
        "python flows/no_such_flow.py",
        "prefect-together no-such-command",
        "make no-such-target",
    ],
)
def test_what_is_not_there_is_found(command: str) -> None:
    with pytest.raises((CycloptsError, AssertionError, ParameterTypeError, SignatureMismatchError)):
        check(command)


def test_every_setting_that_is_named_is_one_of_prefects() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bPREFECT_[A-Z_]+[A-Z]\b", page.read_text())}

    assert len(named) > 8
    own = {f"{PREFIX}{field}".upper() for field in TogetherSettings.model_fields}
    assert [name for name in sorted(named - own) if not hasattr(settings, name)] == []
