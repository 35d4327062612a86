"""videos.csv: a line for each video, and itself a table that asks for the same videos."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.clips.store import LocalStore
from prefect_together.results.outputs import row_results
from prefect_together.results.results import RowResult, results_csv, totals, videos_csv
from prefect_together.table.plan import Plan, make_plan
from tables import FREE, problems_of, read

STORE = LocalStore(Path("out"))


def planned(text: str, **settings: object) -> Plan:
    return make_plan(read(text, model=FREE, **settings))  # pyright: ignore[reportArgumentType]


def rows_of(plan: Plan) -> tuple[RowResult, ...]:
    return row_results(plan, {}, {}, STORE)


def text_of(plan: Plan) -> str:
    return videos_csv(plan.columns, rows_of(plan)).decode("utf-8-sig")


def lines_of(plan: Plan) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(plan), newline=""), strict=True))


def test_a_line_a_video_has_all_that_was_sent_and_the_tables_other_columns() -> None:
    plan = planned(
        "id,Scene,animal,prompt_template,Duration (s),takes,seed\nboat,1,cat,A {animal},5,2,7|9\n",
        defaults={"fps": 24, "extra_body": {"settings": {"audio": False}}},
    )

    lines = lines_of(plan)

    assert list(lines[0]) == [
        *("id", "video_id", "video_take", "prompt", "model", "seconds", "fps", "seed", "extra_body", "Scene", "animal"),
        *("status", "job_id", "file", "cost_usd", "attempts", "error"),
        *("clip_seconds", "generation_seconds", "clip_sha256"),
    ]
    assert [(line["video_id"], line["video_take"], line["seed"]) for line in lines] == [
        *(("boat--seed-7", "1", "7"), ("boat--seed-7", "2", "8")),
        *(("boat--seed-9", "1", "9"), ("boat--seed-9", "2", "10")),
    ]
    first = lines[0]
    assert (first["id"], first["prompt"], first["seconds"], first["fps"]) == ("boat", "A cat", "5", "24")
    assert first["extra_body"] == '{"settings": {"audio": false}}'
    assert (first["Scene"], first["animal"], first["status"]) == ("1", "cat", "planned")


def test_a_job_that_rows_share_is_one_line() -> None:
    assert len(lines_of(planned("prompt,count\nA cat,1\nA cat,3\nA dog,1\n"))) == 4


def test_the_ids_of_its_lines_are_those_of_the_rows_that_asked_for_them() -> None:
    assert [line["id"] for line in lines_of(planned("id,prompt,count\n,A cat,1\nb,A dog,2\n"))] == ["", "b", "b"]


def test_a_part_of_it_keeps_the_take_that_each_line_is() -> None:
    plan = planned("id,prompt,count\na,A cat,3\n")
    header, *lines = text_of(plan).splitlines()

    part = make_plan(read(f"{header}\n{lines[2]}\n"))

    assert list(part.videos) == [list(plan.videos)[2]]
    (video,) = part.videos.values()
    assert (video.row_id, video.take, video.free_file(())) == ("a", 3, "videos/a-take3.mp4")


def test_it_is_known_with_a_header_in_capitals() -> None:
    plan = planned("id,prompt,mood,count\na,A cat,'=calm,2\n")
    header, *lines = text_of(plan).splitlines()

    table = read("\n".join([header.upper(), *lines]))

    assert make_plan(table).videos.keys() == plan.videos.keys()
    assert table.columns == ("ID", "VIDEO_ID", "VIDEO_TAKE", "PROMPT", "MODEL", "MOOD")
    assert {row.cells["MOOD"] for row in table.rows} == {"'=calm"}


def test_a_column_of_the_tables_own_may_have_a_results_name_in_capitals() -> None:
    assert read("prompt,Status\nA cat,draft\n", model=FREE).columns == ("prompt", "Status")


def test_a_line_whose_prompt_is_changed_is_new_work() -> None:
    plan = planned("id,prompt,seed\na,A cat,7|8\n")

    changed = make_plan(read(text_of(plan).replace("A cat", "A dog", 1)))

    assert len(changed.videos.keys() & plan.videos.keys()) == 1
    assert len(changed.videos) == 2


def test_its_prompts_are_filled_and_no_template_of_the_run_is_put_upon_them() -> None:
    plan = planned("id,prompt\na,A cat\n", defaults={"prompt_template": "{prompt}, oil"})

    again = planned(text_of(plan), defaults={"prompt_template": "{prompt}, oil"})

    assert again.videos.keys() == plan.videos.keys()


def test_a_table_with_a_column_of_its_own_named_take_is_no_videos_table() -> None:
    plan = planned("prompt,take\nA cat,1\nA cat,2\n")

    again = make_plan(read(results_csv(plan.columns, rows_of(plan)).decode(), model=FREE))

    assert again.videos.keys() == plan.videos.keys()


def test_every_video_has_its_line_though_two_rows_give_theirs_one_name() -> None:
    plan = planned("id,prompt,seed\nboat,A cat,7|8\nboat--seed-7,A dog,\n")

    assert len(lines_of(plan)) == len(plan.videos) == 3


def test_a_line_that_lists_further_values_names_its_variants() -> None:
    text = text_of(planned("id,prompt,seed\na,A cat,7\n")).replace(",7,", ",7|9,")

    assert [video.row_id for video in make_plan(read(text)).videos.values()] == ["a--seed-7", "a--seed-9"]


@pytest.mark.parametrize("take", ["x", "2.7", "0", "-3", "99999999999999999999999"])
def test_a_take_that_is_none_is_a_mistake(take: str) -> None:
    text = text_of(planned("id,prompt\na,A cat\n")).replace("\na,a,1,", f"\na,a,{take},")

    ((row, column, message),) = problems_of(text)

    assert (row, column) == (2, "video_take")
    assert "is not the number of a take, 1 to 1000" in message


def test_costs_and_attempts_of_rows_that_share_some_videos_add_up_to_what_was_paid() -> None:
    plan = planned("prompt,seed\nA cat,7|8\nA cat,8|9\nA cat,9|7\n")
    done = [
        replace(row, takes=tuple(replace(take, cost_usd=0.5, attempts=1, status="downloaded") for take in row.takes))
        for row in rows_of(plan)
    ]

    lines = list(csv.DictReader(io.StringIO(results_csv(plan.columns, done).decode(), newline="")))

    assert sum(float(line["cost_usd"]) for line in lines) == totals(done).spent_usd == 1.5
    assert sum(int(line["attempts"]) for line in lines) == totals(done).videos == 3


def test_the_dollars_of_stills_are_in_the_sums_once_and_named_and_the_table_asks_for_the_same_again() -> None:
    plan = planned(
        "id,prompt,still_prompt,count\na,It sails,A boat,2\nb,It sinks,,1\n,It rows,A lake,1\n,It swims,A lake,1\n"
    )
    done = [
        replace(
            row,
            takes=tuple(replace(take, cost_usd=0.5, status="downloaded") for take in row.takes),
            still=row.still and replace(row.still, cost_usd=0.01, file=f"stills/{row.still.row_id}.jpg"),
        )
        for row in rows_of(plan)
    ]

    files = [write(plan.columns, done).decode() for write in (results_csv, videos_csv)]

    assert totals(done).spent_usd == pytest.approx(2.52)
    for text in files:
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert sum(float(line["cost_usd"]) for line in lines) == pytest.approx(2.52)
        assert sum(float(line["still_usd"] or 0) for line in lines) == pytest.approx(0.02)
        assert [line["still_file"] for line in lines if line["id"] == "b"] == [""]
        assert {line["still_file"] for line in lines if line["id"] == "a"} == {"stills/a.jpg"}
        again = make_plan(read(text, model=FREE))
        assert again.videos.keys() == plan.videos.keys()
        assert "still_usd" not in again.columns


def test_a_table_without_stills_has_no_columns_of_them_and_keeps_its_own_of_such_a_name() -> None:
    plan = planned("prompt,still_file\nA cat,mine.jpg\n")

    assert [line["still_file"] for line in lines_of(plan)] == ["mine.jpg"]
    assert "still_usd" not in lines_of(plan)[0]


SEEDS = st.lists(st.integers(0, 9), max_size=3).map(lambda seeds: "|".join(map(str, seeds)))
ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["cat", "-dog", "=1+1"]), SEEDS, st.integers(1, 3)), min_size=1
)


@given(ROWS)
def test_it_asks_for_the_videos_that_it_lists(rows: list[tuple[bool, str, str, int]]) -> None:
    lines = [
        f"{f'row-{at}' if has_id else ''},A {animal},{seeds},{count}"
        for at, (has_id, animal, seeds, count) in enumerate(rows)
    ]
    plan = planned("id,prompt,seed,count\n" + "\n".join(lines) + "\n")

    again = make_plan(read(text_of(plan)))

    assert again.videos.keys() == plan.videos.keys()
    assert [(one.row_id, one.take) for one in again.videos.values()] == [
        (one.row_id, one.take) for one in plan.videos.values()
    ]
    assert text_of(again) == text_of(plan)
