"""From rows to videos: identity, duplicates, takes, prices, names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.problems import Problem
from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import Plan, PlannedVideo, make_plan, price_sum, video_key
from prefect_together.table.rows import PromptTable, TableRow

MODEL = "minimax/video-01-director"


def row(
    number: int,
    prompt: str = "a cat",
    *,
    row_id: str | None = None,
    count: int = 1,
    price_usd: float | None = None,
    **parameters: Any,
) -> TableRow:
    request = VideoRequest.model_validate({"model": MODEL, "prompt": prompt} | parameters)
    return TableRow(number=number, row_id=row_id, count=count, price_usd=price_usd, requests=(request,), cells={})


def plan_of(*rows: TableRow, warnings: tuple[Problem, ...] = ()) -> Plan:
    return make_plan(PromptTable("prompts.csv", ("prompt",), rows, warnings))


# Identity


def test_a_row_without_an_id_is_known_again_wherever_it_stands() -> None:
    before = plan_of(row(2), row(3, "a dog"))
    after = plan_of(row(2, "a bird"), row(3, "a dog"), row(4))

    assert before.rows[0].keys == after.rows[2].keys
    assert before.rows[1].keys == after.rows[1].keys


def test_a_changed_request_is_other_work_under_the_same_id() -> None:
    before = plan_of(row(2, row_id="cat"))
    after = plan_of(row(2, row_id="cat", seed=7))

    assert before.rows[0].row_id == after.rows[0].row_id == "cat"
    assert before.rows[0].keys != after.rows[0].keys


def test_the_price_and_other_columns_are_no_part_of_the_work() -> None:
    assert plan_of(row(2)).rows[0].keys == plan_of(row(9, price_usd=0.5)).rows[0].keys


def test_ids_are_kept_verbatim() -> None:
    plan = plan_of(row(2, row_id="007"), row(3, row_id="7"))

    assert [each.row_id for each in plan.rows] == ["007", "7"]
    assert len(plan.videos) == 2


# Duplicates and takes


def test_identical_rows_without_ids_share_one_video_and_a_warning_counts_them() -> None:
    plan = plan_of(row(2), row(3, "a dog"), row(4), row(5))

    assert len(plan.videos) == 2
    assert plan.rows[0].keys == plan.rows[2].keys == plan.rows[3].keys
    assert [each.shared_with for each in plan.rows] == [None, None, 2, 2]
    [warning] = plan.warnings
    assert warning.message.startswith("2 rows (4, 5) repeat an earlier row and share its video")


def test_one_repeated_row_is_said_in_the_singular() -> None:
    [warning] = plan_of(row(2), row(3)).warnings

    assert warning.message.startswith("1 row (3) repeats an earlier row and shares its video")


def test_equal_rows_with_ids_of_their_own_are_their_own_work_and_a_warning_names_them() -> None:
    plan = plan_of(row(2, row_id="first"), row(3, row_id="second"), row(4), row(5, "a dog", row_id="third"))

    assert len(plan.videos) == 4
    [warning] = plan.warnings
    assert warning.message.startswith("2 rows (3, 4) repeat an earlier row under another id and are paid for again")


def test_a_warning_names_the_first_ten_rows() -> None:
    [warning] = plan_of(*(row(number) for number in range(2, 20))).warnings

    assert warning.message.startswith("17 rows (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...) repeat")


def test_count_asks_for_several_takes() -> None:
    plan = plan_of(row(2, row_id="cat", count=3))

    assert [plan.videos[key].take for key in plan.rows[0].keys] == [1, 2, 3]
    assert plan.warnings == ()
    assert len({plan.videos[key].file_stems[0] for key in plan.rows[0].keys}) == 3


def test_a_raised_count_keeps_the_takes_that_there_are() -> None:
    before, after = plan_of(row(2, count=1)), plan_of(row(2, count=3))

    assert after.rows[0].keys[:1] == before.rows[0].keys


@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 1)])
def test_a_repeated_row_with_another_count_shares_what_both_ask_for(first: int, second: int) -> None:
    plan = plan_of(row(2, count=first), row(3, count=second))

    assert len(plan.videos) == 3
    assert len(plan.warnings) == 1


@pytest.mark.parametrize("row_id", [None, "cat"])
def test_takes_of_a_row_with_a_seed_count_it_up(row_id: str | None) -> None:
    plan = plan_of(row(2, row_id=row_id, seed=7, count=3))

    takes = [plan.videos[key] for key in plan.rows[0].keys]
    assert [take.request.seed for take in takes] == [7, 8, 9]
    assert [take.fingerprint for take in takes] == [take.request.fingerprint() for take in takes]
    assert plan.warnings == ()


@pytest.mark.parametrize("row_id", [None, "cat"])
def test_the_seed_alone_tells_which_takes_are_there_already(row_id: str | None) -> None:
    before = plan_of(row(2, row_id=row_id, seed=7, count=3))
    after = plan_of(row(2, row_id=row_id, seed=8, count=3))

    assert after.rows[0].keys[:2] == before.rows[0].keys[1:]
    assert after.rows[0].keys[2] not in before.videos


def test_the_first_take_with_a_seed_keeps_its_identity_when_more_are_asked_for() -> None:
    assert list(plan_of(row(2, row_id="cat", seed=7)).videos) == [
        video_key("cat", 1, row(2, seed=7).requests[0].fingerprint())
    ]
    assert plan_of(row(2, seed=7, count=9)).rows[0].keys[:1] == plan_of(row(2, seed=7)).rows[0].keys


def test_a_row_without_an_id_shares_the_later_take_of_another() -> None:
    plan = plan_of(row(2, seed=7, count=2), row(3, seed=8))

    assert plan.rows[1].keys == plan.rows[0].keys[1:]
    assert plan.rows[1].shared_with == 2


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a cat", "a dog"]),
        st.none() | st.integers(0, 4),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=8,
)


@given(ROWS)
def test_no_request_is_sent_twice_but_for_ids_of_their_own_and_takes_without_a_seed(
    drawn: list[tuple[str, int | None, int, bool]],
) -> None:
    rows = [
        row(number, prompt, seed=seed, count=count, row_id=f"row {number}" if has_id else None)
        for number, (prompt, seed, count, has_id) in enumerate(drawn, start=2)
    ]

    plan = plan_of(*rows)

    ids = {f"row {row.number}" for row in rows if row.row_id}
    asking: dict[str, list[PlannedVideo]] = {}
    for video in plan.videos.values():
        asking.setdefault(json.dumps(video.request.create_kwargs(), sort_keys=True), []).append(video)
    for videos in asking.values():
        of_rows = {video.row_id for video in videos}
        assert len(of_rows - ids) <= 1
        assert len(of_rows) == len(videos) or videos[0].request.seed is None
    is_warned = any("is paid for again" in str(each) or "are paid for again" in str(each) for each in plan.warnings)
    assert is_warned == any(len({video.row_id for video in videos}) > 1 for videos in asking.values())


@given(ROWS)
def test_every_row_gets_the_takes_that_it_asks_for(drawn: list[tuple[str, int | None, int, bool]]) -> None:
    rows = [row(number, prompt, seed=seed, count=count) for number, (prompt, seed, count, _) in enumerate(drawn, 2)]

    plan = plan_of(*rows)

    for wanted, planned in zip(rows, plan.rows, strict=True):
        requests = [plan.videos[key].request for key in planned.keys]
        assert len(set(planned.keys)) == wanted.count
        assert requests == [wanted.requests[0].take(number) for number in range(1, wanted.count + 1)]


def test_the_warnings_of_the_table_come_first() -> None:
    warning = Problem("column cost is not understood")

    plan = plan_of(row(2), row(3), warnings=(warning,))

    assert plan.warnings[0] == warning
    assert len(plan.warnings) == 2


# Prices


def test_a_price_of_the_row_beats_the_catalogue() -> None:
    plan = plan_of(row(2, price_usd=0.5, count=2))

    assert price_sum(plan.videos.values()) == (1.0, 1.0, 0)


def test_a_price_of_nothing_is_a_known_price() -> None:
    assert price_sum(plan_of(row(2, price_usd=0.0)).videos.values()) == (0.0, 0.0, 0)


def test_the_catalogue_gives_a_low_and_a_high_reading() -> None:
    [video] = plan_of(row(2)).videos.values()

    assert video.low_usd is not None
    assert video.estimate_usd is not None
    assert 0 < video.low_usd <= video.estimate_usd


def test_unknown_prices_are_counted() -> None:
    plan = plan_of(row(2, model="acme/unheard-of", count=2), row(3))

    _, high_usd, unknown = price_sum(plan.videos.values())
    assert unknown == 2
    assert high_usd > 0


def test_a_shared_video_is_priced_once() -> None:
    both, first = plan_of(row(2), row(3)), plan_of(row(2))

    assert price_sum(both.videos.values()) == price_sum(first.videos.values())


# Names


def test_the_last_name_of_a_video_is_its_own_whatever_the_others_are_called() -> None:
    plan = plan_of(row(2, row_id="cat"), row(3, row_id="CAT"), row(4, row_id="cat", seed=1))

    last = [video.file_stems[-1].casefold() for video in plan.videos.values()]
    assert len(set(last)) == 3


@pytest.mark.parametrize(("output_format", "extension"), [(None, ".mp4"), ("MP4", ".mp4"), ("WEBM", ".webm")])
def test_the_extension_is_that_of_the_format(output_format: str | None, extension: str) -> None:
    [video] = plan_of(row(2, output_format=output_format)).videos.values()

    assert video.extension == extension


def test_an_empty_plan_costs_nothing() -> None:
    plan = plan_of()

    assert price_sum(plan.videos.values()) == (0, 0, 0)
