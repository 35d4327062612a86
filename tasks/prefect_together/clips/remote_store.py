"""A run's files in an object store or on another machine, through fsspec. No Prefect.

Object stores show a file only when its upload is whole. Elsewhere it is uploaded under another name and renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast

import aiohttp
import fsspec.core  # pyright: ignore[reportMissingTypeStubs]

from prefect_together.clips.part_file import writing_to
from prefect_together.clips.store import FOLDERS, LocalStore, OutputStore, checked_name, in_thread, redacted
from prefect_together.errors import OutputUnwritable, Problem, SettingsInvalid


def open_store(output_dir: str, *, scratch_root: Path | None = None) -> OutputStore:
    """The store for a path or URL; nothing is touched before `prepare`.

    Remote places get their local scratch directory in `scratch_root`; without it, where the system keeps the
    lasting data of applications, since the ledger in it says what is paid for. Raises SettingsInvalid.
    """
    output_dir = output_dir.strip()
    if not output_dir or "\0" in output_dir:
        raise SettingsInvalid([Problem("a directory or a URL such as s3://bucket/prefix", column="output_dir")])
    for scheme in ("file://", "local://"):
        output_dir = output_dir.removeprefix(scheme)
    if "://" not in output_dir:
        return LocalStore(Path(output_dir).expanduser().absolute())
    # Nobody who writes to a local directory waits for fsspec and its cloud libraries to be imported.

    return open_remote_store(output_dir, scratch_root=scratch_root or _data_directory())


def _data_directory() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "prefect-together"


_WRITE_TEST = ".prefect-together-write-test"
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2"})

_BACKEND_ERRORS = {
    "botocore.exceptions": "BotoCoreError",
    "gcsfs.retry": "HttpError",
    "google.auth.exceptions": "GoogleAuthError",
    "azure.core.exceptions": "AzureError",
    "paramiko": "SSHException",
}
"""What the libraries below fsspec raise beside OSError, by module: looked up where the module is loaded."""


class FileSystem(Protocol):
    """What of fsspec's file systems is used here."""

    protocol: str | tuple[str, ...]

    def put_file(self, lpath: str, rpath: str) -> None: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes: ...
    def info(self, path: str) -> Mapping[str, Any]: ...
    def ls(self, path: str, detail: bool) -> Sequence[Mapping[str, Any]]: ...
    def mv(self, path1: str, path2: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def makedirs(self, path: str, exist_ok: bool) -> None: ...
    def invalidate_cache(self, path: str | None = None) -> None: ...


def open_remote_store(url: str, *, scratch_root: Path) -> RemoteStore:
    """The store for an fsspec URL. Raises SettingsInvalid when its scheme is unknown or its library is missing."""
    try:
        opened = cast("tuple[FileSystem, str]", fsspec.core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
    except (ImportError, ValueError) as error:
        hint = "; pip install 'prefect-together[s3]'" if url.startswith(("s3://", "s3a://")) else ""
        problem = f"{redacted(url)} cannot be opened: {_without_address(error, url)}{hint}"
        raise SettingsInvalid([Problem(problem, column="output_dir")]) from error
    file_system, root = opened
    shown = redacted(url).rstrip("/")
    words = "-".join(re.findall(r"[A-Za-z0-9]+", shown.partition("://")[2]))[-40:]
    scratch = scratch_root / f"{words}-{hashlib.sha256(shown.encode()).hexdigest()[:12]}"
    return RemoteStore(file_system, root.rstrip("/"), shown_root=shown, scratch=scratch)


class RemoteStore:
    """A place that fsspec reaches; clips are downloaded to `scratch`, checked there, and uploaded."""

    is_local = False

    def __init__(self, file_system: FileSystem, root: str, *, shown_root: str, scratch: Path) -> None:
        self._fs, self._root, self._shown_root, self.scratch = file_system, root, shown_root, scratch
        schemes = (file_system.protocol,) if isinstance(file_system.protocol, str) else file_system.protocol
        self._is_object_store = not _OBJECT_STORES.isdisjoint(schemes)

    async def prepare(self, *, folders: Sequence[str] = FOLDERS) -> None:
        """Make the scratch folders, and write a file to the place. Raises OutputUnwritable."""
        await in_thread(self._prepare, [self.scratch / checked_name(folder) for folder in folders])

    def _prepare(self, folders: Sequence[Path]) -> None:
        for folder in (self.scratch, *folders):
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
        self._write(_WRITE_TEST, b"can be written")
        self._remove(_WRITE_TEST)

    async def remove(self, name: str) -> None:
        """Take a file away, if it is there and that is allowed. Raises OutputUnwritable as `read_bytes` does."""
        await in_thread(self._remove, name)

    def _remove(self, name: str) -> None:
        # Rights to write but not to delete are enough for a run.
        with self._errors(name), suppress(PermissionError, FileNotFoundError):
            self._fs.rm_file(self._key(name))

    async def publish(self, local: Path, name: str) -> None:
        """Upload a checked file, see that it arrived whole, and remove it here. Raises OutputUnwritable."""
        await in_thread(self._upload, local, name)

    def _upload(self, local: Path, name: str) -> None:
        with self._errors(name):
            size_bytes = local.stat().st_size
            self._put(name, lambda key: self._fs.put_file(str(local), key))
        self._check_size(name, size_bytes)
        with writing_to(local):
            local.unlink(missing_ok=True)

    async def write_bytes(self, name: str, content: bytes) -> None:
        """Write or replace a file in one step. Raises OutputUnwritable."""
        await in_thread(self._write, name, content)

    def _write(self, name: str, content: bytes) -> None:
        with self._errors(name):
            self._put(name, lambda key: self._fs.pipe_file(key, content))
        self._check_size(name, len(content))

    async def write_text(self, name: str, content: str) -> None:
        """Write or replace a UTF-8 file in one step. Raises OutputUnwritable."""
        await self.write_bytes(name, content.encode())

    async def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, None if there is none. Raises OutputUnwritable when the place cannot be read."""
        return await in_thread(self._read, name)

    def _read(self, name: str) -> bytes | None:
        with self._errors(name):
            try:
                return self._fs.cat_file(self._key(name))
            except FileNotFoundError:
                return None

    async def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`. Raises OutputUnwritable when it cannot be read."""
        return await in_thread(self._read_part, name, start, stop)

    def _read_part(self, name: str, start: int, stop: int) -> bytes:
        with self._errors(name):
            return self._fs.cat_file(self._key(name), start=start, end=stop)

    async def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the files that are there, from one listing of each of their folders."""
        folders: dict[str, list[str]] = {}
        for name in names:
            folders.setdefault(checked_name(name).rpartition("/")[0], []).append(name)
        sizes: dict[str, int] = {}
        for folder, wanted in folders.items():
            found = await in_thread(self._list, folder)
            sizes.update({name: found[name] for name in wanted if name in found})
        return sizes

    def uri(self, name: str) -> str:
        """The file's URL, without credentials."""
        return f"{self._shown_root}/{checked_name(name)}"

    def _key(self, name: str) -> str:
        return f"{self._root}/{checked_name(name)}"

    def _put(self, name: str, put: Callable[[str], None]) -> None:
        key = self._key(name)
        if self._is_object_store:
            put(key)
            return
        self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
        put(f"{key}.uploading")
        self._fs.mv(f"{key}.uploading", key)

    def _check_size(self, name: str, size_bytes: int) -> None:
        found_bytes = self._size(name)
        if found_bytes != size_bytes:
            raise OutputUnwritable(f"{self.uri(name)} has {found_bytes} bytes after writing {size_bytes}")

    def _size(self, name: str) -> int | None:
        key = self._key(name)
        with self._errors(name):
            self._fs.invalidate_cache(key.rpartition("/")[0])
            try:
                return int(self._fs.info(key)["size"])
            except FileNotFoundError:
                return None

    def _list(self, folder: str) -> dict[str, int]:
        path = f"{self._root}/{folder}".rstrip("/")
        prefix = f"{folder}/" if folder else ""
        with self._errors(folder or "videos"):
            self._fs.invalidate_cache(path)
            try:
                entries = self._fs.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        files = [entry for entry in entries if entry["type"] == "file"]
        return {prefix + str(entry["name"]).rpartition("/")[2]: int(entry["size"]) for entry in files}

    @contextmanager
    def _errors(self, name: str) -> Generator[None]:
        """Turn what the place says into OutputUnwritable, without the credentials of its address."""
        kinds: list[type[Exception]] = [OSError, NotImplementedError, TimeoutError, aiohttp.ClientError]
        for module, kind in _BACKEND_ERRORS.items():
            if module in sys.modules:
                kinds.append(getattr(sys.modules[module], kind))
        try:
            yield
        except tuple(kinds) as error:
            says = _without_address(error, self._shown_root)
            raise OutputUnwritable(f"{self.uri(name)} cannot be used: {says}") from error


def _without_address(error: Exception, shown: str) -> str:
    """The error's own words, or its kind; addresses in it are shown without credentials."""
    words = redacted(" ".join(str(error).split()))
    return words[:300] or f"{type(error).__name__} at {redacted(shown)}"
