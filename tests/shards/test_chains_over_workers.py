"""Shots that continue each other, and stills, over several real workers: one continues what another has made."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from batch_run import wait_until
from many_workers import Site, running_site, worker_of
from prefect_together.films.frames import frame_image
from table_of_prompts import MODEL, read_results, table_text

pytestmark = [pytest.mark.scale, pytest.mark.postgres, pytest.mark.timeout(600)]

SECONDS = 240.0
CHAINS, SHOTS, STILLS = 4, 3, 2
VIDEOS = CHAINS * SHOTS


@pytest.fixture(scope="module")
def site(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    folder = tmp_path_factory.mktemp("site")
    name = f"site_{uuid.uuid4().hex[:8]}"
    with running_site(
        folder, postgres=postgres_url, generation_seconds="uniform:10:12", name=name, clip="render"
    ) as running:
        for _ in range(3):
            running.start_worker()
        yield running
        running.stop_workers()


@dataclass(frozen=True)
class Chains:
    """A table of chains of shots, each a film, the first of them with a still; nobody else has their prompts."""

    site: Site
    tag: str

    @property
    def output(self) -> Path:
        return self.site.folder / self.tag

    @property
    def shots(self) -> list[list[str]]:
        return [[f"c{chain}-{shot}" for shot in range(SHOTS)] for chain in range(CHAINS)]

    def start(self) -> uuid.UUID:
        """Its rows go by turns through the chains, so that the shards share each of them."""
        path = self.site.folder / f"{self.tag}.csv"
        rows = [
            {
                "id": f"c{chain}-{shot}",
                "film": f"film-{chain}",
                "model": MODEL,
                "prompt": f"Shot {shot} of chain {chain} of {self.tag}",
                "continues": f"c{chain}-{shot - 1}" if shot else "",
                "still_prompt": f"Still {chain} of {self.tag}" if not shot and chain < STILLS else "",
            }
            for shot in range(SHOTS)
            for chain in range(CHAINS)
        ]
        path.write_text(table_text(rows))
        where = {"prompts": str(path), "output_dir": str(self.output), "locations": {"ledger": self.site.ledger}}
        return self.site.start_run({**where, "limits": {"shards": 3, "max_in_flight": 6}})

    def sent(self) -> int:
        return sum(self.site.accepted(self.tag).values())

    def stills(self) -> list[str]:
        """The prompts of the pictures that were made."""
        made = (picture["prompt"] for picture in self.site.sandbox.control.images())
        return sorted(prompt for prompt in made if self.tag in prompt)

    def inputs(self) -> list[str]:
        """The names of the frames that were sent, as the ledger has them."""
        query = (
            "SELECT a.inputs FROM attempts a JOIN videos v USING (video_key)"  # noqa: S608
            f" WHERE a.inputs IS NOT NULL AND a.outcome = 'accepted' AND v.prompt LIKE '%{self.tag}'"
        )
        asked = subprocess.run(["psql", self.site.ledger, "-Atc", query], capture_output=True, text=True, check=True)
        return sorted(name for line in asked.stdout.splitlines() for name in json.loads(line))

    def assert_each_shot_was_made_once_and_continues_its_own(self) -> None:
        videos = self.output / "videos"
        assert {row["id"]: row["status"] for row in read_results(self.output)} == {
            one: "downloaded" for chain in self.shots for one in chain
        }
        assert dict(self.site.accepted(self.tag)) == {
            f"Shot {shot} of chain {chain} of {self.tag}": 1 for chain in range(CHAINS) for shot in range(SHOTS)
        }
        assert self.stills() == [f"Still {chain} of {self.tag}" for chain in range(STILLS)]
        for chain, shots in enumerate(self.shots):
            seams = [
                apart(frame_image(videos / f"{one}.mp4", "last"), frame_image(videos / f"{other}.mp4", "first"))
                for one, other in pairwise(shots)
            ]
            assert max(seams) < 4
            film = frames(self.output / "films" / f"film-{chain}.mp4")
            assert film == sum(frames(videos / f"{shot}.mp4") for shot in shots) - len(seams)


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures of one size are from each other in the worst channel, on average (0-255)."""
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def frames(clip: Path) -> int:
    with av.open(str(clip)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def chains(site: Site) -> Chains:
    return Chains(site, f"table-{uuid.uuid4().hex[:8]}")


def test_chains_and_stills_over_three_workers_are_made_once_and_joined(chains: Chains) -> None:
    run_id = chains.start()
    all_joined = wait_until(lambda: chains.site.joined() == 2, seconds=SECONDS, every_seconds=0.2)
    run = chains.site.wait_for(run_id, seconds=SECONDS)

    assert all_joined
    assert run.state.is_completed(), run.state.message
    assert run.state.message.startswith(f"{VIDEOS} downloaded of {VIDEOS} rows, {STILLS} of {STILLS} stills, ")
    chains.assert_each_shot_was_made_once_and_continues_its_own()
    of_shots = [f"@c{chain}-{shot}:last" for chain in range(CHAINS) for shot in range(SHOTS - 1)]
    inputs = chains.inputs()
    assert set(of_shots) <= set(inputs)
    assert len(inputs) == len(of_shots) + STILLS


def test_the_others_continue_the_chains_of_a_worker_that_is_killed(chains: Chains) -> None:
    """A create call that was on its way when it died is in doubt, and the shots after it wait."""
    run_id = chains.start()
    assert wait_until(lambda: chains.site.joined() == 2, seconds=SECONDS, every_seconds=0.2)
    assert wait_until(lambda: chains.sent() >= CHAINS, seconds=SECONDS, every_seconds=0.1)

    victim = worker_of(chains.site, chains.site.shards_of(run_id)[0])
    assert victim is not None
    victim.kill()
    chains.site.wait_for(run_id, seconds=SECONDS)

    statuses = {row["id"]: row["status"] for row in read_results(chains.output)}
    assert set(chains.site.accepted(chains.tag).values()) == {1}
    if "in_doubt" not in statuses.values():
        chains.assert_each_shot_was_made_once_and_continues_its_own()
    for shots in chains.shots:
        behind = [statuses[shot] for shot in shots]
        assert sorted(behind, key=["downloaded", "in_doubt", "planned"].index) == behind
        assert "planned" not in behind or "in_doubt" in behind
