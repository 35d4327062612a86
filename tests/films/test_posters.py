"""A small picture is taken of a clip, or it is said why not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from clip_files import make_clip, sound_alone
from prefect_together.errors import NoFrame
from prefect_together.films.frames import POSTER_BYTES, poster


def test_a_poster_is_a_jpeg_of_the_clips_proportions(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_clip())

    picture = Image.open(io.BytesIO(poster(path, width_px=48)))

    assert (picture.format, picture.size) == ("JPEG", (48, 32))


@pytest.mark.parametrize("kind", [("webm", "libvpx-vp9"), ("mp4", "libx264")])
def test_a_poster_is_made_of_a_clip_in_memory_too_and_never_larger_than_it(kind: tuple[str, str]) -> None:
    clip = make_clip(container=kind[0], codec=kind[1])

    assert Image.open(io.BytesIO(poster(clip))).size == (96, 64)


def test_a_poster_of_a_busy_picture_is_still_small() -> None:
    busy = make_clip(width=640, height=360, seconds=0.5)

    assert len(poster(busy, width_px=1000, max_bytes=200_000)) > POSTER_BYTES
    assert len(poster(busy)) <= POSTER_BYTES


def test_a_poster_passes_over_a_black_start() -> None:
    picture = Image.open(io.BytesIO(poster(make_clip(seconds=3, black_seconds=1.5))))

    darkest, brightest = picture.convert("L").getextrema()
    assert int(str(brightest)) - int(str(darkest)) > 50


def test_a_clip_of_black_alone_still_has_a_poster() -> None:
    picture = Image.open(io.BytesIO(poster(make_clip(black_seconds=1))))

    assert picture.size == (96, 64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>", "text"),
        (sound_alone(), "no video"),
        (make_clip()[:3000], "no picture of the clip: "),
        (make_clip(is_streamable=False)[:3000], "no picture of the clip: "),
    ],
    ids=["empty", "page", "sound", "cut", "without index"],
)
def test_of_what_cannot_be_decoded_there_is_none(content: bytes, reason: str) -> None:
    with pytest.raises(NoFrame, match=reason):
        poster(content)


def test_of_a_file_that_is_not_there_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoFrame, match="No such file"):
        poster(tmp_path / "gone.mp4")
