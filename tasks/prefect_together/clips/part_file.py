"""A clip on its way to disk: `NAME.part`, its running SHA-256, the rename that makes it final. No network.

Every method blocks on the disk and belongs into a worker thread; one lock lets `close` follow whatever still runs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Protocol, Self, TypeVar

from prefect_together.errors import DownloadFailed, OutputUnwritable

if sys.platform != "win32":
    import fcntl

LARGE_BYTES = 4 << 20
"""From this size on a finished clip is taken out of the system's cache: a batch of them is larger than the memory."""

_REHASH_BYTES = 1 << 20
_NO_LOCKS_HERE = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL})
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.ENOENT: "the directory is gone",
    errno.ENOTDIR: "what should be a directory is a file",
    errno.EISDIR: "a directory has this name",
    errno.EEXIST: "a file has this name",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "this process has too many files open",
}

Checked = TypeVar("Checked")


class Hash(Protocol):
    """What hashlib's objects can do, as far as it is needed here."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@contextmanager
def writing_to(path: Path) -> Generator[None]:
    """Turn what the file system says against writing `path` into `OutputUnwritable` with a sentence to act on."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise OutputUnwritable(f"cannot write {path}: {reason}") from error


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` last beyond a power cut; nothing to do where directories cannot be opened."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PartFile:
    """The bytes of one clip so far. Opened with what an earlier try left; one writer at a time, over processes."""

    def __init__(self, target: Path, path: Path, file: FileIO) -> None:
        self.target, self.path = target, path
        self.size_bytes = 0
        self.is_published = False
        self._file = file
        self._lock = Lock()
        self._hash: Hash = hashlib.sha256()

    @classmethod
    def open(cls, target: Path) -> Self:
        """Open or create the part of `target` and hash what it holds. Raises OutputUnwritable, DownloadFailed."""
        path = target.with_name(f"{target.name}.part")
        with writing_to(path), ExitStack() as undo:
            part = cls(target, path, undo.enter_context(_open_alone(path)))
            while block := part._file.read(_REHASH_BYTES):
                part._hash.update(block)
                part.size_bytes += len(block)
            undo.pop_all()
            return part

    def sha256(self) -> str:
        """The hash, in hex, of all that was appended."""
        return self._hash.hexdigest()

    def tail(self, size_bytes: int) -> bytes:
        """The last bytes on disk, at most `size_bytes` of them."""
        with self._lock, writing_to(self.path):
            self._file.seek(max(0, self.size_bytes - size_bytes))
            found = self._file.read(size_bytes)
            self._file.seek(self.size_bytes)
            return found

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write at the end and hash; nothing after `close`. Raises OutputUnwritable."""
        with self._lock, writing_to(self.path):
            for chunk in chunks:
                if self._file.closed:
                    return
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._hash.update(chunk)
                self.size_bytes += len(chunk)

    def restart(self) -> None:
        """Forget what was received. Raises OutputUnwritable."""
        with self._lock, writing_to(self.path):
            self._file.truncate(0)
            self._file.seek(0)
            self._hash, self.size_bytes = hashlib.sha256(), 0

    def publish(self, check: Callable[[Path], Checked]) -> Checked:
        """Check the file, flush it to disk and give it its final name, in this order; what `check` raises stops it.

        Raises OutputUnwritable.
        """
        with self._lock, writing_to(self.target):
            if self._file.closed:
                raise DownloadFailed(f"{self.target} was given up")
            found = check(self.path)
            os.fsync(self._file.fileno())
            if self.size_bytes >= LARGE_BYTES:
                _drop_from_memory(self._file)
            self._file.close()
            self.path.replace(self.target)
            sync_directory(self.target.parent)
            self.is_published = True
            return found

    def close(self, discard: bool = False) -> None:
        """Let go of the file; it stays for a later try unless it is empty or `discard` is set."""
        with self._lock:
            if self._file.closed:
                return
            if discard or self.size_bytes == 0:
                with suppress(OSError):
                    self.path.unlink()
            self._file.close()


def _drop_from_memory(file: FileIO) -> None:
    """Give the memory of what is on disk to the next clip: fresh memory costs a virtual machine more than writing.

    Measured with clips of 25 MB, 16 at once: 62 against 77 ms of processor time a clip.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # advice only; some file systems take none
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _open_alone(path: Path) -> FileIO:
    """Open for reading and writing, locked against every other download of the same clip."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = FileIO(os.open(path, flags, 0o666), "r+")
        with ExitStack() as undo:
            undo.enter_context(file)
            _lock_alone(file, path)
            # Whoever held the lock before may have given the file its final name in between.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    undo.pop_all()
                    return file


def _lock_alone(file: FileIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise DownloadFailed(f"{path} is being written by another download") from error
        if error.errno not in _NO_LOCKS_HERE:
            raise
