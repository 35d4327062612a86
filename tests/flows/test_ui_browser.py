"""Prefect's own UI in Chromium, against a real server and a real worker: a person without a shell makes videos.

The newer UI (/v2) throughout, except for Retry, which only the older one offers for every run. With UI_SCREENSHOTS
set, each step leaves a picture in that directory.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Generator

import httpx
import pytest
from playwright.sync_api import expect

from chromium import opened_chromium
from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from prefect_ui import (
    BIN,
    CAT,
    FOX,
    HARBOUR,
    LONG,
    PATIENCE_SECONDS,
    VIDU,
    ServedFlow,
    ask_for,
    choose,
    in_menu,
    in_project,
    open_artifact,
    open_card,
    paste,
    picture,
    see_in_artifacts,
    start,
    start_a_long_run,
    submit,
    table_of,
)
from table_of_prompts import KEY, read_results, table_text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedFlow]:
    folder = tmp_path_factory.mktemp("ui")
    prefect = str(BIN / "prefect")
    in_project(prefect_server, prefect, "work-pool", "create", "together-video", "--type", "process", "--overwrite")
    definitions = ("--prefect-file", "deployments/prefect.yaml", "--name", "generate-videos")
    in_project(prefect_server, prefect, "--no-prompt", "deploy", *definitions)
    found = httpx.get(f"{prefect_server.api_url}/deployments/name/generate-videos/generate-videos", timeout=60)
    with (
        Sandbox(retry_after_seconds=0.05, accept_unknown_models=True, is_marked=False) as api,
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
            yield ServedFlow(prefect_server, api, browser, found.json()["id"], folder)
        finally:
            worker.kill()
            worker.wait()


def test_a_table_is_pasted_into_the_form_and_its_videos_and_failures_are_in_the_artifacts(served: ServedFlow) -> None:
    served.api.fault("job-moderated", prompt=HARBOUR)
    output_dir = served.folder / "pasted"
    page = served.form()
    paste(page, "prompts", table_text([{"id": "cat", "prompt": CAT}, {"id": "harbour", "prompt": HARBOUR}]))
    page.get_by_role("tab", name="From the list").click()
    choose(page, page.get_by_role("button", name="Select From the list"), VIDU)
    page.get_by_label("output_dir").fill(str(output_dir))
    picture(page, "1-form")

    run_id = submit(page)
    served.wait_for(run_id, "Running", "Failed")
    page.goto(f"{served.url}/v2/runs/flow-run/{run_id}")
    picture(page, "2-running")
    run = served.wait_for(run_id, "Failed")

    assert run["parameters"]["model"] == VIDU
    assert run["parameters"]["budget_usd"] is None
    summary = "1 downloaded, 1 failed of 2 rows, $0.22, $0.22 held for failed jobs without a reported cost"
    assert run["state"]["message"].startswith(f"{summary}. row 3 (harbour) failed")
    assert [row["status"] for row in read_results(output_dir)] == ["downloaded", "failed"]
    open_artifact(page, served, run_id, "together-video-summary")
    expect(page.get_by_role("heading", name="1 downloaded, 1 failed of 2 rows")).to_be_visible()
    expect(page.get_by_text("Change the prompt or the pictures of these rows")).to_be_visible()
    expect(page.get_by_role("cell", name=VIDU)).to_be_visible()
    poster = page.get_by_role("img", name="cat", exact=True)
    expect(poster).to_be_visible()
    assert poster.evaluate("image => image.naturalWidth") > 100
    picture(page, "3-summary")
    open_artifact(page, served, run_id, "together-video-results")
    expect(page.get_by_role("cell", name="downloaded")).to_be_visible()
    expect(page.get_by_role("cell", name="failed", exact=True)).to_be_visible()
    picture(page, "4-results")
    page.context.close()


def test_a_model_that_is_not_listed_can_be_typed(served: ServedFlow) -> None:
    page = served.form()
    paste(page, "prompts", table_of(("fox", FOX), model=""))
    page.get_by_role("tab", name="Another id").click()
    page.get_by_role("tabpanel").get_by_role("textbox").first.fill("acme/dream-1")
    page.get_by_label("output_dir").fill(str(served.folder / "typed"))
    page.get_by_label("dry_run").click()

    run = served.wait_for(submit(page), "DryRun", "Failed")

    assert run["state"]["name"] == "DryRun", run["state"]["message"]
    assert run["parameters"]["model"] == "acme/dream-1"
    assert run["state"]["message"].endswith("1 of unknown price; nothing was sent")
    page.context.close()


def test_cards_are_closed_until_they_are_opened_and_what_is_set_in_one_reaches_the_run(served: ServedFlow) -> None:
    page = served.form()
    paste(page, "prompts", table_of(("fox", FOX)))
    page.get_by_label("dry_run").click()
    assert page.get_by_text('Property is type "None"').count() == 2  # no model, no budget
    assert page.get_by_label("max_in_flight").count() == page.get_by_label("credentials_block").count() == 0

    open_card(page, "limits")
    page.get_by_label("max_in_flight").fill("3")
    picture(page, "9-card")
    run = served.wait_for(submit(page), "DryRun", "Failed")

    assert run["state"]["name"] == "DryRun", run["state"]["message"]
    assert run["parameters"]["limits"]["max_in_flight"] == 3
    assert (run["parameters"]["parameters"], run["parameters"]["locations"]) == ({}, {})
    page.context.close()


def test_cancel_leaves_every_row_right_and_retry_goes_on_without_buying_twice(served: ServedFlow) -> None:
    run_id, output_dir, page = start_a_long_run(served)
    picture(page, "5-long-run")

    def cancel() -> None:
        in_menu(page, "Cancel")
        page.get_by_role("button", name="Cancel Flow Run").click()

    ask_for(page, run_id, cancel)
    served.wait_for(run_id, "Cancelled")

    see_in_artifacts(page, "together-video-summary")
    picture(page, "6-cancelled")
    page.context.close()
    assert {row["id"]: row["status"] for row in read_results(output_dir)} == {"fox": "downloaded", "long": "submitted"}

    served.wait_for_the_worker("Cancelled flow run")  # said later than the run says it, over whatever the state is then
    served.api.clear_faults()
    older = served.page(f"/runs/flow-run/{run_id}")

    def retry() -> None:
        older.get_by_role("button", name="Retry").click()
        picture(older, "7-retry")
        older.get_by_role("dialog").get_by_role("button", name="Retry").click()

    ask_for(older, run_id, retry)
    run = served.wait_for(run_id, "Completed", count=2)

    older.context.close()
    assert run["state"]["message"] == "2 downloaded of 2 rows, $0.56 ($0.00 in this run)"
    assert [row["status"] for row in read_results(output_dir)] == ["downloaded", "downloaded"]
    assert (served.api.accepted(FOX), served.api.accepted(LONG)) == (1, 1)


@pytest.mark.parametrize(("answer", "state", "sent"), [("approve", "Completed", 1), ("reject", "Cancelled", 0)])
def test_the_dialog_shows_the_plan_and_the_answer_is_followed(
    served: ServedFlow, answer: str, state: str, sent: int
) -> None:
    prompt = f"{CAT}, {answer}"
    run_id = start(served, table_of(("cat", prompt)), served.folder / answer, approve_above="0.1")
    served.wait_for(run_id, "Paused")
    page = served.page(f"/v2/runs/flow-run/{run_id}")

    def resume() -> None:
        in_menu(page, "Resume")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("$0.28 for 1 new video of 1 row. Nothing has been sent yet.")
        picture(page, f"8-{answer}")
        choose(page, dialog.get_by_role("button", name=re.compile("^Select")), answer)
        dialog.get_by_role("button", name="Resume").click()

    ask_for(page, run_id, resume)
    served.wait_for(run_id, state)

    page.context.close()
    assert served.api.accepted(prompt) == sent
