"""A whole run whose output directory is in S3: clips and results there, the ledger here, nothing bought twice."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from prefect_server import PrefectServer
from prefect_together.cli.commands import main
from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore
from prefect_together.sandbox import Sandbox
from s3_server import bucket, endpoint
from table_of_prompts import FLOWS, KEY, MODEL, load_script, prompts

__all__ = ["bucket", "endpoint"]

pytestmark = [
    pytest.mark.s3,
    pytest.mark.timeout(600),
    # s3fs keeps its connections until its process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"


class Remote:
    """Runs of the flow into one prefix of the bucket, from one machine with a state directory of its own."""

    def __init__(self, prefect: PrefectServer, api: Sandbox, url: str) -> None:
        self.prefect, self.api, self.url = prefect, api, url

    @property
    def store(self) -> OutputStore:
        return open_store(self.url)

    def run(self, table: str, **parameters: Any) -> Any:
        """The state in which a run ends."""
        flow = load_script(FLOWS / "generate_videos.py").generate_videos

        async def work() -> Any:
            return await flow(table, model=MODEL, output_dir=self.url, return_state=True, **parameters)

        return self.prefect.run(work)

    def results(self) -> list[dict[str, str]]:
        content = self.read("results.csv")
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))

    def read(self, name: str) -> bytes:
        return s3().cat_file(f"{self.url}/{name}")

    def names(self) -> set[str]:
        return {path.partition(self.url.removeprefix("s3://") + "/")[2] for path in s3().find(self.url)}


def s3() -> Any:
    """A file system of its own, that remembers no listings."""
    return pytest.importorskip("s3fs").S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture
def remote(
    prefect_server: PrefectServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Remote]:
    with Sandbox(accept_unknown_models=True) as api:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "data"))
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        monkeypatch.setenv("TOGETHER_BASE_URL", api.base_url)
        yield Remote(prefect_server, api, f"s3://{bucket}/{tmp_path.name}")


def test_a_run_into_s3_leaves_clips_results_and_page_there_and_the_ledger_here(remote: Remote, tmp_path: Path) -> None:
    state = remote.run(prompts(CAT, HARBOUR))

    assert state.is_completed(), state.message
    assert remote.names() == {"videos/r1.mp4", "videos/r2.mp4", "results.csv", "videos.csv", "index.html"}
    assert remote.read("videos/r1.mp4")[4:8] == b"ftyp"
    assert [row["status"] for row in remote.results()] == ["downloaded"] * 2
    assert (remote.store.local_dir / "ledger.db").is_file()
    assert remote.store.local_dir.is_relative_to(tmp_path / "data")
    assert list((remote.store.local_dir / "videos").glob("*.mp4*")) == []


def test_a_second_run_from_the_same_machine_sends_nothing(remote: Remote) -> None:
    remote.run(prompts(CAT, HARBOUR))
    before, requests = remote.results(), len(remote.api.requests) - remote.api.calls("whoami")

    state = remote.run(prompts(CAT, HARBOUR))

    assert state.is_completed()
    assert len(remote.api.requests) - remote.api.calls("whoami") == requests
    assert remote.results() == before


def test_a_clip_deleted_from_the_bucket_is_fetched_again_without_a_post(remote: Remote) -> None:
    remote.run(prompts(CAT))
    s3().rm_file(f"{remote.url}/videos/r1.mp4")

    state = remote.run(prompts(CAT))

    assert state.is_completed()
    assert "videos/r1.mp4" in remote.names()
    assert remote.api.calls("create") == 1


def test_the_keys_of_the_bucket_are_in_nothing_that_a_run_leaves(remote: Remote) -> None:
    remote.run(prompts(CAT))

    left = [remote.read(name) for name in ("results.csv", "index.html")]
    left += [path.read_bytes() for path in remote.store.local_dir.rglob("*") if path.is_file()]
    for secret in (os.environ["AWS_SECRET_ACCESS_KEY"], KEY):
        assert not any(secret.encode() in content for content in left)


def test_chains_that_begin_with_a_still_are_made_and_joined_in_the_bucket(
    remote: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (
        "id,film,prompt,continues,still_prompt\n"
        "one,harbour,The mist lifts,,A harbour at dawn\ntwo,harbour,A boat leaves,one,\n"
    )

    first = remote.run(table)
    names = remote.names()
    film = remote.read("films/harbour.mp4")
    again = remote.run(table)

    assert first.is_completed(), first.message
    assert again.is_completed(), again.message
    assert {"videos/one.mp4", "videos/two.mp4", "stills/one.jpg", "films/harbour.mp4"} <= names
    assert (remote.api.calls("create"), len(remote.api.images())) == (2, 1)
    assert remote.read("films/harbour.mp4") == film

    s3().rm_file(f"{remote.url}/films/harbour.mp4")
    assert main(["join", remote.url]) == 0
    assert "films/harbour.mp4" in capsys.readouterr().out
    assert remote.read("films/harbour.mp4")[4:8] == b"ftyp"
