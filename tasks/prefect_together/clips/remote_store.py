"""Opens an output location, and implements the remote ones: object stores and other machines, through fsspec.

Clips are downloaded and checked in a local directory on this machine, then uploaded. Object stores show a file only
when its upload is complete; elsewhere it is uploaded under another name and renamed. Credentials come from the
environment (AWS_PROFILE, AWS_ACCESS_KEY_ID ...).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast

from prefect_together.clips.part_file import numbered, writing_to
from prefect_together.clips.store import FOLDERS, LocalStore, OutputStore, checked_name, in_thread, redacted
from prefect_together.errors import OutputUnwritable
from prefect_together.problems import SettingsInvalid

_WRITE_TEST = ".prefect-together-write-test"
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2"})

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings the library for a URL scheme."""

_BACKEND_ERRORS = {
    "aiohttp": "ClientError",
    "botocore.exceptions": "BotoCoreError",
    "gcsfs.retry": "HttpError",
    "google.auth.exceptions": "GoogleAuthError",
    "azure.core.exceptions": "AzureError",
    "paramiko": "SSHException",
}
"""Exceptions other than OSError that the libraries below fsspec raise, by module; only loaded modules are asked."""


def backend_errors() -> tuple[type[Exception], ...]:
    """What fsspec's file systems raise when they cannot be reached or used."""
    loaded = ((module, kind) for module, kind in _BACKEND_ERRORS.items() if module in sys.modules)
    return (OSError, NotImplementedError, *(getattr(sys.modules[module], kind) for module, kind in loaded))


def open_store(output_dir: str, *, local_root: Path | None = None) -> OutputStore:
    """The store for a path or URL; nothing is created before `prepare`.

    A remote output has its local directory in `local_root`. Default: the user's data directory, because the ledger
    in it says what has been paid for. Raises SettingsInvalid: no path or URL, unknown scheme, missing library.
    """
    output_dir = output_dir.strip()
    if not output_dir or "\0" in output_dir:
        raise SettingsInvalid.of("a directory or a URL such as s3://bucket/prefix", column="output_dir")
    for scheme in ("file://", "local://"):
        output_dir = output_dir.removeprefix(scheme)
    if "://" not in output_dir:
        return LocalStore(Path(output_dir).expanduser().absolute())
    return _open_remote_store(output_dir, local_root or _data_directory())


def output_name(output_dir: str) -> str:
    """An output directory's name in a ledger that lies elsewhere: one however it is spelt, without credentials."""
    store = open_store(output_dir)
    if store.is_local:
        return str(store.local_dir.resolve())
    return redacted(store.uri("videos")).removesuffix("/videos")


def missing_library(url: str) -> str:
    """How to install what opens such a URL, to be appended to an error; empty if no extra brings it."""
    extra = _EXTRAS.get(url.partition("://")[0])
    return f"; install it with: pip install 'prefect-together[{extra}]'" if extra else ""


def _open_remote_store(url: str, local_root: Path) -> RemoteStore:
    import fsspec.core  # pyright: ignore[reportMissingTypeStubs]  # not needed for a local directory

    try:
        opened = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
    except (ImportError, ValueError) as error:
        hint = missing_library(url) if isinstance(error, ImportError) else ""
        problem = f"{redacted(url)} cannot be opened: {_message_without_address(error, url)}{hint}"
        raise SettingsInvalid.of(problem, column="output_dir") from error
    file_system, root = opened
    shown = redacted(url).rstrip("/")
    words = "-".join(re.findall(r"[A-Za-z0-9]+", shown.partition("://")[2]))[-40:]
    local_dir = local_root / f"{words}-{hashlib.sha256(shown.encode()).hexdigest()[:12]}"
    return RemoteStore(file_system, root.rstrip("/"), shown_root=shown, local_dir=local_dir)


def _data_directory() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "prefect-together"


class RemoteStore(OutputStore):
    """An output location that fsspec can reach; files are uploaded from `local_dir`."""

    is_local = False

    def __init__(self, file_system: Any, root: str, *, shown_root: str, local_dir: Path) -> None:
        """`file_system` is one of fsspec's, which has no types."""
        super().__init__(local_dir)
        self._fs, self._root, self._shown_root = file_system, root, shown_root
        schemes = (file_system.protocol,) if isinstance(file_system.protocol, str) else file_system.protocol
        self._is_object_store = not _OBJECT_STORES.isdisjoint(schemes)

    async def publish(self, name: str, *, replaces: bool = False) -> str:
        """Upload `local_dir / name`, verify its size, delete the local file; return its name."""
        return await in_thread(self._upload, self.local_dir / checked_name(name), name, replaces)

    def uri(self, name: str) -> str:
        return f"{self._shown_root}/{checked_name(name)}"

    def _prepare(self) -> None:
        for folder in (self.local_dir, *(self.local_dir / name for name in FOLDERS)):
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
        self._write(_WRITE_TEST, b"can be written")
        self._remove(_WRITE_TEST)

    def _remove(self, name: str) -> None:
        # A run needs permission to write, not to delete.
        with self._errors(name), suppress(PermissionError, FileNotFoundError):
            self._fs.rm_file(self._key(name))

    def _upload(self, local: Path, wanted: str, replaces: bool) -> str:
        with self._errors(wanted):
            size_bytes = local.stat().st_size
        names = map(str, numbered(PurePosixPath(wanted)))
        name = wanted if replaces else next(name for name in names if self._size(name) in (None, size_bytes))
        with self._errors(name):
            self._put(name, lambda key: self._fs.put_file(str(local), key))
        self._check_size(name, size_bytes)
        with writing_to(local):
            local.unlink(missing_ok=True)
        return name

    def _write(self, name: str, content: bytes) -> None:
        with self._errors(name):
            self._put(name, lambda key: self._fs.pipe_file(key, content))
        self._check_size(name, len(content))

    def _read(self, name: str) -> bytes | None:
        with self._errors(name):
            try:
                return self._fs.cat_file(self._key(name))
            except FileNotFoundError:
                return None

    def _read_part(self, name: str, start: int, stop: int) -> bytes:
        with self._errors(name):
            return self._fs.cat_file(self._key(name), start=start, end=stop)

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        folders = {checked_name(name).rpartition("/")[0] for name in names}
        found = {name: size for folder in folders for name, size in self._list(folder).items()}
        return {name: found[name] for name in names if name in found}

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
        """Raise OutputUnwritable in place of the backend's errors, without the credentials in the URL."""
        try:
            yield
        except backend_errors() as error:
            message = _message_without_address(error, self._shown_root)
            raise OutputUnwritable(f"{self.uri(name)} cannot be used: {message}") from error


def _message_without_address(error: Exception, shown: str) -> str:
    """The error's message, or its class name; URLs in it are shown without credentials."""
    words = redacted(" ".join(str(error).split()))
    return words[:300] or f"{type(error).__name__} at {redacted(shown)}"
