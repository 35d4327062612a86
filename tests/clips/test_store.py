"""Outputs are written whole or not at all, in a directory or wherever fsspec reaches, and never outside of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # pyright: ignore[reportMissingTypeStubs]

from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore, redacted
from prefect_together.errors import OutputUnwritable
from prefect_together.problems import SettingsInvalid
from small_disks import mounted_disk, remount_read_only

MEMORY = cast(Any, MemoryFileSystem)


@pytest.fixture(params=["local", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    """A prepared store of each kind."""
    MEMORY.store.clear()
    address = str(tmp_path / "out") if request.param == "local" else "memory://bucket/out"
    opened = open_store(address, local_root=tmp_path / "local")
    await opened.prepare()
    return opened


def saved(store: OutputStore, name: str, content: bytes) -> Path:
    """A finished file in the store's local directory."""
    path = store.local_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# Both kinds alike.


async def test_what_is_written_can_be_read(store: OutputStore) -> None:
    await store.write_bytes("results.csv", "prompt\n“ä”\n".encode())
    await store.write_bytes("a/b.bin", b"\x00\x01")

    assert await store.read_bytes("results.csv") == "prompt\n“ä”\n".encode()
    assert await store.read_bytes("a/b.bin") == b"\x00\x01"
    assert await store.sizes(["a/b.bin"]) == {"a/b.bin": 2}


async def test_a_file_is_replaced_whole(store: OutputStore) -> None:
    await store.write_bytes("index.html", b"a long first page")
    await store.write_bytes("index.html", b"short")

    assert await store.read_bytes("index.html") == b"short"


async def test_a_finished_clip_is_published(store: OutputStore) -> None:
    local = saved(store, "videos/a.mp4", b"clip")

    await store.publish("videos/a.mp4")

    assert await store.read_bytes("videos/a.mp4") == b"clip"
    assert local.exists() == store.is_local


async def test_a_file_of_another_size_under_a_clips_name_is_kept(tmp_path: Path) -> None:
    MEMORY.store.clear()
    store = open_store("memory://bucket/out", local_root=tmp_path)
    await store.prepare()
    await store.write_bytes("videos/a.mp4", b"my holidays")
    saved(store, "videos/a.mp4", b"clip")

    used = await store.publish("videos/a.mp4")

    assert used == "videos/a-2.mp4"
    assert await store.read_bytes("videos/a.mp4") == b"my holidays"
    assert await store.read_bytes("videos/a-2.mp4") == b"clip"


async def test_a_clip_that_was_uploaded_before_is_replaced(tmp_path: Path) -> None:
    MEMORY.store.clear()
    store = open_store("memory://bucket/out", local_root=tmp_path)
    await store.prepare()
    for _ in range(2):
        saved(store, "videos/a.mp4", b"clip")
        assert await store.publish("videos/a.mp4") == "videos/a.mp4"

    assert await store.sizes(["videos/a.mp4", "videos/a-2.mp4"]) == {"videos/a.mp4": 4}


async def test_what_is_not_there_has_no_size_and_no_content(store: OutputStore) -> None:
    assert await store.sizes(["videos/none.mp4"]) == {}
    assert await store.read_bytes("videos/none.mp4") is None


