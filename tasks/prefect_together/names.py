"""File names and ids from whatever a table holds: safe on every file system, the same in each run. No I/O.

A name says its row's id as far as a file name can. Where it cannot (a slash, a control character, 300
characters), a short hash of the exact id follows, so that ids which differ only in what was lost stay apart,
whichever other rows are in the table.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

MAX_STEM_BYTES = 120
"""With "-take1000" and ".webm.part" a name stays below 143 bytes, the shortest limit in use (eCryptfs)."""

SLUG_CHARACTERS = 40

_HASH_DIGITS = (8, 16, 64)
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_LIKE_A_TAKE = re.compile(r"-(?=take[0-9]+$)", re.IGNORECASE)
_ORDINARY = re.compile(r"[A-Za-z0-9_.+=@(), -]*")


def file_stem(row_id: str, take: int = 1) -> str:
    """A file name without extension for one video of a row; at most `MAX_STEM_BYTES` and the take's suffix.

    An id that is a safe name already is kept as it is. Take 1 bears no suffix, so that raising a row's
    `count` renames nothing; later ones end in "-take2", "-take3"... Ids that differ in case only give names
    that differ in case only: `unique_names` keeps those apart.
    """
    safe = _safe_name(row_id)
    return take_stem(safe if safe == row_id else _with_hash(safe, row_id, _HASH_DIGITS[0]), take)


def take_stem(stem: str, take: int) -> str:
    """The name of take 1, 2, 3... of the row whose videos are called `stem`."""
    return stem if take == 1 else f"{stem}-take{take}"


def unique_names(ids: Iterable[str], *, taken: Mapping[str, str] | None = None) -> dict[str, str]:
    """A name (stem) for every id, no two the same even where case and Unicode form do not count.

    The order of `ids` and repeats among them do not matter. `taken` are ids with the names they already have:
    they keep them, and no other id gets one. Of ids that collide, the one in lower case keeps the plain name,
    and the others get the hash of their exact id.
    """
    names = dict(taken or {})
    used = {_folded(name) for name in names.values()}
    for row_id in sorted({*ids} - names.keys(), key=_plainest_first):
        names[row_id] = next(stem for stem in _candidates(row_id) if _folded(stem) not in used)
        used.add(_folded(names[row_id]))
    return names


def derived_id(prompt: str | None, fingerprint: str) -> str:
    """The id of a row that has none: the prompt's first words and 8 digits of the request's fingerprint.

    It is a safe file name as it stands: "a-cat-asleep-on-a-drum-3f9a21c4".
    """
    text = unicodedata.normalize("NFKC", prompt[: SLUG_CHARACTERS * 8] if prompt else "").lower()
    words = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in text).split()
    slug = unicodedata.normalize("NFC", "-".join(words))
    if len(slug) > SLUG_CHARACTERS:
        cut = slug[: SLUG_CHARACTERS + 1].rpartition("-")[0]
        slug = cut if len(cut) >= SLUG_CHARACTERS // 2 else slug[:SLUG_CHARACTERS]
    slug = _first_bytes(slug, MAX_STEM_BYTES - 1 - _HASH_DIGITS[0]).strip("-")
    return f"{slug or 'video'}-{fingerprint[: _HASH_DIGITS[0]]}"


def _safe_name(text: str) -> str:
    """`text` as far as a file name can hold it. What comes out goes in unchanged."""
    if not _ORDINARY.fullmatch(text):
        letters = "".join(map(_safe_character, unicodedata.normalize("NFC", text)))
        text = unicodedata.normalize("NFC", letters)
    name = text.lstrip(" .-")
    if _RESERVED.match(name):
        name = f"_{name}"
    name = _first_bytes(name, MAX_STEM_BYTES).rstrip(" .")
    return _LIKE_A_TAKE.sub("_", name) or "row"


def _safe_character(letter: str) -> str:
    """The character, "_" for one that some system reads as more than a letter, "" for an unseen one."""
    if letter.isascii():
        if _ORDINARY.fullmatch(letter):
            return letter
        return "_" if letter.isprintable() else ""
    kind = unicodedata.category(letter)
    if kind[0] == "C":
        return ""
    return "_" if kind[0] == "Z" else letter


def _first_bytes(text: str, limit: int) -> str:
    """The beginning of `text`, at most `limit` bytes of UTF-8, cut between characters."""
    return text.encode()[:limit].decode(errors="ignore")


def _with_hash(safe: str, row_id: str, digits: int) -> str:
    mark = "-" + hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return _first_bytes(safe, MAX_STEM_BYTES - len(mark)).rstrip(" .-") + mark


def _candidates(row_id: str) -> Iterator[str]:
    yield file_stem(row_id)
    safe = _safe_name(row_id)
    yield from (_with_hash(safe, row_id, digits) for digits in _HASH_DIGITS)


def _folded(name: str) -> str:
    """What is left of a name where neither case nor Unicode form counts."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _plainest_first(row_id: str) -> tuple[bool, bool, str]:
    return file_stem(row_id) != row_id, _folded(row_id) != row_id, row_id
