"""A run as Prefect shows it: states and messages, task names, log lines and artifacts, read back from the server."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from prefect_server import PrefectServer
from prefect_together.request.form import Limits
from table_of_prompts import FLOWS, KEY, Ended, Harness, load_script, opened_harness, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A <b>paper</b> boat | in the rain"


@dataclass(frozen=True)
class Shown:
    """One run with a clip, a failed row and a row in doubt, and what the server knows of it."""

    ended: Ended
    flow_run: Any
    task_runs: dict[str, str]
    logs: list[str]
    artifacts: dict[str, Any]


@pytest.fixture(scope="module")
def shown(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shown]:
    with (
        pytest.MonkeyPatch.context() as environment,
        opened_harness(prefect_server, tmp_path_factory.mktemp("shown"), environment) as harness,
    ):
        harness.api.fault("job-moderated", prompt="harbour")
        harness.api.fault("drop-after", endpoint="create", prompt="boat")
        ended = harness.run(prompts(CAT, HARBOUR, BOAT))
        runs = prefect_server.task_runs(ended.run_id, count=6)
        yield Shown(
            ended,
            prefect_server.flow_run(ended.run_id),
            {run.name: run.state.type.value for run in runs},
            prefect_server.logs(ended.run_id),
            prefect_server.artifacts(ended.run_id),
        )


def test_a_run_with_failed_rows_is_failed_and_says_how_many_and_which(shown: Shown) -> None:
    state = shown.flow_run.state

    assert (state.type.value, state.name) == ("FAILED", "Failed")
    held = "$0.28 held for requests in doubt and $0.28 held for failed jobs without a reported cost"
    assert state.message.startswith(f"1 downloaded, 1 failed, 1 in doubt of 3 rows, $0.28, {held}. row 3 (r2) failed:")
    assert "row 4 (r3) in doubt: possibly billed, $0.28" in state.message


def test_tasks_bear_the_names_of_their_rows(shown: Shown) -> None:
    assert shown.task_runs == {
        "create r1": "COMPLETED",
        "wait for r1": "COMPLETED",
        "download r1": "COMPLETED",
        "create r2": "COMPLETED",
        "wait for r2": "FAILED",
        "create r3": "FAILED",
    }


def test_the_tasks_of_a_second_take_have_its_number(harness: Harness) -> None:
    ended = harness.run("id,prompt,count\ncat,A cat,2\n")

    runs = harness.prefect.task_runs(ended.run_id, count=6)
    assert sorted(run.name for run in runs if run.name.startswith("create")) == ["create cat", "create cat#2"]


def test_log_lines_bear_row_and_job(shown: Shown) -> None:
    job_id = shown.ended.rows[0]["job_id"]

    of_the_row = [line for line in shown.logs if line.startswith("r1: ")]

    assert of_the_row[0] == f"r1: job {job_id} created"
    assert of_the_row[1].startswith(f"r1: job {job_id} completed after ")
    assert of_the_row[2].startswith(f"r1: job {job_id} downloaded to ")
    assert "3 rows, 3 videos: estimated $0.84" in shown.logs


def test_the_results_artifact_has_every_row_what_went_wrong_first(shown: Shown) -> None:
    table = json.loads(shown.artifacts["together-video-results"].data)

    assert [(row["row"], row["id"], row["status"]) for row in table] == [
        (3, "r2", "failed"),
        (4, "r3", "in_doubt"),
        (2, "r1", "downloaded"),
    ]
    assert table[2]["cost_usd"] == 0.28
    assert table[2]["file"] == "videos/r1.mp4"
    assert "moderation" in table[0]["error"]


def test_the_summary_artifact_counts_dollars_and_says_what_to_do(shown: Shown) -> None:
    text = shown.artifacts["together-video-summary"].data

    assert "**$0.28** charged in " in text
    assert "estimated $0.84 for all 3 videos" in text
    assert "In doubt, possibly billed without a clip: $0.28" in text
    assert "`resubmit_in_doubt`" in text
    assert "| minimax/video-01-director | 1 of 3 | 1 | $0.28 | " in text
    assert " | $0.28 | $0.28 | none |" in text


def test_the_progress_artifact_ends_full_with_the_counts(shown: Shown) -> None:
    progress = shown.artifacts["together-video-progress"]

    assert progress.data == 100.0
    assert "1 downloaded, 1 failed, 1 in doubt" in progress.description


def test_no_parameter_of_the_run_holds_a_key(shown: Shown) -> None:
    assert KEY not in json.dumps(shown.flow_run.parameters)
    assert shown.flow_run.parameters["locations"] == {}


def test_a_run_in_which_all_is_downloaded_is_completed_with_its_counts(harness: Harness) -> None:
    ended = harness.run(prompts(CAT, HARBOUR))

    state = harness.prefect.flow_run(ended.run_id).state
    assert (state.type.value, state.name, state.message) == ("COMPLETED", "Completed", "2 downloaded of 2 rows, $0.56")


def test_rows_still_generating_complete_the_run_under_a_name_of_their_own(harness: Harness) -> None:
    harness.api.script("in_progress", prompt=CAT)

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(max_wait_minutes=0.01))

    state = harness.prefect.flow_run(ended.run_id).state
    assert (state.type.value, state.name) == ("COMPLETED", "StillGenerating")
    assert state.message == "1 downloaded, 1 submitted of 2 rows, $0.28. Run again to collect the rest."


def test_a_table_with_mistakes_fails_with_all_of_them_and_sends_nothing(harness: Harness) -> None:
    table = table_text([{"prompt": CAT, "seconds": "long"}, {"prompt": HARBOUR, "width": "wide"}])

    ended = harness.run(table)

    state = harness.prefect.flow_run(ended.run_id).state
    assert state.type.value == "FAILED"
    assert "row 2, column seconds" in state.message
    assert "row 3, column width" in state.message
    assert harness.api.requests == []


def test_a_dry_run_says_the_price_and_sends_nothing(harness: Harness) -> None:
    ended = harness.run(prompts(CAT, HARBOUR), dry_run=True)

    assert (ended.state.name, ended.rows) == ("DryRun", [])
    assert ended.state.message == "2 rows, 2 videos: estimated $0.56; nothing was sent"
    assert harness.api.requests == []


def test_without_a_key_the_run_fails_and_names_the_ways_to_give_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")

    ended = harness.run(prompts(CAT))

    assert ended.state.is_failed()
    assert all(way in ended.state.message for way in ("TOGETHER_API_KEY", "credentials_block", "--sandbox"))
    assert ended.state.message.endswith("; nothing was sent")
    assert harness.api.requests == []


def test_the_summary_of_a_run_without_a_key_names_what_is_missing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")

    ended = harness.run(prompts(CAT))

    summary = harness.prefect.artifacts(ended.run_id)["together-video-summary"].data
    page = (harness.output_dir / "index.html").read_text(encoding="utf-8")
    assert "no API key: set TOGETHER\\_API\\_KEY, name a TogetherCredentials block" in summary
    assert "no API key: set TOGETHER_API_KEY, name a TogetherCredentials block" in page


def test_the_card_of_parameters_holds_for_rows_that_do_not_set_them(harness: Harness) -> None:
    table = table_text([{"prompt": CAT, "seed": 7}, {"prompt": HARBOUR}])

    harness.run(table, parameters={"seed": 11, "output_format": "MP4"})

    bodies = {request.body["prompt"]: request.body for request in harness.api.requests if request.endpoint == "create"}
    assert bodies[CAT] == {"model": "minimax/video-01-director", "prompt": CAT, "seed": 7, "output_format": "MP4"}
    assert bodies[HARBOUR]["seed"] == 11


@pytest.mark.parametrize(
    "wrong", [{"limits": {"max_in_flight": 0}}, {"budget_usd": -1}, {"limits": {"max_wait_minutes": 0}}]
)
def test_a_setting_out_of_bounds_is_refused_before_anything_is_sent(harness: Harness, wrong: dict[str, Any]) -> None:
    ended = harness.run(prompts(CAT), **wrong)

    assert ended.state.is_failed()
    assert next(iter(wrong)) in ended.state.message
    assert harness.api.requests == []


def test_one_video_from_the_form_is_made_and_not_bought_twice(harness: Harness) -> None:
    flow = load_script(FLOWS / "generate_video.py").generate_video

    async def work() -> Any:
        return await flow(CAT, output_dir=str(harness.output_dir), parameters={"seed": 3}, return_state=True)

    states = [harness.prefect.run(work) for _ in range(2)]

    assert [state.name for state in states] == ["Completed", "Completed"]
    assert harness.api.accepted(CAT) == 1


def test_a_collecting_run_fetches_what_is_paid_and_sends_no_create_call(harness: Harness) -> None:
    harness.api.script("in_progress", "completed", at_seconds=(0, 2), prompt=CAT)
    harness.run(prompts(CAT), limits=Limits(max_wait_minutes=0.01), budget_usd=7.77)
    flow = load_script(FLOWS / "collect_videos.py").collect_videos

    async def work() -> Any:
        return await flow(output_dir=str(harness.output_dir), return_state=True)

    state = harness.prefect.run(work)

    assert state.name == "Completed"
    assert harness.api.calls("create") == 1
    assert (harness.output_dir / "videos" / "r1.mp4").is_file()
    assert '"budgetUsd":7.77' in (harness.output_dir / "index.html").read_text()
