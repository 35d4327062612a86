"""References between the rows of a table: what each one means, and what is wrong with one."""

from __future__ import annotations

import pytest

from prefect_together.problems import TableInvalid
from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import Plan, PlannedVideo, make_plan
from prefect_together.table.prompt_table import read_table
from repository import ROOT

MODEL = "ByteDance/Seedance-1.0-lite"


def plan_of(text: str, model: str = MODEL) -> Plan:
    return make_plan(read_table(text, defaults={"model": model}))


def by_id(plan: Plan) -> dict[str, PlannedVideo]:
    return {f"{video.row_id}#{video.take}": video for video in plan.videos.values()}


def problems_of(text: str, model: str = MODEL) -> list[str]:
    with pytest.raises(TableInvalid) as raised:
        plan_of(text, model)
    return [str(problem) for problem in raised.value.problems]


def frame_of(video: PlannedVideo) -> str:
    assert isinstance(video.request, VideoRequest)
    ((_, ref),) = video.request.clip_refs()
    return str(ref)


def test_a_row_refers_to_the_video_of_another_one_wherever_that_stands_in_the_table() -> None:
    plan = plan_of("id,prompt,first_frame\nb,goes on,@a\na,begins,\n")

    videos = by_id(plan)

    assert [row.row_id for row in plan.rows] == ["b", "a"]
    assert videos["b#1"].sources == (videos["a#1"].key,)
    assert videos["a#1"].sources == ()


@pytest.mark.parametrize(
    ("column", "cell", "frame"),
    [
        ("first_frame", "@a", "@a:last"),
        ("last_frame", "@a", "@a:first"),
        ("continues", "a", "@a:last"),
        ("continues", "@a", "@a:last"),
        ("first_frame", "@a:2.5s", "@a:2.5s"),
        ("first_frame", "@a:first", "@a:first"),
        ("start_frame", "@a", "@a:last"),
    ],
)
def test_the_frame_is_the_one_that_joins_the_two_clips_unless_another_is_named(
    column: str, cell: str, frame: str
) -> None:
    plan = plan_of(f"id,prompt,{column}\na,begins,\nb,goes on,{cell}\n")

    assert frame_of(by_id(plan)["b#1"]) == frame


def test_a_changed_source_makes_all_shots_after_it_new_work_and_an_unchanged_one_none() -> None:
    table = "id,prompt,continues\na,{first},\nb,second,a\nc,third,b\nd,apart,\n"
    before, again, changed = (plan_of(table.replace("{first}", text)) for text in ("one", "one", "two"))

    new = set(by_id(changed)) - {name for name, video in by_id(changed).items() if video.key in before.videos}

    assert list(again.videos) == list(before.videos)
    assert new == {"a#1", "b#1", "c#1"}


def test_another_frame_of_the_same_clip_is_other_work() -> None:
    first, last = (plan_of(f"id,prompt,first_frame\na,one,\nb,two,@a:{frame}\n") for frame in ("first", "last"))

    assert by_id(first)["a#1"].key == by_id(last)["a#1"].key
    assert by_id(first)["b#1"].key != by_id(last)["b#1"].key


def test_a_shot_continues_the_take_that_is_named_and_the_variant_of_its_own_model() -> None:
    taken = by_id(plan_of("id,prompt,count,continues\na,one,3,\nb,two,,a#2\n"))
    models = "ByteDance/Seedance-1.0-lite|ByteDance/Seedance-1.0-pro"
    varied = by_id(plan_of(f"id,prompt,model,seed,continues\na,one,{models},7|8,\nb,two,{models},8,a\n"))

    assert taken["b#1"].sources == (taken["a#2"].key,)
    for name in ("Seedance-1.0-lite", "Seedance-1.0-pro"):
        assert varied[f"b--{name}#1"].sources == (varied[f"a--{name}--seed-8#1"].key,)


def test_a_variant_can_be_named_by_the_id_of_its_video() -> None:
    videos = by_id(plan_of("id,prompt,seed,continues\na,one,7|8,\nb,two,,a--seed-8\n"))

    assert videos["b#1"].sources == (videos["a--seed-8#1"].key,)


