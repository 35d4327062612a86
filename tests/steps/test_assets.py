"""The clips of a run as Prefect assets: as its client sends them, and as its server keeps them and acts on them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prefect import flow
from prefect.assets import Asset
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.events import Event

from batch_run import wait_until
from captured_events import captured_events, events_named
from prefect_server import PrefectServer
from prefect_together.request.request import VideoRequest
from prefect_together.steps.assets import FAILED, REFERENCED, SUCCEEDED, asset_key, upstream_keys
from repository import EXAMPLES, ROOT
from table_of_prompts import KEY, MODEL, PRICE_USD, Harness, load_script, opened_harness, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("/out/videos/cat.mp4", "file:///out/videos/cat.mp4"),
        ("/my videos/50% [a]~.mp4", "file:///my~20videos/50~25~20~5Ba~5D~7E.mp4"),
        ("/videos/ein Kätzchen 猫.mp4", "file:///videos/ein~20Kätzchen~20猫.mp4"),
        ("s3://bucket/a b/cat.mp4", "s3://bucket/a~20b/cat.mp4"),
        ("simplecache::S3://bucket/cat.mp4", "s3://bucket/cat.mp4"),
        ("sftp+x://***@host/cat.mp4", "sftpx://***@host/cat.mp4"),
    ],
)
def test_the_key_of_a_clip_can_be_read(uri: str, key: str) -> None:
    assert asset_key(uri) == key
    assert Asset(key=key).key == key


@example("://", "a::b://")
@given(st.text(st.characters(), max_size=700), st.text(st.characters(), max_size=700))
def test_every_path_and_url_has_a_key_of_its_own_that_prefect_takes(one: str, other: str) -> None:
    for root in ("/", "s3://bucket/"):
        keys = {asset_key(root + name) for name in (one, other)}

        assert [Asset(key=key).key.encode() for key in keys]
    assert (asset_key("s3://b/" + one) == asset_key("s3://b/" + other)) == (one == other)


def test_what_a_video_is_made_of_is_named_without_signatures_passwords_and_data() -> None:
    request = VideoRequest.model_validate(
        {
            "model": MODEL,
            "media": {
                "frame_images": ["https://me:secret@pictures.example/a cat.png?signature=abc".replace(" ", "%20")],
                "reference_images": ["data:image/png;base64,iVBORw0KGgo="],
                "source_video": "https://videos.example/in.mp4?token=abc#t=1",
            },
        }
    )

    assert list(upstream_keys(request)) == ["https://pictures.example/a~2520cat.png", "https://videos.example/in.mp4"]


@pytest.fixture
def captured() -> Generator[None]:
    with captured_events():
        yield


def materializations() -> dict[str, Event]:
    return {str(event.payload["row_id"]): event for event in events_named("prefect.asset.materialization.")}


@pytest.mark.usefixtures("captured")
def test_each_clip_that_the_run_tried_to_make_is_an_event_and_those_in_doubt_or_refused_are_none(
    harness: Harness,
) -> None:
    harness.api.fault("job-moderated", prompt="harbour")
    harness.api.fault("drop-after", endpoint="create", prompt="boat")

    ended = harness.run(prompts(CAT, HARBOUR, BOAT, "Too dear"), budget_usd=3 * PRICE_USD)

    assert ended.statuses == ["downloaded", "failed", "in_doubt", "refused"]
    found = materializations()
    assert {row: event.event for row, event in found.items()} == {"r1": SUCCEEDED, "r2": FAILED}
    clip = harness.output_dir / ended.rows[0]["file"]
    assert found["r1"].resource.id == asset_key(str(clip))
    assert found["r1"].payload == {
        "row_id": "r1",
        "take": 1,
        "model": MODEL,
        "seed": None,
        "file": str(clip),
        "job_id": ended.rows[0]["job_id"],
        "cost_usd": PRICE_USD,
        "sha256": hashlib.sha256(clip.read_bytes()).hexdigest(),
        "size_bytes": clip.stat().st_size,
    }
    assert f"prefect.flow-run.{ended.run_id}" in {related.id for related in found["r1"].related}
    assert all(word not in event.model_dump_json() for event in found.values() for word in (KEY, CAT, HARBOUR, BOAT))


@pytest.mark.slow
@pytest.mark.usefixtures("captured")
def test_a_clip_that_could_not_be_downloaded_has_failed_until_the_run_that_downloads_it(harness: Harness) -> None:
    harness.api.fault("no-url", endpoint="retrieve", count=None)
    harness.run(prompts(CAT), limits={"max_wait_minutes": 0.02})
    first = [event.event for event in events_named("prefect.asset.")]
    harness.api.clear_faults()

    harness.run(prompts(CAT))

    assert first == [FAILED]
    assert [event.event for event in events_named("prefect.asset.")] == [FAILED, SUCCEEDED]


@pytest.mark.usefixtures("captured")
def test_the_images_of_clips_are_related_and_each_is_referenced_once_in_a_run(harness: Harness, tmp_path: Path) -> None:
    picture = Path(shutil.copy(EXAMPLES / "images" / "hills.jpg", tmp_path / "my hills.jpg"))
    table = tmp_path / "prompts.csv"
    table.write_text(table_text({"prompt": text, "first_frame": picture.name} for text in (CAT, HARBOUR)))

    harness.run(str(table))

    key = asset_key(str(picture))
    assert [event.resource.id for event in events_named(REFERENCED)] == [key]
    upstream = [
        [related.id for related in event.related if related.role == "asset"] for event in materializations().values()
    ]
    assert upstream == [[key], [key]]


@pytest.mark.usefixtures("captured")
def test_a_clip_is_related_to_the_clip_that_it_continues_and_to_its_still(harness: Harness) -> None:
    harness.run("id,prompt,still_prompt,continues\na,It begins,A red boat,\nb,It goes on,,a\n")

    clip = [str(harness.output_dir / name) for name in ("stills/a.jpg", "videos/a.mp4", "videos/b.mp4")]
    made_of = {
        event.payload["file"]: [related.id for related in event.related if related.role == "asset"]
        for event in events_named(SUCCEEDED)
    }
    assert made_of == {clip[0]: [], clip[1]: [asset_key(clip[0])], clip[2]: [asset_key(clip[1])]}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_server_keeps_a_new_clip_once_and_runs_a_deployment_for_it(
    whole_prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = whole_prefect_server
    automations: Any = load_script(ROOT / "deployments" / "automations.py")

    @flow(name="archive")
    def archive(clip: str) -> None: ...

    async def set_up() -> Any:
        async with get_client() as client:
            flow_id = await client.create_flow(archive)
            deployment_id = await client.create_deployment(flow_id, name="production")
        await automations.run_for_each_clip("archive/production")
        return deployment_id

    async def started() -> list[Any]:
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]))
        async with get_client() as client:
            return await client.read_flow_runs(flow_run_filter=wanted)

    deployment_id = server.run(set_up)
    with opened_harness(server, tmp_path / "my out", monkeypatch) as harness:
        ended = harness.run(prompts(CAT, HARBOUR))
        again = harness.run(prompts(CAT, HARBOUR, BOAT))

    assert (ended.statuses, again.statuses) == (["downloaded"] * 2, ["downloaded"] * 3)
    events = server.events("prefect.asset.", count=3)
    files = [str(tmp_path / "my out" / row["file"]) for row in again.rows]
    assert sorted((event.event, event.resource.id) for event in events) == [
        (SUCCEEDED, asset_key(file)) for file in sorted(files)
    ]
    assert {event.payload["job_id"] for event in events} == {row["job_id"] for row in again.rows}
    assert {event.payload["cost_usd"] for event in events} == {PRICE_USD}
    assert wait_until(lambda: len(server.run(started)) == 3, seconds=60, every_seconds=0.5)
    assert sorted(run.parameters["clip"] for run in server.run(started)) == sorted(files)
    assert server.run(automations.remove_automations) == [automations.EACH_CLIP]
