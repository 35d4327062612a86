"""results.csv: the user's table comes back as it was, with what became of each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.grid.columns import RESULT_COLUMNS, escape_cell, is_results_table, unescape_cell
from prefect_together.ledger.states import Status
from prefect_together.results.results import RowResult, TakeResult, results_csv, totals
from prefect_together.table.prompt_table import read_table

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"))


def take(status: Status = "downloaded", **fields: object) -> TakeResult:
    values: dict[str, object] = {"row_id": "a", "status": status, "model": "m", "parameters": {}, "attempts": 1}
    return TakeResult(**(values | fields))  # pyright: ignore[reportArgumentType]


def row(*takes: TakeResult, number: int = 2, cells: Mapping[str, str] | None = None) -> RowResult:
    return RowResult(number=number, cells=cells or {"prompt": "a fox"}, takes=takes or (take(),))


def read(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def records(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def test_a_line_has_the_tables_columns_first_then_what_became_of_it() -> None:
    done = take(job_id="j-1", file="videos/a.mp4", cost_usd=0.28)

    content = results_csv(["id", "prompt", "mood"], [row(done, cells={"id": "007", "prompt": "NA", "mood": ""})])

    assert content.decode() == (
        "id,prompt,mood,status,job_id,file,cost_usd,attempts,error\n007,NA,,downloaded,j-1,videos/a.mp4,0.28,1,\n"
    )


def test_the_tables_own_columns_never_stand_in_for_the_results() -> None:
    content = results_csv(["prompt", "status"], [row(cells={"prompt": "a fox", "status": "draft"})])

    assert read(content)[0] == ["prompt", *RESULT_COLUMNS]
    assert records(content)[0]["status"] == "downloaded"


@given(st.lists(TEXT, min_size=1, max_size=4, unique=True), st.data())
def test_every_cell_and_header_comes_back_as_it_was(columns: list[str], data: st.DataObject) -> None:
    columns = [column for column in columns if column not in RESULT_COLUMNS]
    cells = {column: data.draw(TEXT) for column in columns}

    header, line = read(results_csv(columns, [row(cells=cells)]))

    assert is_results_table(header)
    assert [unescape_cell(name) for name in header[: len(columns)]] == columns
    assert [unescape_cell(cell) for cell in line[: len(columns)]] == list(cells.values())


@given(TEXT)
def test_escaping_is_undone_exactly(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text


@pytest.mark.parametrize(
    "formula",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1+1", '=HYPERLINK("x")'],
)
def test_no_cell_is_a_formula_for_a_spreadsheet(formula: str) -> None:
    failed = take("failed", error=formula, job_id=formula)

    header, line = read(results_csv([formula, "prompt"], [row(failed, cells={formula: formula, "prompt": formula})]))

    assert not [cell for cell in header + line if cell.lstrip()[:1] in "=+-@＝" and cell]


@pytest.mark.parametrize("number", ["-5", "+1.5", "-.5", "-1e3", "007", "-0"])
def test_plain_numbers_stay_numbers(number: str) -> None:
    assert escape_cell(number) == number


def test_only_a_table_written_here_is_taken_for_escaped() -> None:
    assert is_results_table(["prompt", *RESULT_COLUMNS])
    assert is_results_table(["status", "job_id", "prompt"])
    assert not is_results_table(["prompt", "status", "file"])


def test_ascii_has_no_byte_order_mark_and_other_text_has_one_for_excel() -> None:
    plain = results_csv(["prompt"], [row()])
    accented = results_csv(["prompt"], [row(cells={"prompt": "café 猫"})])

    assert plain.startswith(b"prompt,")
    assert accented.startswith(b"\xef\xbb\xbfprompt,")


def test_a_file_that_begins_with_ID_is_quoted_for_excel() -> None:  # noqa: N802
    assert results_csv(["ID"], []).startswith(b'"ID",')


def test_line_breaks_quotes_and_spaces_inside_a_cell_survive() -> None:
    cell = ' a "fox"\r\nruns;\rfast\n, home '

    content = results_csv(["prompt"], [row(cells={"prompt": cell})])

    assert records(content)[0]["prompt"] == cell


def test_half_a_character_does_not_lose_the_file() -> None:
    assert b"a?b" in results_csv(["prompt"], [row(cells={"prompt": "a\ud800b"})])


def test_it_is_itself_a_prompt_table_with_the_same_rows(tmp_path: Path) -> None:
    original = tmp_path / "films.csv"
    original.write_bytes(
        'id,prompt,model,=note,mood\n007,=1+1 foxes,google/veo-3.1,-5,"two\r\nlines, ""here"""\n'
        "'-x,'=not escaped,google/veo-3.1,+x,\n@3,猫 runs; fast,google/veo-3.1,NA,null\n".encode()
    )
    before = read_table(str(original))
    results = [
        RowResult(number=line.number, cells=line.cells, takes=(take("failed", error="=1", job_id="j"),))
        for line in before.rows
    ]

    (tmp_path / "results.csv").write_bytes(results_csv(before.columns, results))
    after = read_table(str(tmp_path / "results.csv"))

    assert after.columns == before.columns
    assert [dict(line.cells) for line in after.rows] == [dict(line.cells) for line in before.rows]
    assert [line.row_id for line in after.rows] == ["007", "'-x", "@3"]
    assert [line.requests[0] for line in after.rows] == [line.requests[0] for line in before.rows]


