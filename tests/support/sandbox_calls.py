"""Calls of the sandbox's API without the SDK, for tests: plain HTTP, and raw sockets that see how a connection ends."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx

from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.service import TINY_CLIP

MODEL = "minimax/video-01-director"
KEY = {"authorization": "Bearer key"}
TINY = TINY_CLIP.read_bytes()
HTTP = httpx.Client(follow_redirects=True)
"""One for all tests: making one takes longer than a test."""


def post(api: Sandbox, prompt: str = "a lighthouse") -> httpx.Response:
    return HTTP.post(f"{api.base_url}/v2/videos", json={"model": MODEL, "prompt": prompt}, headers=KEY)


def look(api: Sandbox, job_id: str) -> httpx.Response:
    return HTTP.get(f"{api.base_url}/v2/videos/{job_id}", headers=KEY)


def fetch(url: str) -> httpx.Response:
    return HTTP.get(url)


def clip_url(api: Sandbox) -> str:
    """The address of a finished job's clip, behind its redirect."""
    link = look(api, post(api).json()["id"]).json()["outputs"]["video_url"]
    return HTTP.get(link, follow_redirects=False).headers["location"]


def raw_exchange(url: str, *, method: str = "GET", body: bytes = b"", timeout: float = 10) -> bytes:
    """Everything that comes back on a connection of its own, up to its end. Raises ConnectionResetError on RST."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout) as connection:
        head = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer key\r\n"
        head += f"User-Agent: raw\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        return received


def raw_create(api: Sandbox, **kwargs: float) -> bytes:
    body = json.dumps({"model": MODEL, "prompt": "a lighthouse"}).encode()
    return raw_exchange(f"{api.base_url}/v2/videos", method="POST", body=body, **kwargs)
