"""Outputs in S3, over its real protocol: moto's server in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore
from prefect_together.errors import OutputUnwritable
from s3_server import bucket, endpoint

__all__ = ["bucket", "endpoint"]

pytestmark = pytest.mark.s3

MULTIPART_BYTES = 60 << 20
"""Above what s3fs sends in one piece (50 MiB)."""


@pytest.fixture
async def store(bucket: str, tmp_path: Path) -> OutputStore:
    opened = open_store(f"s3://{bucket}/{tmp_path.name}", local_root=tmp_path)
    await opened.prepare()
    return opened


def saved(store: OutputStore, name: str, content: bytes) -> Path:
    path = store.local_dir / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size_bytes", [0, 1000, MULTIPART_BYTES])
async def test_a_clip_arrives_whole(store: OutputStore, size_bytes: int) -> None:
    content = os.urandom(1000)[:size_bytes] + bytes(max(0, size_bytes - 1000))
    local = saved(store, "videos/a.mp4", content)

    await store.publish("videos/a.mp4")

    assert await store.sizes(["videos/a.mp4"]) == {"videos/a.mp4": size_bytes}
    assert await store.read_bytes("videos/a.mp4") == content
    assert not local.exists()


async def test_a_clip_has_its_media_type(store: OutputStore, bucket: str) -> None:
    saved(store, "videos/a.mp4", b"clip")

    await store.publish("videos/a.mp4")

    s3fs = pytest.importorskip("s3fs")
    assert s3fs.S3FileSystem().info(store.uri("videos/a.mp4"))["ContentType"] == "video/mp4"


async def test_results_are_replaced_and_read_back(store: OutputStore) -> None:
    await store.write_bytes("results.csv", b"first")
    await store.write_bytes("results.csv", b"second, longer")

    assert await store.read_bytes("results.csv") == b"second, longer"
    assert await store.read_bytes("none.csv") is None
    assert await store.sizes(["none.csv"]) == {}


async def test_sizes_come_from_one_listing(store: OutputStore) -> None:
    for number in range(5):
        await store.write_bytes(f"videos/{number}.mp4", bytes(number))

    assert await store.sizes([f"videos/{number}.mp4" for number in (1, 4, 9)]) == {"videos/1.mp4": 1, "videos/4.mp4": 4}
    assert await store.sizes(["none/a.mp4"]) == {}


async def test_preparing_leaves_nothing_behind(store: OutputStore, bucket: str) -> None:
    s3fs = pytest.importorskip("s3fs")

    assert s3fs.S3FileSystem().find(store.uri("videos")) == []


async def test_a_bucket_that_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/run", local_root=tmp_path)

    with pytest.raises(OutputUnwritable, match=r"s3://no-such-bucket/run/.*cannot be used.*bucket"):
        await store.prepare()


async def test_an_upload_that_fails_keeps_the_clip_here(bucket: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/run", local_root=tmp_path)
    store.local_dir.mkdir()
    local = saved(store, "a.mp4", b"clip")

    with pytest.raises(OutputUnwritable):
        await store.publish("a.mp4")

    assert local.read_bytes() == b"clip"