def test_a_row_of_several_takes_is_one_line() -> None:
    takes = (
        take(take=1, job_id="j-1", file="videos/a-1.mp4", cost_usd=0.1, attempts=1),
        take("failed", take=2, job_id="j-2", error="moderation:\n no", attempts=2),
        take(take=3, job_id="j-3", file="videos/a-3.mp4", cost_usd=0.2, attempts=1),
    )

    (line,) = records(results_csv(["prompt"], [row(*takes)]))

    assert line["status"] == "failed"
    assert line["job_id"] == "j-1|j-2|j-3"
    assert line["file"] == "videos/a-1.mp4|videos/a-3.mp4"
    assert line["cost_usd"] == "0.3"
    assert line["attempts"] == "4"
    assert line["error"] == "take 2: moderation: no"


def test_a_row_is_as_finished_as_its_least_finished_take() -> None:
    order: Sequence[Status] = ("planned", "refused", "in_doubt", "submitted", "failed", "downloaded")

    statuses = [row(*(take(status) for status in order[start:])).status for start in range(len(order))]

    assert statuses == list(order)
    assert RowResult(number=2, cells={}, takes=()).status == "planned"


def test_a_shared_job_is_named_by_both_rows_and_paid_once() -> None:
    done = take(job_id="j-1", file="videos/a.mp4", cost_usd=0.28)
    rows = [row(done), RowResult(number=3, cells={"prompt": "a fox"}, takes=(done,), shared_with=2)]

    lines = records(results_csv(["prompt"], rows))

    assert [line["file"] for line in lines] == ["videos/a.mp4", "videos/a.mp4"]
    assert [line["cost_usd"] for line in lines] == ["0.28", "0"]
    assert [line["attempts"] for line in lines] == ["1", "0"]
    assert totals(rows).spent_usd == 0.28
    assert totals(rows).rows_by_status["downloaded"] == 2
    assert totals(rows).videos == 1


def test_an_unknown_cost_is_empty_and_a_known_one_has_no_rounding_noise() -> None:
    lines = records(results_csv(["prompt"], [row(take(cost_usd=cost)) for cost in (None, 0.1 + 0.2, 0.0, 12.0)]))

    assert [line["cost_usd"] for line in lines] == ["", "0.3", "0", "12"]


def test_a_job_that_two_rows_share_in_part_is_counted_once() -> None:
    first, second = (take(job_id=f"j-{number}", take=number, cost_usd=0.28) for number in (1, 2))

    total = totals([row(first), row(first, second, number=3)])

    assert (total.videos, total.spent_usd) == (2, 0.56)


def test_dollars_are_counted_by_what_they_mean() -> None:
    rows = [
        row(take(cost_usd=0.3, estimate_usd=0.2)),
        row(take(cost_usd=0.2, estimate_usd=0.2, attempts=2, failed_usd=0.1)),  # an earlier job of it failed
        row(take("in_doubt", estimate_usd=0.2, in_doubt_usd=0.2)),
        row(take("failed", job_id="j-9", estimate_usd=0.2, failed_usd=0.2)),
        row(take("refused", estimate_usd=0.2, attempts=0)),
        row(take("submitted", job_id="j-10")),
    ]

    total = totals(rows)

    assert total.spent_usd == 0.5
    assert total.estimated_usd == 1.0
    assert total.in_doubt_usd == 0.2
    assert total.failed_usd == 0.3
    assert total.unpriced_videos == 1


def test_drift_compares_only_videos_whose_two_prices_are_known() -> None:
    rows = [
        row(take(model="b", cost_usd=0.33, estimate_usd=0.3, generation_seconds=60)),
        row(take(model="b", cost_usd=5.0, generation_seconds=90)),
        row(take("submitted", model="b", estimate_usd=0.3)),
        row(take("submitted", model="A")),
    ]

    unknown, known = totals(rows).models

    assert (unknown.model, unknown.drift) == ("A", None)
    assert known.drift == pytest.approx(0.1)  # pyright: ignore[reportUnknownMemberType]
    assert (known.videos, known.downloaded, known.spent_usd, known.generation_seconds) == (3, 2, 5.33, 75)


@pytest.mark.scale
def test_100_000_rows_are_written_each_as_one_line() -> None:
    prompt = "A fox, running through snow at dawn, in the style of a woodcut" * 3
    rows = [
        row(take(job_id=f"job-{n}", file=f"videos/{n}.mp4", cost_usd=0.28), number=n + 2, cells={"prompt": prompt})
        for n in range(100_000)
    ]

    content = results_csv(["prompt"], rows)

    assert content.count(b"\n") == 100_001
