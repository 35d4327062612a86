"""Complete clips are distinguished from truncated, damaged and false ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clip_files import make_clip, padded, sound_alone
from prefect_together.clips.http import text_excerpt
from prefect_together.clips.inspection import MediaFacts, inspect_clip
from prefect_together.errors import ClipInvalid

Save = Callable[[bytes], Path]

FACTS = MediaFacts("mp4", duration_seconds=5.04, fps=24.0, width=1280, height=720, has_audio=False, video_codec="h264")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: bytes) -> Path:
        path = tmp_path / "clip"
        path.write_bytes(content)
        return path

    return write


KINDS: dict[str, dict[str, object]] = {
    "index first": {},
    "index last": {"is_streamable": False},
    "fragmented": {"muxer_options": {"movflags": "frag_keyframe+empty_moov"}},
    "with sound": {"has_audio": True},
    "webm": {"container": "webm", "codec": "libvpx-vp9"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_clip_tells_what_is_in_it(save: Save, kind: str) -> None:
    options = KINDS[kind]

    facts = inspect_clip(save(make_clip(**options)))  # pyright: ignore[reportArgumentType]

    assert facts == MediaFacts(
        container="webm" if kind == "webm" else "mp4",
        duration_seconds=pytest.approx(1.0, abs=0.1),  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
        fps=12.0,
        width=96,
        height=64,
        has_audio=kind == "with sound",
        video_codec="vp9" if kind == "webm" else "h264",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_cut_at_any_byte_is_refused(save: Save, kind: str) -> None:
    whole = make_clip(**KINDS[kind])  # pyright: ignore[reportArgumentType]
    cuts = {*range(0, 120, 3), *range(0, len(whole), len(whole) // 60), *range(len(whole) - 20, len(whole))}

    for cut in sorted(cuts):
        with pytest.raises(ClipInvalid):
            inspect_clip(save(whole[:cut]))


@pytest.mark.parametrize("kind", ["index first", "index last", "webm"])
def test_a_clip_whose_end_is_zeros_is_refused(save: Save, kind: str) -> None:
    whole = make_clip(seconds=3, **KINDS[kind])  # pyright: ignore[reportArgumentType]
    kept = len(whole) // 2

    with pytest.raises(ClipInvalid):
        inspect_clip(save(whole[:kept] + bytes(len(whole) - kept)))


def test_a_clip_whose_pictures_are_garbage_is_refused(save: Save) -> None:
    whole = make_clip()
    pictures = whole.index(b"mdat") + 4
    garbage = bytes(range(256)) * (len(whole) // 256)

    with pytest.raises(ClipInvalid):
        inspect_clip(save(whole[:pictures] + garbage[: len(whole) - pictures]))


def test_boxes_that_players_skip_are_no_damage(save: Save) -> None:
    clip = padded(make_clip(), 100_000)

    assert inspect_clip(save(clip)).width == 96


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title>", r'text, not a video: "<!DOCTYPE html> <html><title>Sign in'),
        (b'{"error": {"message": "expired"}}', r'text, not a video: "{"error": {"message": "expired"}}"'),
        ("\ufeffService nicht verfügbar".encode(), 'text, not a video: "Service nicht verfügbar"'),
        (b"\x1f\x8b\x08\x00" + bytes(100), "neither MP4 nor WebM.*1f 8b 08 00"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/secret\n", "text, not a video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither MP4 nor WebM"),
        (b"\x00\x00\x00\x01ftyp" + bytes(16), "damaged|cut"),
    ],
)
def test_what_is_no_video_is_refused_with_its_first_words(save: Save, content: bytes, reason: str) -> None:
    with pytest.raises(ClipInvalid, match=reason):
        inspect_clip(save(content))


def test_a_clip_with_sound_only_is_refused(save: Save) -> None:
    with pytest.raises(ClipInvalid, match="no video"):
        inspect_clip(save(sound_alone()))


def test_checking_bad_clips_prints_nothing(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    whole = make_clip()
    capfd.readouterr()  # the encoder speaks, the check must not

    for kept in (200, len(whole) // 2):
        with pytest.raises(ClipInvalid):
            inspect_clip(save(whole[:kept] + bytes(len(whole) - kept)))

    assert capfd.readouterr() == ("", "")


def test_text_is_quoted_on_one_line_and_not_for_long() -> None:
    words = text_excerpt(b"<html>\n\n  <body>" + b"word " * 200)

    assert words is not None
    assert words.startswith("<html> <body>word word")
    assert len(words) == 101
    assert words.endswith("…")


@pytest.mark.parametrize(
    "head", [b"", b"   \n", b"\x00\x00\x00", b"\x1a\x45\xdf\xa3", b"text \x00 more", b"\xff\xfe\xfd\xfc\xfb"]
)
def test_bytes_are_not_taken_for_text(head: bytes) -> None:
    assert text_excerpt(head) is None


def test_text_that_ends_within_a_character_is_still_text() -> None:
    assert text_excerpt("grün".encode()[:3]) == "gr"


def test_facts_can_be_kept_as_json() -> None:
    assert MediaFacts(**FACTS.as_dict()) == FACTS  # pyright: ignore[reportArgumentType]
