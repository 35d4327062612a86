"""Settings of a team: taken where a run is given nothing, said where they are taken, refused where they are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from prefect_together.flows.team_settings import TeamDefaults
from repository import ROOT
from table_of_prompts import MODEL, Harness, prompts, read_results, table_text

TABLE = ROOT / "examples" / "prompts.csv"
PREFIX = "PREFECT_INTEGRATIONS_TOGETHER_"
CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"


def plan(directory: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A dry run, with what it says on stderr but for the line of one that takes its time, on a busy machine."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect_together", "generate", str(TABLE), "--dry-run", *options],
        env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    done.stderr = done.stderr.replace("reading the table\n", "")
    return done


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prefect.toml", "[integrations.together]\nbudget_usd = 0.4\n"),
        ("pyproject.toml", "[tool.prefect.integrations.together]\nbudget_usd = 0.4\n"),
        (".env", f"{PREFIX}BUDGET_USD=0.4\n"),
        (".prefect/profiles.toml", f'active = "us"\n[profiles.us]\n{PREFIX}BUDGET_USD = "0.4"\n'),
    ],
)
def test_a_cap_is_read_where_prefect_reads_its_settings_and_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)

    done = plan(tmp_path)

    assert (done.returncode, "budget $0.40" in done.stdout) == (0, True), done.stderr
    assert f"from the team's settings ({PREFIX}*): a budget of $0.40" in done.stderr


def test_what_the_command_line_says_wins_and_the_setting_is_not_named(tmp_path: Path) -> None:
    done = plan(tmp_path, "--budget-usd", "9", **{f"{PREFIX}BUDGET_USD": "0.4"})

    assert "budget $9.00" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("BUDGET_USD", "-1", "Input should be greater than or equal to 0"),
        ("MAX_IN_FLIGHT", "many", "Input should be a valid integer"),
        ("BASE_URL", "films.example.com", "String should match pattern"),
    ],
)
def test_a_setting_with_a_wrong_value_is_one_sentence_and_exit_code_2(
    tmp_path: Path, setting: str, value: str, reason: str
) -> None:
    done = plan(tmp_path, **{PREFIX + setting: value})

    assert done.returncode == 2
    assert done.stderr.startswith(f"{PREFIX}{setting} is '{value}': {reason}")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_is_no_setting_is_said_in_the_shell_with_the_known_ones(tmp_path: Path) -> None:
    done = plan(tmp_path, **{f"{PREFIX}BUGDET_USD": "5"})

    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: not a setting, and not used: {PREFIX}BUGDET_USD. Known are {PREFIX}BUDGET")


def test_a_name_that_is_no_setting_is_in_the_runs_log(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}MAX_INFLIGHT", "5")

    ended = harness.run(prompts(CAT))

    (said,) = (line for line in harness.prefect.logs(ended.run_id) if line.startswith("not a setting"))
    assert said.startswith(f"not a setting, and not used: {PREFIX}MAX_INFLIGHT. Known are {PREFIX}BUDGET_USD")


def test_a_run_takes_the_teams_cap_and_root_and_logs_them(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}BUDGET_USD", "0.3")
    monkeypatch.setenv(f"{PREFIX}OUTPUT_ROOT", str(tmp_path / "films"))
    monkeypatch.chdir(tmp_path)
    Path("night").symlink_to(tmp_path / "films" / "night")  # where the test's harness reads its results

    ended = harness.run(prompts(CAT, HARBOUR), output_dir="night")

    assert ended.statuses == ["downloaded", "refused"]
    said = f"from the team's settings ({PREFIX}*): outputs under {tmp_path / 'films'}, a budget of $0.30"
    assert said in harness.prefect.logs(ended.run_id)
    assert len(read_results(tmp_path / "films" / "night")) == 2


def test_a_run_that_is_given_a_cap_has_that_one(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}BUDGET_USD", "0")

    ended = harness.run(prompts(CAT), budget_usd=1.0)

    assert ended.statuses == ["downloaded"]


def test_only_relative_directories_are_under_the_teams_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}OUTPUT_ROOT", "s3://films/")
    team = TeamDefaults()

    assert [team.output_dir(given) for given in ("night", "/srv/night", "gs://other/night")] == [
        "s3://films/night",
        "/srv/night",
        "gs://other/night",
    ]


def test_where_a_team_serves_its_root_the_run_in_prefect_links_the_page_and_each_clip(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}OUTPUT_ROOT", str(harness.output_dir.parent))
    monkeypatch.setenv(f"{PREFIX}BASE_URL", "https://films.example.com/team/")
    table = table_text([{"id": "the cat", "prompt": CAT, "model": MODEL}])

    ended = harness.run(table)

    found = harness.prefect.artifacts(ended.run_id)
    at = f"https://films.example.com/team/{harness.output_dir.name}"
    summary, page = found["together-video-summary"].data, found["together-video-page"].data
    (file,) = [line["file"] for line in ended.rows]
    assert f"[Every clip beside its prompt]({at}/index.html)" in page
    assert f"[{at}/index.html]({at}/index.html)" in summary
    assert f"({at}/{quote(file)})" in summary
    assert f"| {CAT} |" in summary


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("night", "https://x.example/night"),
        ("a b/c", "https://x.example/a%20b/c"),
        ("/srv/films/night", "https://x.example/night"),
        ("/srv/films/../night", None),
        ("../night", None),
        ("/elsewhere/night", None),
        ("s3://elsewhere/night", None),
    ],
)
def test_only_what_is_under_the_root_has_an_address(
    given: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}OUTPUT_ROOT", "/srv/films")
    monkeypatch.setenv(f"{PREFIX}BASE_URL", "https://x.example")

    assert TeamDefaults().served_at(given) == url
