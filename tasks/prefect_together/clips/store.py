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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import ClassVar, TypeVar

from prefect_together.clips.part_file import sync_directory, writing_to

FOLDERS = ("videos",)
_PROBE_BYTES = 1 << 12

_SECRETS_IN_URL = re.compile(r"(?<=://)(?:[^@\s/]*|[^@\s:]*:[^@\s]*)@")
_QUERY_OF_URL = re.compile(r"(://[^?\s]*)\?\S*")

# Uploads and flushes block on the network or the disk; threads start with the first of them.
_OUTPUT = ThreadPoolExecutor(8, thread_name_prefix="output")

Result = TypeVar("Result")


class OutputStore(ABC):
    """Where a run's files go. Every method that writes raises OutputUnwritable.

    The asynchronous methods are the blocking ones of each kind of store, in a thread.
    """

    is_local: ClassVar[bool]
    """Whether `local_dir` is the output directory itself."""

    def __init__(self, local_dir: Path) -> None:
        self.local_dir = local_dir
        """A local directory for partial downloads and the ledger, the same in every run with this output."""

    async def prepare(self) -> None:
        """Create the output directory and its folders, and test that files can be written there."""
        await in_thread(self._prepare)

    @abstractmethod
    async def publish(self, name: str, *, replaces: bool = False) -> str:
        """Make the finished file `local_dir / name` available in the output; return its name there.

        A file of another size with that name is kept, and the new one numbered, unless it `replaces` it.
        """

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file atomically."""
        await in_thread(self._write, name, content)

    async def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, None if there is none. Raises OutputUnwritable if a remote one cannot be read."""
        return await in_thread(self._read, name)

    async def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`. Raises FileNotFoundError, or OutputUnwritable if remote."""
        return await in_thread(self._read_part, name, start, stop)

    async def remove(self, name: str) -> None:
        """Delete a file; does nothing if there is none, or if deleting is not permitted."""
        await in_thread(self._remove, name)

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that exist; a remote output is listed once per folder."""
        return await in_thread(self._sizes, list(names))

    @abstractmethod
    def uri(self, name: str) -> str:
        """The file's path or URL without credentials, for display."""

    @abstractmethod
    def _prepare(self) -> None: ...
    @abstractmethod
    def _write(self, name: str, content: bytes) -> None: ...
    @abstractmethod
    def _read(self, name: str) -> bytes | None: ...
    @abstractmethod
    def _read_part(self, name: str, start: int, stop: int) -> bytes: ...
    @abstractmethod
    def _remove(self, name: str) -> None: ...
    @abstractmethod
    def _sizes(self, names: Sequence[str]) -> dict[str, int]: ...


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


class LocalStore(OutputStore):
    """A directory on this machine; clips are downloaded directly into it."""

    is_local = True

    async def publish(self, name: str, *, replaces: bool = False) -> str:
        return name  # it is in the output directory already

    def uri(self, name: str) -> str:
        return str(self._path(name))

    def _prepare(self) -> None:
        for folder in (self.local_dir, *map(self._path, FOLDERS)):
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(bytes(_PROBE_BYTES))
                    probe.flush()
                    os.fsync(probe.fileno())

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        with writing_to(path):
            self._make_folder_of(path)
            _write_aside(path, content)
            sync_directory(path.parent)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read_part(self, name: str, start: int, stop: int) -> bytes:
        with self._path(name).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            self._path(name).unlink()

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for name in names:
            with suppress(OSError):
                sizes[name] = self._path(name).stat().st_size
        return sizes

    def _path(self, name: str) -> Path:
        return self.local_dir / checked_name(name)

    def _make_folder_of(self, path: Path) -> None:
        # Only `prepare` creates the directory itself: nothing must be written below the mount point of a removed drive.
        if not self.local_dir.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.local_dir))
        path.parent.mkdir(parents=True, exist_ok=True)


def _write_aside(path: Path, content: bytes) -> None:
    """Write a temporary file beside `path`, flush it to disk and rename it; removes it on failure."""
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
