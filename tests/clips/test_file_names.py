"""A download writes its own files and no other, and names a clip by what it is."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from clip_files import make_clip
from clip_server import cut
from downloader import CLIP, OTHER_CLIP, SHA256, Downloader, open_downloader
from prefect_together.clips.part_file import MAX_NAMES
from prefect_together.errors import OutputUnwritable

WEBM = make_clip(container="webm", codec="libvpx-vp9")
MOV = make_clip(container="mov")
C2PA_ID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The type of the box that holds a clip's content credentials (C2PA 2.1, A.5)."""


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    (tmp_path / "out").mkdir()
    async with open_downloader(tmp_path / "out") as opened:
        yield opened


# What lies under the name of the part.


def a_symbolic_link(part: Path, victim: Path) -> None:
    part.symlink_to(victim)


def a_hard_link(part: Path, victim: Path) -> None:
    part.hardlink_to(victim)


def a_fifo(part: Path, _victim: Path) -> None:
    os.mkfifo(part)


def a_link_to_a_fifo(part: Path, victim: Path) -> None:
    victim.unlink()
    os.mkfifo(victim)
    part.symlink_to(victim)


def a_socket(part: Path, _victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(part))


@pytest.mark.parametrize("plant", [a_symbolic_link, a_hard_link, a_fifo, a_link_to_a_fifo, a_socket])
async def test_what_was_planted_under_the_parts_name_is_unlinked_and_not_written(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path, Path], None]
) -> None:
    monkeypatch.chdir(downloader.directory)  # a socket's path may have 108 bytes
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    plant(Path(downloader.part.name), victim)

    clip = await downloader.fetch()

    assert (clip.sha256, clip.resumed_from) == (SHA256, 0)
    assert downloader.files() == {"a.mp4": CLIP}
    assert not victim.is_file() or victim.read_bytes() == b"mine"


async def test_a_directory_under_the_parts_name_is_named(downloader: Downloader) -> None:
    downloader.part.mkdir()

    with pytest.raises(OutputUnwritable, match=r"a\.mp4\.part: a directory has this name"):
        await downloader.fetch()


# What lies under the name of the clip.


async def test_another_file_under_the_clips_name_is_kept(downloader: Downloader) -> None:
    downloader.leave(target=OTHER_CLIP)

    clip = await downloader.fetch()

    assert downloader.files() == {"a.mp4": OTHER_CLIP, "a-2.mp4": CLIP}
    assert clip.path == downloader.directory / "a-2.mp4"
    assert clip.warnings == ("another file is named a.mp4: the clip is saved as a-2.mp4",)


@pytest.mark.parametrize("left", [CLIP, CLIP[:5000], b""])
async def test_the_same_clip_of_an_interrupted_run_is_replaced(downloader: Downloader, left: bytes) -> None:
    downloader.leave(target=left)

    clip = await downloader.fetch()

    assert downloader.files() == {"a.mp4": CLIP}
    assert clip.warnings == ()


async def test_a_longer_file_that_begins_like_the_clip_is_kept(downloader: Downloader) -> None:
    downloader.leave(target=CLIP + b"edited")

    await downloader.fetch()

    assert downloader.files() == {"a.mp4": CLIP + b"edited", "a-2.mp4": CLIP}


@pytest.mark.parametrize("plant", [a_symbolic_link, a_fifo, a_link_to_a_fifo, a_socket])
async def test_what_is_no_file_under_the_clips_name_is_kept(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path, Path], None]
) -> None:
    monkeypatch.chdir(downloader.directory)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    plant(Path(downloader.target.name), victim)
    before = downloader.target.lstat()

    clip = await downloader.fetch()

    assert clip.path.name == "a-2.mp4"
    assert clip.path.read_bytes() == CLIP
    assert os.path.samestat(downloader.target.lstat(), before)


async def test_a_directory_under_the_clips_name_is_kept(downloader: Downloader) -> None:
    downloader.target.mkdir()

    assert (await downloader.fetch()).path.name == "a-2.mp4"


async def test_when_all_names_are_used_by_other_files_the_clip_is_kept_for_a_later_try(downloader: Downloader) -> None:
    downloader.leave(target=b"mine")
    for number in range(2, MAX_NAMES + 1):
        (downloader.directory / f"a-{number}.mp4").write_bytes(b"mine")

    with pytest.raises(OutputUnwritable, match="99 other files have this name"):
        await downloader.fetch()

    assert downloader.part.read_bytes() == CLIP
    (downloader.directory / "a-7.mp4").unlink()
    assert (await downloader.fetch()).path.name == "a-7.mp4"


# The suffix.


@pytest.mark.parametrize(("content", "name", "container"), [(WEBM, "a.webm", "WEBM"), (MOV, "a.mov", "MOV")])
async def test_the_suffix_follows_the_container(
    downloader: Downloader, content: bytes, name: str, container: str
) -> None:
    downloader.server.content = content

    clip = await downloader.fetch()

    assert downloader.files() == {name: content}
    assert clip.path == downloader.directory / name
    assert clip.warnings == (f"the service sent {container} in place of MP4: saved as {name}",)


async def test_the_changed_suffix_does_not_cost_another_clip_its_name(downloader: Downloader) -> None:
    (downloader.directory / "a.webm").write_bytes(b"another row's")
    downloader.server.content = WEBM

    clip = await downloader.fetch()

    assert downloader.files() == {"a.webm": b"another row's", "a-2.webm": WEBM}
    assert len(clip.warnings) == 2


@pytest.mark.parametrize("name", ["a", "a.MP4", "a.final", "a.m4v"])
async def test_a_suffix_that_says_nothing_else_stays(downloader: Downloader, name: str) -> None:
    clip = await downloader.fetch(name=name)

    assert (clip.path.name, clip.warnings) == (name, ())


# The content.


async def test_a_clip_keeps_every_byte_with_its_content_credentials(downloader: Downloader) -> None:
    manifest = C2PA_ID + bytes(4) + b"manifest\0" + bytes(range(256))
    credentials = (len(manifest) + 8).to_bytes(4) + b"uuid" + manifest
    downloader.server.content = CLIP + credentials
    downloader.server.script.append(cut(700))

    await downloader.fetch()

    assert downloader.files() == {"a.mp4": downloader.server.content}


# Directories.


@pytest.mark.parametrize("is_dangling", [False, True])
async def test_a_symlinked_directory_is_written_like_any_other(
    downloader: Downloader, tmp_path: Path, is_dangling: bool
) -> None:
    downloader.directory = tmp_path / "link"
    downloader.directory.symlink_to(tmp_path / ("nowhere" if is_dangling else "out"), target_is_directory=True)

    if is_dangling:
        with pytest.raises(OutputUnwritable, match="the directory is gone"):
            await downloader.fetch()
    else:
        assert (await downloader.fetch()).path == tmp_path / "link" / "a.mp4"
        assert (tmp_path / "out" / "a.mp4").read_bytes() == CLIP
