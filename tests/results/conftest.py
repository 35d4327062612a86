"""Results pages in one Chromium."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from chromium import opened_chromium
from results_pages import CLIP, CLIP_SECONDS, LONG_CLIP, LONG_CLIP_SECONDS, Show, opened_pages, write_clip


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with opened_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory with two playable clips in it."""
    directory = tmp_path_factory.mktemp("out")
    (directory / "videos").mkdir()
    write_clip(directory / "videos" / CLIP, CLIP_SECONDS)
    write_clip(directory / "videos" / LONG_CLIP, LONG_CLIP_SECONDS)
    return directory


@pytest.fixture
def show(browser: Browser, directory: Path) -> Generator[Show]:
    with opened_pages(browser, directory) as show:
        yield show