async def test_the_sizes_of_many_files_are_known_at_once(store: OutputStore) -> None:
    for number in range(3):
        await store.write_bytes(f"videos/{number}.mp4", bytes(number))
    await store.write_bytes("top.csv", b"top")

    sizes = await store.sizes(["videos/0.mp4", "videos/2.mp4", "videos/9.mp4", "top.csv", "none/a.mp4"])

    assert sizes == {"videos/0.mp4": 0, "videos/2.mp4": 2, "top.csv": 3}


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "", ".", "a//b", "a\\..\\b", "C:/a", "a\0b", "./a"]
)
async def test_a_name_that_leads_out_is_refused(store: OutputStore, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a file below"):
        await store.write_bytes(name, b"")
    with pytest.raises(ValueError, match="not the name of a file below"):
        store.uri(name)


async def test_preparing_twice_leaves_nothing_behind(store: OutputStore) -> None:
    await store.prepare()

    assert files_below(store.local_dir) == {}
    assert MEMORY.store == {}


# A local directory.


async def test_a_directory_is_made_and_is_its_own_local_one(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/new/out")

    await store.prepare()

    assert store.is_local
    assert store.local_dir == tmp_path / "new" / "out"
    assert {path.name for path in listed(store.local_dir)} == {"videos"}
    assert store.uri("videos/a.mp4") == f"{tmp_path}/new/out/videos/a.mp4"


def listed(directory: Path) -> list[Path]:
    return list(directory.iterdir())


@pytest.mark.parametrize("address", ["file://{}", "local://{}", "{}/", " {} "])
def test_a_directory_can_be_spelled_in_several_ways(tmp_path: Path, address: str) -> None:
    assert open_store(address.format(tmp_path)).local_dir == tmp_path


def test_a_directory_can_be_relative_or_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert open_store("out").local_dir == tmp_path / "out"
    assert open_store("~/out").local_dir == tmp_path / "home" / "out"


async def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(OutputUnwritable, match="a file or a broken symbolic link has this name"):
        await open_store(f"{tmp_path}/out").prepare()


async def test_a_directory_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/out")

    with pytest.raises(OutputUnwritable, match="the directory is gone"):
        await store.write_bytes("results.csv", b"")

    assert listed(tmp_path) == []


async def test_a_failing_write_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / "results.csv").mkdir()

    with pytest.raises(OutputUnwritable, match="a directory has this name"):
        await store.write_bytes("results.csv", b"x")

    assert [path.name for path in listed(tmp_path)] == ["results.csv"]


async def test_a_disk_that_is_read_only_is_named_before_the_run(other_disk: Path) -> None:
    store = open_store(str(other_disk))
    await store.prepare()
    remount_read_only(other_disk)

    with pytest.raises(OutputUnwritable, match="the file system is read-only"):
        await store.prepare()


@pytest.fixture
def other_disk(tmp_path: Path) -> Any:
    """Another file system, mounted below the test's directory."""
    with mounted_disk(tmp_path) as disk:
        yield disk


# Remote outputs.


def test_a_remote_output_has_a_lasting_local_directory_of_its_own(tmp_path: Path) -> None:
    first, again = (open_store("memory://bucket/run", local_root=tmp_path) for _ in range(2))
    other = open_store("memory://bucket-run", local_root=tmp_path)

    assert not first.is_local
    assert first.local_dir == again.local_dir != other.local_dir
    assert first.local_dir.parent == tmp_path
    assert first.local_dir.name.startswith("bucket-run-")
    assert first.uri("videos/a.mp4") == "memory://bucket/run/videos/a.mp4"


def test_local_directories_are_kept_with_the_users_lasting_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere/state")

    assert str(open_store("memory://bucket").local_dir).startswith("/somewhere/state/prefect-together/bucket-")


async def test_a_clip_stays_in_its_local_directory_when_its_upload_fails(tmp_path: Path) -> None:
    store = open_store("http://127.0.0.1:9/out", local_root=tmp_path)
    local = saved(store, "videos/a.mp4", b"clip")

    with pytest.raises(OutputUnwritable, match=r"http://127\.0\.0\.1:9/out/videos/a\.mp4 cannot be used"):
        await store.publish("videos/a.mp4")

    assert local.read_bytes() == b"clip"


@pytest.mark.parametrize("address", ["", "  ", "nowhere://bucket", "out\0"])
def test_an_address_that_means_nothing_is_a_wrong_setting(address: str) -> None:
    with pytest.raises(SettingsInvalid, match="output_dir"):
        open_store(address)


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [("s3://bucket/a", "s3fs", "s3"), ("s3a://bucket", "s3fs", "s3"), ("gs://bucket", "gcsfs", "gcs")],
)
def test_a_missing_library_is_a_wrong_setting_that_names_the_extra(url: str, library: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from prefect_together.clips.remote_store import open_store
from prefect_together.problems import SettingsInvalid
try:
    open_store({url!r})
except SettingsInvalid as error:
    print(error)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.startswith(f"output_dir: {url} cannot be opened")
    assert f"pip install 'prefect-together[{extra}]'" in done.stdout


def test_a_local_directory_is_opened_without_fsspec() -> None:
    program = "import sys; from prefect_together.clips.remote_store import open_store; open_store('out')"

    command = [sys.executable, "-c", f"{program}; print('fsspec' in sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://AKIA:abc/def+g@bucket/prefix", "s3://***@bucket/prefix"),
        ("sftp://me:secret@host/a@b", "sftp://***@host/a@b"),
        ("https://host/a?X-Amz-Signature=secret&b=c", "https://host/a"),
        ("filecache::s3://key:secret@bucket/a", "filecache::s3://***@bucket/a"),
        ("failed: PUT https://me:pw@host/a?sig=s (403)", "failed: PUT https://***@host/a (403)"),
        ("/a/plain/path?with=this", "/a/plain/path?with=this"),
    ],
)
def test_credentials_in_an_address_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_a_wrong_address_is_shown_without_its_credentials() -> None:
    with pytest.raises(SettingsInvalid) as failed:
        open_store("nowhere://me:secret@bucket/a?token=secret")

    assert "secret" not in str(failed.value)
