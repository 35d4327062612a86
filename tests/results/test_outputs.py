"""What a run leaves: results.csv in the table's order and valid as the next table, the page, the clips."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from prefect_together.api.jobs import VideoJob
from prefect_together.cli.commands import main
from prefect_together.clips.remote_store import open_store
from prefect_together.errors import FailureClass, JobFailed, RateLimited
from prefect_together.ledger.ledger import LEDGER_FILE, Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.request.form import Locations
from prefect_together.results.outputs import row_results
from prefect_together.results.results import totals
from prefect_together.table.plan import make_plan
from table_of_prompts import Harness, prompts, table_text
from tables import read

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"


def failed_rows(results: Path) -> str:
    """The header and the failed rows of a results.csv, as a spreadsheet's filter would leave them."""
    rows = list(csv.reader(io.StringIO(results.read_text(encoding="utf-8-sig"))))
    status = rows[0].index("status")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([rows[0], *(row for row in rows[1:] if row[status] == "failed")])
    return text.getvalue()


def test_results_have_the_tables_rows_in_its_order_with_its_own_columns(harness: Harness) -> None:
    table = table_text(
        [
            {"dimension": "scene", "prompt": HARBOUR, "id": "007", "note": "NA"},
            {"dimension": "object", "prompt": CAT, "id": "010", "note": "null"},
            {"dimension": "object", "prompt": BOAT, "id": "8.0", "note": ""},
        ]
    )

    rows = harness.run(table).rows

    assert list(rows[0]) == [
        *("dimension", "prompt", "id", "note"),
        *("status", "job_id", "file", "cost_usd", "attempts", "error"),
    ]
    assert [(row["id"], row["dimension"], row["note"]) for row in rows] == [
        ("007", "scene", "NA"),
        ("010", "object", "null"),
        ("8.0", "object", ""),
    ]
    assert [row["file"] for row in rows] == ["videos/007.mp4", "videos/010.mp4", "videos/8.0.mp4"]


def test_the_results_are_themselves_a_table_and_all_of_it_is_done(harness: Harness) -> None:
    harness.run(prompts(CAT, HARBOUR))
    creates = harness.api.calls("create")

    again = harness.run(str(harness.output_dir / "results.csv"))

    assert again.statuses == ["downloaded", "downloaded"]
    assert harness.api.calls("create") == creates


def test_the_failed_rows_of_the_results_are_a_table_that_does_exactly_them(harness: Harness, tmp_path: Path) -> None:
    harness.api.fault("job-moderated", prompt="harbour")
    harness.api.fault("job-moderated", prompt="boat")
    harness.run(prompts(CAT, HARBOUR, BOAT))
    part = tmp_path / "failed.csv"
    part.write_text(failed_rows(harness.output_dir / "results.csv"), encoding="utf-8")

    ended = harness.run(str(part), limits={"retry_failed": True})

    assert [(row["id"], row["status"]) for row in ended.rows] == [("r2", "downloaded"), ("r3", "downloaded")]
    assert [harness.api.accepted(prompt) for prompt in (CAT, HARBOUR, BOAT)] == [1, 2, 2]


@pytest.mark.slow
def test_the_failed_rows_into_another_directory_are_new_work(harness: Harness, tmp_path: Path) -> None:
    harness.api.fault("job-moderated", prompt="harbour")
    harness.run(prompts(CAT, HARBOUR))
    part = failed_rows(harness.output_dir / "results.csv")

    ended = harness.run(part, output_dir=str(tmp_path / "second"))

    assert ended.statuses == ["downloaded"]
    assert [harness.api.accepted(prompt) for prompt in (CAT, HARBOUR)] == [1, 2]


def test_cells_that_a_spreadsheet_would_run_come_back_unchanged(harness: Harness) -> None:
    table = table_text([{"id": "r1", "prompt": "=cat asleep on a drum", "note": "+1\n2"}])
    harness.run(table)

    again = harness.run(str(harness.output_dir / "results.csv"))

    assert again.rows[0]["prompt"] == "'=cat asleep on a drum"
    assert harness.api.accepted("=cat asleep on a drum") == 1
    assert harness.api.calls("create") == 1


