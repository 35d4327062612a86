"""The key is nowhere in what a run leaves: output, logs, Prefect's database, ledger, results, page, artifacts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from prefect_server import PrefectServer
from prefect_together.credentials import TogetherCredentials
from table_of_prompts import FLOWS, KEY, MODEL, Harness, opened_harness, prompts

BLOCK_KEY = "tgp_v1_the-key-of-a-saved-block"


def files_with(words: str, places: Iterable[Path]) -> list[str]:
    """The files below these places, however they are named, whose bytes hold these words."""
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    return [str(file) for file in files if words.encode() in file.read_bytes()]


@dataclass(frozen=True)
class Left:
    """What one run over clips, failures, doubt and refusals left, with the SDK and Prefect logging all they can."""

    harness: Harness
    home: Path
    said: str
    logs: list[str]


@pytest.fixture(scope="module")
def left(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Left]:
    home = tmp_path_factory.mktemp("home")
    state = tmp_path_factory.mktemp("sandbox")
    with (
        pytest.MonkeyPatch.context() as environment,
        opened_harness(prefect_server, home / "out", environment, state_dir=state, file_host="localhost") as harness,
    ):
        harness.api.fault("job-moderated", prompt="moderated")
        harness.api.fault("drop-after", endpoint="create", prompt="dropped")
        harness.api.fault("500", endpoint="create", prompt="broken")
        harness.api.fault("echo-after", endpoint="create", prompt="echoed")
        harness.api.script("failed", code="upstream", message=f"sent with Bearer {KEY}", prompt="talkative")
        harness.api.fault("429", endpoint="create", count=1, prompt="limited")
        harness.api.fault("cut", endpoint="download", count=1)
        harness.api.fault("500", endpoint="retrieve", count=1)
        table = prompts(
            "A cat",
            "A moderated cat",
            "A dropped cat",
            "A broken cat",
            "A limited cat",
            "An echoed cat",
            "A talkative cat",
        )
        done = subprocess.run(
            [sys.executable, str(FLOWS / "generate_videos.py"), table, "--model", MODEL, "--output-dir", "out"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "PREFECT_HOME": str(home / "prefect"),
                "PREFECT_API_URL": prefect_server.api_url,
                "PREFECT_LOGGING_LEVEL": "DEBUG",
                "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
                "PREFECT_LOGGING_EXTRA_LOGGERS": "together,httpx,httpcore,aiohttp",
                "TOGETHER_LOG": "debug",
                "TOGETHER_API_KEY": KEY,
                "TOGETHER_BASE_URL": harness.api.base_url,
            },
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        yield Left(harness, home, done.stdout + done.stderr, prefect_server.all_logs())


def test_the_run_used_the_key_and_had_rows_of_every_end(left: Left) -> None:
    keys = {one.headers["authorization"] for one in left.harness.api.requests if one.endpoint in ("create", "retrieve")}

    assert keys == {f"Bearer {KEY}"}
    assert "2 downloaded, 2 failed, 3 in doubt of 7 rows" in left.said


def test_nothing_that_was_said_holds_the_key(left: Left) -> None:
    assert "sent with Bearer [key]" in left.said
    assert "Request options" in left.said  # the SDK did log its requests
    assert KEY not in left.said


def test_no_file_of_the_run_holds_the_key(left: Left) -> None:
    assert (left.home / "out" / "ledger.db").is_file()
    of_the_sandbox = files_with(KEY, [left.harness.api.settings.state_dir or left.home])

    assert files_with(KEY, [left.home]) == []
    assert [Path(file).name for file in of_the_sandbox] == ["jobs.jsonl"]  # has the script of the talkative job


def test_no_log_line_in_prefect_holds_the_key(left: Left) -> None:
    assert any("Request options" in line for line in left.logs)
    assert not any(KEY in line for line in left.logs)


def test_prefects_database_does_not_hold_the_key(left: Left) -> None:
    assert files_with("generate-videos", [left.harness.prefect.home])  # what is in the database can be found so
    assert files_with(KEY, [left.harness.prefect.home]) == []


def test_the_links_to_the_clips_are_followed_without_the_key(left: Left) -> None:
    of_clips = [request for request in left.harness.api.requests if request.endpoint in ("link", "download")]

    assert {request.endpoint for request in of_clips} == {"link", "download"}
    assert all("authorization" not in request.headers for request in of_clips)
    assert not any(KEY in str(request.headers) for request in of_clips)


def test_no_link_to_a_clip_is_logged(left: Left) -> None:
    own = [line for line in left.logs if line.startswith(("r1: ", "r5: "))]

    assert own
    assert not any("/shrt/" in line or "/files/" in line for line in own)


def test_a_saved_block_is_encrypted_at_rest_and_hidden_when_printed(prefect_server: PrefectServer) -> None:
    block = TogetherCredentials.model_validate({"api_key": BLOCK_KEY, "base_url": "https://example.com/of-the-block"})

    async def save_and_load() -> TogetherCredentials:
        await block.asave("at-rest", overwrite=True)
        return await TogetherCredentials.aload("at-rest")

    loaded = prefect_server.run(save_and_load)

    assert loaded.api_key.get_secret_value() == BLOCK_KEY
    assert BLOCK_KEY not in repr(loaded) + str(loaded) + loaded.model_dump_json()
    assert files_with("at-rest", [prefect_server.home])
    assert files_with(BLOCK_KEY, [prefect_server.home]) == []
