"""Tables as people have them: other names for columns, lists, Markdown, packed, piped, exported, from a spreadsheet."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pytest

from prefect_together.problems import TableInvalid
from prefect_together.table.prompt_table import read_table
from tables import DIRECTOR, FREE, cells_of, mistakes_of, only_row, problems_of, read, warnings_of

A = "https://example.com/a.png"


def prompts_of(source: Any, **settings: Any) -> list[str | None]:
    return [row.requests[0].prompt for row in read(source, model=FREE, **settings).rows]


@pytest.mark.parametrize(
    ("column", "parameter", "value"),
    [
        *(("Duration (s)", "seconds", "5"), ("duration_seconds", "seconds", "5"), ("durationSec", "seconds", "5")),
        *(("aspectRatio", "ratio", "16:9"), ("Aspect ratio", "ratio", "16:9"), ("sampling_steps", "steps", "20")),
        *(("guidanceScale", "guidance_scale", "7"), ("Seconds [s]", "seconds", "5"), ("frame rate", "fps", "24")),
    ],
)
def test_a_column_under_another_name_is_used_and_a_warning_says_as_what(
    column: str, parameter: str, value: str
) -> None:
    text = f"prompt,{column}\nA cat,{value}\n"

    row = only_row(text, model=FREE)

    assert str(row.requests[0].parameters()[parameter]) == value
    is_own_name = column in ("guidanceScale", "Seconds [s]")
    assert (f"column {column}: is read as {parameter}" in warnings_of(text, model=FREE)) is not is_own_name
    assert row.cells[column] == value


@pytest.mark.parametrize("column", ["image", "image_path", "img", "start_image_url", "first_frame_url", "Image name"])
def test_an_image_column_is_the_first_frame(column: str) -> None:
    request = only_row(f"prompt,{column}\nA cat,{A}\n", model=FREE).requests[0]

    assert [field for field, _ in request.images()] == ["frame_images"]


@pytest.mark.parametrize("column", ["ref", "refs", "reference_image_url", "Reference"])
def test_a_reference_column_is_an_image_for_the_look(column: str) -> None:
    request = only_row(f"text,{column}\nA cat,{A}\n", model=FREE).requests[0]

    assert (request.prompt, [field for field, _ in request.images()]) == ("A cat", ["reference_images"])


def test_a_column_of_the_parameters_own_name_goes_before_another() -> None:
    table = read("prompt,text,seconds,duration\nA cat,A dog,5,9\n", model=FREE)

    assert (table.rows[0].requests[0].prompt, table.rows[0].requests[0].seconds) == ("A cat", "5")
    said = [str(warning) for warning in table.warnings]
    assert "column text: is not used: the table has a column prompt" in said
    assert "column duration: is not used: the table has a column seconds" in said


def test_variations_are_takes() -> None:
    assert only_row("prompt,variations\nA cat,3\n").count == 3


def test_a_column_of_images_that_nothing_uses_is_a_warning() -> None:
    (warning,) = warnings_of("prompt,storyboard\nA cat,stills/a.png\nA dog,stills/b.jpg\n")

    assert warning.startswith("column storyboard: has images in its cells and is not used")


def test_a_pasted_markdown_table_is_a_table_without_its_rule() -> None:
    text = "Shots:\n\n| id | prompt |\n|----|:------:|\n| heron | A heron \\| lifts |\n| soup | Steam |\n\nThe end\n"

    table = read(text)

    assert cells_of(table) == [["heron", "A heron | lifts"], ["soup", "Steam"]]
    assert [row.number for row in table.rows] == [5, 6]


@pytest.mark.parametrize("prompt", ["---", "* * *", "…", "|---|", "🎬"])
def test_a_prompt_without_a_letter_or_digit_is_a_mistake(prompt: str) -> None:
    problems = problems_of(f'id,prompt\na,"{prompt}"\n', model=FREE)

    assert {(row, column) for row, column, _ in problems} == {(2, "prompt")}
    assert any("has neither a letter nor a digit" in message for _, _, message in problems)


@pytest.mark.parametrize("prompt", ["猫", "Ж", "קטן", "7"])
def test_any_script_has_letters(prompt: str) -> None:
    assert prompts_of(f"id,prompt\na,{prompt}\n") == [prompt]


def test_comments_in_a_list_are_passed_over_and_rules_are_mistakes() -> None:
    text = "prompt\nA heron lifts off\n---\n# night shots\nA lit tram in the rain\n"

    with pytest.raises(TableInvalid) as caught:
        read(text)

    assert [problem.row for problem in caught.value.problems] == [3]
    assert "lines that begin with # are passed over (1)" in str(caught.value.warnings[0])


def test_a_text_file_has_one_prompt_a_line_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text('A red kite over dunes, late light\n\n# later\n"Hello" painted on a wall\nFox\n')

    table = read(path)

    assert cells_of(table) == [["A red kite over dunes, late light"], ['"Hello" painted on a wall'], ["Fox"]]
    assert "has no header: each of 3 lines is read as one prompt" in [str(warning) for warning in table.warnings]


def test_a_text_file_with_a_header_of_columns_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("id,prompt\na,A cat\n")
    (tmp_path / "other.txt").write_text("Name;Text\nx;A road\n")

    assert cells_of(read(tmp_path / "t.txt")) == [["a", "A cat"]]
    assert cells_of(read(tmp_path / "other.txt")) == [["x", "A road"]]


def test_one_column_without_a_header_is_read_if_every_line_is_plainly_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"A heron lifts off, slowly"\nSteam over a bowl of soup\n')
    (tmp_path / "u.csv").write_text("A heron lifts off\nSoup\n")

    table = read(tmp_path / "t.csv")

    assert cells_of(table) == [["A heron lifts off, slowly"], ["Steam over a bowl of soup"]]
    assert "has no header: each of 2 rows is read as one prompt" in str(table.warnings[0])
    assert "put a line with the word prompt above it" in mistakes_of(tmp_path / "u.csv")


def test_several_columns_without_a_header_are_told_to_get_one() -> None:
    text = "img_01.png,A heron lifts off from a reed bed,blurry\nimg_02.png,Steam over a bowl of soup,text\n"

    assert "the first line looks like a row, not like a header: put one above it" in mistakes_of(text)


def test_a_tsv_cell_that_begins_with_a_quote_stops_no_other_row(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('prompt\tcategory\n"Hello" on a wall\ta\nA road\tb\n"One more\tc\n')
    (tmp_path / "u.tsv").write_text('prompt\tcategory\n"A ""quoted"" cat"\ta\n')

    table = read(tmp_path / "t.tsv")

    assert [cells[0] for cells in cells_of(table)] == ['"Hello" on a wall', "A road", '"One more']
    assert "quotes are taken as they stand" in str(table.warnings[0])
    assert cells_of(read(tmp_path / "u.tsv")) == [['A "quoted" cat', "a"]]


def test_a_tsv_with_a_quoted_header_is_quoted_whatever_its_cells_look_like(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('"prompt"\t"note"\n"A cat"\t"one\n\t"\n')

    assert cells_of(read(tmp_path / "t.tsv")) == [["A cat", "one\n\t"]]


def test_a_packed_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"prompt\nA cat\n"))
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"A cat on a drum\nA dog, asleep\n"))

    assert cells_of(read(tmp_path / "t.csv.gz")) == [["A cat"]]
    assert cells_of(read(tmp_path / "t.txt.gz")) == [["A cat on a drum"], ["A dog, asleep"]]


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_a_table(name: str) -> None:
    program = (
        "from prefect_together.table.prompt_table import read_table\n"
        f"print([row.requests[0].prompt for row in read_table({name!r}, defaults={{'model': {DIRECTOR!r}}}).rows])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], input="prompt\nA cat\n", capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "['A cat']"


@pytest.mark.parametrize(
    ("link", "export"),
    [
        ("https://docs.google.com/spreadsheets/d/AbC/edit#gid=7", "spreadsheets/d/AbC/export?format=csv&gid=7"),
        ("https://docs.google.com/spreadsheets/d/AbC/edit?usp=sharing", "spreadsheets/d/AbC/export?format=csv"),
        ("https://docs.google.com/spreadsheets/d/e/2PACX-x/pubhtml", "spreadsheets/d/e/2PACX-x/pub?output=csv"),
    ],
)
def test_the_page_of_a_google_sheet_is_told_its_export_link(link: str, export: str) -> None:
    assert f"give https://docs.google.com/{export}" in mistakes_of(link)


def workbook(path: Path, sheets: dict[str, Sequence[Sequence[object]]]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return book


def test_a_hidden_sheet_is_passed_over_and_named(tmp_path: Path) -> None:
    rows = [("id", "prompt"), ("a", "A heron")]
    book = workbook(tmp_path / "t.xlsx", {"old": [("id", "prompt"), ("z", "OLD")], "Shots": rows})
    book["old"].sheet_state = "hidden"
    book.save(tmp_path / "t.xlsx")

    table = read(tmp_path / "t.xlsx")

    assert cells_of(table) == [["a", "A heron"]]
    assert "sheet 'Shots' is read, not old (hidden)" in str(table.warnings[0])
    assert cells_of(read(tmp_path / "t.xlsx", sheet="old")) == [["z", "OLD"]]
    assert "has no sheet 'new': its sheets are old, Shots" in mistakes_of(tmp_path / "t.xlsx", sheet="new")


def test_a_cover_sheet_before_the_prompts_is_passed_over(tmp_path: Path) -> None:
    workbook(tmp_path / "t.xlsx", {"Cover": [("Spring",), ("by Ann",)], "Shots": [("prompt",), ("A heron",)]})

    assert cells_of(read(tmp_path / "t.xlsx")) == [["A heron"]]


def test_hidden_rows_are_left_out_with_a_warning_that_counts_them(tmp_path: Path) -> None:
    book = workbook(tmp_path / "t.xlsx", {"Shots": [("prompt",), ("A heron",), ("Not this",), ("Soup",)]})
    book["Shots"].row_dimensions[3].hidden = True
    book.save(tmp_path / "t.xlsx")

    table = read(tmp_path / "t.xlsx")

    assert cells_of(table) == [["A heron"], ["Soup"]]
    assert [row.number for row in table.rows] == [2, 4]
    assert "1 hidden row is left out (3)" in str(table.warnings[0])


def test_a_title_above_the_header_is_passed_over(tmp_path: Path) -> None:
    workbook(tmp_path / "t.xlsx", {"Shots": [("Spring campaign",), ("id", "prompt"), (1, "A heron")]})

    table = read(tmp_path / "t.xlsx")

    assert cells_of(table) == [["1", "A heron"]]
    assert "the header is row 2; what stands above it is not read: 'Spring campaign'" in str(table.warnings[0])


def test_merged_cells_are_a_mistake_that_says_so(tmp_path: Path) -> None:
    rows = [("prompt", "seed"), ("A heron", 1), (None, 2), (None, 3), ("Soup", 4)]
    book = workbook(tmp_path / "t.xlsx", {"Shots": rows})
    book["Shots"].merge_cells("A2:A4")
    book.save(tmp_path / "t.xlsx")

    message = mistakes_of(tmp_path / "t.xlsx")

    assert "row 2, column prompt: is merged over A2:A4: unmerge these cells and fill in each of them" in message


@pytest.mark.parametrize(("cell", "ratio"), [("16:09:00", "16:9"), ("09:16:00", "9:16"), ("1:01:00", "1:1")])
def test_a_ratio_that_a_spreadsheet_took_for_a_time_is_one(cell: str, ratio: str) -> None:
    assert only_row(f"prompt,ratio\nA cat,{cell}\n", model=FREE).requests[0].ratio == ratio


def test_a_decimal_comma_is_a_decimal_point() -> None:
    row = only_row("prompt;guidance_scale;price_usd\nA cat;7,5;0,28\n", model=FREE)

    assert (row.requests[0].guidance_scale, row.price_usd) == (7.5, 0.28)


def test_a_data_frame_is_a_table() -> None:
    frame = pandas.DataFrame(
        {"id": [7, 8], "prompt": ["A cat", "A dog"], "seed": [1, None], "tags": [["a", 1], None]}, index=[10, 11]
    )

    table = read_table(frame, defaults={"model": FREE})

    assert cells_of(table) == [["7", "A cat", "1", '["a", 1]'], ["8", "A dog", "", ""]]
    assert [(row.number, row.requests[0].seed) for row in table.rows] == [(2, 1), (3, None)]
    assert table.source == "DataFrame"
    with pytest.raises(TableInvalid, match="DataFrame: 1 mistake"):
        read_table(pandas.DataFrame({"prompt": ["A cat", "---"]}), defaults={"model": FREE})


# What must not be guessed, and what must be said


def test_an_encoding_of_another_script_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "ru.csv").write_bytes("prompt\nКот спит\n".encode("cp1251"))
    (tmp_path / "mixed.csv").write_bytes("prompt\nA café in Paris\n".encode() + b"A bad \xe9 byte\n")

    assert "is not UTF-8 (byte 0xca in line 2, after ''), nor plainly Latin-1" in mistakes_of(tmp_path / "ru.csv")
    assert "byte 0xe9 in line 3, after 'A bad '" in mistakes_of(tmp_path / "mixed.csv")


def test_every_guess_at_a_number_or_a_ratio_is_said() -> None:
    said = warnings_of("prompt;guidance_scale;ratio\nA cat;7,5;16:09:00\nA dog;7,5;9:16\n", model=FREE)

    assert "row 2, column guidance_scale: 7,5 is read as 7.5 (2 rows, this is the first)" in said
    assert "row 2, column ratio: 16:09:00 is read as 16:9" in said


def test_an_image_column_that_names_no_images_is_carried_through_with_a_warning() -> None:
    text = "prompt,image\nA cat,a red pig\n"

    assert only_row(text).requests[0].media is None
    assert warnings_of(text) == ["column image: is carried through, not used: did you mean first_frame?"]


@pytest.mark.parametrize("column", ["length", "durations", "video_url", "num_frames"])
def test_a_column_that_may_mean_a_parameter_is_not_used_and_named(column: str) -> None:
    text = f"prompt,{column}\nA cat,57\n"

    assert only_row(text).requests[0].create_kwargs() == {"model": DIRECTOR, "prompt": "A cat"}
    assert f"column {column}: is carried through, not used: did you mean" in warnings_of(text)[0]


def test_a_comment_in_a_csv_is_doubted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\nA heron\n# night shots\n")

    assert "row 3, column prompt: begins with # and is sent as a prompt" in str(read(tmp_path / "t.csv").warnings[0])


def test_lines_around_a_markdown_table_are_not_lost_in_silence() -> None:
    assert "2 lines around the Markdown table not read, such as 'Shots:'" in warnings_of(
        "Shots:\n\n| prompt |\n|---|\n| A cat |\n\nA dog\n"
    )


def test_one_row_of_json_with_objects_only_is_a_row() -> None:
    row = only_row(f'{{"media": {{"reference_images": ["{A}"]}}}}', model=FREE, defaults={"prompt": "It moves"})

    assert [field for field, _ in row.requests[0].images()] == ["reference_images"]


def test_a_file_with_many_broken_lines_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "A cat"}\n' * 60 + "oops\n" * 50)

    problems = problems_of(str(tmp_path / "t.jsonl"))

    assert len(problems) == 21
    assert problems[0][2] == "30 more lines cannot be read either"


def test_a_dash_on_the_command_line_is_standard_input() -> None:
    program = "from prefect_together.cli.commands import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "plan", "-", "--model", DIRECTOR, "--json"]

    done = subprocess.run(command, input="prompt\nA cat\n", capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert '"prompt": "A cat"' in done.stdout