def test_every_mistake_is_said_at_once_with_row_and_column() -> None:
    problems = problems_of(
        "id,prompt,count,continues,seconds\n"
        "a,one,2,,\nb,two,,nobody,\nc,three,,c,\nd,four,,a,\ne,five,,a#9,\nf,six,,a#1,not a number\n"
    )

    assert [problem.partition(": ")[0] for problem in problems] == [
        "row 3 (id b), column continues",
        "row 4 (id c), column continues",
        "row 5 (id d), column continues",
        "row 6 (id e), column continues",
        "row 7 (id f), column seconds",
    ]
    assert "names no row" in problems[0]
    assert "is this row itself" in problems[1]
    assert "2 takes: write @a#1" in problems[2]
    assert "no take 9" in problems[3]


def test_a_circle_is_a_mistake_that_names_its_rows() -> None:
    (problem,) = problems_of("id,prompt,continues\na,one,c\nb,two,a\nc,three,b\n")

    assert "in a circle: " in problem
    assert {"a", "b", "c"} <= set(problem.partition("circle: ")[2].split(" -> "))


def test_a_row_with_mistakes_of_its_own_is_not_called_unknown() -> None:
    (problem,) = problems_of("id,prompt,seconds,continues\na,one,long,\nb,two,,a\n")

    assert problem.startswith("row 2 (id a), column seconds")


def test_an_ambiguous_variant_is_a_mistake_that_says_what_to_name() -> None:
    (problem,) = problems_of("id,prompt,seed,continues\na,one,7|8,\nb,two,,a\n")
    (other,) = problems_of("id,prompt,seconds,continues\na,one,6|10,\nb,two,,a\n", "minimax/hailuo-02")

    assert "2 videos" in problem
    assert "seconds 10 or 6, and this row has none" in other


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("source_video", "@a:last", "a video is wanted: write @a"),
        ("reference_images", "@a", "which frame of the clip? Write @a:first"),
        ("first_frame", "@", "names no row"),
    ],
)
def test_a_reference_that_cannot_be_so_says_what_would_be_right(column: str, cell: str, said: str) -> None:
    problems = problems_of(f"id,prompt,{column}\na,one,\nb,two,{cell}\n", "ByteDance/Seedance-2.0")

    assert any(said in problem and f"column {column}" in problem for problem in problems)


def test_a_model_that_takes_no_frames_cannot_continue() -> None:
    (problem,) = problems_of("id,prompt,model,continues\na,one,,\nb,two,Wan-AI/wan2.7-t2v,a\n")

    assert problem.startswith("row 3 (id b), column continues: Wan-AI/wan2.7-t2v takes no frame images")


def test_a_row_can_edit_the_whole_clip_of_another_one() -> None:
    videos = by_id(plan_of("id,prompt,model,source_video\na,one,,\nb,two,Wan-AI/wan2.7-videoedit,@a\n"))

    assert (frame_of(videos["b#1"]), videos["b#1"].sources) == ("@a", (videos["a#1"].key,))


def test_a_continuation_by_video_must_be_longer_than_what_it_continues() -> None:
    table = "id,prompt,model,seconds,frame_videos\na,one,Wan-AI/wan2.7-i2v,5,\nb,two,Wan-AI/wan2.7-i2v,{},@a\n"
    table = table.replace("a,one,Wan-AI/wan2.7-i2v", "a,one,Wan-AI/wan2.7-t2v")

    (problem,) = problems_of(table.replace("{}", "5"))
    longer = by_id(plan_of(table.replace("{}", "10")))

    assert "give more than 5" in problem
    assert longer["b#1"].sources == (longer["a#1"].key,)


def test_another_size_than_the_source_is_a_warning() -> None:
    plan = plan_of("id,prompt,resolution,continues\na,one,480p,\nb,two,720p,a\n", "ByteDance/Seedance-2.0")

    assert any("is made in 480p and goes on in 720p" in str(warning) for warning in plan.warnings)


def test_a_reference_is_read_back_from_its_json() -> None:
    video = by_id(plan_of("id,prompt,continues\na,one,\nb,two,a\n"))["b#1"]

    assert VideoRequest.model_validate_json(video.request.model_dump_json()).fingerprint() == video.fingerprint


def test_the_storyboard_of_the_examples_is_two_films_of_three_shots_one_of_which_begins_with_a_still() -> None:
    plan = make_plan(read_table(str(ROOT / "examples" / "storyboard.csv")))

    assert plan.warnings == ()
    assert [row.film for row in plan.rows] == ["harbour"] * 3 + ["lantern"] * 3
    keys = [key for row in plan.rows for key in row.keys]
    (still,) = plan.stills
    sources = [plan.videos[key].sources for key in keys]
    assert sources == [(), (keys[0],), (keys[1],), (still,), (keys[3],), (keys[4],)]
