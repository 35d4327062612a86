"""What a person does and sees in Prefect's UI, in Chromium, as functions for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from repository import ROOT
from table_of_prompts import table_text

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120.0
"""A worker starts a Python for each run; a busy machine takes its time for that."""
POLL_SECONDS = 0.3
CAT, HARBOUR, FOX, LONG = "A cat asleep on a drum", "A harbour at dawn", "A red fox in snow", "A long film"
MINIMAX, VIDU = "minimax/video-01-director", "vidu/vidu-q1"


@dataclass(frozen=True)
class ServedFlow:
    """A server with the deployment, a worker, a sandbox in this process, a browser, and a folder for outputs."""

    server: PrefectServer
    api: Sandbox
    browser: Browser
    deployment_id: str
    folder: Path

    @property
    def url(self) -> str:
        return self.server.api_url.removesuffix("/api")

    def page(self, path: str) -> Page:
        page = self.browser.new_context(
            viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
        ).new_page()
        page.set_default_timeout(60_000)
        page.goto(self.url + path)
        return page

    def form(self) -> Page:
        page = self.page(f"/v2/deployments/deployment/{self.deployment_id}/run")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                expect(page.get_by_label("prompts", exact=True)).to_be_visible(timeout=15_000)
            except AssertionError:  # the server was too busy (503): the page goes on loading until it is loaded again
                assert time.monotonic() < deadline, page.inner_text("body")
                page.reload()
            else:
                return page

    def run(self, run_id: str) -> dict[str, Any]:
        return httpx.get(f"{self.server.api_url}/flow_runs/{run_id}", timeout=60).raise_for_status().json()

    def wait_for(self, run_id: str, *states: str, count: int = 1) -> dict[str, Any]:
        """The run as soon as it is in one of these states, in its run number `count`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            run = self.run(run_id)
            if run["state"]["name"] in states and run["run_count"] >= count:
                return run
            assert time.monotonic() < deadline, (run["state"], (self.folder / "worker.log").read_text()[-3000:])
            time.sleep(POLL_SECONDS)

    def wait_for_the_worker(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in (self.folder / "worker.log").read_text():
            assert time.monotonic() < deadline, words
            time.sleep(POLL_SECONDS)


def in_project(server: PrefectServer, *words: str) -> None:
    environment = {**os.environ, "PREFECT_API_URL": server.api_url}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def picture(page: Page, name: str) -> None:
    if directory := os.environ.get("UI_SCREENSHOTS"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(directory) / f"{name}.png")


def paste(page: Page, label: str, text: str) -> None:
    """As a person does: copied elsewhere, pasted here."""
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.get_by_label(label, exact=True).focus()
    page.keyboard.press("Control+V")


def choose(page: Page, button: Locator, option: str) -> None:
    button.click()
    page.get_by_role("option", name=option, exact=True).click()


def open_card(page: Page, name: str) -> None:
    """Open one of the form's cards."""
    cards = {"parameters": 0, "limits": 1, "locations": 2}
    page.get_by_role("tab", name="Set here").nth(cards[name]).click()


def submit(page: Page) -> str:
    """Press Submit, again if the server is too busy (503: nothing was made), and return the id of the run."""
    while True:
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.status != 503:
            break
    assert answer.value.status == 201, answer.value.text()
    return answer.value.json()["id"]


def start(served: ServedFlow, table: str, output_dir: Path, *, approve_above: str | None = None) -> str:
    """Fill in the form, start the run, and return its id."""
    page = served.form()
    paste(page, "prompts", table)
    page.get_by_label("output_dir").fill(str(output_dir))
    if approve_above is not None:
        open_card(page, "limits")
        page.get_by_label("approve_above_usd").fill(approve_above)
    run_id = submit(page)
    page.context.close()
    return run_id


def ask_for(page: Page, run_id: str, ask: Callable[[], None]) -> None:
    """Do what asks the server for a change of the run, again if it is too busy (503: nothing was changed).

    A page that met a 503 while it was loaded may stay under its loading sign for good: it is loaded again.
    """
    calls = re.compile(rf"/flow_runs/{run_id}/(resume|set_state|retry)$")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with page.expect_response(lambda answer: bool(calls.search(answer.url))) as answer:
                ask()
        except TimeoutError:
            assert time.monotonic() < deadline, page.inner_text("body")
            page.reload()
            continue
        if answer.value.status != 503:
            return
        page.keyboard.press("Escape")


def in_menu(page: Page, item: str) -> None:
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def start_a_long_run(served: ServedFlow) -> tuple[str, Path, Page]:
    """A run with one clip downloaded and one that does not come; its id, its output, and the run's page."""
    served.api.fault("odd-status", endpoint="retrieve", prompt=LONG, count=None)  # waited for, as long as it stands
    output_dir = served.folder / "long"
    run_id = start(served, table_of(("fox", FOX), ("long", LONG)), output_dir)
    served.wait_for(run_id, "Running")
    page = served.page(f"/v2/runs/flow-run/{run_id}")
    see_in_artifacts(page, "1 downloaded, 1 submitted")
    return run_id, output_dir, page


def open_artifact(page: Page, served: ServedFlow, run_id: str, key: str) -> None:
    """From the run's card to the run's own artifact: at once, or by the list of all of this key (Prefect 3.8)."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
    (artifact,) = httpx.post(f"{served.server.api_url}/artifacts/filter", json=wanted, timeout=60).json()
    page.goto(f"{served.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text(key, exact=True).click()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while artifact["id"] not in page.url:
        try:
            page.locator(f"a[href$='{artifact['id']}']").first.click(timeout=10_000)
        except TimeoutError:  # a busy server's answer took the list away again
            assert time.monotonic() < deadline, page.inner_text("body")
            page.reload()


def see_in_artifacts(page: Page, text: str) -> None:
    """Reload the run's artifacts, which the newer UI does not do by itself, until one says this."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        page.reload()
        page.get_by_role("tab", name="Artifacts").click()
        try:
            expect(page.get_by_text(text).first).to_be_visible(timeout=4000)
        except AssertionError:
            assert time.monotonic() < deadline, text
        else:
            return


def table_of(*rows: tuple[str, str], model: str = MINIMAX) -> str:
    return table_text({"id": name, "prompt": prompt, "model": model} for name, prompt in rows)
