"""A table made to do harm, through the whole of a run: every clip stays in videos/, every cell comes back as it was."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from pathlib import Path

import pytest

from prefect_together.table.prompt_table import read_table
from table_of_prompts import MODEL, Harness, prompts, read_results, table_text

IDS = [
    *("../escape", "../../etc/cron.d/x", "/etc/passwd", "C:\\windows\\x", "a/b", "a\\b", "..", "~root"),
    *("NUL", "con.txt", "COM1", "-rf", ".hidden", "x" * 300, "猫" * 300),
    *("Cat", "cat", "CAT", "é", "e\u0301", "É", "ﬁn", "fin", "straße", "STRASSE"),
    *("\u202egpj.exe", "קובץ", "🐈‍⬛", "a\u200bb", "two\nlines"),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "=1+1", "+1", "-1", "@SUM(A1)", "$(id)", "`id`"),
]
NOTES = ['=HYPERLINK("http://x")', "</script><script>alert(1)</script>", 'a,b;"c"\r\nd', "\u202eabc", "'=1", "@x", " "]


def hostile_rows() -> list[dict[str, str]]:
    return [
        {"id": row_id, "prompt": f"{NOTES[number % len(NOTES)]} clip {number}", "note": NOTES[number % len(NOTES)]}
        for number, row_id in enumerate(IDS)
    ]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_hostile_table_writes_inside_videos_only_and_each_row_a_file_of_its_own(harness: Harness) -> None:
    rows = hostile_rows()
    around = files_below(harness.output_dir.parent) - {"out/ledger.db", "out/ledger.db-wal", "out/ledger.db-shm"}

    ended = harness.run(table_text(rows))

    assert set(ended.statuses) == {"downloaded"}
    files = [row["file"] for row in ended.rows]
    folded = {unicodedata.normalize("NFKC", file).casefold() for file in files}
    assert len(folded) == len(set(files)) == len(rows)
    written = files_below(harness.output_dir.parent) - around
    own = {
        name
        for name in written
        if re.fullmatch(r"out/((results|videos)\.csv|index\.html|ledger\.db(-wal|-shm)?)", name)
    }
    assert written - own == {f"out/{file}" for file in files}
    assert all(re.fullmatch(r"videos/[^/\\]+\.mp4", file) for file in files)


def test_results_of_a_hostile_table_come_back_cell_by_cell_and_buy_nothing_new(harness: Harness) -> None:
    rows = hostile_rows()
    harness.run(table_text(rows))
    creates = harness.api.calls("create")
    results = harness.output_dir / "results.csv"

    again = harness.run(str(results))

    table = read_table(str(results), defaults={"model": MODEL})
    assert [dict(row.cells) for row in table.rows] == rows
    assert set(again.statuses) == {"downloaded"}
    assert harness.api.calls("create") == creates == len(rows)


def test_videos_of_a_hostile_table_read_as_a_table_buy_nothing_new(harness: Harness) -> None:
    harness.run(table_text(hostile_rows()))
    creates = harness.api.calls("create")

    again = harness.run(str(harness.output_dir / "videos.csv"))

    assert set(again.statuses) == {"downloaded"}
    assert harness.api.calls("create") == creates


@pytest.mark.parametrize("name", ["results.csv", "videos.csv"])
def test_no_cell_of_results_is_a_formula_for_a_spreadsheet(harness: Harness, name: str) -> None:
    harness.run(table_text(hostile_rows()))

    with (harness.output_dir / name).open(newline="", encoding="utf-8-sig") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    active = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(cell)]
    assert active == []


def test_the_page_of_a_hostile_table_is_inert(harness: Harness) -> None:
    harness.run(table_text(hostile_rows()))

    page = (harness.output_dir / "index.html").read_text(encoding="utf-8")

    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "Content-Security-Policy" in page
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert "</script><script>alert(1)</script>" in json.dumps(json.loads(data[1]), ensure_ascii=False)


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", cell) is not None


@pytest.mark.parametrize("column", ["id", "prompt", "note"])
def test_a_nul_is_named_with_its_row_or_comes_to_no_harm(harness: Harness, column: str) -> None:
    row = {"id": "r1", "prompt": "A cat", "note": "n"} | {column: "a\x00../b"}

    ended = harness.run(json.dumps(row), limits={"catalogue_checks": True})

    if ended.state.is_failed():
        assert "row" in ended.state.message
        assert harness.api.calls("create") == 0
    else:
        assert ended.statuses == ["downloaded"]
        assert "\x00" not in ended.rows[0]["file"]
        assert (harness.output_dir / ended.rows[0]["file"]).parent == harness.output_dir / "videos"


def written(harness: Harness, text: str) -> str:
    """A table file: Prefect takes no more than half a megabyte as pasted text."""
    path = harness.output_dir.parent / "table.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_megabyte_in_a_cell_comes_through_and_back(harness: Harness) -> None:
    long = "long \N{CAT} text " * 80_000
    rows = [{"id": "r1", "prompt": "A cat", "note": long}]

    ended = harness.run(written(harness, table_text(rows)))

    assert len(long.encode()) > 1 << 20
    assert ended.statuses == ["downloaded"]
    assert read_table(str(harness.output_dir / "results.csv"), defaults={"model": MODEL}).rows[0].cells["note"] == long
    assert (harness.output_dir / "index.html").stat().st_size < 3 << 20


def test_a_megabyte_of_prompt_is_named_and_nothing_is_sent(harness: Harness) -> None:
    ended = harness.run(written(harness, prompts("cat " * 300_000)))

    assert ended.state.is_failed()
    assert "row 2 (id r1), column prompt" in ended.state.message
    assert harness.api.calls("create") == 0
    assert read_results(harness.output_dir) == []


def test_a_table_may_have_columns_that_are_markup_and_formulas(harness: Harness) -> None:
    row = {"id": "r1", "prompt": "A cat", "<b onmouseover=alert(1)>": "x", "=cmd|' /C calc'!A0": "y", "status": "z"}

    ended = harness.run(table_text([row]))

    assert ended.statuses == ["downloaded"]
    assert "<b onmouseover" not in (harness.output_dir / "index.html").read_text(encoding="utf-8")
    header = (harness.output_dir / "results.csv").read_text(encoding="utf-8-sig").splitlines()[0]
    assert not any(name.startswith("=") for name in next(csv.reader([header])))
