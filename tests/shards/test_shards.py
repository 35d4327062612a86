"""Several runs over one table: what a shard gets, what it does with it, and when it says no before anything is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Connection, update

from captured_events import captured_events, events_named
from prefect_together.errors import NotConfigured
from prefect_together.execution.settings import NO_SERVER, Partition
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.schema import shared_plans
from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import Limits
from prefect_together.shards.shards import marker
from prefect_together.shards.shared_plan import dead_shards, delete_plan, join, save_plan
from prefect_together.steps.events import budget_event
from prefect_together.table.plan import Plan, make_plan
from prefect_together.table.prompt_table import read_table
from shell import in_shell
from table_of_prompts import FLOWS, MODEL, PRICE_USD, Harness, load_script, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"
PLAN = "5d0a3c9e-0000-4000-8000-000000000001"


def plan_of(table: str, **settings: Any) -> Plan:
    return make_plan(read_table(table, defaults={"model": MODEL}, catalogue_checks=False, **settings))


async def laid_down(ledger: Ledger, plan: Plan, attempts: Mapping[str, int] | None = None) -> None:
    """Do what the run that has the table does before it starts others."""
    records = await ledger.plan(list(plan.videos.values()))
    known = {key: record.attempts for key, record in records.items()} | dict(attempts or {})
    await save_plan(ledger, PLAN, plan.videos.values(), known)


def prepared(harness: Harness, plan: Plan, attempts: Mapping[str, int] | None = None) -> None:
    """The same, in the harness's output directory."""

    async def prepare() -> None:
        async with open_ledger(str(harness.output_dir / "ledger.db")) as ledger:
            await laid_down(ledger, plan, attempts)

    harness.output_dir.mkdir(exist_ok=True)
    (harness.output_dir / marker(PLAN)).write_text(PLAN)
    asyncio.run(prepare())


def run_shard(
    harness: Harness, *, output_dir: Path | None = None, budget_usd: float | None = None, **limits: Any
) -> Any:
    """The state in which the second of two shards ends."""
    flow = load_script(FLOWS / "generate_videos_shard.py").generate_videos_shard

    async def work() -> Any:
        given = {
            "shard": 2,
            "budget_usd": budget_usd,
            "output_dir": str(output_dir or harness.output_dir),
            "limits": Limits(shards=2, **limits),
        }
        return await flow(PLAN, **given, return_state=True)

    return harness.prefect.run(work)


def test_a_shard_makes_stills_and_the_videos_that_begin_with_them(harness: Harness) -> None:
    plan = plan_of("id,prompt,still_prompt\nboat,it sails,A red boat\nlamp,it glows,A lamp\n")
    prepared(harness, plan)

    state = run_shard(harness)

    assert state.is_completed(), state.message
    assert sorted(picture["prompt"] for picture in harness.api.images()) == ["A lamp", "A red boat"]
    assert harness.api.accepted() == 2
    assert len(list((harness.output_dir / "videos").glob("*.mp4"))) == 2


@pytest.mark.parametrize(("limit", "of"), [(20, 4), (7, 3), (100, 7), (3, 3)])
def test_the_parts_of_a_limit_add_up_to_it_and_none_is_empty(limit: int, of: int) -> None:
    parts = [Partition(index, of).part_of(limit) for index in range(of)]

    assert sum(parts) == limit
    assert min(parts) >= 1


def test_each_position_of_a_plan_is_in_one_share() -> None:
    partitions = [Partition(index, 3) for index in range(3)]

    assert all(sum(partition.has(position) for partition in partitions) == 1 for position in range(20))


async def test_a_plan_comes_out_of_the_ledger_as_it_was_laid_down(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "start.png")
    rows = [
        {"id": "a", "prompt": CAT, "seconds": "5", "first_frame": "start.png", "price_usd": "0.4"},
        {"id": "b", "prompt": f"{BOAT} \N{WATER WAVE}", "extra_body": '{"settings": {"audio": null}}', "count": 2},
        {"id": "c", "prompt": CAT, "seed": 7, "count": 3},
    ]
    plan = plan_of(table_text(rows), image_directory=str(tmp_path))

    async with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        await laid_down(ledger, plan)
        shared = await join(ledger, PLAN, 1)

    assert shared is not None
    assert list(shared.plan.videos) == list(plan.videos)
    for key, video in plan.videos.items():
        found = shared.plan.videos[key]
        assert (found.request, found.estimate_usd, found.low_usd) == (video.request, video.estimate_usd, video.low_usd)
        assert (found.row_id, found.take) == (video.row_id, video.take)


async def test_a_plan_that_was_swept_away_is_not_there(tmp_path: Path) -> None:
    async with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        await laid_down(ledger, plan_of(prompts(CAT)))
        await join(ledger, PLAN, 1)

        await delete_plan(ledger, PLAN)

        assert await join(ledger, PLAN, 1) is None


async def test_a_shard_that_has_ended_or_goes_on_is_not_gone(tmp_path: Path) -> None:
    url = str(tmp_path / "ledger.db")
    async with open_ledger(url) as ledger:
        await laid_down(ledger, plan_of(prompts(CAT)))
        async with open_ledger(url) as other:
            await join(other, PLAN, 1)
            while_it_works = await dead_shards(ledger, PLAN)
        after_its_end = await dead_shards(ledger, PLAN)

    assert while_it_works == after_its_end == frozenset()


