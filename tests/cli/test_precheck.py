"""The table on the command line is checked before Prefect is imported and before a server is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_together.cli.flow_script import shell_run
from prefect_together.cli.precheck import FirstLook, table_in
from prefect_together.request.form import VideoParameters
from prefect_together.table.prompt_table import TableToPlan
from repository import MISTAKES
from table_of_prompts import FLOWS, MODEL, Desk, load_script, prompts

RUN_AND_LIST_MODULES = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    print(json.dumps([ended.code, "prefect" in sys.modules]))
"""


def looked_at(words: list[str]) -> FirstLook:
    table = table_in(words)
    assert table is not None
    return FirstLook(table, table.plan())


@pytest.mark.parametrize("flow", ["generate_videos", "plan_videos"])
def test_mistakes_are_said_without_prefect_and_without_a_server(tmp_path: Path, flow: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, str(FLOWS / f"{flow}.py"), str(MISTAKES), "--model", MODEL],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert json.loads(done.stdout) == [2, False]
    assert "mistakes, nothing was sent" in done.stderr
    assert "row 3 (id m02), column seconds: 'ten' is not a length" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("t.csv", TableToPlan("t.csv")),
        ("t.csv --output-dir out --sandbox --budget-usd 2", TableToPlan("t.csv")),
        ("t.csv --sandbox --model m", TableToPlan("t.csv", "m")),
        ("t.csv --model=m --max-in-flight 3 --image-directory i", TableToPlan("t.csv", "m", image_directory="i")),
        ("t.csv --no-catalogue-checks", TableToPlan("t.csv", catalogue_checks=False)),
        ("t.csv --seed 7 --canary", TableToPlan("t.csv", parameters=VideoParameters(seed=7))),
    ],
)
def test_the_table_is_found_among_options_that_are_not_its_own(words: str, table: TableToPlan) -> None:
    assert table_in(words.split()) == table


@pytest.mark.parametrize(
    "words", ["", "--output-dir out t.csv", "--prompts t.csv", "--help", "t.csv --help", "t.csv --seed many"]
)
def test_what_only_the_flows_signature_can_tell_is_left_to_it(words: str) -> None:
    assert table_in(words.split()) is None


@pytest.mark.parametrize("words", [("--sandbox", str(MISTAKES)), ("--prompts", str(MISTAKES))])
def test_mistakes_that_the_first_look_cannot_see_are_said_by_the_second(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    flow = load_script(FLOWS / "generate_videos.py").generate_videos

    code = shell_run(flow, words, local=None)

    assert code == 2
    assert "mistakes, nothing was sent" in capsys.readouterr().err


def test_a_run_goes_by_the_plan_of_the_first_look(desk: Desk, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(prompts("A cat", "A dog"))
    words = [str(table), "--output-dir", str(desk.output_dir), "--model", MODEL]
    looked = looked_at(words)
    table.unlink()

    with desk.prefect.used():
        code = shell_run(load_script(FLOWS / "generate_videos.py").generate_videos, words, local=None, looked=looked)

    assert code == 0
    assert desk.api.accepted() == 2


def test_a_first_look_at_another_table_is_not_used(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    looked = looked_at([prompts("A cat", "A dog"), "--model", MODEL])
    words = [prompts("A boat"), "--model", MODEL, "--dry-run"]

    shell_run(load_script(FLOWS / "generate_videos.py").generate_videos, words, local=None, looked=looked)

    assert "1 rows, 1 videos" in capsys.readouterr().out
