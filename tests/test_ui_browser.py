"""Prefect's own UI in Chromium, against a real server and a real worker: a person without a shell makes videos.

The newer UI (/v2) throughout, except for Retry, which only the older one offers for every run. With UI_SCREENSHOTS
set, each step leaves a picture in that directory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from chromium import opened_chromium
from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from table_of_prompts import KEY, read_results, table_text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120.0
"""A worker starts a Python for each run; a busy machine takes its time for that."""
POLL_SECONDS = 0.3
CAT, HARBOUR, FOX, LONG = "A cat asleep on a drum", "A harbour at dawn", "A red fox in snow", "A long film"
MINIMAX, VIDU = "minimax/video-01-director", "vidu/vidu-q1"


@dataclass(frozen=True)
class Place:
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
                expect(page.get_by_label("prompts")).to_be_visible(timeout=15_000)
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


@pytest.fixture(scope="module")
def place(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    folder = tmp_path_factory.mktemp("ui")
    prefect = str(BIN / "prefect")
    in_project(prefect_server, prefect, "work-pool", "create", "together-video", "--type", "process", "--overwrite")
    definitions = ("--prefect-file", "deployments/prefect.yaml", "--name", "generate-videos")
    in_project(prefect_server, prefect, "--no-prompt", "deploy", *definitions)
    found = httpx.get(f"{prefect_server.api_url}/deployments/name/generate-videos/generate-videos", timeout=60)
    with (
        Sandbox(retry_after_seconds=0.05, accept_unknown_models=True) as api,
        (folder / "worker.log").open("wb") as log,
        opened_chromium() as browser,
    ):
        environment = {"PREFECT_WORKER_QUERY_SECONDS": "1", "TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": api.base_url}
        worker = subprocess.Popen(
            [prefect, "worker", "start", "--pool", "together-video"],
            env={**os.environ, "PREFECT_API_URL": prefect_server.api_url, **environment},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        expect.set_options(timeout=PATIENCE_SECONDS * 1000 / 2)
        try:
            yield Place(prefect_server, api, browser, found.json()["id"], folder)
        finally:
            worker.kill()
            worker.wait()


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


def submit(page: Page) -> str:
    """Press Submit, again if the server is too busy (503: nothing was made), and return the id of the run."""
    while True:
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.status != 503:
            break
    assert answer.value.status == 201, answer.value.text()
    return answer.value.json()["id"]


def start(place: Place, table: str, output_dir: Path, *, approve_above: str | None = None) -> str:
    """Fill in the form, start the run, and return its id."""
    page = place.form()
    paste(page, "prompts", table)
    page.get_by_label("output_dir").fill(str(output_dir))
    if approve_above is not None:
        page.get_by_role("tab", name="Never ask").locator("..").get_by_role("tab", name="Dollars").click()
        page.get_by_role("tabpanel").filter(has=page.get_by_role("spinbutton")).get_by_role("spinbutton").fill(
            approve_above
        )
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


def open_artifact(page: Page, place: Place, run_id: str, key: str) -> None:
    """From the run's card to the list of all artifacts of this key, and there to the run's own."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
    (artifact,) = httpx.post(f"{place.server.api_url}/artifacts/filter", json=wanted, timeout=60).json()
    page.goto(f"{place.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text(key, exact=True).click()
    page.locator(f"a[href$='{artifact['id']}']").first.click()


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


def test_a_table_is_pasted_into_the_form_and_its_videos_and_failures_are_in_the_artifacts(place: Place) -> None:
    place.api.fault("job-moderated", prompt=HARBOUR)
    output_dir = place.folder / "pasted"
    page = place.form()
    paste(page, "prompts", table_text([{"id": "cat", "prompt": CAT}, {"id": "harbour", "prompt": HARBOUR}]))
    page.get_by_role("tab", name="From the list").click()
    choose(page, page.get_by_role("button", name="Select From the list"), VIDU)
    page.get_by_label("output_dir").fill(str(output_dir))
    picture(page, "1-form")

    run_id = submit(page)
    place.wait_for(run_id, "Running", "Failed")
    page.goto(f"{place.url}/v2/runs/flow-run/{run_id}")
    picture(page, "2-running")
    run = place.wait_for(run_id, "Failed")

    assert run["parameters"]["model"] == VIDU
    assert run["parameters"]["budget_usd"] is None
    assert run["state"]["message"].startswith("1 downloaded, 1 failed of 2 rows, $0.22. row 3 (harbour) failed")
    assert [row["status"] for row in read_results(output_dir)] == ["downloaded", "failed"]
    open_artifact(page, place, run_id, "together-video-summary")
    expect(page.get_by_role("heading", name="1 downloaded, 1 failed of 2 rows")).to_be_visible()
    expect(page.get_by_text("Change the prompt or the pictures of these rows")).to_be_visible()
    expect(page.get_by_role("cell", name=VIDU)).to_be_visible()
    poster = page.get_by_role("img", name="cat", exact=True)
    expect(poster).to_be_visible()
    assert poster.evaluate("image => image.naturalWidth") > 100
    picture(page, "3-summary")
    open_artifact(page, place, run_id, "together-video-results")
    expect(page.get_by_role("cell", name="downloaded")).to_be_visible()
    expect(page.get_by_role("cell", name="failed", exact=True)).to_be_visible()
    picture(page, "4-results")
    page.context.close()


def test_a_model_that_is_not_listed_can_be_typed(place: Place) -> None:
    page = place.form()
    paste(page, "prompts", table_of(("fox", FOX), model=""))
    page.get_by_role("tab", name="Another id").click()
    page.get_by_role("tabpanel").get_by_role("textbox").first.fill("acme/dream-1")
    page.get_by_label("output_dir").fill(str(place.folder / "typed"))
    page.get_by_label("dry_run").click()

    run = place.wait_for(submit(page), "DryRun", "Failed")

    assert run["state"]["name"] == "DryRun", run["state"]["message"]
    assert run["parameters"]["model"] == "acme/dream-1"
    assert run["state"]["message"].endswith("1 of unknown price; nothing was sent")
    page.context.close()


def test_cancel_leaves_every_row_right_and_retry_goes_on_without_buying_twice(place: Place) -> None:
    place.api.fault("odd-status", endpoint="retrieve", prompt=LONG, count=None)  # waited for, as long as it stands
    output_dir = place.folder / "long"
    run_id = start(place, table_of(("fox", FOX), ("long", LONG)), output_dir)
    place.wait_for(run_id, "Running")
    page = place.page(f"/v2/runs/flow-run/{run_id}")
    see_in_artifacts(page, "1 downloaded, 1 submitted")
    picture(page, "5-long-run")

    def cancel() -> None:
        in_menu(page, "Cancel")
        page.get_by_role("button", name="Cancel Flow Run").click()

    ask_for(page, run_id, cancel)
    place.wait_for(run_id, "Cancelled")

    see_in_artifacts(page, "together-video-summary")
    picture(page, "6-cancelled")
    page.context.close()
    assert {row["id"]: row["status"] for row in read_results(output_dir)} == {"fox": "downloaded", "long": "submitted"}

    place.wait_for_the_worker("Cancelled flow run")  # said later than the run says it, over whatever the state is then
    place.api.clear_faults()
    older = place.page(f"/runs/flow-run/{run_id}")

    def retry() -> None:
        older.get_by_role("button", name="Retry").click()
        picture(older, "7-retry")
        older.get_by_role("dialog").get_by_role("button", name="Retry").click()

    ask_for(older, run_id, retry)
    run = place.wait_for(run_id, "Completed", count=2)

    older.context.close()
    assert run["state"]["message"] == "2 downloaded of 2 rows, $0.56"
    assert [row["status"] for row in read_results(output_dir)] == ["downloaded", "downloaded"]
    assert (place.api.accepted(FOX), place.api.accepted(LONG)) == (1, 1)


@pytest.mark.parametrize(("answer", "state", "sent"), [("approve", "Completed", 1), ("reject", "Cancelled", 0)])
def test_the_dialog_shows_the_plan_and_the_answer_is_followed(place: Place, answer: str, state: str, sent: int) -> None:
    prompt = f"{CAT}, {answer}"
    run_id = start(place, table_of(("cat", prompt)), place.folder / answer, approve_above="0.1")
    place.wait_for(run_id, "Paused")
    page = place.page(f"/v2/runs/flow-run/{run_id}")

    def resume() -> None:
        in_menu(page, "Resume")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("$0.28 for 1 new video of 1 row. Nothing has been sent yet.")
        picture(page, f"8-{answer}")
        choose(page, dialog.get_by_role("button", name=re.compile("^Select")), answer)
        dialog.get_by_role("button", name="Resume").click()

    ask_for(page, run_id, resume)
    place.wait_for(run_id, state)

    page.context.close()
    assert place.api.accepted(prompt) == sent
