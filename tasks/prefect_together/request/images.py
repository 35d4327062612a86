"""Images that a table names: local files found, checked and hashed, and read again when they are sent. No network.

A local file is taken only if it lies below the table's directory (links followed) and is one whole picture. The SHA-256
of the file, as it was given, is part of the request: a file that changed after the check is not sent, and what is sent
of it (a photo turned upright, a BMP as PNG) follows from it alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import quote, urljoin

from prefect_together.errors import ImageChanged
from prefect_together.request.fields import shown
from prefect_together.request.media import ClipRef, LocalImage, image_kind, is_web_address

MAX_IMAGE_BYTES = 20_000_000
"""Far above what the service takes inside a request (near 60 KB by one report); keeps a wrong file from memory."""

_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LONGEST_PATH = 1024


def load_image(value: str, *, base: str) -> str | LocalImage | ClipRef:
    """What a table's cell says of an image, as a request takes it: text as it is, or a local file that was checked.

    `base` is the table's directory, or its address up to the last slash if it was read from the web: relative paths
    are then addresses too. http(s) URLs, data URIs and base64 text pass, `@row-id` is a reference. Raises ValueError,
    saying what would be right, for all else: a file that is missing, outside `base`, no image, or too large.
    """
    text = _unquoted(value)
    if text.startswith("@"):
        return ClipRef.parse(text)
    if _passes(text, base):
        return text
    if _OTHER_SCHEME.match(text):
        raise ValueError(f"{shown(text)} is not taken: give an http(s) URL or a file below the table's directory")
    if "\x00" in text:
        raise ValueError(f"{shown(text)} holds a NUL character: take it out")
    if is_web_address(base):
        return urljoin(base, quote(text.replace("\\", "/"), safe="/%?&=+,;@!~()$'"))
    if "://" in base:
        raise ValueError(
            f"{shown(text)} cannot be found from a table at {base.partition('://')[0]}://: give an http(s) URL,"
            " or put the table and its images on this machine"
        )
    return _local_image(text, Path(base))


def encode_image(image: LocalImage) -> str:
    """The picture as bare base64.

    Raises ImageChanged if it is gone or is not what was checked: the request would not be the one that was planned.
    """
    try:
        content = Path(image.path).read_bytes()
    except OSError as error:
        raise ImageChanged(f"image {image.path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise ImageChanged(f"image {image.path} changed after the table was read: start the run again")
    if image.is_converted:
        content, _ = _picture_to_send(content, image.path)
    return base64.b64encode(content).decode("ascii")


def _unquoted(value: str) -> str:
    """Without the quotes that are copied with a path ("Copy as path", a shell)."""
    text = value.strip()
    is_quoted = len(text) > 1 and text[0] + text[-1] in ('""', "''", "“”", "‘’")
    return text[1:-1].strip() if is_quoted else text


def _passes(text: str, base: str) -> bool:
    """Whether `text` is an image already. A short path can look like base64: then the file decides."""
    if text[:5].lower() == "data:":
        image_kind(text)
        return True
    try:
        kind = image_kind(text)
    except ValueError:
        return False
    if kind == "base64" and len(text) <= _LONGEST_PATH and "://" not in base:
        return not is_file(Path(base) / text)
    return True


def is_file(path: Path) -> bool:
    """Whether there is a file; False too for what cannot be a path, such as a very long text."""
    try:
        return path.is_file()
    except OSError:
        return False


def _local_image(text: str, directory: Path) -> LocalImage:
    try:
        root = directory.resolve()
        path = (root / text).resolve()
        if "\\" in text and not is_file(path):
            path = (root / text.replace("\\", "/")).resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"{shown(text)} lies outside the table's directory {root}: only images below it are read")
        if not path.is_file():
            what = "is not a file" if path.exists() else f"does not exist (looked for {path})"
            raise ValueError(f"{shown(text)} {what}: give a file below the table's directory, or an http(s) URL")
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise ValueError(f"{shown(text)} is larger than {MAX_IMAGE_BYTES // 1_000_000} MB: give its URL instead")
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "it is a link that leads to itself"
        raise ValueError(f"{shown(text)} cannot be read: {reason}") from error

    sent, media_type = _picture_to_send(content, text)
    return LocalImage(
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(sent),
        media_type=media_type,
        is_converted=sent is not content,
    )


def _picture_to_send(content: bytes, name: str) -> tuple[bytes, str]:
    from prefect_together.request.image_content import picture_to_send  # with Pillow, for the tables that name files

    return picture_to_send(content, name)
