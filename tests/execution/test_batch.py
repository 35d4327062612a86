"""Nothing is paid twice, nothing is lost: the flow over tables, run after run, against the sandbox. Without Prefect's
own records, which are in test_generate_videos."""

from __future__ import annotations

import pytest

from prefect_together.request.form import Limits
from prefect_together.results.outcome import RowsFailed, RunOutcome
from prefect_together.sandbox import MISSING
from table_of_prompts import PRICE_USD, Harness, paid_calls, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"


def test_every_row_downloaded_is_completed_with_the_outcome(harness: Harness) -> None:
    ended = harness.run(prompts(CAT, HARBOUR))

    assert ended.state.is_completed()
    assert ended.state.name == "Completed"
    assert isinstance(ended.result, RunOutcome)
    assert ended.statuses == ["downloaded", "downloaded"]
    assert all((harness.output_dir / row["file"]).stat().st_size > 1000 for row in ended.rows)
    assert [row["cost_usd"] for row in ended.rows] == [str(PRICE_USD)] * 2


def test_a_second_run_sends_nothing(harness: Harness) -> None:
    first = harness.run(prompts(CAT, HARBOUR))
    requests = paid_calls(harness)

    second = harness.run(prompts(CAT, HARBOUR))

    assert first.rows == second.rows
    assert paid_calls(harness) == requests
    assert second.state.is_completed()


def test_a_changed_row_is_new_work_beside_the_old_file(harness: Harness) -> None:
    before = harness.run(prompts(CAT)).rows[0]["file"]

    after = harness.run(prompts(HARBOUR)).rows[0]["file"]

    assert before != after
    assert (harness.output_dir / before).is_file()
    assert (harness.output_dir / after).is_file()
    assert (harness.api.accepted(CAT), harness.api.accepted(HARBOUR)) == (1, 1)


def test_a_deleted_clip_is_fetched_again_without_a_post(harness: Harness) -> None:
    file = harness.output_dir / harness.run(prompts(CAT)).rows[0]["file"]
    file.unlink()

    again = harness.run(prompts(CAT))

    assert again.statuses == ["downloaded"]
    assert file.is_file()
    assert harness.api.calls("create") == 1


def test_a_clip_whose_link_has_expired_is_fetched_by_a_fresh_one(harness: Harness) -> None:
    file = harness.output_dir / harness.run(prompts(CAT)).rows[0]["file"]
    file.unlink()
    harness.api.expire_links()

    again = harness.run(prompts(CAT))

    assert again.statuses == ["downloaded"]
    assert harness.api.calls("create") == 1


def test_a_moderated_row_fails_and_is_never_sent_again(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt=CAT, count=None)

    first, second = harness.run(prompts(CAT, HARBOUR)), harness.run(prompts(CAT, HARBOUR))

    assert first.statuses == second.statuses == ["failed", "downloaded"]
    assert "moderation" in second.rows[0]["error"]
    assert harness.api.accepted(CAT) == 1
    assert second.state.is_failed()


def test_a_parameter_refused_at_once_is_never_sent_again_and_named(harness: Harness) -> None:
    runs = [harness.run(prompts("x"), limits=Limits(catalogue_checks=False)) for _ in range(2)]

    assert [run.statuses for run in runs] == [["failed"], ["failed"]]
    assert "field prompt" in runs[1].rows[0]["error"]
    assert (harness.api.calls("create"), harness.api.accepted()) == (1, 0)


def test_a_parameter_found_bad_after_acceptance_is_never_sent_again_and_named(harness: Harness) -> None:
    table = table_text([{"id": "r1", "prompt": CAT, "seconds": 99}])

    runs = [harness.run(table, limits=Limits(catalogue_checks=False)) for _ in range(2)]

    assert [run.statuses for run in runs] == [["failed"], ["failed"]]
    assert "(bad parameter, job " in runs[1].rows[0]["error"]
    assert "Duration 99 is not supported" in runs[1].rows[0]["error"]
    assert harness.api.accepted() == 1


def test_an_upstream_failure_is_sent_once_more(harness: Harness) -> None:
    harness.api.fault("job-fails", count=1)

    ended = harness.run(prompts(CAT))

    assert [(row["status"], row["attempts"]) for row in ended.rows] == [("downloaded", "2")]
    assert harness.api.accepted(CAT) == 2


def test_a_row_that_fails_upstream_twice_has_failed_for_good(harness: Harness) -> None:
    harness.api.fault("job-fails", count=None)

    runs = [harness.run(prompts(CAT)) for _ in range(2)]

    assert [(run.rows[0]["status"], run.rows[0]["attempts"]) for run in runs] == [("failed", "2")] * 2
    assert harness.api.accepted(CAT) == 2


def test_retry_failed_sends_failed_rows_again_and_only_those(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt=CAT, count=1)
    harness.run(prompts(CAT, HARBOUR))

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(retry_failed=True))

    assert ended.statuses == ["downloaded", "downloaded"]
    assert (harness.api.accepted(CAT), harness.api.accepted(HARBOUR)) == (2, 1)


@pytest.mark.slow
def test_statuses_that_nobody_knows_are_waited_for(harness: Harness) -> None:
    harness.api.script(None, MISSING, "archived", "completed", prompt=CAT)

    ended = harness.run(prompts(CAT))

    assert ended.statuses == ["downloaded"]
    assert harness.api.calls("retrieve") >= 4


@pytest.mark.slow
def test_completed_without_a_link_is_not_done_yet(harness: Harness) -> None:
    harness.api.fault("no-url", endpoint="retrieve", count=2)

    ended = harness.run(prompts(CAT))

    assert ended.statuses == ["downloaded"]
    assert harness.api.calls("retrieve") == 3


