"""Where a prompt table comes from: a file, an address, or the text itself. Gets its bytes, and does not read them."""

from __future__ import annotations

import csv
import os
import re
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from fsspec import asyn, core
from fsspec.implementations.http import HTTPFileSystem

from prefect_together.clips.remote_store import backend_errors, missing_library
from prefect_together.grid.columns import is_known_column
from prefect_together.problems import Problem, TableInvalid
from prefect_together.request.media import address_name

PASTED = "pasted table"
STANDARD_INPUT = "standard input"

DELIMITERS = (",", ";", "\t", "|")

_CSV = threading.RLock()
"""Two threads must not restore the csv module's limit while the other one reads."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
_GOOGLE_SHEET = re.compile(r"(https://docs\.google\.com/spreadsheets/d/)(?:(e/[\w-]+)|([\w-]+))", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class TableSource:
    """A table before it is read.

    `label` names it in messages (no query of a URL: it may be signed), `base` is the directory or address that
    relative image paths start from, `suffix` the end of its name in lower case (".csv", or "" for text),
    `inner_suffix` that before ".gz", `content` its bytes, or the text itself, `charset` what a web server declares.
    """

    label: str
    base: str
    suffix: str
    content: bytes | str
    inner_suffix: str = ""
    charset: str | None = None


def find_table(source: str) -> TableSource:
    """Get the bytes of a table that is named by a path or an address, or take `source` as the table itself.

    Text of more than one line is a table, and so is a single line that is JSON or a header (one of its cells means
    something), and no file's name. "-" is standard input. Raises TableInvalid if a file or address cannot be read.
    """
    name = source.strip()
    if "\n" in name or "\r" in name:
        return TableSource(PASTED, str(Path.cwd()), "", source)
    if not name:
        raise _unreadable(PASTED, "is empty: give a path, an address, or CSV text with a header line")
    if name in {"-", "/dev/stdin"}:
        return TableSource(STANDARD_INPUT, str(Path.cwd()), "", _standard_input())
    if name[:7].lower() == "file://":
        name = name[7:]
    if _ADDRESS.match(name):
        return _fetched(name)
    path = Path(os.path.expanduser(name))  # noqa: PTH111  Path.expanduser fails on unknown users
    if os.path.exists(path):  # noqa: PTH110  Path.exists fails on text that is too long for a path
        content = _file_bytes(name, path)
        base = path.absolute().parent if path.is_file() else Path.cwd()
        return TableSource(name, str(base), *_suffixes(path.name, content))
    if _is_header(name) or (name[0] + name[-1] in ("{}", "[]")):
        return TableSource(PASTED, str(Path.cwd()), "", source)
    label = name if len(name) <= 200 else f"{name[:199]}…"
    raise _unreadable(label, f"no such file (looked for {_shortened(path)}){_hint(path)}")


def _suffixes(name: str, content: bytes) -> tuple[str, bytes, str]:
    path = PurePosixPath(name)
    return path.suffix.lower(), content, Path(path.stem).suffix.lower()


@contextmanager
def long_cells() -> Generator[None]:
    """Within it the csv module reads cells of any length (a prompt, an image as a data URI), not of 131,072 characters
    at most: a setting of the whole process, so for as long as that takes."""
    with _CSV:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


@cache
def _standard_input() -> bytes:
    """It can be read once, and is the same for whoever reads the table again in this process."""
    if sys.stdin is None or sys.stdin.isatty():
        raise _unreadable(STANDARD_INPUT, "is a terminal: give a path, or pipe the table in")
    return sys.stdin.buffer.read()


def _is_header(line: str) -> bool:
    if len(line) > 10_000 or _SUFFIX.fullmatch(os.path.splitext(line)[1]):  # noqa: PTH122
        return False
    headers = [header for delimiter in DELIMITERS for header in csv.reader([line], delimiter=delimiter)]
    return any(is_known_column(cell) for header in headers for cell in header)


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
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(label, f"cannot be read: {error.strerror or error}") from error


def _fetched(url: str) -> TableSource:
    label = address_name(url) if "::" not in url else url.partition("?")[0]
    if (page := _GOOGLE_SHEET.match(url)) is not None and not _is_export(url):
        raise _unreadable(label, f"is the page of a Google sheet, not its table: give {_export_link(page, url)}")
    try:
        files, path = cast("tuple[Any, str]", core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
        charset: str | None = None
        if isinstance(files, HTTPFileSystem):
            content, charset = cast("Any", asyn).sync(cast("Any", files).loop, _answer, files, path)
        else:
            content = cast("bytes", files.cat_file(path))
    except FileNotFoundError as error:
        raise _unreadable(label, "nothing is there (not found)") from error
    except ImportError as error:
        message = f"a package for this kind of address is missing: {error}{missing_library(url)}"
        raise _unreadable(label, message) from error
    except aiohttp.ClientResponseError as error:
        raise _unreadable(label, f"the server answered HTTP {error.status}") from error
    except (*backend_errors(), ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__} {error}".replace(url, label)
        raise _unreadable(label, f"cannot be read: {reason}") from error
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/"
    return TableSource(label, base, *_suffixes(parts.path, content), charset)


async def _answer(files: Any, url: str) -> tuple[bytes, str | None]:
    """What stands at an address, with the charset that its server declares, which fsspec's own call does not give."""
    session = await files.set_session()
    async with session.get(files.encode_url(url), **files.kwargs) as response:
        if response.status == 404:
            raise FileNotFoundError(url)
        response.raise_for_status()
        return await response.read(), response.charset


def _is_export(url: str) -> bool:
    parts = urlsplit(url)
    return parts.path.endswith(("/export", "/gviz/tq")) or "output=" in parts.query


def _export_link(page: re.Match[str], url: str) -> str:
    sheet = re.search(r"gid=(\d+)", url)
    end = f"gid={sheet.group(1)}" if sheet else ""
    if page.group(2):  # published to the web
        return f"{page.group(1)}{page.group(2)}/pub?{'&'.join(filter(None, [end, 'output=csv']))}"
    return f"{page.group(1)}{page.group(3)}/export?{'&'.join(filter(None, ['format=csv', end]))}"


def _unreadable(label: str, message: str) -> TableInvalid:
    return TableInvalid(label, [Problem(message)])
