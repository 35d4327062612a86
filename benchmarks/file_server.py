"""A lean file server in a process of its own: aiohttp with sendfile, on 127.0.0.1. It serves one directory.

Prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiohttp import web


@dataclass(frozen=True, slots=True)
class FileServer:
    """A running file server."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Its processor time so far."""
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system


@contextmanager
def file_server(directory: Path) -> Generator[FileServer]:
    """Serve the directory from another process."""
    command = [sys.executable, str(Path(__file__)), str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield FileServer(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def serve(directory: Path) -> None:
    app = web.Application()
    app.router.add_static("/", directory)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
