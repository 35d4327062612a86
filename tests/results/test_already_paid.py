"""What is paid for is seen before it is paid for again: a ledger that is lost, and rows under other ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clip_files import make_clip
from prefect_together.api.jobs import VideoJob
from prefect_together.cli.commands import main
from prefect_together.clips.download import VIDEO_SUFFIXES
from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore
from prefect_together.flows.preview import report_on
from prefect_together.ledger.ledger import HERE, LEDGER_FILE, Ledger, open_ledger
from prefect_together.ledger.records import UnsavedJob
from prefect_together.ledger.states import State
from prefect_together.problems import SettingsInvalid
from prefect_together.results.already_paid import (
    UNSAVED_FILE,
    keep_unsaved,
    paid_rows,
    paid_under_other_ids,
    rebuy_problem,
    refuse_unknown_work,
)
from prefect_together.results.outputs import RESULTS_FILE, VIDEOS_FILE, PageSummary, row_results, write_outputs
from prefect_together.results.recovery import recover
from prefect_together.table.plan import Plan, make_plan
from tables import read

CLIP = make_clip()
FILE = "videos/boat-2.mp4"
"""Of the first row: a file of the user's had its name."""
TABLE = "id,prompt\nboat,A paper boat\ncat,A cat asleep\ndawn,A harbour\nfox,A red fox\n"


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return open_store(str(tmp_path))


@asynccontextmanager
async def ledger_in(store: OutputStore) -> AsyncGenerator[Ledger]:
    async with open_ledger(str(store.local_dir / LEDGER_FILE)) as ledger:
        yield ledger


async def send(ledger: Ledger, key: str, job_id: str | None) -> int:
    """A create call; without an id its answer never came."""
    await ledger.claim(key)
    attempt = await ledger.intend(key, estimate_usd=0.28, budget_usd=None)
    if job_id is None:
        await ledger.in_doubt(key, attempt, "no answer")
    else:
        await ledger.accepted(key, attempt, VideoJob(job_id))
    return attempt


async def a_run(store: OutputStore, plan: Plan) -> None:
    """A run that got boat downloaded, cat submitted and dawn in doubt, and never came to fox."""
    await store.prepare()
    boat, cat, dawn, _ = plan.videos
    async with ledger_in(store) as ledger:
        await ledger.plan(list(plan.videos.values()))
        await send(ledger, boat, "job-boat")
        done = VideoJob("job-boat", "completed", cost_usd=0.25)
        await ledger.completed(boat, done, generation_seconds=90.0, polls=3)
        (store.local_dir / FILE).write_bytes(CLIP)
        await ledger.downloaded(boat, file=FILE, size_bytes=len(CLIP), sha256="x", clip={})
        await send(ledger, cat, "job-cat")
        await send(ledger, dawn, None)
        rows = row_results(plan, await ledger.records(), await ledger.unsettled(), store)
    await write_outputs(store, plan, rows, PageSummary())


async def check(store: OutputStore) -> None:
    async with ledger_in(store) as ledger:
        await refuse_unknown_work(ledger, store)


def lose_the_ledger(store: OutputStore) -> None:
    for path in store.local_dir.glob("ledger.db*"):
        path.unlink()


async def test_the_directorys_own_ledger_knows_its_work(store: OutputStore) -> None:
    await a_run(store, make_plan(read(TABLE)))

    await check(store)

    assert [(row.number, row.status, row.job_ids) for row in await paid_rows(store)] == [
        (2, "downloaded", ("job-boat",)),
        (3, "submitted", ("job-cat",)),
        (4, "in_doubt", ()),
    ]


async def test_an_empty_directory_is_a_new_one(store: OutputStore) -> None:
    await store.prepare()

    await check(store)


@pytest.mark.parametrize("damage", ["deleted", "emptied", "header only"])
async def test_a_lost_ledger_is_no_new_one(store: OutputStore, damage: str) -> None:
    await a_run(store, make_plan(read(TABLE)))
    lose_the_ledger(store)
    if damage != "deleted":
        (store.local_dir / LEDGER_FILE).write_bytes(b"" if damage == "emptied" else bytes(0))

    with pytest.raises(SettingsInvalid, match=r"3 rows of .*results.csv \(\$0.25 paid\) have jobs that the ledger"):
        await check(store)