def test_names_that_would_leave_the_directory_do_not(harness: Harness) -> None:
    table = table_text(
        [{"id": name, "prompt": CAT} for name in ("../../x", "/etc/x", "CON", "a" * 300, "é", "É", "🦊")]
    )

    rows = harness.run(table).rows

    files = [harness.output_dir / row["file"] for row in rows]
    assert [row["status"] for row in rows] == ["downloaded"] * 7
    assert all(file.resolve().parent == (harness.output_dir / "videos").resolve() for file in files)
    assert len({str(file).casefold() for file in files}) == 7


def test_the_directory_holds_the_clips_the_results_the_page_and_the_ledger(harness: Harness) -> None:
    harness.run(prompts(CAT, HARBOUR))

    assert {path.name for path in harness.output_dir.iterdir() if path.suffix != ".db-wal"} >= {
        *("videos", "results.csv", "videos.csv", "index.html", "ledger.db"),
    }
    assert sorted(path.name for path in (harness.output_dir / "videos").iterdir()) == ["r1.mp4", "r2.mp4"]
    assert "videos/r1.mp4" in (harness.output_dir / "index.html").read_text()


def test_a_run_whose_rows_all_fail_still_leaves_results_and_a_page(harness: Harness) -> None:
    harness.api.fault("job-moderated", count=None)

    ended = harness.run(prompts("A <script>alert(1)</script> cat"))

    page = (harness.output_dir / "index.html").read_text()
    assert ended.statuses == ["failed"]
    assert "<script>alert(1)" not in page


