"""The interface of a run's output location, and its local implementation: a directory on this machine.

Files are written atomically. Names are relative POSIX paths such as "videos/a.mp4".
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from prefect_together.clips.part_file import sync_directory, writing_to

FOLDERS = ("videos",)
_PROBE_BYTES = 1 << 12

_SECRETS_IN_URL = re.compile(r"(?<=://)(?:[^@\s/]*|[^@\s:]*:[^@\s]*)@")
_QUERY_OF_URL = re.compile(r"(://[^?\s]*)\?\S*")

# Uploads and flushes block on the network or the disk; threads start with the first of them.
_OUTPUT = ThreadPoolExecutor(8, thread_name_prefix="output")

Result = TypeVar("Result")


class OutputStore(Protocol):
    """Where a run's files go. Every method that writes raises OutputUnwritable."""

    @property
    def is_local(self) -> bool:
        """Whether `local_dir` is the output directory itself."""
        ...

    @property
    def local_dir(self) -> Path:
        """A local directory for partial downloads and the ledger, the same in every run with this output."""
        ...

    async def prepare(self) -> None:
        """Create the output directory and its folders, and test that files can be written there."""
        ...

    async def publish(self, name: str, *, replaces: bool = False) -> str:
        """Make the finished file `local_dir / name` available in the output; return its name there.

        A file of another size with that name is kept, and the new one numbered, unless it `replaces` it.
        """
        ...

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file atomically."""
        ...

    async def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""
        ...

    async def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`. Raises FileNotFoundError if there is none."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a file; does nothing if there is none, or if deleting is not permitted."""
        ...

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that exist; a remote output is listed once per folder."""
        ...

    def uri(self, name: str) -> str:
        """The file's path or URL, for display."""
        ...


def redacted(url: str) -> str:
    """The URL without user name, password and query, any of which may be a credential; a path is returned unchanged."""
    return _QUERY_OF_URL.sub(r"\1", _SECRETS_IN_URL.sub("***@", url))


def checked_name(name: str) -> str:
    """The name itself. Raises ValueError if it could point outside the output directory."""
    path = PurePosixPath(name)
    is_plain = not path.is_absolute() and ".." not in path.parts and path.parts and str(path) == name
    if not is_plain or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise ValueError(f"{name!r} is not the name of a file below the output directory")
    return name


async def in_thread(work: Callable[..., Result], *arguments: object) -> Result:
    """Run blocking file or network access in a thread, so that the event loop continues."""
    return await asyncio.get_running_loop().run_in_executor(_OUTPUT, work, *arguments)


class LocalStore:
    """A directory on this machine; clips are downloaded directly into it."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.local_dir = root

    async def prepare(self) -> None:
        """Create the directory and its folders, and write a file in each. Raises OutputUnwritable."""
        await in_thread(self._prepare)

    def _prepare(self) -> None:
        for folder in (self.local_dir, *map(self._path, FOLDERS)):
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(bytes(_PROBE_BYTES))
                    probe.flush()
                    os.fsync(probe.fileno())

    async def publish(self, name: str, *, replaces: bool = False) -> str:
        """The same name: the file is in the output directory already."""
        return name

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file atomically. Raises OutputUnwritable."""
        await in_thread(self._write, self._path(name), content)

    def _write(self, path: Path, content: bytes) -> None:
        with writing_to(path):
            self._make_folder_of(path)
            _write_aside(path, lambda aside: aside.write_bytes(content))
            sync_directory(path.parent)

    async def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""
        try:
            return await in_thread(self._path(name).read_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`. Raises FileNotFoundError if there is none."""
        return await in_thread(_read_part, self._path(name), start, stop)

    async def remove(self, name: str) -> None:
        """Delete a file, if it exists and deleting is permitted."""
        with suppress(OSError):
            await in_thread(self._path(name).unlink)

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that exist."""
        return await in_thread(_sizes, {name: self._path(name) for name in names})

    def uri(self, name: str) -> str:
        """The file's path."""
        return str(self._path(name))

    def _path(self, name: str) -> Path:
        return self.local_dir / checked_name(name)

    def _make_folder_of(self, path: Path) -> None:
        # Only `prepare` creates the directory itself: nothing must be written below the mount point of a removed drive.
        if not self.local_dir.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.local_dir))
        path.parent.mkdir(parents=True, exist_ok=True)


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` create a temporary file beside `path`, flush it to disk and rename it; removes it on failure."""
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _read_part(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _sizes(paths: Mapping[str, Path]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, path in paths.items():
        with suppress(OSError):
            sizes[name] = path.stat().st_size
    return sizes