async def test_a_lost_ledger_is_no_new_one_though_a_spreadsheet_wrote_the_results(store: OutputStore) -> None:
    await a_run(store, make_plan(read(TABLE)))
    lose_the_ledger(store)
    results = store.local_dir / RESULTS_FILE
    header, *lines = results.read_text().splitlines()
    results.write_text("\n".join([header.upper(), *lines]))

    with pytest.raises(SettingsInvalid, match="would be paid for again"):
        await check(store)


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
async def test_clips_without_a_table_are_paid_work_too(store: OutputStore, suffix: str) -> None:
    await a_run(store, make_plan(read(TABLE)))
    lose_the_ledger(store)
    (store.local_dir / RESULTS_FILE).unlink()
    clip = store.local_dir / FILE
    clip.rename(clip.with_suffix(suffix))

    with pytest.raises(SettingsInvalid, match=rf"videos has 1 clip \(boat-2{suffix}"):
        await check(store)


async def test_an_older_copy_of_the_ledger_is_seen_by_the_jobs_it_does_not_know(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await store.prepare()
    async with ledger_in(store) as ledger:
        await ledger.plan(list(plan.videos.values()))
        await send(ledger, list(plan.videos)[3], "job-fox")
    older = (store.local_dir / LEDGER_FILE).read_bytes()
    await a_run(store, plan)
    (store.local_dir / LEDGER_FILE).write_bytes(older)

    with pytest.raises(SettingsInvalid, match="2 rows of"):
        await check(store)


async def test_the_price_of_a_still_is_not_recovered_as_a_part_of_its_videos(store: OutputStore) -> None:
    plan = make_plan(read("id,prompt,still_prompt\nboat,It sails,A boat\ncat,It sleeps,A cat\n"))
    await store.prepare()
    async with ledger_in(store) as ledger:
        await ledger.plan(list(plan.videos.values()))
        for row in plan.rows:
            for key, usd in ((row.still_key, 0.01), (*row.keys, 0.25 if row.number == 2 else None)):
                assert key is not None
                await send(ledger, key, f"job-{key}")
                done = VideoJob(f"job-{key}", "completed", cost_usd=usd)
                if usd is not None:
                    await ledger.completed(key, done, generation_seconds=1.0, polls=1)
        rows = row_results(plan, await ledger.records(), await ledger.unsettled(), store)
    await write_outputs(store, plan, rows, PageSummary())
    lose_the_ledger(store)

    async with ledger_in(store) as ledger:
        await recover(plan, ledger, store, output_dir=HERE)
        records = await ledger.records()

    boat, cat = (records[key] for row in plan.rows for key in row.keys)
    assert [(one.state, one.cost_usd) for one in (boat, cat)] == [(State.SUBMITTED, 0.25), (State.SUBMITTED, None)]


async def test_what_results_and_clips_prove_is_recovered_and_not_sent_again(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await a_run(store, plan)
    lose_the_ledger(store)

    again = make_plan(read((store.local_dir / VIDEOS_FILE).read_text("utf-8-sig")))
    async with ledger_in(store) as ledger:
        recovered = await recover(again, ledger, store, output_dir=HERE)
        records = await ledger.records()
        await refuse_unknown_work(ledger, store)

    states = {record.row_id: (record.state, record.job_id) for record in records.values()}
    assert records.keys() == plan.videos.keys()
    assert states == {
        "boat": (State.DOWNLOADED, "job-boat"),
        "cat": (State.SUBMITTED, "job-cat"),
        "dawn": (State.IN_DOUBT, None),
        "fox": (State.PLANNED, None),
    }
    boat = records[next(iter(plan.videos))]
    assert (boat.file, boat.size_bytes, boat.cost_usd) == (FILE, len(CLIP), 0.25)
    assert recovered.committed_usd == pytest.approx(0.25 + 0.28 + 0.28)
    assert recovered.summary == "recovered 1 downloaded, 1 submitted, 1 in doubt: $0.81 committed"


async def test_clips_that_no_line_names_are_counted(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await a_run(store, plan)
    lose_the_ledger(store)
    (store.local_dir / "videos" / "another.mp4").write_bytes(CLIP)

    async with ledger_in(store) as ledger:
        recovered = await recover(plan, ledger, store, output_dir=HERE)

    assert recovered.summary.endswith(
        "; no line of videos.csv names 1 clip in videos/: what they show would be paid for again"
    )


async def test_stills_that_cannot_be_recovered_are_named(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await a_run(store, plan)
    lose_the_ledger(store)
    (store.local_dir / "stills").mkdir()
    (store.local_dir / "stills" / "boat.jpg").write_bytes(b"a picture")

    async with ledger_in(store) as ledger:
        recovered = await recover(plan, ledger, store, output_dir=HERE)

    assert recovered.summary.endswith(
        "; 1 still in stills/ cannot be recovered: what a video yet to be made needs is paid for again"
    )


def test_the_command_rebuilds_the_ledger(store: OutputStore, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(a_run(store, make_plan(read(TABLE))))
    lose_the_ledger(store)

    assert main(["recover", str(store.local_dir)]) == 0
    assert "recovered 1 downloaded, 1 submitted, 1 in doubt: $0.81 committed" in capsys.readouterr().out
    assert main(["recover", str(store.local_dir)]) == 0
    assert "nothing to recover" in capsys.readouterr().out
    assert main(["recover", str(store.local_dir / "videos")]) == 2


async def test_a_job_that_no_ledger_could_take_is_recovered_from_its_file(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await a_run(store, plan)
    lose_the_ledger(store)
    fox = list(plan.videos)[3]
    keep_unsaved(store, UnsavedJob(fox, 1, "job-fox", 1.0))

    async with ledger_in(store) as ledger:
        await recover(plan, ledger, store, output_dir=HERE)
        record = (await ledger.records())[fox]

    assert (record.state, record.job_id, record.jobs) == (State.SUBMITTED, "job-fox", 1)
    assert not (store.local_dir / UNSAVED_FILE).exists()


async def test_a_clip_that_is_not_whole_is_collected_again(store: OutputStore) -> None:
    plan = make_plan(read(TABLE))
    await a_run(store, plan)
    lose_the_ledger(store)
    (store.local_dir / FILE).write_bytes(CLIP[:100])

    async with ledger_in(store) as ledger:
        await recover(plan, ledger, store, output_dir=HERE)
        boat = (await ledger.records())[next(iter(plan.videos))]

    assert (boat.state, boat.job_id) == (State.SUBMITTED, "job-boat")


async def test_the_plan_warns_of_what_would_be_paid_for_again_under_another_id(store: OutputStore) -> None:
    await a_run(store, make_plan(read(TABLE)))
    without_ids = make_plan(read("prompt\nA paper boat\nA cat asleep\nA harbour\nA red fox\n"))

    report = await report_on(without_ids, str(store.local_dir))
    same_ids = await report_on(make_plan(read(TABLE)), str(store.local_dir))

    [warning] = report.warnings
    assert "3 videos would be paid for again, up to $0.84" in warning
    assert same_ids.warnings == ()


async def test_rows_that_lost_their_ids_are_the_paid_ones(store: OutputStore) -> None:
    await a_run(store, make_plan(read(TABLE)))
    without_ids = make_plan(read("prompt\nA paper boat\nA cat asleep\nA harbour\nA red fox\n"))

    async with ledger_in(store) as ledger:
        found = paid_under_other_ids(without_ids, await ledger.records(), output_dir=HERE)

    assert [(one.row, one.record.row_id) for one in found] == [(2, "boat"), (3, "cat"), (4, "dawn")]
    message = str(rebuy_problem(found))
    assert "3 videos would be paid for again, up to $0.84" in message
    assert "(1 downloaded, 1 submitted, 1 in doubt)" in message


async def test_takes_and_rows_that_the_table_still_has_are_not_taken_for_others(store: OutputStore) -> None:
    await a_run(store, make_plan(read(TABLE)))
    more = make_plan(read(f"{TABLE}boat-2,A paper boat\n"))  # on purpose: an id of its own beside the first

    async with ledger_in(store) as ledger:
        assert paid_under_other_ids(more, await ledger.records(), output_dir=HERE) == []
