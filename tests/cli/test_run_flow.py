"""At the command line: exit codes, what is said, and that nothing is sent where nothing may be."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pandas
import pytest
from prefect import Flow

from prefect_together.cli.run_flow import run_command_line
from prefect_together.flows import generate_videos
from prefect_together.request.form import Limits, VideoParameters
from repository import MISTAKES
from shell import in_shell
from table_of_prompts import KEY, MODEL, Harness, prompts, table_text

CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"


def said_by_shell(harness: Harness, *words: str) -> int:
    """The exit code of `python flows/generate_videos.py WORDS`, run inside this process."""
    with harness.prefect.used():
        return run_command_line("generate_videos", [*words, "--output-dir", str(harness.output_dir), "--model", MODEL])


def test_0_when_every_row_is_downloaded_and_it_says_where(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    code = said_by_shell(harness, prompts(CAT, HARBOUR))

    out = capsys.readouterr().out
    assert code == 0
    assert "2 downloaded of 2 rows, $0.56" in out
    assert str(harness.output_dir / "index.html") in out
    assert f"{harness.output_dir}/results.csv" in out


def test_1_when_a_row_failed_and_the_row_is_named(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.api.fault("job-moderated", prompt=CAT)

    code = said_by_shell(harness, prompts(CAT, HARBOUR))

    said = capsys.readouterr()
    assert code == 1
    held = "$0.28 held for failed jobs without a reported cost"
    assert f"1 downloaded, 1 failed of 2 rows, $0.28, {held}\n  row 2 (r1) failed:" in said.out


def test_many_failures_are_said_in_short_lines_counts_first(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.api.fault("job-moderated", prompt=HARBOUR, count=None)

    said_by_shell(harness, prompts(CAT, *(f"{HARBOUR}, take {number}" for number in range(5))))

    counts, *lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if str(harness.output_dir) not in line]
    assert counts == "1 downloaded, 5 failed of 6 rows, $0.28, $1.40 held for failed jobs without a reported cost"
    assert [line.split(":")[0] for line in said if line.startswith("  row ")] == [
        f"  row {number} (r{number - 1}) failed" for number in (3, 4, 5)
    ]
    assert "  and 2 more, in results.csv" in said
    assert any(line.startswith("  5 rows: the content was refused. Change the prompt") for line in said)
    assert all(len(line) <= 120 for line in said)


def test_1_when_a_row_is_still_generating_and_it_says_to_run_again(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.api.script("in_progress", prompt=CAT)

    code = said_by_shell(harness, prompts(CAT), "--max-wait-minutes", "0.01")

    assert code == 1
    assert (
        "1 row: still generating at the deadline. Later, run again with the same table, options and --output-dir"
        in capsys.readouterr().out
    )


def test_2_for_a_table_with_mistakes_and_each_of_them_is_named(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    with MISTAKES.open(newline="", encoding="utf-8") as file:
        wrong = {number: row for number, row in enumerate(csv.DictReader(file), start=2) if row["note"] != "good"}

    code = run_command_line("generate_videos", [str(MISTAKES), "--output-dir", str(harness.output_dir)])

    err = capsys.readouterr().err
    named = {int(number) for number in re.findall(r"^  row (\d+)", err, re.MULTILINE)}
    assert code == 2
    assert len(wrong) >= 20
    assert named == set(wrong)
    assert harness.api.requests == []
    assert not (harness.output_dir / "videos").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("missing.csv",),
        ("prompt\nA cat\n", "--max-in-flight", "0"),
        ("prompt\nA cat\n", "--max-in-flight", "many"),
        ("prompt\nA cat\n", "--budget-usd", "-1"),
        ("prompt\nA cat\n", "--no-such-option"),
        ("prompt\nA cat\n", "--output-format", "AVI"),
        (),
    ],
)
def test_2_for_a_setting_that_is_wrong(
    harness: Harness, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code = said_by_shell(harness, *words)

    said = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in said.err + said.out
    assert said.err.strip() or said.out.strip()
    assert harness.api.requests == []


def test_2_for_what_only_the_run_finds_wrong_and_its_reason(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    code = said_by_shell(harness, prompts(CAT), "--shards", "2", "--max-in-flight", "1")

    assert code == 2
    assert "1 jobs at once cannot be divided among 2 shards" in capsys.readouterr().err
    assert harness.api.requests == []


def test_a_dry_run_says_the_price_and_what_is_odd_and_sends_nothing(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    code = said_by_shell(harness, table_text([{"prompt": CAT}, {"prompt": CAT}]), "--dry-run", "--budget-usd", "3")

    said = capsys.readouterr()
    assert code == 0
    assert re.search(r"2 rows, 1 videos?: estimated \$0\.28, budget \$3\.00; nothing was sent", said.out)
    assert "warning: 1 row (3) repeats an earlier row" in said.err
    assert harness.api.requests == []


def test_a_dry_run_that_is_to_end_after_the_stills_prices_the_stills_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_text([{"prompt": CAT, "still_prompt": "A cat"}])
    words = [table, "--output-dir", str(tmp_path / "new"), "--model", MODEL, "--dry-run"]

    assert run_command_line("generate_videos", [*words, "--stop-after", "stills"]) == 0
    assert run_command_line("generate_videos", words) == 0

    stills, all_of_it = capsys.readouterr().out.splitlines()
    assert stills == "1 row, 1 video and 1 still: estimated $0.01 to $0.02; nothing was sent"
    assert all_of_it == "1 row, 1 video and 1 still: estimated $0.29 to $0.30; nothing was sent"


def test_every_place_says_what_is_new_in_this_run_and_what_all_of_it_costs(
    harness: Harness, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert said_by_shell(harness, prompts(CAT)) == 0
    assert "1 downloaded of 1 row, $0.28\n" in capsys.readouterr().out

    said_by_shell(harness, prompts(CAT, HARBOUR), "--dry-run")
    before = "2 rows, 2 videos (1 downloaded already): estimated $0.28 new in this run, $0.56 in all"
    assert f"{before}; nothing was sent" in capsys.readouterr().out
    caplog.clear()
    assert said_by_shell(harness, prompts(CAT, HARBOUR)) == 0
    assert before in caplog.text
    assert "2 downloaded of 2 rows, $0.56 ($0.28 in this run)\n" in capsys.readouterr().out

    assert said_by_shell(harness, prompts(CAT, HARBOUR)) == 0
    assert "2 downloaded of 2 rows, $0.56 ($0.00 in this run)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--budget-usd", "-3", "Invalid value -3.0 for --budget-usd: Input should be greater than or equal to 0"),
        ("--max-in-flight", "0", "Invalid value 0 for --max-in-flight: Input should be greater than or equal to 1"),
        ("--max-in-flight", "many", "Invalid value many for --max-in-flight: Input should be a valid integer"),
        ("--fps", "9000", "Invalid value 9000 for --fps: Input should be less than or equal to 60"),
        ("--seed", "1,2", "1,2 is not one value for --seed; for several, repeat the option: --seed 1 --seed 2"),
        ("--model", "a, b", "a, b is not one value for --model; for several, repeat the option: --model a --model b"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_one_sentence(
    harness: Harness, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    code = said_by_shell(harness, prompts(CAT), option, value)

    out = capsys.readouterr()
    assert code == 2
    assert said in " ".join((out.out + out.err).split()).replace('"', "")  # cyclopts quotes more or less
    assert "pydantic" not in out.out + out.err
    assert harness.api.requests == []


def test_an_output_directory_that_cannot_be_made_is_said_before_a_server_is_started(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("a file")

    code = run_command_line(
        "generate_videos", [prompts(CAT), "--model", MODEL, "--output-dir", str(tmp_path / "notes" / "out")]
    )

    assert code == 2
    assert f"{tmp_path / 'notes'} is not a directory" in capsys.readouterr().err
    assert harness.api.requests == []


def test_options_are_the_flows_own_parameters_and_the_apis(harness: Harness) -> None:
    code = said_by_shell(harness, prompts(CAT), "--seed", "7", "--max-in-flight", "2", "--budget-usd", "1")

    (body,) = [request.body for request in harness.api.requests if request.endpoint == "create"]
    assert code == 0
    assert body == {"model": MODEL, "prompt": CAT, "seed": 7}


def test_the_server_gets_the_same_parameters_as_from_prefects_own_way() -> None:
    parameters = VideoParameters(seconds="8", seed=3)
    given = {"prompts": "x.csv", "budget_usd": 1.5, "model": None, "parameters": parameters, "limits": Limits()}

    prefects_own: Any = Flow
    assert generate_videos.serialize_parameters(given) == prefects_own.serialize_parameters(generate_videos, given)


def test_the_server_gets_a_short_text_in_place_of_a_data_frame() -> None:
    table = pandas.DataFrame({"prompt": [CAT] * 1000})

    assert generate_videos.serialize_parameters({"prompts": table}) == {"prompts": "<DataFrame>"}


def test_help_names_every_option_without_starting_anything(tmp_path: Path) -> None:
    done = in_shell(tmp_path, "--help")

    assert done.returncode == 0
    for option in ("--output-dir", "--model", "--max-in-flight", "--budget-usd", "--sandbox", "--dry-run", "--seconds"):
        assert option in done.stdout
    assert not list((tmp_path / "prefect").glob("prefect*.*"))  # neither a database nor a server's log


def test_no_key_is_said_at_once_with_the_ways_to_give_one(tmp_path: Path) -> None:
    nobody_there = "http://127.0.0.1:9/api"

    done = in_shell(tmp_path, prompts(CAT), "--model", MODEL, PREFECT_API_URL=nobody_there)

    assert done.returncode == 2
    assert all(way in done.stderr for way in ("TOGETHER_API_KEY", "credentials_block", "--sandbox", "nothing was sent"))
    assert "Traceback" not in done.stderr
    assert nobody_there not in done.stderr


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own_leaves_no_stack_traces(harness: Harness, tmp_path: Path) -> None:
    harness.api.fault("job-moderated", prompt=CAT)
    harness.api.fault("drop-after", endpoint="create", prompt=HARBOUR)

    done = in_shell(
        tmp_path,
        *(prompts(CAT, HARBOUR, "A paper boat"), "--model", MODEL, "--output-dir", str(harness.output_dir)),
        PREFECT_API_URL=harness.prefect.api_url,
        TOGETHER_API_KEY=KEY,
        TOGETHER_BASE_URL=harness.api.base_url,
    )

    assert done.returncode == 1
    assert "1 downloaded, 1 failed, 1 in doubt of 3 rows" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "Prefect's UI while this runs" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_an_api_url_a_run_starts_a_server_and_prints_where_its_ui_is(tmp_path: Path) -> None:
    done = in_shell(tmp_path, prompts(CAT), "--model", MODEL, "--sandbox", "--sandbox-speed", "20")

    assert done.returncode == 0, done.stderr
    assert "Prefect's UI while this runs: http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "videos" / "r1.mp4").stat().st_size > 10_000
    assert (tmp_path / "prefect" / "prefect.db").is_file()
