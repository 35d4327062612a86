"""Makes the pictures of the README and docs from real runs against the sandbox: `make screenshots`. No key, no cost.

Not a test. It starts a Prefect server of its own, deploys, runs the demo's table, and looks at it in Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect, sync_playwright

from prefect_server import ISOLATED, running_prefect
from repository import ROOT

IMAGES = ROOT / "docs" / "images"
TABLE = ROOT / "examples" / "prompts.csv"
COMPARED = ROOT / "examples" / "compare.csv"
STORYBOARD = ROOT / "examples" / "storyboard.csv"
COMPARE_OPTIONS = (
    *("--prompt-template", "{subject}, {place}, {light}", "--seed", "7", "--seed", "8"),
    *("--model", "vidu/vidu-q1", "--model", "ByteDance/Seedance-1.0-lite"),
)
FILMS = Path(tempfile.gettempdir()) / "films"
"""Its path is in the pictures."""
BIN = Path(sys.executable).parent
FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")
SIZE = {"width": 1280, "height": 800}
WIDE_SIZE = {"width": 1600, "height": 1000}
FILMS_SIZE = {"width": 1280, "height": 1000}
FORM_SIZE = {"width": 1280, "height": 1400}
"""All of its parameters."""
SETTLED_MILLISECONDS = 8000
"""Clips and Prefect's graph fade in; a picture is no test, so it may simply wait."""


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    IMAGES.mkdir(parents=True, exist_ok=True)
    FILMS.mkdir()
    try:
        take_pictures(chromium)
    finally:
        shutil.rmtree(FILMS)
    for image in sorted(IMAGES.glob("*.png")):
        print(f"{image.relative_to(ROOT)}  {image.stat().st_size // 1024} KB")
    return 0


def take_pictures(chromium: str) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        home = Path(folder) / "home"
        home.mkdir()
        output_dir, compared_dir, storyboard_dir = FILMS / "out", FILMS / "compared", FILMS / "storyboard"
        for table in (TABLE, COMPARED, STORYBOARD):
            shutil.copy(table, FILMS)
        with running_prefect(home, listener) as server:
            environment = {**os.environ, **ISOLATED, "PREFECT_API_URL": server.api_url, "PREFECT_HOME": str(home)}
            deploy(environment)
            run_flow(environment, FILMS / TABLE.name, output_dir, "--budget-usd", "5")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
                page = browser.new_page(viewport=SIZE)  # pyright: ignore[reportArgumentType]
                page.set_default_timeout(60_000)
                results_page(page, output_dir, "page")
                form(page, server.api_url)
                run(page, server.api_url)
                run_flow(environment, FILMS / COMPARED.name, compared_dir, *COMPARE_OPTIONS)
                page.set_viewport_size(WIDE_SIZE)  # pyright: ignore[reportArgumentType]
                results_page(page, compared_dir, "compare")
                run_flow(environment, FILMS / STORYBOARD.name, storyboard_dir)
                page.set_viewport_size(FILMS_SIZE)  # pyright: ignore[reportArgumentType]
                films_page(page, storyboard_dir)
                browser.close()


def deploy(environment: Mapping[str, str]) -> None:
    prefect = str(BIN / "prefect")
    for words in (
        ["work-pool", "create", "together-video", "--type", "process"],
        ["--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--name", "generate-videos"],
    ):
        subprocess.run([prefect, *words], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def run_flow(environment: Mapping[str, str], table: Path, output_dir: Path, *options: str) -> None:
    words = [str(table), "--output-dir", str(output_dir), "--sandbox", "--sandbox-speed", "10", *options]
    subprocess.run([sys.executable, "flows/generate_videos.py", *words], env=environment, cwd=ROOT, check=True)


def shoot(page: Page, name: str) -> None:
    page.wait_for_timeout(SETTLED_MILLISECONDS)
    page.screenshot(path=IMAGES / f"{name}.png")


def results_page(page: Page, output_dir: Path, name: str) -> None:
    page.goto((output_dir / "index.html").as_uri())
    expect(page.locator(".card").first).to_be_visible()
    shoot(page, name)


def films_page(page: Page, output_dir: Path) -> None:
    """The films, the first of them in the middle of its second shot."""
    page.goto((output_dir / "index.html").as_uri())
    first = page.locator(".film").first
    first.locator("button").nth(1).click()
    first.locator("video").evaluate("video => { video.pause(); video.currentTime += 2.5 }")
    shoot(page, "films")


def form(page: Page, api_url: str) -> None:
    found = httpx.get(f"{api_url}/deployments/name/generate-videos/generate-videos", timeout=60).json()
    page.goto(f"{api_url.removesuffix('/api')}/v2/deployments/deployment/{found['id']}/run")
    page.get_by_label("prompts").fill(TABLE.read_text(encoding="utf-8"))
    page.get_by_role("tab", name="From the list").click()
    page.get_by_role("button", name="Select From the list").click()
    page.get_by_role("option", name="minimax/video-01-director").click()
    page.get_by_role("tab", name="Dollars").click()
    page.get_by_role("spinbutton").fill("5")
    page.set_viewport_size(FORM_SIZE)  # pyright: ignore[reportArgumentType]
    shoot(page, "ui-form")
    page.set_viewport_size(SIZE)  # pyright: ignore[reportArgumentType]


def run(page: Page, api_url: str) -> None:
    """The run's own page, and its summary."""
    (found,) = httpx.post(f"{api_url}/flow_runs/filter", json={}, timeout=60).json()
    page.goto(f"{api_url.removesuffix('/api')}/v2/runs/flow-run/{found['id']}")
    page.get_by_role("tab", name="Artifacts").click()
    expect(page.get_by_text("together-video-results")).to_be_visible()
    shoot(page, "ui-run")
    wanted = {"artifacts": {"key": {"any_": ["together-video-summary"]}}}
    (summary,) = httpx.post(f"{api_url}/artifacts/filter", json=wanted, timeout=60).json()
    page.goto(f"{api_url.removesuffix('/api')}/v2/artifacts/artifact/{summary['id']}")
    expect(page.get_by_role("heading", name=re.compile("downloaded"))).to_be_visible()
    shoot(page, "ui-summary")


if __name__ == "__main__":
    sys.exit(main())
