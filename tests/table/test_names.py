"""File names and ids: safe whatever the table holds, and the same in every run."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.table.plan import MAX_STEM_BYTES, derived_id, file_stem, take_stem, unique_names

FINGERPRINT = "3f9a21c4" * 8
ANY_TEXT = st.text(max_size=300)
HOSTILE_TEXT = st.text(alphabet="./\\-_ :*cCoOnNaAuUxXlLpPtT1e\x00\u202eé\u0301ß٣", max_size=40)


def is_safe_name(name: str) -> bool:
    """Taken as a file name by Linux, macOS and Windows, and harmless in a shell and in a terminal."""
    return (
        0 < len(name.encode()) <= MAX_STEM_BYTES
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
    assert take_stem("cat", take=1) == "cat"


def test_no_id_can_take_the_name_of_another_ones_take() -> None:
    ids = ["cat", "cat-take2", "CAT-TAKE2"]

    names = unique_names(ids)

    takes = {take_stem(names["cat"], take=take).casefold() for take in range(1, 5)}
    assert not takes & {names["cat-take2"].casefold(), names["CAT-TAKE2"].casefold()}


@pytest.mark.parametrize(
    "ids",
    [
        *(["a", "A"], ["e\u0301", "é", "É"], ["ﬁn", "fin", "FIN"], ["straße", "STRASSE"]),
        *(["a/b", "a:b", "a_b"], ["ı", "i", "I"]),
    ],
)
def test_ids_that_differ_in_case_or_unicode_form_only_get_files_of_their_own(ids: list[str]) -> None:
    names = unique_names(ids)

    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names.values()}
    assert len(folded) == len(ids)


def test_of_ids_that_collide_the_lower_case_one_keeps_the_plain_name() -> None:
    names = unique_names(["Cat", "cat", "CAT", "dog"])

    assert names["cat"] == "cat"
    assert names["dog"] == "dog"
    assert names["Cat"].startswith("Cat-")
    assert names["CAT"].startswith("CAT-")


def test_names_do_not_depend_on_the_order_of_the_rows() -> None:
    ids = ["a", "A", "a/b", "a:b", "é", "e\u0301", "x" * 300, "x" * 301]
    shuffled = random.Random(7).sample(ids, len(ids))

    assert unique_names(ids) == unique_names(shuffled)


def test_an_unsafe_id_has_the_same_name_with_and_without_the_other_rows() -> None:
    ids = ["a/b", "a:b", "a_b", "e\u0301", "é", "x" * 300]

    assert all(unique_names([row_id])[row_id] == name for row_id, name in unique_names(ids).items())


def test_an_id_that_copies_a_hashed_name_does_not_get_that_file() -> None:
    copied = file_stem("a/b")

    names = unique_names(["a/b", copied, copied.upper()])

    assert len({name.casefold() for name in names.values()}) == 3
    assert names[copied] == copied


def test_names_given_earlier_are_kept_and_not_given_again() -> None:
    names = unique_names(["cat", "Cat"], taken={"Cat": "Cat", "old": "dog"})

    assert names["Cat"] == "Cat"
    assert names["cat"].startswith("cat-")
    assert unique_names(["dog"], taken=names)["dog"] != "dog"


@given(st.lists(HOSTILE_TEXT | ANY_TEXT, max_size=20))
def test_any_ids_get_safe_names_that_stay_apart(ids: list[str]) -> None:
    names = unique_names(ids)

    assert set(names) == set(ids)
    assert all(map(is_safe_name, names.values()))
    assert len({name.casefold() for name in names.values()}) == len(set(ids))


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
