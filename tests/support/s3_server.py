"""A server of the S3 protocol (moto) for a test module: fixtures `endpoint` and `bucket`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from typing import cast

import pytest


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = cast("tuple[str, int]", free.getsockname())[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 100
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> Generator[str]:
    """A bucket on the server, which the environment names as AWS tools want it."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(environment)
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()  # one of another test file knows another server
    s3fs.S3FileSystem().mkdir("clips")
    yield "clips"
    for name in environment:
        del os.environ[name]
