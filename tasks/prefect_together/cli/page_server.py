"""Serves the page, the clips and the films of an output directory on 127.0.0.1, and nothing else that lies there.

The address has a token that nobody can guess: other users of the machine, and other pages in the browser, see nothing.
Clips are served with Range, so that players can seek; those of a remote directory are read piece by piece.
"""

from __future__ import annotations

import mimetypes
import re
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from prefect_together.clips.store import OutputStore, checked_name
from prefect_together.errors import OutputUnwritable
from prefect_together.results.outputs import PAGE_FILE, RESULTS_FILE, VIDEOS_FILE

SERVED = re.compile(r"videos/.*|films/[^/]+\.mp4")
"""Clips and films, by their names below the output directory; besides the page and its tables."""
PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADERS = {"referrer-policy": "no-referrer", "x-content-type-options": "nosniff", "cache-control": "no-store"}


def serve_page(store: OutputStore, *, port: int = 0, on_start: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. `on_start` gets the page's address. Raises OSError if the port is taken."""
    token = secrets.token_urlsafe(16)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # whoever has the address may ask at once
        on_start(f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/")
        config = uvicorn.Config(page_app(store, token), log_level="warning", access_log=False, lifespan="off")
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has shut down
            uvicorn.Server(config).run(sockets=[listener])


def page_app(store: OutputStore, token: str) -> Starlette:
    """The page at `/TOKEN/`, results.csv, videos.csv, clips and films below it; everything else is 404."""

    async def answer(request: Request) -> Response:
        if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
            raise HTTPException(404)
        name = request.path_params["name"] or PAGE_FILE
        if name not in (PAGE_FILE, RESULTS_FILE, VIDEOS_FILE) and not SERVED.fullmatch(name):
            raise HTTPException(404)
        try:
            checked_name(name)
            return _local(store, name) if store.is_local else await _remote(store, name, request)
        except (ValueError, OutputUnwritable) as error:
            raise HTTPException(404) from error

    app = Starlette(routes=[Route("/{token}/{name:path}", answer, methods=["GET", "HEAD"])])
    app.router.redirect_slashes = False  # every other address is 404 alike
    return app


def _local(store: OutputStore, name: str) -> Response:
    root = store.local_dir.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():  # a link may lead elsewhere
        raise HTTPException(404)
    return FileResponse(path, headers=_HEADERS)


async def _remote(store: OutputStore, name: str, request: Request) -> Response:
    size = (await store.sizes([name])).get(name)
    if size is None:
        raise HTTPException(404)
    first, after = _wanted(request.headers.get("range"), size)
    headers = {**_HEADERS, "accept-ranges": "bytes", "content-length": str(after - first)}
    is_part = (first, after) != (0, size)
    if is_part:
        headers["content-range"] = f"bytes {first}-{after - 1}/{size}"
    kind = mimetypes.guess_type(Path(name).name)[0] or "application/octet-stream"
    status = 206 if is_part else 200
    if request.method == "HEAD":
        return Response(None, status, headers, kind)
    return StreamingResponse(_pieces(store, name, first, after), status, headers, kind)


def _wanted(asked: str | None, size: int) -> tuple[int, int]:
    """The bytes that a Range header asks for: the first, and the one after the last. Raises HTTPException, 416."""
    match = _RANGE.fullmatch(asked or "")
    if match is None or match.groups() == ("", ""):
        return 0, size
    start, end = match.groups()
    if not start:
        return max(0, size - int(end)), size
    first, after = int(start), min(size, int(end) + 1 if end else size)
    if first >= after:
        raise HTTPException(416, headers={"content-range": f"bytes */{size}"})
    return first, after


async def _pieces(store: OutputStore, name: str, first: int, after: int) -> AsyncGenerator[bytes]:
    for start in range(first, after, PIECE_BYTES):
        yield await store.read_part(name, start, min(after, start + PIECE_BYTES))
