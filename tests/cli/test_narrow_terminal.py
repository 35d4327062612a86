"""What people read in a terminal of 80 columns: whole words, nothing twice, nothing of videos that are not known."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from prefect_together.cli.printing import listed_models
from prefect_together.cli.run_flow import said_if_slow
from prefect_together.request.catalogue import catalogue
from pseudo_terminal import Shown, in_terminal
from table_of_prompts import KEY, Harness, table_text

LONGEST = sorted((model.spec.id for model in listed_models()), key=len)[-8:]


def has_whole_words(shown: Shown, words: list[str]) -> None:
    """Every line of several words fits, and every word is in one of them in one piece."""
    assert [line for line in shown.lines if len(line) > 80 and len(line.split()) > 1] == []
    assert [word for word in words if not any(word in line.split() for line in shown.lines)] == []


@pytest.mark.parametrize("words", [(), ("--retired",)])
def test_the_list_of_models_has_each_id_in_one_piece(tmp_path: Path, words: tuple[str, ...]) -> None:
    known = [spec.id for spec in catalogue().values() if words or spec.retired is None]

    has_whole_words(in_terminal(tmp_path, "models", *words), known)


def test_the_plan_has_each_model_id_and_file_in_one_piece(tmp_path: Path) -> None:
    rows = [{"id": f"a-row-{i}", "prompt": "A cat asleep on a drum " * 9, "model": m} for i, m in enumerate(LONGEST)]

    shown = in_terminal(tmp_path, "plan", table_text(rows), "--no-catalogue-checks")

    has_whole_words(shown, [*LONGEST, *(f"videos/a-row-{i}.mp4" for i in range(len(LONGEST)))])


@pytest.mark.parametrize("command", ["generate", "video", "plan", "status", "models"])
def test_help_has_no_line_that_the_terminal_must_break(tmp_path: Path, command: str) -> None:
    has_whole_words(in_terminal(tmp_path, command, "--help"), [])


@pytest.mark.slow
def test_a_run_says_everything_once_and_in_whole_words(harness: Harness, tmp_path: Path) -> None:
    refused, moderated, fine = "A value too many", "A refused sight", "A cat asleep on a drum"
    harness.api.fault("422", prompt=refused)
    harness.api.fault("job-moderated", prompt=moderated)
    harness.api.fault("drop", prompt="A harbour")
    models = ["alibaba/happyhorse-1.1-t2v", "ByteDance/Seedance-1.0-lite", "minimax/video-01-director", "vidu/vidu-q1"]
    texts = [refused, moderated, fine, "A harbour at dawn"]
    rows = [{"id": m.split("/")[1], "prompt": text, "model": m} for text, m in zip(texts, models, strict=True)]
    table = table_text([*rows, {"id": "dear", "prompt": "A kite", "model": "google/veo-3.1"}])

    def run(*words: str) -> Shown:
        return in_terminal(
            tmp_path,
            *words,
            PREFECT_API_URL=harness.prefect.api_url,
            TOGETHER_API_KEY=KEY,
            TOGETHER_BASE_URL=harness.api.base_url,
        )

    shown = run("generate", table, "--output-dir", "out", "--budget-usd", "2")
    status = run("status", "out")

    assert shown.exit_code == 1
    assert "0 of 0" not in shown.text
    assert "nothing to do" not in shown.text
    errors = [line for line in shown.lines if " | ERROR " in line]
    assert sorted(line.split("Task run '")[1].split("'")[0] for line in errors) == [
        "create happyhorse-1.1-t2v",
        "create vidu-q1",
        "wait for Seedance-1.0-lite",
    ]
    first, *_ = report = shown.lines[next(i for i, line in enumerate(shown.lines) if " of 5 rows" in line) :]
    assert first.startswith("1 downloaded, 2 failed, 1 in doubt, 1 refused of 5 rows")
    assert [line for line in report if len(line) > 80 and "/" not in line] == []
    assert not any("error names" in line for line in report)
    has_whole_words(status, models)


def test_a_table_that_is_long_in_coming_is_said_to_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    with said_if_slow("reading the table", seconds=60):
        pass
    assert capfd.readouterr().err == ""

    with said_if_slow("reading the table", seconds=0):
        for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
            timer.join()
    said = capfd.readouterr().err
    assert said == "reading the table\n"
