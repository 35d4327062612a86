"""Every mistake in a table is named at once, with row and column; what is only doubtful is a warning."""

from __future__ import annotations

import pytest

from prefect_together.problems import TableInvalid
from prefect_together.table.prompt_table import read_table
from repository import MISTAKES
from tables import DIRECTOR, FREE, only_row, problems_of, read, warnings_of

A = "https://example.com/a.png"


def test_all_thirty_one_mistakes_of_a_bad_table_are_named_with_row_and_column() -> None:
    with pytest.raises(TableInvalid) as caught:
        read_table(str(MISTAKES))

    columns = [
        *("seconds", "seconds", "width", "width", "resolution", "ratio", "fps", "steps", "guidance_scale"),
        *("seed", "output_format", "output_quality", "generate_audio", "negative_prompt", "first_frame"),
        *("first_frame", "first_frame", "frame_images", "source_video", "media", "media", "extra_body"),
        *("count", "price_usd", "prompt", "prompt", "model", "model", "reference_images", "id"),
    ]
    found = [(problem.row, problem.column) for problem in caught.value.problems]
    assert found == [*enumerate(columns, start=3), (33, None)]
    assert len({problem.message for problem in caught.value.problems}) == 31
    assert "31 mistakes, nothing was sent" in str(caught.value)


def test_warnings_are_shown_beside_the_mistakes() -> None:
    text = f"id,prompt,model,seconds,widht\na,A cat,acme/unheard-of,5,\nb,A dog,{DIRECTOR},ten,\n"

    with pytest.raises(TableInvalid) as caught:
        read_table(text)

    head, mistake, *warnings = str(caught.value).splitlines()
    assert head == "pasted table: 1 mistake, nothing was sent"
    assert mistake.startswith("  row 3 (id b), column seconds: 'ten' is not a length")
    assert any(line.startswith("  warning: row 2, column model: acme/unheard-of is not in the") for line in warnings)
    assert any("column widht" in line and line.startswith("  warning: ") for line in warnings)


def test_a_mistyped_model_is_a_mistake_unless_the_catalogues_checks_are_off() -> None:
    text = "prompt,model\nA cat,vidu-q1\nA dog,vidu/vidu-q2x\nA cow,Kling\nA hen,google/veo-2.0\n"

    assert [(row, column) for row, column, _ in problems_of(text)] == [(row, "model") for row in (2, 3, 4, 5)]
    assert len(read_table(text, catalogue_checks=False).rows) == 4


def test_all_mistakes_of_one_row_are_named_in_the_order_of_the_columns() -> None:
    text = "count,prompt,id,fps,width,seconds,first_frame\n0,x,a,5,1000,99,no.png\n"

    problems = problems_of(text)

    assert [column for _, column, _ in problems] == ["count", "prompt", "fps", "width", "seconds", "first_frame"]


def test_a_mistake_bears_the_tables_own_spelling_of_the_column_and_the_rows_id() -> None:
    with pytest.raises(TableInvalid) as caught:
        read("ID,Prompt,Seconds,First Frame\na7,A cat,ten,no.png\n")

    assert [(p.row, p.column, p.row_id) for p in caught.value.problems] == [
        (2, "Seconds", "a7"),
        (2, "First Frame", "a7"),
    ]


def test_two_rows_of_one_id_are_a_mistake_that_names_both() -> None:
    problems = problems_of("id,prompt\na,A cat\nA,A dog\na,A cow\n")

    assert problems == [(4, "id", "'a' is the id of row 2 too: an id names one row's work (count gives takes)")]


def test_ids_that_differ_in_case_or_unicode_form_are_different_ids() -> None:
    assert len(read("id,prompt\na,A cat\nA,A dog\né,A cow\ne\u0301,A hen\n").rows) == 4


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "many", "1001", "1e2"])
def test_a_count_that_is_no_number_of_takes_is_a_mistake(count: str) -> None:
    assert [(row, column) for row, column, _ in problems_of(f"prompt,count\nA cat,{count}\n")] == [(2, "count")]


WAN, HIGHEST = "Wan-AI/wan2.7-t2v", 2**31 - 1


@pytest.mark.parametrize(("model", "highest", "checks"), [(WAN, HIGHEST, True), (FREE, 2**63 - 1, False)])
def test_a_seed_that_the_takes_count_up_out_of_range_is_a_mistake(model: str, highest: int, checks: bool) -> None:
    text = f"prompt,model,seed,count\nA cat,{model},{highest - 1},2\nA dog,{model},{highest - 1},3\n"

    with pytest.raises(TableInvalid) as caught:
        read_table(text, catalogue_checks=checks)

    [problem] = caught.value.problems
    assert (problem.row, problem.column) == (3, "seed")
    assert f"{highest - 1} is counted up to {highest + 1} by 3 takes" in problem.message
    assert "lower the seed or the count" in problem.message


