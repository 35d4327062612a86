"""SIGKILL at each step of the way of a paid video, one after the other: nothing is paid twice, nothing paid is lost."""

from __future__ import annotations

import csv
import uuid
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from batch_run import WarmRuns, write_table
from kill_points import KILL_AT
from prefect_together.sandbox import SandboxProcess

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]

ROWS = 3
SECONDS = 60.0

BEFORE_SENDING = [
    "enter ledger/transitions.py intend 2",
    "leave ledger/transitions.py intend 2",
]
"""The intent is not yet durable: nothing can have been sent for the row."""
UNANSWERED = [
    "enter api/client.py create 2",
    "enter aiohttp/client_reqrep.py send 2",
    "enter aiohttp/client_reqrep.py start 2",
    "enter ledger/transitions.py accepted|_accept 2",
    "leave ledger/transitions.py accepted|_accept 2",
]
"""From the durable intent to the durable id: the row may have been accepted, and nobody can know."""
ACCEPTED = [
    "enter ledger/transitions.py completed 1",
    "leave ledger/transitions.py completed 1",
    "enter clips/part_file.py open 1",
    "enter clips/part_file.py append 1",
    "leave clips/part_file.py append 1",
    "enter clips/part_file.py publish 1",
    "leave clips/part_file.py publish 1",
    "enter ledger/transitions.py downloaded 1",
    "leave ledger/transitions.py downloaded 1",
    "enter results/outputs.py write_outputs 1",
    "enter results/outputs.py results_page 1",
    "leave results/outputs.py results_page 1",
]
"""After the id is durable: every row ends downloaded, or in doubt if it was another row's create call that was cut."""


@pytest.fixture(scope="module")
def sandbox() -> Generator[SandboxProcess]:
    with SandboxProcess(arguments=["--generation-seconds", "uniform:0.2:0.4", "--clip", "tiny"]) as process:
        yield process


@pytest.mark.parametrize("point", [*BEFORE_SENDING, *UNANSWERED, *ACCEPTED])
def test_a_kill_at_this_point_pays_nothing_twice_and_loses_nothing(
    runs: WarmRuns, sandbox: SandboxProcess, tmp_path: Path, point: str
) -> None:
    tag = uuid.uuid4().hex[:8]
    write_table(tmp_path / "table.csv", rows=ROWS, prompt=tag)
    words = (str(tmp_path / "table.csv"), "--output-dir", str(tmp_path / "out"), "--max-in-flight", "2")

    killed = runs.start(*words, log=tmp_path / "killed.log", environment={KILL_AT: point})
    assert killed.wait(SECONDS) == -9, killed.log.read_text()
    last = runs.start(*words, log=tmp_path / "last.log")
    code = last.wait(SECONDS)

    accepted = accepted_of(sandbox, tag)
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = {line["prompt"]: line for line in csv.DictReader(file)}
    states = Counter(line["status"] for line in lines.values())
    assert states.keys() <= {"downloaded", "in_doubt"}, last.log.read_text()
    assert states["in_doubt"] <= (0 if point in BEFORE_SENDING[:1] else 2)
    assert code == (1 if states["in_doubt"] else 0)
    assert len(lines) == ROWS
    for prompt, line in lines.items():
        assert accepted[prompt] == 1 or (accepted[prompt] == 0 and line["status"] == "in_doubt"), line
        assert line["status"] == "in_doubt" or (tmp_path / "out" / line["file"]).stat().st_size > 0


@pytest.mark.parametrize(
    "point",
    [
        "enter ledger/transitions.py _intend 1",
        "leave ledger/transitions.py _intend 1",
        "leave ledger/transitions.py _accept 1",
        "enter api/session.py download_still 1",
        "enter clips/part_file.py publish 1",
        "leave clips/part_file.py publish 1",
        "enter ledger/transitions.py completed 1",
        "leave ledger/transitions.py completed 1",
        "leave ledger/transitions.py downloaded 1",
    ],
)
def test_a_kill_at_this_point_pays_no_still_twice_and_loses_none(
    runs: WarmRuns, sandbox: SandboxProcess, tmp_path: Path, point: str
) -> None:
    tag = uuid.uuid4().hex[:8]
    row = f"boat,{tag} It sails,{tag} A red boat,minimax/video-01-director"
    (tmp_path / "table.csv").write_text(f"id,prompt,still_prompt,model\n{row}\n")
    words = (str(tmp_path / "table.csv"), "--output-dir", str(tmp_path / "out"))

    killed = runs.start(*words, log=tmp_path / "killed.log", environment={KILL_AT: point})
    assert killed.wait(SECONDS) == -9, killed.log.read_text()
    last = runs.start(*words, log=tmp_path / "last.log")
    code = last.wait(SECONDS)

    stills: dict[str, int] = sandbox.control.stats()["images_by_prompt"]
    made, videos = stills.get(f"{tag} A red boat", 0), accepted_of(sandbox, tag)
    assert (made, videos.total(), code) in ((1, 1, 0), (1, 0, 1), (0, 0, 1)), last.log.read_text()
    assert code == 0 or "still in doubt" in last.log.read_text()
    assert code == 0 or "_accept" in point or "_intend" in point


def accepted_of(sandbox: SandboxProcess, tag: str) -> Counter[str]:
    """The service's own count of accepted jobs by prompt."""
    by_prompt: dict[str, int] = sandbox.control.stats()["accepted_by_prompt"]
    return Counter({prompt: count for prompt, count in by_prompt.items() if tag in prompt})
