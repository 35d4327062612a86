"""How long a browser takes over what a run leaves: its results page, and Prefect's own pages of the run."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright
from services import Server

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run")
PATIENCE_SECONDS = 120.0
RESULTS_KEY = "together-video-results"


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds until it was seen, and how much of it the document holds. Cards and clips are those of the whole list."""

    page_seconds: float
    search_seconds: float
    cards: int
    clips_loaded: int
    run_seconds: float
    task_runs_seconds: float
    artifact_seconds: float


def browse(index: Path, server: Server, *, last_row: str) -> Seen | None:
    """Open the results page and search the row of this id, then the newest flow run; None without Chromium."""
    with _browser_page() as page:
        if page is None:
            return None
        started = time.monotonic()
        page.goto(index.resolve().as_uri(), wait_until="commit")
        page.locator("#cards .card").first.wait_for()
        page_seconds = time.monotonic() - started
        cards = page.locator("#cards .card").count()
        clips_loaded = page.locator("#cards video[src]").count()
        started = time.monotonic()
        page.fill("#query", last_row)
        expect(page.locator("#cards .card")).to_have_count(1)
        search_seconds = time.monotonic() - started
        return Seen(page_seconds, search_seconds, cards, clips_loaded, *_prefects_pages(page, server))


def _prefects_pages(page: Page, server: Server) -> tuple[float, float, float]:
    """Seconds to the flow run's page, from there to its list of task runs, and to the table of results."""
    address = server.api_url.removesuffix("/api")
    run = _newest(server, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})
    started = time.monotonic()
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    page.get_by_text(run["name"]).first.wait_for()
    run_seconds = time.monotonic() - started
    started = time.monotonic()
    page.get_by_text("Task Runs", exact=True).first.click()
    page.get_by_text("download ").first.wait_for()
    task_runs_seconds = time.monotonic() - started
    artifact = _newest(server, "artifacts", {"artifacts": {"key": {"any_": [RESULTS_KEY]}}, "limit": 1})
    started = time.monotonic()
    page.goto(f"{address}/artifacts/artifact/{artifact['id']}")
    page.get_by_text("downloaded").first.wait_for()
    return run_seconds, task_runs_seconds, time.monotonic() - started


@contextmanager
def _browser_page() -> Generator[Page | None]:
    chromium = shutil.which("chromium")
    if chromium is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        yield page
        browser.close()


def _newest(server: Server, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310  our own server
        f"{server.api_url}/{kind}/filter", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
        return json.load(answer)[0]
