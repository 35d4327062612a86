"""Small prompt tables, and one run of the flow `generate_videos` over them inside the tests' process."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prefect_server import PrefectServer
from prefect_together.api.jobs import VideoJob
from prefect_together.grid.source import long_cells
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.sandbox import Sandbox
from prefect_together.table.plan import make_plan
from prefect_together.table.prompt_table import read_table
from repository import FLOWS

MODEL = "minimax/video-01-director"
PRICE_USD = 0.28
"""What the sandbox charges for a clip of MODEL, and the catalogue's estimate."""

KEY = "tgp_v1_a-key-that-nobody-may-ever-see"


def table_text(rows: Iterable[Mapping[str, object]]) -> str:
    """The rows as CSV, with every column that one of them has."""
    known = [dict(row) for row in rows]
    columns = list(dict.fromkeys(column for row in known for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(known)
    return text.getvalue()


def prompts(*texts: str) -> str:
    """A table of rows with the ids r1, r2 ... and these prompts."""
    return table_text({"id": f"r{number}", "prompt": text} for number, text in enumerate(texts, start=1))


def read_results(output_dir: Path) -> list[dict[str, str]]:
    """The rows of results.csv; none if it was not written."""
    if not (output_dir / "results.csv").exists():
        return []
    with (output_dir / "results.csv").open(newline="", encoding="utf-8-sig") as file, long_cells():
        return list(csv.DictReader(file))


@cache
def load_script(path: Path) -> Any:
    """A flow file as Prefect loads it: a top-level module of its own name. Loaded once for all tests."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Ended:
    """A flow run that has ended: its state, what is in it, and its rows in results.csv."""

    state: Any
    result: Any
    rows: list[dict[str, str]]

    @property
    def run_id(self) -> UUID:
        return self.state.state_details.flow_run_id

    @property
    def statuses(self) -> list[str]:
        return [row["status"] for row in self.rows]


@dataclass(frozen=True)
class Harness:
    """From where a test runs tables: a Prefect server, a sandbox in this process, and an output directory."""

    prefect: PrefectServer
    api: Sandbox
    output_dir: Path

    def run(self, table: str, **parameters: Any) -> Ended:
        """Run `flows/generate_videos.py`'s flow once more into the same output directory."""
        flow = load_script(FLOWS / "generate_videos.py").generate_videos
        given = {"model": MODEL, "output_dir": str(self.output_dir), **parameters}

        async def work() -> Ended:
            state = await flow(table, **given, return_state=True)
            result = await state.aresult(raise_on_failure=False)
            return Ended(state, result, read_results(Path(given["output_dir"])))

        return self.prefect.run(work)

    def learn_durations(self, seconds: float = 0.2, *, model: str = MODEL, count: int = 12) -> None:
        """Give the ledger jobs of an earlier table that took so long, so that this model's jobs are looked at soon."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        asyncio.run(_learn(self.output_dir, seconds, model, count))


@contextmanager
def opened_harness(
    prefect: PrefectServer, output_dir: Path, environment: pytest.MonkeyPatch, **sandbox: Any
) -> Generator[Harness]:
    """A harness with a sandbox of its own, whose jobs take no time; the environment names it and has a key for it.

    It is taken for the real service: it does not say that it is the sandbox.
    """
    own = {"retry_after_seconds": 0.05, "accept_unknown_models": True, "is_marked": False}
    settings: dict[str, Any] = {**own, **sandbox}
    with Sandbox(**settings) as api:
        environment.setenv("TOGETHER_API_KEY", KEY)
        environment.setenv("TOGETHER_BASE_URL", api.base_url)
        harness = Harness(prefect, api, output_dir)
        harness.learn_durations()
        yield harness


def paid_calls(harness: Harness) -> int:
    """Requests for videos that came to the service; asking it whether it is the sandbox is none."""
    return len(harness.api.requests) - harness.api.calls("whoami")


EARLIER = "an earlier run"


async def _learn(output_dir: Path, seconds: float, model: str, count: int) -> None:
    rows = table_text([{"id": EARLIER, "prompt": "What an earlier run made", "model": model, "count": count}])
    plan = make_plan(read_table(rows, catalogue_checks=False))
    async with open_ledger(str(output_dir / "ledger.db")) as ledger:
        await ledger.plan(list(plan.videos.values()))
        await asyncio.gather(*(_make(ledger, key, f"earlier-{key}", seconds) for key in plan.videos))


async def _make(ledger: Ledger, key: str, job_id: str, seconds: float) -> None:
    await ledger.claim(key)
    attempt = await ledger.intend(key, estimate_usd=0.0, budget_usd=None)
    job = VideoJob(job_id, "completed", cost_usd=0.0)
    await ledger.accepted(key, attempt, job)
    await ledger.completed(key, job, generation_seconds=seconds, polls=1)
    await ledger.downloaded(key, file=f"videos/{job_id}.mp4", size_bytes=1, sha256="", clip={})
