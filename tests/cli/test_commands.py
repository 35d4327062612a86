"""The command `prefect-together`: what each command says, its exit codes, and that it needs no Prefect."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from prefect_together.api.jobs import VideoJob
from prefect_together.cli.commands import app, main
from prefect_together.errors import DownloadFailed
from prefect_together.ledger.ledger import open_ledger
from prefect_together.ledger.plans import to_text
from prefect_together.ledger.states import State
from prefect_together.request.catalogue import catalogue
from prefect_together.request.form import listed_models
from prefect_together.sandbox import Sandbox
from prefect_together.table.plan import Plan, make_plan
from prefect_together.table.prompt_table import read_table
from repository import EXAMPLES, MISTAKES
from table_of_prompts import MODEL, table_text

ROWS = [
    {"id": "boat", "prompt": "A paper boat in heavy rain", "model": MODEL},
    {"id": "cat", "prompt": "A cat asleep on a drum", "model": MODEL},
    {"id": "dawn", "prompt": "A harbour at dawn", "model": MODEL, "count": 2},
]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the command prints as JSON."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write_table(directory: Path) -> str:
    path = directory / "prompts.csv"
    path.write_text(table_text(ROWS))
    return str(path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the project's root, in which somebody may have made videos into `out`."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_table(tmp_path)


@pytest.fixture
def output_dir(tmp_path: Path, table: str) -> str:
    """An output directory whose run got `boat` done in 40 s and has `cat` in doubt."""
    place = tmp_path / "out"
    place.mkdir()
    asyncio.run(_run_halfway(make_plan(read_table(table)), place))
    return str(place)


@pytest.fixture
def sandbox_dir(tmp_path: Path, table: str) -> str:
    """The same of a run in the sandbox."""
    place = tmp_path / "imitated"
    place.mkdir()
    asyncio.run(_run_halfway(make_plan(read_table(table)), place, is_sandbox=True))
    return str(place)


async def _run_halfway(plan: Plan, place: Path, *, is_sandbox: bool = False) -> None:
    boat, cat, *_ = plan.videos
    async with open_ledger(str(place / "ledger.db")) as ledger:
        await ledger.save_table(str(place), to_text(plan), is_sandbox=is_sandbox)
        await ledger.plan(list(plan.videos.values()))
        for key in (boat, cat):
            await ledger.claim(key)
        attempt = await ledger.intend(boat, estimate_usd=0.28, budget_usd=None)
        job = VideoJob("job-1", "completed", MODEL, "http://127.0.0.1:9/clip", cost_usd=0.25)
        await ledger.accepted(boat, attempt, job)
        await ledger.completed(boat, job, generation_seconds=40.0, polls=3)
        await ledger.downloaded(boat, file="videos/boat.mp4", size_bytes=1000, sha256="0" * 64, clip={})
        attempt = await ledger.intend(cat, estimate_usd=0.28, budget_usd=None)
        await ledger.in_doubt(cat, attempt, "the connection was reset")


def test_models_lists_what_was_not_shut_down_with_prices(capsys: pytest.CaptureFixture[str]) -> None:
    models = said(capsys, "models")

    assert {model["id"] for model in models} == {spec.id for spec in catalogue().values() if spec.retired is None}
    assert len(said(capsys, "models", "--retired")) == len(catalogue())
    director = next(model for model in models if model["id"] == MODEL)
    assert director["estimate"]["high_usd"] == 0.28


def test_models_keeps_only_what_passes_every_filter(capsys: pytest.CaptureFixture[str]) -> None:
    filters = ("--listed", "--mode", "ref", "--organization", "minimax", "--max-price", "0.5")

    assert [model["id"] for model in said(capsys, "models", *filters)] == ["minimax/hailuo-02"]


def test_models_live_compares_with_what_the_service_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox() as api:
        monkeypatch.setenv("TOGETHER_API_KEY", "key")
        monkeypatch.setenv("TOGETHER_BASE_URL", api.base_url)

        found = said(capsys, "models", "--live")

    assert found["live_models"] == len(listed_models())
    assert not found["unknown_here"] + found["not_served"] + found["served_though_unlisted"] + found["prices"]


def test_models_live_without_a_service_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "key")
    monkeypatch.setenv("TOGETHER_BASE_URL", "http://127.0.0.1:9")

    assert main(["models", "--live"]) == 1
    assert "/v1/models" in capsys.readouterr().err


def test_plan_names_files_dollars_and_time_of_every_row(capsys: pytest.CaptureFixture[str], table: str) -> None:
    plan = said(capsys, "plan", table)

    assert [line["files"] for line in plan["lines"]][::2] == [
        ["videos/boat.mp4"],
        ["videos/dawn.mp4", "videos/dawn-take2.mp4"],
    ]
    assert (plan["rows"], plan["videos"], plan["to_send"]) == (3, 4, 4)
    assert plan["low_usd"] == plan["high_usd"] == pytest.approx(1.12)
    assert 0 < plan["low_seconds"] < plan["high_seconds"]


def test_plan_leaves_out_what_the_ledger_has_and_learns_its_times(
    capsys: pytest.CaptureFixture[str], table: str, output_dir: str
) -> None:
    plan = said(capsys, "plan", table, "--output-dir", output_dir)

    assert [line["states"] for line in plan["lines"]] == [["downloaded"], ["in_doubt"], ["planned", "planned"]]
    assert plan["high_usd"] == pytest.approx(0.56)
    assert [model["is_learned"] for model in plan["models"]] == [True]


def test_plan_looks_where_generate_puts_its_videos_if_no_directory_is_named(
    capsys: pytest.CaptureFixture[str], table: str, output_dir: str
) -> None:
    assert output_dir == str(Path("out").absolute())

    assert main(["plan", table]) == 0
    assert "(1 downloaded, 1 in doubt, 2 planned already): $0.56 new in this run" in capsys.readouterr().out


GRID = """id,prompt,model,seed
boat,A boat,vidu/vidu-q1|ByteDance/Seedance-1.0-lite,7|9
cat,A cat,vidu/vidu-q1|ByteDance/Seedance-1.0-lite,7|9
"""


def test_plan_shows_the_grid_with_dollars_by_model_and_row_before_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", GRID]) == 0
    first, *rest = capsys.readouterr().out.splitlines()

    assert first == "2 rows x 2 models x 2 seeds = 8 videos, $0.72 to $0.73 a row"
    assert [line.split()[:3] for line in rest[2:4]] == [
        ["ByteDance/Seedance-1.0-lite", "4", "4"],
        ["vidu/vidu-q1", "4", "4"],
    ]
    (boat,) = (line for line in rest if line.split()[:2] == ["2", "boat"])
    assert "2 models" in boat
    assert "boat--vidu-q1--seed-7.mp4 and 3 more, seeds 7, 9" in boat
    assert rest[-2].startswith("2 rows x 2 models x 2 seeds = 8 videos: $1.44 to $1.45, ")


@pytest.mark.parametrize("table", ["prompt,seed\nA cat,7|8\nA dog,7\n", "prompt,count\nA cat,2\nA dog,2\n"])
def test_plan_of_no_grid_counts_rows_and_videos(capsys: pytest.CaptureFixture[str], table: str) -> None:
    plan = said(capsys, "plan", table, "--model", "vidu/vidu-q1")

    assert plan["grid"] is None
    assert plan["rows"] == 2


def test_plan_with_fewer_at_once_takes_longer(capsys: pytest.CaptureFixture[str], table: str) -> None:
    wide, narrow = said(capsys, "plan", table), said(capsys, "plan", table, "--max-in-flight", "1")

    assert narrow["low_seconds"] == pytest.approx(4 * wide["low_seconds"], rel=0.01)


def test_plan_ends_with_2_and_every_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(MISTAKES)]) == 2

    assert capsys.readouterr().err.count("\n  row ") == 31


def test_plan_says_what_is_a_repetition(capsys: pytest.CaptureFixture[str]) -> None:
    plan = said(capsys, "plan", f"prompt,model\nA red kite,{MODEL}\nA red kite,{MODEL}\n")

    assert [line["shared_with"] for line in plan["lines"]] == [None, 2]
    assert plan["shared_rows"] == 1
    assert plan["high_usd"] == pytest.approx(0.28)


def test_status_says_states_dollars_and_when_the_doubtful_call_was_sent(
    capsys: pytest.CaptureFixture[str], output_dir: str
) -> None:
    status = said(capsys, "status", output_dir)

    assert status["by_status"] == {"downloaded": 1, "in_doubt": 1, "planned": 2}
    assert (status["paid_usd"], status["in_doubt_usd"], status["committed_usd"]) == (0.25, 0.28, 0.53)
    (doubt,) = status["in_doubt"]
    assert (doubt["row_id"], doubt["reason"]) == ("cat", "the connection was reset")
    assert doubt["is_open"]
    assert doubt["sent_at"] > 1_700_000_000


def test_status_prints_the_same_for_people(capsys: pytest.CaptureFixture[str], output_dir: str) -> None:
    assert main(["status", output_dir]) == 0

    out = capsys.readouterr().out
    assert "4 videos, 1 downloaded, 1 in doubt, 2 planned" in out
    assert "$0.28 held for requests in doubt" in out
    assert "--resubmit-in-doubt" in out


@pytest.mark.parametrize("command", ["status", "report"])
def test_the_dollars_of_the_sandbox_are_said_to_be_nobodys(
    capsys: pytest.CaptureFixture[str], output_dir: str, sandbox_dir: str, command: str
) -> None:
    assert main([command, output_dir]) == 0
    real = capsys.readouterr().out
    assert main([command, sandbox_dir]) == 0
    imitated = capsys.readouterr().out

    assert "Made by the sandbox: imitations, nothing was paid." in imitated
    assert "sandbox" not in real


def test_status_as_json_says_whether_it_is_the_sandboxs(
    capsys: pytest.CaptureFixture[str], output_dir: str, sandbox_dir: str
) -> None:
    assert [said(capsys, "status", place)["is_sandbox"] for place in (output_dir, sandbox_dir)] == [False, True]


def test_a_page_written_again_says_that_its_clips_are_the_sandboxs(sandbox_dir: str) -> None:
    assert main(["report", sandbox_dir]) == 0

    assert '"isSandbox":true' in (Path(sandbox_dir) / "index.html").read_text()


def test_status_of_a_directory_without_a_ledger_ends_with_2_and_makes_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["status", str(tmp_path)]) == 2

    assert "no ledger" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_status_and_plan_have_the_words_of_results_csv(
    capsys: pytest.CaptureFixture[str], table: str, output_dir: str
) -> None:
    asyncio.run(_leave_in_the_middle(make_plan(read_table(table)), Path(output_dir)))
    assert main(["report", output_dir]) == 0
    results = [line.split(",") for line in (Path(output_dir) / "results.csv").read_text().splitlines()]
    words = [row[results[0].index("status")] for row in results[1:]]
    capsys.readouterr()

    status, plan = said(capsys, "status", output_dir), said(capsys, "plan", table, "--output-dir", output_dir)
    assert main(["status", output_dir]) == 0

    counts = {"downloaded": 1, "failed": 1, "submitted": 1, "in_doubt": 1}
    assert words == ["downloaded", "failed", "in_doubt"]
    assert sorted(video["status"] for video in status["videos"]) == sorted(counts)
    assert status["by_status"] == plan["states"] == counts
    assert "4 videos, 1 downloaded, 1 failed, 1 submitted, 1 in doubt" in capsys.readouterr().out


async def _leave_in_the_middle(plan: Plan, place: Path) -> None:
    """`cat` paid and not fetched, one take of `dawn` paid, the other being sent when the run ended."""
    _, cat, one, other = plan.videos
    async with open_ledger(str(place / "ledger.db")) as ledger:
        for key in (cat, one, other):
            await ledger.claim(key, resend_attempt=1 if key == cat else 0, states=(State.IN_DOUBT,))
            attempt = await ledger.intend(key, estimate_usd=0.28, budget_usd=None)
            if key != other:
                job = VideoJob(f"job-of-{key}", "completed", MODEL, cost_usd=0.25)
                await ledger.accepted(key, attempt, job)
                await ledger.completed(key, job, generation_seconds=40.0, polls=3)
        await ledger.set_error(cat, DownloadFailed("HTTP 500"), state=State.COMPLETED)


def test_report_writes_page_and_results_again(capsys: pytest.CaptureFixture[str], output_dir: str) -> None:
    assert main(["report", output_dir]) == 0

    results = (Path(output_dir) / "results.csv").read_text()
    assert "1 downloaded, 1 in doubt, 1 planned of 3 rows, $0.25" in capsys.readouterr().out
    assert "boat,A paper boat in heavy rain" in results
    assert ",downloaded,job-1,videos/boat.mp4,0.25," in results
    assert "A cat asleep on a drum" in (Path(output_dir) / "index.html").read_text()


def test_report_keeps_the_budget_and_the_warnings_of_the_run(output_dir: str) -> None:
    plan = make_plan(read_table(f"prompt,model,secnds\nA kite,{MODEL},6\n"))

    async def store_the_plan_of_a_run() -> None:
        async with open_ledger(str(Path(output_dir) / "ledger.db")) as ledger:
            await ledger.save_table(output_dir, to_text(plan, budget_usd=7.77), is_sandbox=False)
            await ledger.plan(list(plan.videos.values()))

    asyncio.run(store_the_plan_of_a_run())

    assert main(["report", output_dir]) == 0
    page = (Path(output_dir) / "index.html").read_text()
    assert '"budgetUsd":7.77' in page
    assert '"warnings":["column secnds: ' in page


def test_report_finds_the_table_however_the_directory_is_spelt(
    output_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(output_dir).parent)

    assert main(["report", "out/"]) == 0


def test_a_prompt_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"prompt,model\nA \x1b[31mred\x1b[0m kite [bold]x,{MODEL}\n"]) == 0

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "reason"), [("http://x/v1", "must not end in /v1"), ("http://u:p@x", "must hold no user and no password")]
)
def test_no_block_is_saved_with_an_address_that_would_be_refused(
    url: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "key")
    monkeypatch.setenv("TOGETHER_BASE_URL", url)

    assert main(["credentials", "team"]) == 2
    assert reason in capsys.readouterr().err


def test_no_command_but_credentials_imports_prefect(table: str, output_dir: str) -> None:
    code = f"""
