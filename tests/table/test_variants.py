"""One row, many videos: lists of values, and prompts that are filled from other columns."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.table.plan import Plan, PlannedVideo, make_plan
from tables import DIRECTOR, FREE, problems_of, read, warnings_of

VIDU, SEEDANCE = "vidu/vidu-q1", "ByteDance/Seedance-1.0-lite"


def planned(text: str, **settings: Any) -> Plan:
    return make_plan(read(text, **settings))


def videos_of(text: str, **settings: Any) -> list[PlannedVideo]:
    return list(planned(text, **settings).videos.values())


def prompts_of(text: str, **settings: Any) -> list[str | None]:
    return [row.requests[0].prompt for row in read(text, model=FREE, **settings).rows]


def test_a_row_has_a_video_for_each_combination_of_its_values() -> None:
    videos = videos_of(f"id,prompt,model,seed\nboat,A boat,{VIDU}|{SEEDANCE},7|8\n")

    assert [(video.request.model, video.request.seed) for video in videos] == [
        *((VIDU, 7), (VIDU, 8)),
        *((SEEDANCE, 7), (SEEDANCE, 8)),
    ]
    assert [video.row_id for video in videos] == [
        *("boat--vidu-q1--seed-7", "boat--vidu-q1--seed-8"),
        *("boat--Seedance-1.0-lite--seed-7", "boat--Seedance-1.0-lite--seed-8"),
    ]
    assert videos[0].free_file(()) == "videos/boat--vidu-q1--seed-7.mp4"


@pytest.mark.parametrize("row_id", ["boat", ""])
def test_a_value_more_leaves_the_identity_of_the_others(row_id: str) -> None:
    one = planned(f"id,prompt,model,seed\n{row_id},A boat,{VIDU},7\n")

    more = planned(f"id,prompt,model,seed\n{row_id},A boat,{SEEDANCE}|{VIDU},8|7\n")

    assert one.videos.keys() < more.videos.keys()
    assert len(more.videos) == 4


def test_values_of_the_whole_run_are_listed_for_rows_that_set_none() -> None:
    plan = planned(f"id,prompt,model\na,A cat,\nb,A dog,{DIRECTOR}\n", model=None, defaults={"model": [VIDU, SEEDANCE]})

    assert [(video.row_id, video.request.model) for video in plan.videos.values()] == [
        ("a--vidu-q1", VIDU),
        ("a--Seedance-1.0-lite", SEEDANCE),
        ("b", DIRECTOR),
    ]
    assert [row.row_id for row in plan.rows] == ["a", "b"]


def test_one_value_in_a_list_is_that_value() -> None:
    (video,) = videos_of("id,prompt\na,A cat\n", model=None, defaults={"model": [VIDU]})

    assert (video.row_id, video.request.model) == ("a", VIDU)


def test_takes_come_for_each_combination_and_a_request_that_two_of_them_make_is_made_once() -> None:
    plan = planned("id,prompt,seed,count\na,A cat,7|8,2\nb,A dog,,2\n")

    assert [(video.row_id, video.take, video.request.seed) for video in plan.videos.values()] == [
        *(("a--seed-7", 1, 7), ("a--seed-7", 2, 8), ("a--seed-8", 2, 9)),
        *(("b", 1, None), ("b", 2, None)),
    ]
    assert str(plan.warnings[-1]) == (
        "1 row (2) asks for the same video twice, by equal values or by takes that count a seed up: it is made once"
    )


def test_models_of_one_name_by_two_makers_have_names_of_their_own() -> None:
    first, second = videos_of("id,prompt,model\na,A cat,one/film|two/film\n")

    assert first.row_id == "a--film"
    assert second.row_id == f"a--film-{second.fingerprint[:8]}"


def test_a_bar_in_a_text_is_a_bar() -> None:
    (video,) = videos_of("id,prompt,negative_prompt\na|b,A cat | a dog,dark|blurry\n", model=FREE)

    sent = video.request.parameters()
    assert (video.row_id, sent["prompt"], sent["negative_prompt"]) == ("a|b", "A cat | a dog", "dark|blurry")


def test_what_is_wrong_with_one_of_several_values_is_said_once() -> None:
    text = f"id,prompt,model,seed,fps\na,A cat,{DIRECTOR}|{VIDU},7|x|8,\nb,A cat,{VIDU}|,,\nc,A cat,,1|2,10|24\n"

    assert [(row, column, message[:48]) for row, column, message in problems_of(text)] == [
        (2, "seed", "'x' is not a seed: a whole number, -922337203685"),
        (3, "model", f"'{VIDU}|' lists an empty value: give one on each side"[:48]),
        (4, "fps", "'10' is not a rate (frames a second): a whole nu"),
    ]


def test_a_limit_of_one_of_the_models_is_a_mistake_that_names_it() -> None:
    found = problems_of(f"id,prompt,model,seconds\na,A cat,{SEEDANCE}|{VIDU},5|10\n")

    assert found == [
        (2, "seconds", f"10 is not a length of {SEEDANCE}: 5 seconds"),
        (2, "seconds", f"10 is not a length of {VIDU}: 5 seconds"),
    ]


def test_more_videos_of_a_row_than_its_limit_are_a_mistake() -> None:
    seeds = "|".join(map(str, range(1001)))

    assert problems_of(f"prompt,seed\nA cat,{seeds}\n", model=FREE) == [
        (2, "seed", "asks with the row's other lists for 1,001 videos: at most 1,000 a row")
    ]


VALUES = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@given(st.lists(st.tuples(VALUES, VALUES, st.integers(1, 3), st.booleans()), min_size=1, max_size=4))
def test_what_is_sent_is_each_cell_that_was_wanted_and_nothing_equal_twice(
    rows: list[tuple[list[int], list[int], int, bool]],
) -> None:
    lines = [
        f"{f'row-{at}' if has_id else ''},A cat number {at},{'|'.join(f'any/m{one}' for one in models)},"
        f"{'|'.join(map(str, seeds))},{count}"
        for at, (models, seeds, count, has_id) in enumerate(rows)
    ]
    plan = planned("id,prompt,model,seed,count\n" + "\n".join(lines) + "\n", catalogue_checks=False)

    wanted = {
        (f"A cat number {at}", f"any/m{model}", seed + take)
        for at, (models, seeds, count, _) in enumerate(rows)
        for model, seed, take in product(models, seeds, range(count))
    }
    sent = [(video.request.prompt, video.request.model, video.request.seed) for video in plan.videos.values()]
    assert set(sent) == wanted
    assert len(sent) == len(wanted)
    names = [(video.row_id, video.take) for video in plan.videos.values()]
    assert len(set(names)) == len(names)


def test_a_template_column_is_filled_from_the_rows_own_cells() -> None:
    text = "animal,place,prompt_template\ncat,Rome,A {animal} in {place}\ndog,sea,{{Not}} a {Animal} at { place }\n"

    assert prompts_of(text) == ["A cat in Rome", "{Not} a dog at sea"]


def test_a_template_of_the_run_may_hold_the_prompt_and_a_rows_own_goes_before_it() -> None:
    text = "prompt,style,prompt_template\nA cat,oil,\nA dog,ink,Only {style}\n"

    filled = prompts_of(text, defaults={"prompt_template": "{prompt}, in {style}, {{4k}}"})

    assert filled == ["A cat, in oil, {4k}", "Only ink"]


def test_filled_values_are_not_filled_again() -> None:
    assert prompts_of("a,b,prompt_template\n{b},x,A {a}\n") == ["A {b}"]


def test_the_identity_of_a_filled_prompt_is_that_of_the_same_prompt_written_out() -> None:
    filled = planned("animal,prompt_template\ncat,A {animal}\n")

    assert filled.videos.keys() == planned("prompt\nA cat\n").videos.keys()


@pytest.mark.parametrize(
    ("template", "column", "message"),
    [
        ("A {anmal}", "prompt_template", "{anmal} is not a column: did you mean {animal}?"),
        ("A {animal.__class__}", "prompt_template", "{animal.__class__} is not a column"),
        ("A {animal!r}", "prompt_template", "{animal!r} is not a column"),
        ("A {animal:>9}", "prompt_template", "{animal:>9} is not a column"),
        ("A {0}", "prompt_template", "{0} is not a column"),
        ("A {}", "prompt_template", "{} is not a column"),
        ("A { cat", "prompt_template", "has a single {: write {{ for a brace"),
        ("A } cat", "prompt_template", "has a single }: write }} for a brace"),
        ("A cat in {place}", "place", "is empty, and the prompt template needs {place}"),
    ],
)
def test_what_a_template_cannot_be_filled_with_is_a_mistake(template: str, column: str, message: str) -> None:
    ((row, found, said),) = problems_of(f"animal,place,prompt_template\ncat,,{template}\n")

    assert (row, found) == (2, column)
    assert said.startswith(message)


def test_a_wrong_template_of_the_run_is_said_once_for_all_rows() -> None:
    ((row, column, message),) = problems_of("prompt\nA cat\nA dog\n", defaults={"prompt_template": "{film}"})

    assert (row, column) == (2, "prompt_template")
    assert message.endswith("(set for the whole run) (2 rows, this is the first)")


def test_braces_in_a_plain_prompt_stay_and_those_that_name_a_column_are_warned_about() -> None:
    text = 'prompt,animal\n"{""a"": 1} {place}",cat\nA {animal},dog\n'

    assert prompts_of(text) == ['{"a": 1} {place}', "A {animal}"]
    (warning,) = [one for one in warnings_of(text) if "{" in one]
    assert "row 3" in warning
    assert "{animal}, which is sent as it stands" in warning


def test_a_template_that_names_a_listed_column_has_each_variants_own_value() -> None:
    text = 'prompt,prompt_template,model,seed\nA cat,"{prompt}, by {model}, {seed}",any/one|any/two,7|8\n'

    assert [video.request.prompt for video in videos_of(text, catalogue_checks=False)] == [
        f"A cat, by any/{name}, {seed}" for name in ("one", "two") for seed in (7, 8)
    ]


def test_a_template_names_a_column_by_what_it_is_read_as_too() -> None:
    assert prompts_of("text,mood\nA cat,calm\n", defaults={"prompt_template": "{prompt}, {Mood}"}) == ["A cat, calm"]


def test_a_prompt_that_the_template_leaves_out_is_a_warning() -> None:
    (warning,) = warnings_of("prompt,animal\nA cat,cat\n", model=FREE, defaults={"prompt_template": "A {animal}"})[:1]

    assert "is not sent: the prompt template does not name {prompt}" in warning


def test_a_list_of_values_may_hold_lists_as_a_cell_does() -> None:
    videos = videos_of(
        "prompt\nA cat\n", model=None, defaults={"model": ["any/a|any/b", "any/c"]}, catalogue_checks=False
    )

    assert [video.request.model for video in videos] == ["any/a", "any/b", "any/c"]


def test_a_value_of_the_whole_run_that_each_row_replaces_is_a_warning() -> None:
    text = "prompt,model\nA cat,any/one\nA dog,any/two\n"

    assert warnings_of(text, model="any/three", catalogue_checks=False) == [
        "column model: is set for the whole run and not used: each row has its own"
    ]
    assert warnings_of(f"{text}A cow,\n", model="any/three", catalogue_checks=False) == []
