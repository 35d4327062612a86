"""films/frames.py: the frame that was asked for, upright, as a JPEG that fits."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from clip_files import make_clip, sound_alone
from prefect_together.errors import NoFrame
from prefect_together.films.frames import frame_image, frame_jpeg

CODECS = [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("mp4", "mpeg4")]


def all_pictures(clip: bytes) -> list[Image.Image]:
    """Every frame of a clip in the order shown, by a complete decode."""
    with cast(Any, av.open(io.BytesIO(clip))) as opened:
        frames = sorted(opened.decode(video=0), key=lambda frame: frame.pts)
        return [frame.to_image() for frame in frames]


def numbered_clip(frames: int, *, fps: int = 12, size: tuple[int, int] = (96, 64), **options: str) -> bytes:
    """An H.264 clip whose frames differ a little each: grey, brighter by the frame."""
    file = io.BytesIO()
    with cast(Any, av.open(file, "w", format="mp4")) as opened:
        video = opened.add_stream("libx264", rate=fps, options={"crf": "1", **options})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), 10 + 4 * number, dtype=np.uint8)
            opened.mux(video.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        opened.mux(video.encode(None))
    return file.getvalue()


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures, 0-255."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


@pytest.mark.parametrize(("container", "codec"), CODECS)
def test_first_and_last_are_those_of_a_complete_decode(container: str, codec: str) -> None:
    clip = make_clip(container=container, codec=codec, seconds=2.5)

    pictures = all_pictures(clip)

    assert same(frame_image(clip, "first"), pictures[0])
    assert same(frame_image(clip, "last"), pictures[-1])


@pytest.mark.parametrize("gop", ["1", "7", "250"])
def test_the_last_frame_comes_out_where_frames_are_held_back_for_reordering(gop: str) -> None:
    clip = numbered_clip(40, bf="4", g=gop)

    assert same(frame_image(clip, "last"), all_pictures(clip)[39])


@pytest.mark.parametrize("number", [0, 1, 5, 6, 23, 39])
def test_a_time_gives_the_frame_that_is_shown_then(number: int) -> None:
    clip = numbered_clip(40, bf="3", g="12")

    assert same(frame_image(clip, number / 12 + 0.04), all_pictures(clip)[number])
    assert same(frame_image(clip, round(number / 12, 6)), all_pictures(clip)[number])


def test_the_time_at_which_a_clip_ends_gives_its_last_frame_and_a_later_one_none() -> None:
    clip = numbered_clip(24)

    assert same(frame_image(clip, 2.0), all_pictures(clip)[-1])
    with pytest.raises(NoFrame, match=r"2\.00 s long, and has no frame at 3 s"):
        frame_image(clip, 3.0)
    with pytest.raises(NoFrame, match="no frame at -1 s"):
        frame_image(clip, -1.0)


def test_a_broken_end_gives_the_last_frame_that_decodes() -> None:
    clip = bytearray(numbered_clip(40, g="12", bf="2"))
    whole = all_pictures(bytes(clip))
    with cast(Any, av.open(io.BytesIO(bytes(clip)))) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
        key = [packet for packet in packets if packet.is_keyframe][-1]
        for packet in packets[packets.index(key) :]:
            clip[packet.pos : packet.pos + packet.size] = bytes([255]) * packet.size

    found = frame_image(bytes(clip), "last")

    assert any(same(found, picture) for picture in whole[30:36])


def test_a_frame_is_upright_as_its_display_matrix_says() -> None:
    picture = np.zeros((64, 96, 3), dtype=np.uint8)
    picture[:32, :48] = (255, 0, 0)
    file = io.BytesIO()
    with cast(Any, av.open(file, "w", format="mp4")) as opened:
        video = opened.add_stream("libx264", rate=12, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        opened.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        opened.mux(video.encode(None))
    clip, one = file.getvalue(), 1 << 16
    matrix_at = clip.index(b"tkhd") + 4 + 40
    expected = {
        (0, one, -one, 0): Image.Transpose.ROTATE_270,
        (-one, 0, 0, -one): Image.Transpose.ROTATE_180,
        (0, -one, one, 0): Image.Transpose.ROTATE_90,
        (-one, 0, 0, one): Image.Transpose.FLIP_LEFT_RIGHT,
    }
    for (a, b, c, d), transposed in expected.items():
        matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        turned = clip[:matrix_at] + matrix + clip[matrix_at + 36 :]

        assert same(frame_image(turned, "first"), frame_image(clip, "first").transpose(transposed))


@pytest.mark.parametrize("max_bytes", [60_000, 20_000, 6_000, 2_000])
def test_a_jpeg_fits_and_is_the_same_each_time(max_bytes: int, tmp_path: Path) -> None:
    clip = make_clip(width=320, height=180, seconds=0.5)
    (tmp_path / "clip.mp4").write_bytes(clip)

    picture = frame_jpeg(clip, "last", max_bytes=max_bytes)

    assert len(picture.jpeg) <= max_bytes
    assert picture == frame_jpeg(tmp_path / "clip.mp4", "last", max_bytes=max_bytes)
    assert picture.sha256 == hashlib.sha256(picture.jpeg).hexdigest()
    with Image.open(io.BytesIO(picture.jpeg)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (picture.width, picture.height))


def test_a_jpeg_is_as_good_as_its_limit_allows() -> None:
    clip = make_clip(width=320, height=180, seconds=0.5)
    whole = frame_image(clip, "last")

    pictures = [frame_jpeg(clip, "last", max_bytes=limit) for limit in (200_000, 50_000, 30_000)]

    differences = [difference(Image.open(io.BytesIO(one.jpeg)), whole) for one in pictures]
    assert differences == sorted(differences)
    assert differences[0] < 4
    assert frame_jpeg(clip, "last", max_bytes=3_000).width < 320


def test_a_frame_is_scaled_only_where_its_aspect_agrees() -> None:
    clip = make_clip(width=96, height=64, seconds=0.5)

    same_aspect = frame_jpeg(clip, "last", max_bytes=60_000, size=(192, 128))
    nearly = frame_jpeg(clip, "last", max_bytes=60_000, size=(193, 128))
    another = frame_jpeg(clip, "last", max_bytes=60_000, size=(192, 108))

    assert (same_aspect.width, same_aspect.height) == (192, 128)
    assert (nearly.width, nearly.height) == (193, 128)
    assert (another.width, another.height) == (96, 64)


def test_no_frame_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(NoFrame, match="empty"):
        frame_jpeg(b"", "last", max_bytes=60_000)
    with pytest.raises(NoFrame, match="no video"):
        frame_jpeg(sound_alone(), "first", max_bytes=60_000)
    with pytest.raises(NoFrame, match="No such file"):
        frame_jpeg(tmp_path / "gone.mp4", "last", max_bytes=60_000)
    with pytest.raises(NoFrame, match="fits into 100 bytes"):
        frame_jpeg(make_clip(), "last", max_bytes=100)
