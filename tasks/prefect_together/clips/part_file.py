"""A partly downloaded clip on disk: `NAME.part`, its running SHA-256, the rename to its final name. No network.

All methods block on the disk: call them in a worker thread. A lock makes `close` wait for a method that is running.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePath
from threading import Lock
from typing import Self, TypeVar

from prefect_together.errors import DownloadFailed, OutputUnwritable

if sys.platform != "win32":
    import fcntl

LARGE_BYTES = 4 << 20
"""From this size on a finished clip is dropped from the page cache: a batch of them is larger than the memory."""

MAX_NAMES = 99
"""How many names are tried for a clip whose own name is used by another file."""

_READ_BYTES = 1 << 20
_OPEN_TRIES = 100
_NO_LOCKS_HERE = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL})
# O_NONBLOCK: opening or reading a FIFO must not wait for a writer.
_NEVER_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
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
    errno.EEXIST: "a file or a broken symbolic link has this name",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "this process has too many files open",
}

Checked = TypeVar("Checked")
AnyPath = TypeVar("AnyPath", bound=PurePath)


@contextmanager
def writing_to(path: Path) -> Generator[None]:
    """Raise `OutputUnwritable`, with the reason in plain words, in place of an OSError."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise OutputUnwritable(f"cannot write {path}: {reason}") from error


def make_folder(folder: Path) -> None:
    """Create a folder of the output, whose directory must be there: nothing is written below a drive that is gone.

    Raises OutputUnwritable.
    """
    with writing_to(folder):
        folder.mkdir(exist_ok=True)


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` durable; does nothing where directories cannot be opened."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def numbered(path: AnyPath) -> Iterator[AnyPath]:
    """The path, then the same with "-2", "-3"... before the suffix. Raises OutputUnwritable after `MAX_NAMES`."""
    yield path
    for number in range(2, MAX_NAMES + 1):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
    raise OutputUnwritable(f"cannot write {path}: {MAX_NAMES} other files have this name or {path.stem}-2, -3...")


class PartFile:
    """The bytes of one clip so far, starting with those of an earlier try. One writer at a time, over all processes."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self.size_bytes = 0
        self.is_published = False
        self._file = file
        self._lock = Lock()
        self._hash = hashlib.sha256()

    @classmethod
    def open(cls, target: Path) -> Self:
        """Open or create the part of `target` and hash its content. Raises OutputUnwritable, DownloadFailed."""
        path = target.with_name(f"{target.name}.part")
        with writing_to(path), ExitStack() as undo:
            part = cls(path, undo.enter_context(_open_locked(path)))
            while block := part._file.read(_READ_BYTES):
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
        """Write at the end and hash; does nothing after `close`. Raises OutputUnwritable."""
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
        """Discard what was received. Raises OutputUnwritable."""
        with self._lock, writing_to(self.path):
            self._file.truncate(0)
            self._file.seek(0)
            self._hash, self.size_bytes = hashlib.sha256(), 0

    def check(self, check: Callable[[Path], Checked]) -> Checked:
        """What `check` returns for the file so far. Raises what it raises, OutputUnwritable in place of an OSError."""
        with self._lock, writing_to(self.path):
            self._raise_if_closed()
            return check(self.path)

    def publish(self, target: Path) -> Path:
        """Flush the file to disk and rename it to `target`; return its final path.

        A file that has that name already is replaced only if it is the same clip, whole or cut off; else the clip is
        named "NAME-2", "NAME-3"... Raises OutputUnwritable, and DownloadFailed after `close`.
        """
        with self._lock, writing_to(target):
            self._raise_if_closed()
            os.fsync(self._file.fileno())
            final, is_new = self._reserve(target)
            try:
                if self.size_bytes >= LARGE_BYTES:
                    _drop_from_page_cache(self._file)
                self._file.close()
                self.path.replace(final)
            except OSError:
                if is_new:
                    final.unlink()
                raise
            sync_directory(final.parent)
            self.is_published = True
            return final

    def _reserve(self, target: Path) -> tuple[Path, bool]:
        """The path to rename to, and whether it was created here (as an empty file, so that nobody else takes it)."""
        for path in numbered(target):
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            except FileExistsError:
                if self._is_begun_by(path):
                    return path, False
            else:
                return path, True
        raise AssertionError

    def _is_begun_by(self, path: Path) -> bool:
        """Whether a file holds nothing but the clip or its first bytes: it is left from a run that was interrupted."""
        self._file.seek(0)
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return False
            with FileIO(os.open(path, os.O_RDONLY | _NEVER_FOLLOW)) as other:
                while block := other.read(_READ_BYTES):
                    if self._file.read(len(block)) != block:
                        return False
        except OSError:  # not readable, or replaced at this moment: in any case not written here
            return False
        return True

    def _raise_if_closed(self) -> None:
        if self._file.closed:
            raise DownloadFailed(f"the download to {self.path} was cancelled")

    def close(self, discard: bool = False) -> None:
        """Close the file; it stays for a later try unless it is empty or `discard` is set."""
        with self._lock:
            if self._file.closed:
                return
            if discard or self.size_bytes == 0:
                with suppress(OSError):
                    self.path.unlink()
            self._file.close()


def _drop_from_page_cache(file: FileIO) -> None:
    """Free the memory of what is on disk for the next clip: fresh memory costs a virtual machine more than writing.

    Measured with clips of 25 MB, 16 at once: 62 ms of processor time per clip in place of 77 ms.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # advice only; some file systems take none
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _open_locked(path: Path) -> FileIO:
    """Open for reading and writing, locked against every other download of the same clip.

    Only a regular file with one name is opened. Anything else under the name (a symbolic link, a further hard link, a
    FIFO) is unlinked, which changes no other file, and a new file is created.
    """
    for _ in range(_OPEN_TRIES):
        with suppress(FileNotFoundError):
            if not _is_plain(path.lstat()):
                path.unlink()
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | _NEVER_FOLLOW, 0o666), "r+")
        with ExitStack() as undo:
            undo.enter_context(file)
            _lock(file, path)
            # The download that held the lock before may have renamed the file since it was opened here.
            with suppress(FileNotFoundError):
                if _is_plain(found := path.lstat()) and os.path.samestat(found, os.fstat(file.fileno())):
                    undo.pop_all()
                    return file
    raise DownloadFailed(f"{path} is being replaced by another program")


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _lock(file: FileIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise DownloadFailed(f"{path} is being written by another download") from error
        if error.errno not in _NO_LOCKS_HERE:
            raise
