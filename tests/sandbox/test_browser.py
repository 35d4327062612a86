"""The sandbox's clips in Chromium: MP4 and WebM, straight from their short links, play and can be sought in."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import httpx
import pytest
from playwright.sync_api import Page

from chromium import opened_chromium
from prefect_together.sandbox import Sandbox

pytestmark = pytest.mark.browser

PLAY = """async (source) => {
    const video = document.createElement("video");
    video.muted = true;
    video.src = source;
    document.body.append(video);
    await new Promise((done, failed) => {
        video.onloadeddata = done;
        video.onerror = () => failed(video.error.message);
    });
    await video.play();
    await new Promise((done) => { video.ontimeupdate = () => video.currentTime > 0.2 && done(); });
    video.pause();
    await new Promise((done) => { video.onseeked = done; video.currentTime = 3.5; });
    return [video.videoWidth, video.videoHeight, video.duration, video.currentTime];
}"""


@pytest.fixture(scope="module")
def page() -> Generator[Page]:
    with opened_chromium() as browser:
        yield browser.new_page()


@pytest.mark.parametrize("parameters", [{}, {"output_format": "WEBM"}, {"generate_audio": True}])
def test_a_clip_plays_in_a_browser_at_the_size_and_length_asked_for(page: Page, parameters: dict[str, Any]) -> None:
    body = {"model": "pixverse/pixverse-v6", "prompt": "a lighthouse", "width": 640, "height": 360, "seconds": "5"}
    with Sandbox(clip="render", render_processes=1) as api, httpx.Client() as http:
        http.headers["authorization"] = "Bearer key"
        api.script("completed")
        job_id = http.post(f"{api.base_url}/v2/videos", json=body | parameters).json()["id"]
        link = http.get(f"{api.base_url}/v2/videos/{job_id}").json()["outputs"]["video_url"]

        page.goto(f"{api.base_url}/sandbox/stats")
        width, height, duration, at = cast("list[float]", page.evaluate(PLAY, link))

    assert (width, height) == (640, 360)
    assert 4.9 < duration < 5.1
    assert at == 3.5
