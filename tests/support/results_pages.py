"""Results pages opened in Chromium: rows to fill them, and what is asked of them over and over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from playwright.sync_api import Browser, Page

from prefect_together.ledger.states import Status
from prefect_together.results.outputs import PageSummary, results_page
from prefect_together.results.results import RowResult, TakeResult

CLIP, LONG_CLIP = "a b #1?50% é 🦊.mp4", "long.mp4"
CLIP_SECONDS, LONG_CLIP_SECONDS = 3.0, 5.0

Show = Callable[..., Page]


def write_clip(path: Path, seconds: float) -> None:
    """Pictures that grow lighter."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=24)  # pyright: ignore[reportUnknownMemberType]
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 72, "yuv420p", 12
        for frame in range(round(seconds * 24)):
            pixels = np.full((72, 128, 3), frame * 2, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))  # pyright: ignore[reportUnknownMemberType]
        container.mux(stream.encode())  # pyright: ignore[reportUnknownMemberType]


@contextmanager
def opened_pages(browser: Browser, directory: Path) -> Generator[Show]:
    """Write pages and open them from disk; in the end no script failed, no dialog stood up, no server was asked."""
    opened: list[Page] = []
    complaints: list[str] = []

    def open_page(
        rows: Sequence[RowResult],
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        address: str = "",
        **summary: object,
    ) -> Page:
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened.append(page)
        page.on("console", lambda message: complaints.extend(_if_refused(message.text)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.extend(_if_remote(request.url)))
        text = results_page(rows, title="films", summary=PageSummary(**summary))  # pyright: ignore[reportArgumentType]
        file = directory / "index.html"
        file.write_text(text, encoding="utf-8")
        page.goto(file.as_uri() + address)
        return page

    yield open_page

    for page in opened:
        page.close()
    assert complaints == []


def _if_refused(message: str) -> list[str]:
    return [message] if "Content Security Policy" in message or "Trusted" in message else []


def _if_remote(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [url]


def result(number: int, status: Status = "downloaded", **fields: object) -> RowResult:
    is_there = status == "downloaded"
    values: dict[str, object] = {
        "row_id": f"film-{number}",
        "status": status,
        "model": "model/one",
        "prompt": f"prompt of film {number}",
        "parameters": {"seconds": "3"},
        "file": f"videos/{CLIP}" if is_there else None,
        "cost_usd": 0.28 if is_there else None,
        "estimate_usd": 0.28,
        "duration_seconds": 3.0 if is_there else None,
    }
    take = TakeResult(**(values | fields))  # pyright: ignore[reportArgumentType]
    return RowResult(number=number, cells={"prompt": take.prompt or "", "mood": "calm"}, takes=(take,))


def films(count: int) -> list[RowResult]:
    return [result(number) for number in range(2, count + 2)]


def prompts(page: Page) -> list[str]:
    return page.locator(".card .prompt").all_inner_texts()


def wait_until_playing(page: Page, selector: str) -> None:
    page.wait_for_function("selector => document.querySelector(selector)?.currentTime > 0.3", arg=selector)