def test_a_shard_does_its_share_and_then_what_others_have_not_begun(harness: Harness) -> None:
    prepared(harness, plan_of(prompts(CAT, HARBOUR, BOAT)))

    state = run_shard(harness)

    assert state.is_completed()
    assert state.message == "3 videos downloaded by this shard"
    assert [harness.api.accepted(prompt) for prompt in (CAT, HARBOUR, BOAT)] == [1, 1, 1]
    assert len(list((harness.output_dir / "videos").glob("*.mp4"))) == 3


def test_a_shard_that_comes_late_does_not_send_again_what_was_sent_since_the_plan(harness: Harness) -> None:
    plan = plan_of(prompts(CAT))
    (key,) = plan.videos

    async def send_without_answer() -> None:
        async with open_ledger(str(harness.output_dir / "ledger.db")) as ledger:
            await ledger.claim(key)
            await ledger.in_doubt(key, await ledger.intend(key, estimate_usd=0.28, budget_usd=None), "no answer")

    prepared(harness, plan)
    asyncio.run(send_without_answer())

    state = run_shard(harness, resubmit_in_doubt=True)

    assert state.is_completed()
    assert harness.api.calls("create") == 0


def test_a_shard_that_is_started_again_after_its_run_buys_nothing_and_says_what_to_do(harness: Harness) -> None:
    prepared(harness, plan_of(prompts(CAT)))

    async def end() -> None:
        async with open_ledger(str(harness.output_dir / "ledger.db")) as ledger:
            await delete_plan(ledger, PLAN)

    asyncio.run(end())

    state = run_shard(harness)

    assert state.is_failed()
    assert "start generate-videos again" in state.message
    assert harness.api.calls("create") == 0


def test_a_shard_whose_output_directory_is_another_one_writes_nothing_there(harness: Harness, tmp_path: Path) -> None:
    prepared(harness, plan_of(prompts(CAT)))
    elsewhere = tmp_path / "not-mounted"

    state = run_shard(harness, output_dir=elsewhere)

    assert state.is_failed()
    assert "mount the same shared directory at the same path" in state.message
    assert not elsewhere.exists()
    assert harness.api.calls("create") == 0


def test_a_shard_without_the_images_of_the_table_sends_nothing_and_names_them(harness: Harness, tmp_path: Path) -> None:
    image = tmp_path / "start.png"
    Image.new("RGB", (16, 16), "red").save(image)
    table = table_text([{"id": "a", "prompt": CAT, "first_frame": "start.png"}])
    prepared(harness, plan_of(table, image_directory=str(tmp_path)))
    image.unlink()

    state = run_shard(harness)

    assert state.is_failed()
    assert f"1 image of the table not found on this machine: {image} (row a)" in state.message
    assert harness.api.calls("create") == 0


def test_a_ledger_that_is_a_file_is_not_shared_with_another_machine(harness: Harness) -> None:
    prepared(harness, plan_of(prompts(CAT)))

    def move(connection: Connection) -> None:
        connection.execute(update(shared_plans).values(machine="another"))

    async def work() -> None:
        async with open_ledger(str(harness.output_dir / "ledger.db")) as ledger:
            await ledger.transaction(move)

    asyncio.run(work())

    state = run_shard(harness)

    assert state.is_failed()
    assert "a ledger that several machines share is in PostgreSQL" in state.message
    assert harness.api.calls("create") == 0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "there is no deployment generate-videos-shard/shard on this Prefect server"),
        ({"limits": {"shards": 2, "max_in_flight": 1}}, "1 jobs at once cannot be divided among 2 shards"),
        ({"sandbox": True}, "prefect-together sandbox"),
        ({"locations": {"ledger": "postgresql://me:secret@127.0.0.1/videos"}}, "PGPASSWORD"),
    ],
)
def test_what_cannot_be_shared_is_said_before_anything_is_sent(
    harness: Harness, parameters: dict[str, Any], says: str
) -> None:
    ended = harness.run(prompts(CAT), **{"limits": {"shards": 2}, **parameters})

    assert ended.state.is_failed()
    assert isinstance(ended.result, SettingsInvalid | NotConfigured)
    assert says in ended.state.message
    assert "secret" not in ended.state.message
    assert harness.api.calls("create") == 0


@pytest.mark.slow
def test_a_shell_without_a_prefect_server_says_that_shards_need_one(tmp_path: Path) -> None:
    done = in_shell(tmp_path, prompts(CAT), "--model", MODEL, "--shards", "2", TOGETHER_API_KEY="x")

    assert done.returncode == 2
    assert NO_SERVER in done.stderr


def test_a_shard_reports_only_the_parts_of_a_budget_that_no_other_run_has_reached(harness: Harness) -> None:
    table, budget_usd = prompts(CAT, HARBOUR, BOAT, "A red fox"), round(4 * PRICE_USD, 2)
    with captured_events():
        harness.run(prompts(CAT, HARBOUR), budget_usd=budget_usd)
        before = [event.event for event in events_named("together-video.run.budget_")]
        prepared(harness, plan_of(table))

        state = run_shard(harness, budget_usd=budget_usd)

        events = events_named("together-video.run.budget_")

    assert state.is_completed(), state.message
    assert before == [budget_event(50)]
    assert [event.event for event in events] == [budget_event(50), budget_event(80), budget_event(95)]
    assert f"prefect.flow-run.{state.state_details.flow_run_id}" in {related.id for related in events[-1].related}