@pytest.mark.parametrize("price", ["-1", "$1", "1,000", "nan", "inf", "10001", "999999999999999"])
def test_a_price_that_is_none_is_a_mistake(price: str) -> None:
    assert [column for _, column, _ in problems_of(f'prompt,price_usd\nA cat,"{price}"\n')] == ["price_usd"]


def test_a_mistake_in_a_setting_of_the_run_is_named_once_and_not_in_every_row() -> None:
    problems = problems_of("prompt\nA cat\nA dog\nA cow\n", defaults={"seconds": 99, "promt": "x"})

    assert [(row, column) for row, column, _ in problems] == [(None, "promt"), (2, "seconds")]
    assert "did you mean prompt?" in problems[0][2]
    assert problems[1][2].endswith("(set for the whole run) (3 rows, this is the first)")


def test_a_table_without_models_is_told_once() -> None:
    ((row, column, message),) = problems_of("prompt\nA cat\nA dog\n", model=None)

    assert (row, column) == (None, None)
    assert "has no column model, and no model is set for the whole run" in message


def test_a_row_without_a_model_is_named_and_its_other_mistakes_too() -> None:
    problems = problems_of(f"prompt,model,fps\nA cat,{DIRECTOR},\nA dog,,5\n", model=None)

    assert [(row, column) for row, column, _ in problems] == [(3, "model"), (3, "fps")]


def test_a_prompt_is_needed_unless_the_catalogue_knows_better() -> None:
    kling = "kwaivgI/kling-1.6-pro"
    text = f"model,prompt,first_frame\n{kling},,{A}\n{DIRECTOR},,{A}\n{FREE},,{A}\n"

    assert [(row, column) for row, column, _ in problems_of(text)] == [(3, "prompt"), (4, "prompt")]
    assert only_row(f"model,first_frame\n{kling},{A}\n").requests[0].prompt is None
    assert [row for row, _, _ in problems_of("model,prompt,fps\na/b,,25\n", catalogue_checks=False)] == [2]


def test_a_prompt_for_the_whole_run_stands_in_for_the_column() -> None:
    assert only_row(f"first_frame\n{A}\n", defaults={"prompt": "It moves"}).requests[0].prompt == "It moves"


@pytest.mark.parametrize("prompt", ["NA", "null", "None", "nan", "true", "007", "=1+1", "<script>"])
def test_a_word_that_programs_take_for_nothing_is_a_prompt(prompt: str) -> None:
    assert only_row(f"id,prompt\na,{prompt}\n", model=FREE).requests[0].prompt == prompt


def test_what_only_the_catalogue_knows_passes_without_its_checks() -> None:
    text = "prompt,seconds,width,height\nA cat,99,1000,1000\n"

    assert {column for _, column, _ in problems_of(text)} == {"seconds", "width"}
    assert only_row(text, catalogue_checks=False).requests[0].seconds == "99"


# Warnings


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        *(("Negative Promt", "negative_prompt"), ("modell", "model"), ("n", "count"), ("cost", "price_usd")),
        *(("num_frames", "seconds (frames divided by fps)"), ("size", "width and height")),
    ],
)
def test_a_column_that_is_nearly_a_parameter_is_carried_through_with_a_warning(column: str, meant: str) -> None:
    table = read(f"prompt,{column}\nA cat,x\n")

    assert [str(warning) for warning in table.warnings] == [
        f"column {column}: is carried through, not used: did you mean {meant}?"
    ]
    assert table.rows[0].cells[column] == "x"


@pytest.mark.parametrize("column", ["dimension", "prompt_en", "category", "notes", "title", "scene", "promptly made"])
def test_columns_with_names_of_their_own_are_carried_through_in_silence(column: str) -> None:
    assert warnings_of(f"prompt,{column}\nA cat,x\n") == []


def test_a_warning_that_many_rows_share_is_given_once_with_its_count() -> None:
    warnings = warnings_of("prompt,model\nA cat,a/b\nA dog,a/b\nA cow,a/b\nA hen,c/d\n", model=None)

    assert len(warnings) == 2
    assert warnings[0].startswith("row 2, column model: a/b is not in the catalogue")
    assert warnings[0].endswith("(3 rows, this is the first)")
    assert warnings[1].startswith("row 5, column model: c/d")


def test_a_space_before_a_quoted_prompt_is_doubted() -> None:
    assert "begins with a space and a quote" in warnings_of('id,prompt\na, "A cat"\n')[0]
