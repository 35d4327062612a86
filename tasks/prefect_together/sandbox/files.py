"""A clip as bytes that can be served from any offset: from disk or memory, padded to a size if asked. No HTTP."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_ZEROS = bytes(1 << 18)
BLOCK_BYTES = len(_ZEROS)


@dataclass(frozen=True)
class ServedFile:
    """`content` (bytes or a file), then zeros up to `size_bytes`. `etag` changes with the content."""

    content: bytes | Path
    content_bytes: int
    size_bytes: int
    etag: str
    media_type: str

    @classmethod
    def of(cls, content: bytes | Path, *, pad_to_bytes: int = 0) -> ServedFile:
        """An MP4 is padded by a `free` box of zeros, which players skip; other files are served as they are."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        head = content[:16] if isinstance(content, bytes) else _first_bytes(content)
        is_mp4 = head[4:8] == b"ftyp"
        if isinstance(content, bytes):
            mark = hashlib.sha256(content).hexdigest()[:16]
        else:
            mark = f"{content.stat().st_mtime_ns:x}-{size:x}"
        padding = pad_to_bytes - size
        if is_mp4 and padding >= 16:
            content = (content if isinstance(content, bytes) else content.read_bytes()) + _free_box(padding)
            size, total = len(content), pad_to_bytes
        else:
            total = size
        media_type = "video/mp4" if is_mp4 else "video/webm"
        return cls(content, size, total, f'"{mark}-{total:x}"', media_type)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, `stop` being at most `size_bytes`."""
        own_stop = min(stop, self.content_bytes)
        own = b""
        if start < own_stop:
            if isinstance(self.content, bytes):
                own = self.content[start:own_stop]
            else:
                with self.content.open("rb") as file:
                    file.seek(start)
                    own = file.read(own_stop - start)
        zeros = stop - max(start, own_stop)
        if zeros <= 0:
            return own
        filling = _ZEROS if zeros == BLOCK_BYTES else bytes(zeros)
        return own + filling if own else filling


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _free_box(size_bytes: int) -> bytes:
    """The header of a box of `size_bytes`, in the long form from 4 GB on."""
    if size_bytes < 1 << 32:
        return size_bytes.to_bytes(4) + b"free"
    return (1).to_bytes(4) + b"free" + size_bytes.to_bytes(8)


@dataclass(frozen=True)
class ByteRange:
    """A part of a file: from `start` up to, not including, `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range of a Range header; None for no header, and for what a server may ignore (several, nonsense).

    Raises ValueError for a range that begins behind the end (416).
    """
    unit, _, wanted = (header or "").partition("=")
    first, dash, last = wanted.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in wanted:
        return None
    if not (first + last).isdigit():
        return None
    if not first:
        return ByteRange(max(0, size_bytes - int(last)), size_bytes)
    start = int(first)
    stop = min(int(last) + 1, size_bytes) if last else size_bytes
    if start >= size_bytes or stop <= start:
        raise ValueError(f"range {header} is outside of {size_bytes} bytes")
    return ByteRange(start, stop)