import sys
from prefect_together.cli.commands import main
for words in (["models"], ["plan", {table!r}], ["status", {output_dir!r}], ["report", {output_dir!r}]):
    assert main(words) == 0, words
assert "prefect" not in sys.modules
"""

    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, stdout=subprocess.DEVNULL)


def test_an_unknown_command_ends_with_2() -> None:
    assert main(["modells"]) == 2


def test_sandbox_hands_its_words_to_the_sandbox(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sandbox", "--help"])

    assert end.value.code == 0
    assert "--creates-per-second" in capsys.readouterr().out


def test_init_writes_the_example_table_and_names_a_command_that_runs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["init"]) == 0

    assert (tmp_path / "prompts.csv").read_text() == (EXAMPLES / "prompts.csv").read_text()
    *_, program, command, table, option = capsys.readouterr().out.split()
    assert (program, command, option) == ("prefect-together", "generate", "--sandbox")
    assert main(["plan", table]) == 0


def test_init_leaves_a_file_that_is_there_alone(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(table).read_text()

    assert main(["init", table]) == 2

    assert Path(table).read_text() == before
    assert "is there already" in capsys.readouterr().err


def test_init_where_nothing_can_be_written_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "missing" / "prompts.csv")]) == 2

    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_the_options_of_generate_stand_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--help"]) == 0

    headings = re.findall(r"^╭─ (.+?) ─", capsys.readouterr().out, re.MULTILINE)
    assert headings == [
        "Table and output",
        "Money",
        "Video parameters",
        "Waiting and failures",
        "Where things are",
        "Sandbox",
    ]


@pytest.mark.parametrize("words", [["--generate-audio"], ["--no-generate-audio"], ["--reference-images", "a.png"]])
def test_an_option_that_may_be_left_out_takes_as_many_words_as_its_type(words: list[str]) -> None:
    _, bound, _ = app.parse_args(["video", "a cat", *words, "--dry-run"], exit_on_error=False)

    assert bound.arguments["dry_run"] is True


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_completes_the_commands_and_their_options(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = app.generate_completion(shell=shell)

    assert [word for word in ("generate", "collect", "status", "credentials") if word not in script] == []
    assert [word for word in ("budget-usd", "generate-audio", "reference-images") if word not in script] == []


@pytest.mark.parametrize("command", ["generate", "status", "init", "view"])
def test_help_loads_neither_prefect_nor_pandas(command: str) -> None:
    """Which take seconds; measured times would fail on a busy machine."""
    program = (
        "import sys\nfrom prefect_together.cli.commands import main\n"
        f"main([{command!r}, '--help'])\n"
        "print([name for name in ('prefect', 'pandas', 'together', 'sqlalchemy', 'av') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