def test_a_file_that_was_cut_short_since_is_fetched_again(harness: Harness) -> None:
    file = harness.output_dir / harness.run(prompts(CAT)).rows[0]["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:100])

    harness.run(prompts(CAT))

    assert file.read_bytes() == whole
    assert harness.api.calls("create") == 1


def test_a_file_of_the_users_under_a_clips_name_is_kept_and_all_name_the_clip_that_was_made(harness: Harness) -> None:
    (harness.output_dir / "videos").mkdir(exist_ok=True)
    (harness.output_dir / "videos" / "r1.mp4").write_bytes(b"my holidays")

    ended = harness.run(prompts(CAT))

    assert (harness.output_dir / "videos" / "r1.mp4").read_bytes() == b"my holidays"
    assert (ended.statuses, ended.rows[0]["file"]) == (["downloaded"], "videos/r1-2.mp4")
    assert (harness.output_dir / "videos" / "r1-2.mp4").read_bytes()[4:8] == b"ftyp"
    assert "videos/r1-2.mp4" in (harness.output_dir / "index.html").read_text()
    assert harness.run(prompts(CAT)).rows == ended.rows
    assert harness.api.calls("download") == 1


def test_a_clip_that_the_user_has_edited_is_kept_and_fetched_again_beside_it(harness: Harness) -> None:
    file = harness.output_dir / harness.run(prompts(CAT)).rows[0]["file"]
    whole = file.read_bytes()
    file.write_bytes(whole + b"edited")

    ended = harness.run(prompts(CAT))

    assert file.read_bytes() == whole + b"edited"
    assert (harness.output_dir / ended.rows[0]["file"]).read_bytes() == whole
    assert ended.rows[0]["file"] == "videos/r1-2.mp4"
    assert harness.api.calls("create") == 1


@pytest.mark.slow
def test_symlinked_directories_are_written_like_any_other(harness: Harness, tmp_path: Path) -> None:
    real, disk, link = tmp_path / "real", tmp_path / "disk", tmp_path / "link"
    real.mkdir()
    disk.mkdir()
    link.symlink_to(real, target_is_directory=True)
    (real / "videos").symlink_to(disk, target_is_directory=True)

    first = harness.run(prompts(CAT), output_dir=str(link))
    again = harness.run(prompts(CAT), output_dir=str(real))

    assert [path.name for path in disk.iterdir()] == ["r1.mp4"]
    assert first.rows == again.rows
    assert (harness.api.calls("create"), harness.api.calls("download")) == (1, 1)


@pytest.mark.slow
def test_a_shared_ledger_knows_a_directory_by_every_link_to_it(harness: Harness, tmp_path: Path) -> None:
    real, link, other, ledger = (tmp_path / name for name in ("real", "link", "other", "ledger.db"))
    shared = Locations(ledger=str(ledger))
    real.mkdir()
    link.symlink_to(real, target_is_directory=True)
    harness.api.fault("401", endpoint="retrieve", count=None)
    harness.run(prompts(CAT), output_dir=str(link), locations=shared)
    harness.api.clear_faults()
    harness.run(prompts("A boat"), output_dir=str(other), locations=shared)

    gone = harness.run(prompts("A kite"), output_dir=str(real), locations=shared)

    assert gone.statuses == ["downloaded"]
    assert harness.api.calls("create") == 3
    assert len(list((real / "videos").glob("*.mp4"))) == 2, "that of the row that is gone too"
    assert main(["report", str(link), "--ledger", str(ledger)]) == 0
    assert "A kite" in (real / "index.html").read_text()


async def a_job(ledger: Ledger, key: str, job_id: str, *, failure: JobFailed | None = None) -> None:
    """One that is completed at $0.28, or fails and is planned anew."""
    attempt = await ledger.intend(key, estimate_usd=0.28, budget_usd=None)
    await ledger.accepted(key, attempt, VideoJob(job_id))
    if failure is None:
        done = VideoJob(job_id, "completed", cost_usd=0.28)
        await ledger.completed(key, done, generation_seconds=1.0, polls=1)
    else:
        await ledger.failed(key, failure, again=True)


def lost(job_id: str, cost_usd: float | None) -> JobFailed:
    return JobFailed(job_id, None, "gpu lost", FailureClass.UPSTREAM, cost_usd)


async def test_only_money_that_nobody_settled_is_held_whatever_became_of_the_video(tmp_path: Path) -> None:
    plan = make_plan(read("id,prompt\nlimited,A cat\nfree,A dog\nsilent,A fox\ndoubt,An owl\n"))
    limited, free, silent, doubt = plan.videos
    async with open_ledger(str(tmp_path / LEDGER_FILE)) as ledger:
        await ledger.plan(list(plan.videos.values()))
        for key in plan.videos:
            await ledger.claim(key)
        attempt = await ledger.intend(limited, estimate_usd=0.28, budget_usd=None)
        await ledger.not_accepted(limited, attempt, RateLimited(429, None, "later"), state=State.PLANNED)
        await a_job(ledger, free, "job-1", failure=lost("job-1", 0.0))
        await a_job(ledger, silent, "job-2", failure=lost("job-2", None))
        attempt = await ledger.intend(doubt, estimate_usd=0.28, budget_usd=None)
        await ledger.in_doubt(doubt, attempt, "no answer")
        await ledger.claim(doubt, resend_attempt=attempt, states=[State.IN_DOUBT])
        for key in plan.videos:
            await a_job(ledger, key, f"done-{key}")

        rows = row_results(plan, await ledger.records(), await ledger.unsettled(), open_store(str(tmp_path)))
        in_ledger = await ledger.totals()

    assert [row.takes[0].failed_usd for row in rows] == [0.0, 0.0, 0.28, 0.0]
    assert [row.takes[0].in_doubt_usd for row in rows] == [0.0, 0.0, 0.0, 0.28]
    assert totals(rows).failed_usd == in_ledger.unsettled_failed_usd == 0.28
    assert totals(rows).in_doubt_usd == in_ledger.in_doubt_usd == 0.28


async def test_a_call_whose_run_ended_before_the_answer_is_held_before_any_run_marks_it(tmp_path: Path) -> None:
    plan = make_plan(read("id,prompt\na,A cat\n"))
    async with open_ledger(str(tmp_path / LEDGER_FILE)) as ledger:
        await ledger.plan(list(plan.videos.values()))
        (key,) = plan.videos
        await ledger.claim(key)
        await ledger.intend(key, estimate_usd=0.28, budget_usd=None)

    async with open_ledger(str(tmp_path / LEDGER_FILE)) as ledger:
        rows = row_results(plan, await ledger.records(), await ledger.unsettled(), open_store(str(tmp_path)))

    assert rows[0].status == "in_doubt"
    assert totals(rows).in_doubt_usd == 0.28
