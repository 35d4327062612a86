"""Tells from a clip's own bytes what container it is and whether all of it is there. No libav, no network.

MP4 (ISO/IEC 14496-12) is a row of boxes that say their length; WebM (RFC 8794) one segment that may say its own.
"""

from __future__ import annotations

from typing import BinaryIO

from prefect_together.errors import ClipInvalid

HEAD_BYTES = 512
QUOTED_CHARACTERS = 100
MAX_BOXES = 100_000
DEMUXERS = {"mp4": "mov", "mov": "mov", "webm": "matroska", "mkv": "matroska"}
"""libav's reader for each container; always named, so that nothing else is ever tried on a file."""

_FIRST_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def container_of(head: bytes) -> str:
    """ "mp4", "mov", "webm" or "mkv", by a file's first bytes. Raises ClipInvalid for all else, text with its words."""
    if not head:
        raise ClipInvalid("the clip is empty (0 bytes)")
    if head.startswith(_EBML):
        return "webm" if b"webm" in head[:64] else "mkv"
    if head[4:8] in _FIRST_BOXES:
        return "mov" if head[4:12] == b"ftypqt  " or head[4:8] != b"ftyp" else "mp4"
    words = text_excerpt(head)
    if words is not None:
        raise ClipInvalid(f'the clip is text, not a video: "{words}"')
    raise ClipInvalid(f"the clip is neither MP4 nor WebM (its first bytes are {head[:12].hex(' ')})")


def check_boxes(file: BinaryIO, size_bytes: int) -> None:
    """The boxes at the top of an MP4 must fill the file exactly, with an index and pictures among them.

    Raises ClipInvalid.
    """
    kinds: set[bytes] = set()
    offset = 0
    for _ in range(MAX_BOXES):
        if offset >= size_bytes:
            break
        file.seek(offset)
        header = file.read(16)
        kind = header[4:8]
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        elif length == 0:
            length = size_bytes - offset
        if len(header) < 8 or offset + length > size_bytes:
            name = kind.decode("ascii", errors="replace") or "next"
            raise ClipInvalid(f"the MP4 is cut: it ends in its {name} box, at byte {size_bytes}")
        if length < 8 or not any(kind):
            raise ClipInvalid(f"the MP4 is damaged at byte {offset}")
        kinds.add(kind)
        offset += length
    if b"moov" not in kinds:
        raise ClipInvalid(f"the MP4 is cut or damaged: it has no index (moov) in its {size_bytes} bytes")
    if b"mdat" not in kinds:
        raise ClipInvalid(f"the MP4 is cut: it has no pictures (mdat) in its {size_bytes} bytes")


def check_segment(head: bytes, size_bytes: int) -> None:
    """The length that a WebM gives for its one segment, if it gives any, must not pass the file's end.

    Raises ClipInvalid.
    """
    header_length, header_start = _ebml_length(head, 4)
    offset = header_start + (header_length or 0)
    if header_length is None or head[offset : offset + 4] != _SEGMENT:
        raise ClipInvalid("the WebM is cut or damaged: it has no segment")
    length, start = _ebml_length(head, offset + 4)
    if length is not None and start + length > size_bytes:
        raise ClipInvalid(f"the WebM is cut: it is {start + length} bytes long, {size_bytes} are there")


def text_excerpt(head: bytes) -> str | None:
    """The first words of a file whose `head` is text (HTML, JSON, XML, a message), or None if it is not.

    For naming an error page that was served as a clip: a video never begins with printable characters only.
    """
    head = head[:HEAD_BYTES]
    text = head.decode("utf-8", errors="ignore")
    lost_bytes = len(head) - len(text.encode())
    is_binary = lost_bytes > 3 or any(ord(character) < 32 and not character.isspace() for character in text)
    words = " ".join(text.removeprefix("\ufeff").split())
    if is_binary or not words:
        return None
    return words if len(words) <= QUOTED_CHARACTERS else words[:QUOTED_CHARACTERS] + "…"


def _ebml_length(head: bytes, offset: int) -> tuple[int | None, int]:
    """The length at `offset`, None if it is left open, and where the content starts (RFC 8794, 4 and 6)."""
    first = head[offset] if offset < len(head) else 0
    width = 9 - first.bit_length()
    if first == 0 or offset + width > len(head):
        raise ClipInvalid("the WebM is cut or damaged: its header is not whole")
    bits = 7 * width
    value = int.from_bytes(head[offset : offset + width]) & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), offset + width