def test_what_is_not_done_at_the_deadline_is_collected_by_the_next_run(harness: Harness) -> None:
    harness.api.script("in_progress", "completed", at_seconds=(0, 3), prompt=CAT)

    late = harness.run(prompts(CAT, HARBOUR), limits=Limits(max_wait_minutes=0.02))
    creates = harness.api.calls("create")
    collected = harness.run(prompts(CAT, HARBOUR))

    assert late.statuses == ["submitted", "downloaded"]
    assert late.rows[0]["job_id"] == collected.rows[0]["job_id"]
    assert late.state.is_completed()
    assert late.state.name == "StillGenerating"
    assert collected.statuses == ["downloaded", "downloaded"]
    assert harness.api.calls("create") == creates == 2


@pytest.mark.slow
def test_what_is_refused_for_rate_is_sent_again_until_it_is_taken(harness: Harness) -> None:
    harness.api.fault("429", endpoint="create", count=2)
    harness.api.fault("503", endpoint="create", count=1, after=2)

    ended = harness.run(prompts(CAT, HARBOUR, BOAT))

    assert ended.statuses == ["downloaded"] * 3
    assert [row["attempts"] for row in ended.rows] == ["1"] * 3
    assert harness.api.accepted() == 3


@pytest.mark.slow
def test_a_failed_poll_is_a_missed_poll(harness: Harness) -> None:
    for fault in ("500", "html", "half-json", "drop", "404"):
        harness.api.fault(fault, endpoint="retrieve", count=1)

    ended = harness.run(prompts(CAT))

    assert ended.statuses == ["downloaded"]
    assert harness.api.accepted() == 1


def test_identical_rows_without_ids_share_one_job(harness: Harness) -> None:
    ended = harness.run(table_text([{"prompt": CAT}, {"prompt": HARBOUR}, {"prompt": CAT}]))

    assert ended.statuses == ["downloaded"] * 3
    assert ended.rows[0]["file"] == ended.rows[2]["file"]
    assert [row["attempts"] for row in ended.rows] == ["1", "1", "0"]
    assert harness.api.accepted(CAT) == 1


@pytest.mark.slow
def test_identical_rows_with_ids_of_their_own_are_work_of_their_own(harness: Harness) -> None:
    ended = harness.run(prompts(CAT, CAT))

    assert ended.statuses == ["downloaded"] * 2
    assert ended.rows[0]["file"] != ended.rows[1]["file"]
    assert harness.api.accepted(CAT) == 2


def test_takes_of_a_row_with_a_seed_are_sent_with_seeds_of_their_own(harness: Harness) -> None:
    ended = harness.run(
        table_text([{"id": "r1", "prompt": CAT, "seed": 7, "count": 3}]), limits=Limits(catalogue_checks=False)
    )

    seeds = [request.body["seed"] for request in harness.api.requests if request.endpoint == "create"]
    assert sorted(seeds) == [7, 8, 9]
    [row] = ended.result.rows
    assert [take.parameters["seed"] for take in row.takes] == [7, 8, 9]


def test_count_asks_for_several_takes(harness: Harness) -> None:
    ended = harness.run(table_text([{"id": "r1", "prompt": CAT, "count": 3}]))

    files = ended.rows[0]["file"].split("|")
    assert (len(set(files)), ended.rows[0]["attempts"], ended.rows[0]["cost_usd"]) == (3, "3", "0.84")
    assert all((harness.output_dir / file).is_file() for file in files)
    assert harness.api.accepted(CAT) == 3


def test_no_more_than_max_in_flight_jobs_are_at_the_provider_at_once(harness: Harness) -> None:
    table = prompts(*(f"{CAT}, take {take}" for take in range(8)))

    harness.run(table, limits=Limits(max_in_flight=3))

    looks = [request for request in harness.api.requests if request.endpoint in ("create", "retrieve")]
    open_jobs, most = 0, 0
    for request in looks:
        open_jobs += 1 if request.endpoint == "create" else -1
        most = max(most, open_jobs)
    assert most <= 3
    assert harness.api.accepted() == 8


def test_the_outcome_says_why_the_first_rows_failed(harness: Harness) -> None:
    harness.api.fault("job-moderated", count=None)

    ended = harness.run(prompts(*(f"{CAT}, take {take}" for take in range(5))))

    held = "held for failed jobs without a reported cost"
    assert ended.state.message.startswith(f"5 failed of 5 rows, $0.00, $1.40 {held}. row 2 (r1) failed: content_")
    assert ended.state.message.endswith("and 2 more")


def test_failures_within_what_is_allowed_complete_the_run_under_a_name_of_their_own(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt=CAT)

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(allowed_failures=1))

    assert ended.state.is_completed()
    assert ended.state.name == "CompletedWithFailures"
    held = "held for failed jobs without a reported cost"
    assert ended.state.message.startswith(f"1 downloaded, 1 failed of 2 rows, $0.28, $0.28 {held}. row 2 (r1) failed:")
    assert isinstance(ended.result, RunOutcome)
    assert ended.result.exit_code == 1


def test_one_failure_more_than_allowed_fails_the_run(harness: Harness) -> None:
    harness.api.fault("job-moderated", count=None)

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(allowed_failures=1))

    assert ended.state.is_failed()
    assert ended.state.name == "Failed"
    assert isinstance(ended.result, RowsFailed)


def test_rows_still_generating_are_no_failures_and_are_said_beside_those_that_are_allowed(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt=CAT)
    harness.api.script("in_progress", prompt=HARBOUR)

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(allowed_failures=1, max_wait_minutes=0.02))

    assert ended.statuses == ["failed", "submitted"]
    assert ended.state.name == "CompletedWithFailures"
    assert ended.state.message.endswith("Run again to collect the rest.")
