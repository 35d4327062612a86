"""`prefect-together view`: a run's page and clips over HTTP on this machine, and nothing else of its directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from prefect_together.cli.commands import main
from prefect_together.cli.page_server import page_app
from prefect_together.clips.remote_store import open_store

CLIP = bytes(range(256)) * 40


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    """What a run leaves, and beside it what is nobody's business."""
    place = tmp_path / "out"
    (place / "videos").mkdir(parents=True)
    (place / "index.html").write_text("<p>the page</p>")
    (place / "results.csv").write_text("prompt,status\nA cat,downloaded\n")
    (place / "videos" / "cat.mp4").write_bytes(CLIP)
    (place / "ledger.db").write_text("the ledger")
    (tmp_path / "secret.txt").write_text("a secret")
    (place / "videos" / "link.mp4").symlink_to(tmp_path / "secret.txt")
    (place / "films").mkdir()
    (place / "films" / "films.json").write_text("{}")
    (place / "films" / "film.mp4.1234.part").write_bytes(CLIP)
    return place


@contextmanager
def viewing(output_dir: str | Path) -> Generator[httpx.Client]:
    """The command in a process of its own, and a client below the address that it prints."""
    command = [sys.executable, "-m", "prefect_together.cli.commands", "view", str(output_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        try:
            with httpx.Client(base_url=url) as client:
                yield client
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_the_page_its_table_and_its_clips_are_served(output_dir: Path) -> None:
    with viewing(output_dir) as client:
        page, table, clip = (client.get(name) for name in ("", "results.csv", "videos/cat.mp4"))

    assert (page.text, page.headers["content-type"]) == ("<p>the page</p>", "text/html; charset=utf-8")
    assert page.headers["referrer-policy"] == "no-referrer"
    assert table.text.startswith("prompt,status")
    assert (clip.content, clip.headers["content-type"]) == (CLIP, "video/mp4")


def test_a_player_can_seek(output_dir: Path) -> None:
    with viewing(output_dir) as client:
        part = client.get("videos/cat.mp4", headers={"range": "bytes=1000-1999"})
        beyond = client.get("videos/cat.mp4", headers={"range": "bytes=99999-"})

    assert (part.status_code, part.content) == (206, CLIP[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(CLIP)}"
    assert beyond.status_code == 416


def test_nothing_else_is_served_and_nothing_without_the_token(output_dir: Path) -> None:
    others = [
        "ledger.db",
        "videos/../ledger.db",
        "../secret.txt",
        "%2e%2e/secret.txt",
        "videos/link.mp4",
        "videos",
        "films/films.json",
        "films/film.mp4.1234.part",
        "x",
    ]
    with viewing(output_dir) as client:
        found = {name: client.get(name).status_code for name in others}
        root = str(client.base_url).rstrip("/").rpartition("/")[0]
        found |= {path: client.get(f"{root}{path}").status_code for path in ("/", "/index.html", "/guess/", "/guess/x")}

    assert set(found.values()) == {404}, found


def test_a_directory_without_a_run_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 2
    assert "no run has been made into it" in capsys.readouterr().err


async def test_a_remote_directory_is_served_piece_by_piece(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}", local_root=tmp_path)
    await store.write_bytes("index.html", b"<p>the page</p>")
    await store.write_bytes("videos/cat.mp4", CLIP)
    transport = httpx.ASGITransport(page_app(store, "token"))

    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/token/") as client:
        page, clip = await client.get(""), await client.get("videos/cat.mp4")
        part = await client.get("videos/cat.mp4", headers={"range": "bytes=-100"})
        beyond = await client.get("videos/cat.mp4", headers={"range": "bytes=99999-"})
        head = await client.head("videos/cat.mp4")
        missing = await client.get("videos/dog.mp4")

    assert page.text == "<p>the page</p>"
    assert (clip.content, clip.headers["content-type"]) == (CLIP, "video/mp4")
    assert (part.status_code, part.content) == (206, CLIP[-100:])
    assert (beyond.status_code, missing.status_code) == (416, 404)
    assert (head.headers["content-length"], head.content) == (str(len(CLIP)), b"")


def test_films_are_served_and_can_be_sought_in(output_dir: Path) -> None:
    (output_dir / "films" / "Harbour & sea.mp4").write_bytes(CLIP)

    with viewing(output_dir) as client:
        part = client.get("films/Harbour%20%26%20sea.mp4", headers={"range": "bytes=1000-1999"})

    assert (part.status_code, part.content, part.headers["content-type"]) == (206, CLIP[1000:2000], "video/mp4")
