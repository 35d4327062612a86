"""Where a prompt table comes from: a file, an address, or the text itself. Gets its bytes, and does not read them."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from fsspec import core

from prefect_together.errors import Problem, TableInvalid
from prefect_together.request.media import address_name

PASTED = "pasted table"

DELIMITERS = (",", ";", "\t", "|")

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class TableSource:
    """A table before it is read.

    `label` names it in messages (no query of a URL: it may be signed), `base` is the directory or address that
    relative image paths start from, `suffix` the end of its name in lower case (".csv", or "" for text),
    `content` its bytes, or the text itself.
    """

    label: str
    base: str
    suffix: str
    content: bytes | str


def find_table(source: str, *, known_columns: Container[str]) -> TableSource:
    """Get the bytes of a table that is named by a path or an address, or take `source` as the table itself.

    Text of more than one line is a table, and so is a single line that is a JSON object or a header (one of its
    cells, in lower case, is in `known_columns`), and no file's name. Raises TableInvalid if a file or address
    cannot be read.
    """
    name = source.strip()
    if "\n" in name or "\r" in name:
        return TableSource(PASTED, str(Path.cwd()), "", source)
    if not name:
        raise _unreadable(PASTED, "is empty: give a path, an address, or CSV text with a header line")
    if name[:7].lower() == "file://":
        name = name[7:]
    if _ADDRESS.match(name):
        return _fetched(name)
    path = Path(os.path.expanduser(name))  # noqa: PTH111  Path.expanduser fails on unknown users
    if os.path.exists(path):  # noqa: PTH110  Path.exists fails on text that is too long for a path
        return TableSource(name, str(path.absolute().parent), path.suffix.lower(), _file_bytes(name, path))
    if _is_header(name, known_columns) or (name[0] == "{" and name[-1] == "}"):
        return TableSource(PASTED, str(Path.cwd()), "", source)
    label = name if len(name) <= 200 else f"{name[:199]}…"
    raise _unreadable(label, f"no such file (looked for {_shortened(path)}){_hint(path)}")


def _is_header(line: str, known_columns: Container[str]) -> bool:
    if len(line) > 10_000 or _SUFFIX.fullmatch(os.path.splitext(line)[1]):  # noqa: PTH122
        return False
    headers = [header for delimiter in DELIMITERS for header in csv.reader([line], delimiter=delimiter)]
    return any(cell.strip().lower() in known_columns for header in headers for cell in header)


def _hint(path: Path) -> str:
    """The names of similar files beside it, or how to paste a table."""
    if " " in path.name and not _SUFFIX.fullmatch(path.suffix):
        return "; to give a table as text, its first line must be a header with a column prompt"
    try:
        tables = sorted(item.name for item in path.parent.iterdir() if item.suffix.lower() == path.suffix.lower())
    except (OSError, ValueError):
        return ""
    return f"; in that directory are {', '.join(tables[:5])}" if path.suffix and tables else ""


def _shortened(path: Path) -> str:
    text = str(Path.cwd() / path)
    return text if len(text) <= 300 else f"{text[:299]}…"


def _file_bytes(label: str, path: Path) -> bytes:
    if path.is_dir():
        raise _unreadable(label, "is a directory: give the table in it")
    if not path.is_file():
        raise _unreadable(label, "is not a regular file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(label, f"cannot be read: {error.strerror or error}") from error


def _fetched(url: str) -> TableSource:
    label = address_name(url) if "::" not in url else url.partition("?")[0]
    try:
        files, path = cast("tuple[Any, str]", core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
        content = cast("bytes", files.cat_file(path))
    except FileNotFoundError as error:
        raise _unreadable(label, "nothing is there (not found)") from error
    except ImportError as error:
        raise _unreadable(label, f"a package for this kind of address is missing: {error}") from error
    except aiohttp.ClientResponseError as error:
        raise _unreadable(label, f"the server answered HTTP {error.status}") from error
    except _remote_errors() as error:
        reason = f"{type(error).__name__} {error}".replace(url, label)
        raise _unreadable(label, f"cannot be read: {reason}") from error
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/"
    return TableSource(label, base, Path(parts.path).suffix.lower(), content)


def _remote_errors() -> tuple[type[Exception], ...]:
    """What reading an address can raise. Packages for S3 and Google have errors of their own, where they are loaded."""
    known: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, aiohttp.ClientError)
    return known + tuple(getattr(sys.modules[module], name) for module, name in _FOREIGN if module in sys.modules)


def _unreadable(label: str, message: str) -> TableInvalid:
    return TableInvalid(label, [Problem(message)])
