"""Where a run's files go: a local directory, or any place fsspec can reach (s3://bucket/prefix). No Prefect.

A file is written whole or not at all. Remote files are made and checked in `scratch` on this machine first.
Names are relative POSIX paths such as "videos/a.mp4". Credentials are those of the environment (AWS_PROFILE,
AWS_ACCESS_KEY_ID ...); addresses are shown without any that they may hold.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from prefect_together.clips.part_file import sync_directory, writing_to

FOLDERS = ("videos",)
_PROBE_BYTES = 1 << 12

_SECRETS_IN_URL = re.compile(r"(?<=://)(?:[^@\s/]*|[^@\s:]*:[^@\s]*)@")
_QUERY_OF_URL = re.compile(r"(://[^?\s]*)\?\S*")

# Uploads and flushes wait on the network or the disk; threads start with the first of them.
_OUTPUT = ThreadPoolExecutor(8, thread_name_prefix="output")

Result = TypeVar("Result")


class OutputStore(Protocol):
    """Where a run's files go. Every method that writes raises OutputUnwritable."""

    @property
    def is_local(self) -> bool:
        """Whether `scratch` is the place itself."""
        ...

    @property
    def scratch(self) -> Path:
        """A local directory for parts of downloads and for the ledger, the same one in every run to this place."""
        ...

    async def prepare(self, *, folders: Sequence[str] = FOLDERS) -> None:
        """Make the place and its folders, and write a file there to see that it can be done."""
        ...

    async def publish(self, local: Path, name: str) -> None:
        """Give a finished file of `scratch` its place. It is gone from `scratch` afterwards, if that is elsewhere."""
        ...

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file in one step."""
        ...

    async def write_text(self, name: str, content: str) -> None:
        """Write or replace a UTF-8 file in one step."""
        ...

    async def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""
        ...

    async def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`. Raises FileNotFoundError if there is none."""
        ...

    async def remove(self, name: str) -> None:
        """Take a file away; nothing happens if there is none, or if that is not allowed."""
        ...

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that are there; remote places are listed once a folder."""
        ...

    def uri(self, name: str) -> str:
        """The file's address, to be shown."""
        ...


def redacted(url: str) -> str:
    """The URL without user name, password and query, any of which may be a credential. Paths stay as they are."""
    return _QUERY_OF_URL.sub(r"\1", _SECRETS_IN_URL.sub("***@", url))


def checked_name(name: str) -> str:
    """The name itself. Raises ValueError if it could lead out of the place; names are made safe elsewhere."""
    path = PurePosixPath(name)
    is_plain = not path.is_absolute() and ".." not in path.parts and path.parts and str(path) == name
    if not is_plain or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise ValueError(f"{name!r} is not the name of a file below the output directory")
    return name


async def in_thread(work: Callable[..., Result], *arguments: object) -> Result:
    """Run what blocks on an output without holding up the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_OUTPUT, work, *arguments)


class LocalStore:
    """A directory of this machine; clips are downloaded right into it."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.scratch = root

    async def prepare(self, *, folders: Sequence[str] = FOLDERS) -> None:
        """Make the directory and its folders, and write a file there. Raises OutputUnwritable."""
        await in_thread(self._prepare, [self._path(folder) for folder in folders])

    def _prepare(self, folders: Sequence[Path]) -> None:
        for folder in (self.scratch, *folders):
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(bytes(_PROBE_BYTES))
                    probe.flush()
                    os.fsync(probe.fileno())

    async def publish(self, local: Path, name: str) -> None:
        """Move a finished file to its name; nothing to do if it is there already. Raises OutputUnwritable."""
        await in_thread(self._move, local, self._path(name))

    def _move(self, local: Path, path: Path) -> None:
        if local.absolute() == path:
            return
        with writing_to(path):
            self._make_folder_of(path)
            try:
                local.replace(path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _write_aside(path, lambda aside: shutil.copyfile(local, aside))
                local.unlink()
            sync_directory(path.parent)

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file in one step. Raises OutputUnwritable."""
        await in_thread(self._write, self._path(name), content)

    def _write(self, path: Path, content: bytes) -> None:
        with writing_to(path):
            self._make_folder_of(path)
            _write_aside(path, lambda aside: aside.write_bytes(content))
            sync_directory(path.parent)

    async def write_text(self, name: str, content: str) -> None:
        """Write or replace a UTF-8 file in one step. Raises OutputUnwritable."""
        await self.write_bytes(name, content.encode())

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
        """Take a file away, if it is there and that is allowed."""
        with suppress(OSError):
            await in_thread(self._path(name).unlink)

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that are there."""
        return await in_thread(_sizes, {name: self._path(name) for name in names})

    def uri(self, name: str) -> str:
        """The file's path."""
        return str(self._path(name))

    def _path(self, name: str) -> Path:
        return self.scratch / checked_name(name)

    def _make_folder_of(self, path: Path) -> None:
        # The directory itself is only made by `prepare`: a drive that was taken off must not be written "under".
        if not self.scratch.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.scratch))
        path.parent.mkdir(parents=True, exist_ok=True)


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, flush it to disk and rename it; none is left if that fails."""
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
