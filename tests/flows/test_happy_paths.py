"""Text, keyframe, failure and resume from table to file: in the sandbox, and as they stand on the real service.

`make live` runs them against the service (TOGETHER_LIVE=1 and a key) on the cheapest listed model. All of them share
one ledger with a budget of one dollar: what would pass it is refused, not sent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prefect_server import PrefectServer
from prefect_together.request.catalogue import estimate_usd
from prefect_together.request.form import Limits, Locations
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox
from repository import ROOT
from table_of_prompts import KEY, Ended, Harness, table_text

CHEAPEST = "ByteDance/Seedance-1.0-lite"
BUDGET_USD = 1.0
LIVE_MINUTES = 20.0


@dataclass(frozen=True)
class Service:
    """The service to buy from, the sandbox or the real one, with the ledger that all tests of this file share."""

    prefect: PrefectServer
    sandbox: Sandbox | None
    place: Path

    @property
    def wait_minutes(self) -> float:
        """How long a job may take."""
        return 1.0 if self.sandbox else LIVE_MINUTES

    def run(
        self, name: str, table: str, *, max_wait_minutes: float | None = None, image_directory: Path | None = None
    ) -> Ended:
        """Run a table into the output directory `name`, within what is left of the dollar."""
        harness = Harness(self.prefect, self.sandbox, self.place / name)  # pyright: ignore[reportArgumentType]  # runs only
        directory = None if image_directory is None else str(image_directory)
        return harness.run(
            table,
            model=CHEAPEST,
            budget_usd=BUDGET_USD,
            limits=Limits(max_wait_minutes=max_wait_minutes or self.wait_minutes),
            locations=Locations(ledger=str(self.place / "ledger.db"), image_directory=directory),
        )


@pytest.fixture(scope="module", params=["sandbox", pytest.param("live", marks=pytest.mark.live)])
def service(
    request: pytest.FixtureRequest, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Service]:
    place = tmp_path_factory.mktemp("happy")
    if request.param == "live":
        if os.environ.get("TOGETHER_LIVE") != "1" or not os.environ.get("TOGETHER_API_KEY"):
            pytest.skip("buys videos: set TOGETHER_LIVE=1 and TOGETHER_API_KEY, as `make live` does")
        yield Service(prefect_server, None, place)
        return
    with Sandbox(generation_seconds=0.5) as sandbox, pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOGETHER_API_KEY", KEY)
        environment.setenv("TOGETHER_BASE_URL", sandbox.base_url)
        Harness(prefect_server, sandbox, place).learn_durations(0.5, model=CHEAPEST)
        yield Service(prefect_server, sandbox, place)


def clip(service: Service, name: str, row_id: str) -> Path:
    return service.place / name / "videos" / f"{row_id}.mp4"


def test_a_prompt_becomes_a_checked_clip(service: Service) -> None:
    ended = service.run("text", table_text([{"id": "boat", "prompt": "A paper boat on a rainy street"}]))

    assert ended.statuses == ["downloaded"], ended.rows
    assert ended.state.is_completed()
    assert clip(service, "text", "boat").stat().st_size > 1000
    assert float(ended.rows[0]["cost_usd"]) <= 2 * (price_usd() or 0.0)


def test_a_keyframe_becomes_a_checked_clip(service: Service) -> None:
    service.place.joinpath("hills.jpg").write_bytes((ROOT / "examples" / "images" / "hills.jpg").read_bytes())
    table = table_text([{"id": "hills", "prompt": "The sun sinks behind the hills", "first_frame": "hills.jpg"}])

    ended = service.run("keyframe", table, image_directory=service.place)

    assert ended.statuses == ["downloaded"], ended.rows
    assert clip(service, "keyframe", "hills").stat().st_size > 1000


def test_what_the_service_refuses_fails_with_its_reason_and_is_not_sent_again(service: Service) -> None:
    table = table_text([{"id": "nobody", "prompt": "A cat", "model": "nobody/no-such-model", "price_usd": "0.01"}])

    first = service.run("failure", table)
    second = service.run("failure", table)

    assert first.statuses == second.statuses == ["failed"], first.rows
    assert first.rows[0]["error"]
    assert second.rows[0]["attempts"] == first.rows[0]["attempts"]
    assert first.state.is_failed()


def test_a_run_that_left_its_job_is_resumed_without_a_second_purchase(service: Service) -> None:
    table = table_text([{"id": "harbour", "prompt": "A harbour at dawn, slow pan"}])

    left = service.run("resume", table, max_wait_minutes=0.001)
    done = service.run("resume", table)

    assert left.statuses == ["submitted"], left.rows
    assert left.state.name == "StillGenerating"
    assert done.statuses == ["downloaded"], done.rows
    assert done.rows[0]["job_id"] == left.rows[0]["job_id"]
    assert done.rows[0]["attempts"] == "1"


def test_the_dollar_holds_over_all_of_them(service: Service) -> None:
    many = table_text([{"id": "too-much", "prompt": "Ten takes of a lighthouse", "price_usd": "1.01"}])

    ended = service.run("too-much", many)

    assert ended.statuses == ["refused"], ended.rows
    assert "budget" in ended.rows[0]["error"]


def price_usd(model: str = CHEAPEST) -> float | None:
    """The most that the catalogue says a default clip costs."""
    estimate = estimate_usd(VideoRequest(model=model, prompt="x"))
    return estimate.high_usd if estimate else None


def test_the_model_is_cheap_enough_to_try_it_all_for_a_dollar() -> None:
    price = price_usd()

    assert price is not None
    assert 4 * price < BUDGET_USD


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_live_without_a_key_stops_before_anything_is_bought() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOGETHER_")}

    done = subprocess.run(
        ["make", "--assume-old=.venv/ready", "live"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 2
    assert "TOGETHER_API_KEY" in done.stderr
    assert "pytest" not in done.stdout
