"""File names and ids: safe whatever the table holds, and the same in every run."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import MAX_STEM_BYTES, derived_id, file_stem, make_plan
from prefect_together.table.rows import PromptTable, TableRow

FINGERPRINT = "3f9a21c4" * 8
ANY_TEXT = st.text(max_size=300)
HOSTILE_TEXT = st.text(alphabet="./\\-_ :*cCoOnNaAuUxXlLpPtT1e\x00\u202eé\u0301ß٣", max_size=40)


def is_safe_name(name: str, *, most_bytes: int = MAX_STEM_BYTES) -> bool:
    """Taken as a file name by Linux, macOS and Windows, and harmless in a shell and in a terminal."""
    return (
        0 < len(name.encode()) <= most_bytes
        and not set(name) & set('<>:"/\\|?*[]{}#%&$`;!~')
        and name[0] not in "-. "
        and name[-1] not in ". "
        and all(unicodedata.category(letter)[0] != "C" for letter in name)
        and name.partition(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}
        and unicodedata.normalize("NFC", name) == name
    )


ORDINARY_IDS = ["007", "vbench-0001", "a_b.c+d@e", "Shot 12 (b), take=2", "été", "猫", "קיץ", "🐈", "\u0301"]
UNSAFE_IDS = [
    *("", ".", "..", "../x", "/etc/passwd", "C:\\x", "a/b", "x.", "x ", "-rf", ".hidden"),
    *("a\x00b", "a\nb", "a\x7fb", "a\u202eb", "a\u200db", "\ufeffa", "a\u2028b", "\ud800", "e\u0301"),
    *("NUL", "con.txt", "aux ", "COM¹", "con" + "." * 200, "con-take2", "x-take2"),
    *("a#b", "100%", "a?b", "*", "$HOME", "`id`", "x" * 300, "猫" * 300),
]


@pytest.mark.parametrize("row_id", ORDINARY_IDS)
def test_an_ordinary_id_is_the_file_name(row_id: str) -> None:
    assert file_stem(row_id) == row_id


@pytest.mark.parametrize("row_id", UNSAFE_IDS)
def test_an_unsafe_id_gives_a_safe_name_marked_by_a_hash_of_the_id(row_id: str) -> None:
    name = file_stem(row_id)

    assert is_safe_name(name)
    assert name != row_id
    assert name == file_stem(row_id)


@given(ANY_TEXT | HOSTILE_TEXT)
def test_every_id_gives_a_safe_name_that_is_its_own_name(row_id: str) -> None:
    name = file_stem(row_id)

    assert is_safe_name(name)
    assert file_stem(name) == name


@given(ANY_TEXT | HOSTILE_TEXT, ANY_TEXT | HOSTILE_TEXT)
def test_different_ids_give_different_names(one: str, other: str) -> None:
    assert (file_stem(one) == file_stem(other)) == (one == other)


def test_a_name_can_be_created_on_disk(tmp_path: Path) -> None:
    row_ids = ("猫" * 300, "x" * 300, "../../x", "🐈" * 99)
    names = [file_stem(row_id, take=1000) + ".webm.part" for row_id in row_ids]

    for name in names:
        (tmp_path / name).write_bytes(b"x")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert max(len(name.encode()) for name in names) <= 143


def test_the_first_take_keeps_the_name_when_more_are_asked_for() -> None:
    assert [file_stem("cat", take=take) for take in (1, 2, 12)] == ["cat", "cat-take2", "cat-take12"]


def files_of(*ids: str, count: int = 1) -> list[str]:
    """The files of these rows in the order in which a ledger gives them, without directory and extension."""
    request = VideoRequest(model="minimax/video-01-director", prompt="a cat")
    rows = tuple(TableRow(number, row_id, count, None, (request,), {}) for number, row_id in enumerate(ids, start=2))
    taken: set[str] = set()
    files: list[str] = []
    for video in make_plan(PromptTable("t.csv", (), rows, ())).videos.values():
        files.append(video.free_file(taken))
        taken.add(files[-1].casefold())
    return [file.removeprefix("videos/").removesuffix(".mp4") for file in files]


def test_no_id_can_take_the_name_of_another_ones_take() -> None:
    files = files_of("cat", "cat-take2", "CAT-TAKE2", count=4)

    assert files[:4] == ["cat", "cat-take2", "cat-take3", "cat-take4"]
    assert len({file.casefold() for file in files}) == 12


@pytest.mark.parametrize(
    "ids",
    [
        *(["a", "A"], ["e\u0301", "é", "É"], ["ﬁn", "fin", "FIN"], ["straße", "STRASSE"]),
        *(["a/b", "a:b", "a_b"], ["ı", "i", "I"]),
    ],
)
def test_ids_that_differ_in_case_or_unicode_form_only_get_files_of_their_own(ids: list[str]) -> None:
    folded = {unicodedata.normalize("NFC", file).casefold() for file in files_of(*ids)}

    assert len(folded) == len(ids)


def test_of_ids_that_collide_the_first_keeps_the_plain_name() -> None:
    first, second, third, other = files_of("Cat", "cat", "CAT", "dog")

    assert (first, other) == ("Cat", "dog")
    assert second.startswith("cat-")
    assert third.startswith("CAT-")


def test_an_id_that_copies_a_hashed_name_does_not_get_that_file() -> None:
    copied = file_stem("a/b")

    assert len({file.casefold() for file in files_of("a/b", copied, copied.upper())}) == 3


@given(st.lists(HOSTILE_TEXT | ANY_TEXT, max_size=20, unique=True))
def test_any_ids_get_safe_names_that_stay_apart(ids: list[str]) -> None:
    files = files_of(*(row_id for row_id in ids if row_id))

    assert len({file.casefold() for file in files}) == len(files) == sum(map(bool, ids))
    assert all(is_safe_name(file, most_bytes=MAX_STEM_BYTES + 33) for file in files)


@pytest.mark.parametrize(
    ("prompt", "row_id"),
    [
        ("A cat, asleep on a drum", "a-cat-asleep-on-a-drum-3f9a21c4"),
        (
            "In a still frame, a stop sign stands by a road",
            "in-a-still-frame-a-stop-sign-stands-by-a-3f9a21c4",
        ),
        ("猫が眠る", "猫が眠る-3f9a21c4"),
        ("../../etc/passwd", "etc-passwd-3f9a21c4"),
        ("🐈", "video-3f9a21c4"),
        ("", "video-3f9a21c4"),
        (None, "video-3f9a21c4"),
        ("x" * 90, "x" * 40 + "-3f9a21c4"),
    ],
)
def test_a_row_without_an_id_is_named_by_its_prompt(prompt: str | None, row_id: str) -> None:
    assert derived_id(prompt, FINGERPRINT) == row_id


@given(ANY_TEXT)
def test_a_derived_id_is_a_safe_name_as_it_stands(prompt: str) -> None:
    row_id = derived_id(prompt, FINGERPRINT)

    assert is_safe_name(row_id)
    assert file_stem(row_id) == row_id
