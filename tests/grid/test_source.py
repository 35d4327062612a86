"""A table may be a file, an address or pasted text: which of them it is, and what cannot be read."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tables import cells_of, mistakes_of, read


def test_a_path_pasted_with_a_line_end_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\nA cat\n")

    assert read(f" {tmp_path / 't.csv'}\n").source == str(tmp_path / "t.csv")
    assert read(f"file://{tmp_path / 't.csv'}").source == str(tmp_path / "t.csv")


def test_a_missing_file_is_said_with_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt\nA cat\n")

    message = mistakes_of(tmp_path / "promts.csv")

    assert f"no such file (looked for {tmp_path / 'promts.csv'}); in that directory are prompts.csv" in message


@pytest.mark.parametrize("source", ["A cat asleep on a drum", "nothing", "x" * 5000, "~nobody/x.csv", "a\x00b.csv"])
def test_a_line_that_is_neither_a_file_nor_a_header_is_a_missing_file(source: str) -> None:
    assert "no such file" in mistakes_of(source)


def test_a_single_line_prompt_is_told_how_to_paste_a_table() -> None:
    assert "its first line must be a header with a column prompt" in mistakes_of("A cat asleep on a drum")


@pytest.mark.parametrize("source", ["s4://bucket/t.csv", "memory://nothing/t.csv", "zip://t.csv::/nothing.zip"])
def test_an_address_that_cannot_be_read_is_a_mistake_like_others(source: str) -> None:
    assert "1 mistake, nothing was sent" in mistakes_of(source)


@pytest.mark.parametrize(("scheme", "library", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")])
def test_a_table_in_a_bucket_whose_library_is_missing_names_the_extra(scheme: str, library: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from prefect_together.problems import TableInvalid
from prefect_together.table.prompt_table import read_table
try:
    read_table("{scheme}://bucket/t.csv")
except TableInvalid as error:
    print(error)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert f"pip install 'prefect-together[{extra}]'" in done.stdout


def test_a_directory_is_no_table(tmp_path: Path) -> None:
    assert "is a directory" in mistakes_of(tmp_path)


@pytest.fixture
def web(tmp_path: Path) -> Generator[str]:
    """The address of a web server that shows `tmp_path`."""

    class Quiet(SimpleHTTPRequestHandler):
        def guess_type(self, path: Any) -> str:
            charset = {".latin": "ISO-8859-1", ".greek": "iso-8859-7"}.get(Path(path).suffix)
            return f"text/csv; charset={charset}" if charset else super().guess_type(path)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_table_from_the_web_is_read_and_its_images_are_addresses(web: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.csv").write_text("prompt,first_frame\nA cat,a b.png\n")

    table = read(f"{web}/sub/t.csv?signature=secret")

    assert table.source == f"{web}/sub/t.csv?…"
    assert [image for _, image in table.rows[0].requests[0].images()] == [f"{web}/sub/a%20b.png"]


def test_a_table_that_the_web_does_not_have_is_a_mistake_without_the_signature(web: str) -> None:
    message = mistakes_of(f"{web}/t.csv?signature=secret")

    assert "nothing is there (not found)" in message
    assert "secret" not in message


def test_a_table_in_any_store_that_fsspec_knows_is_read() -> None:
    files = cast("Any", MemoryFileSystem())
    files.pipe_file("/dir/t.jsonl", b'{"prompt": "A cat"}')

    table = read("memory://dir/t.jsonl")

    assert cells_of(table) == [["A cat"]]


def test_local_images_of_a_table_in_a_store_are_refused() -> None:
    files = cast("Any", MemoryFileSystem())
    files.pipe_file("/dir/t.csv", b"prompt,first_frame\nA cat,cat.png\n")

    assert "column first_frame: 'cat.png' cannot be found from a table at memory://" in mistakes_of(
        "memory://dir/t.csv"
    )


@pytest.mark.parametrize(
    ("name", "prompt"), [("t.latin", "Ein Stück Wüste, \xbd Meile"), ("t.greek", "Μια γάτα στο τύμπανο")]
)
def test_the_charset_that_an_address_declares_is_believed(web: str, tmp_path: Path, name: str, prompt: str) -> None:
    charset = "iso-8859-7" if name == "t.greek" else "iso-8859-1"
    (tmp_path / name).write_bytes(f"prompt\n{prompt}\n".encode(charset))

    assert read(f"{web}/{name}").rows[0].requests[0].prompt == prompt


def test_utf_8_is_read_as_such_though_the_address_declares_another_charset(web: str, tmp_path: Path) -> None:
    (tmp_path / "t.latin").write_text("prompt\nEin Stück Wüste\n", encoding="utf-8")

    assert read(f"{web}/t.latin").rows[0].requests[0].prompt == "Ein Stück Wüste"
