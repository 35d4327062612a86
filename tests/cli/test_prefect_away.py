"""A Prefect server that cannot be used: one sentence before anything is sent; nothing lost in mid-run."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from shell import in_shell

MODEL = "minimax/video-01-director"


@contextmanager
def answering(status: int) -> Generator[str]:
    """The address of a server that answers every request with this status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/api"
        finally:
            server.shutdown()


def assert_refused(home: Path, api_url: str, reason: str) -> None:
    words = ("prompt\nA cat\n", "--model", MODEL, "--sandbox")
    done = in_shell(home, *words, PREFECT_API_URL=api_url)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert reason in line
    assert line.endswith("nothing was sent")
    assert "secret" not in line
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "answers 500"), (401, "answers 401: set PREFECT_API_KEY or PREFECT_API_AUTH_STRING")]
)
def test_a_prefect_server_that_answers_an_error_ends_with_2_and_one_sentence(
    tmp_path: Path, status: int, reason: str
) -> None:
    with answering(status) as api_url:
        assert_refused(tmp_path, api_url, reason)


def test_a_prefect_server_that_is_not_there_ends_with_2_and_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unheard:  # bound, and nobody listens
        unheard.bind(("127.0.0.1", 0))
        assert_refused(tmp_path, f"http://127.0.0.1:{unheard.getsockname()[1]}/api", "cannot be reached")
