"""Clips that begin with a picture, end with one, or continue another clip: frames compared at the seams."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import pytest
from PIL import Image, ImageChops, ImageStat
from together import Together

from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.drawing import draw_clip, fit_picture
from prefect_together.sandbox.encoding import Inputs, encode_clip
from prefect_together.sandbox.jobs import ClipPlan
from sandbox_calls import HTTP

MODEL = "pixverse/pixverse-v6"
"""Without documented lengths and sizes: nothing small fails."""
WAN = "Wan-AI/wan2.7-i2v"
SMALL = ClipPlan(320, 192, 1.0, 12)
CLOSE = 3.0
"""How far apart the pixels of equal pictures may be on average, of 255: JPEG and H.264 lose a little."""
STEADY_SECONDS = 100


@pytest.fixture(scope="module")
def api() -> Generator[Sandbox]:
    with Sandbox(clip="render", render_processes=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def client(api: Sandbox) -> Generator[Together]:
    with Together(api_key="key", base_url=api.base_url, max_retries=0) as opened:
        yield opened


def finished(client: Together, prompt: str, *, model: str = MODEL, seconds: str = "1", **sent: Any) -> Any:
    """The job once it has ended."""
    size = {} if model == WAN else {"width": 320, "height": 192}
    job = client.videos.create(model=model, prompt=prompt, seconds=seconds, **size, **sent)
    deadline = time.monotonic() + STEADY_SECONDS
    while (seen := client.videos.retrieve(job.id)).status not in ("completed", "failed"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return seen


def link(job: Any) -> str:
    assert job.status == "completed", job.error
    return job.outputs.video_url


def frames(content: bytes | Path) -> list[Image.Image]:
    whole = content.read_bytes() if isinstance(content, Path) else content
    with av.open(io.BytesIO(whole), "r") as container:
        decoded = container.decode(container.streams.video[0])
        return [cast("Image.Image", frame.to_image()) for frame in decoded]  # pyright: ignore[reportUnknownMemberType]


def clip(job: Any) -> list[Image.Image]:
    return frames(HTTP.get(link(job)).content)


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def inline(picture: Image.Image) -> str:
    return base64.b64encode(jpeg(picture)).decode()


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far the pixels of two pictures of a size are apart, on average."""
    mean = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(mean) / len(mean)


def test_each_clip_of_a_chain_begins_with_the_last_frame_of_the_one_before(client: Together) -> None:
    shots = [clip(finished(client, "a lighthouse above the sea"))]
    for prompt in ("rain over a harbour", "a mountain road at sunset", "a rocket among stars"):
        sent = inline(shots[-1][-1])
        shots.append(clip(finished(client, prompt, media={"frame_images": [{"input_image": sent, "frame": "first"}]})))

    seams = [apart(before[-1], after[0]) for before, after in pairwise(shots)]
    assert max(seams) < CLOSE
    assert all(apart(shot[0], shot[-1]) > 10 for shot in shots[1:]), "its own scene comes in"
    assert len({len(shot) for shot in shots}) == 1


def test_a_clip_ends_with_the_last_frame_that_was_sent(client: Together) -> None:
    first, last = (Image.new("RGB", (320, 192), colour) for colour in ((200, 60, 20), (20, 60, 200)))

    shot = clip(finished(client, "the sea", media={"frame_images": [inline(first), inline(last)]}))

    assert apart(shot[0], first) < CLOSE
    assert apart(shot[-1], last) < CLOSE
    assert min(apart(shot[len(shot) // 2], picture) for picture in (first, last)) > 10


def test_the_own_scene_still_moves_between_the_pictures(client: Together) -> None:
    picture = inline(Image.new("RGB", (320, 192), (200, 60, 20)))

    shot = clip(finished(client, "the sea", seconds="2", media={"frame_images": [picture]}))

    assert apart(shot[-1], shot[-8]) > 0.05


def test_a_still_that_the_sandbox_made_is_taken_by_its_link(api: Sandbox, client: Together) -> None:
    made = client.images.generate(model="black-forest-labs/FLUX.2-pro", prompt="a fox", width=640, height=384, seed=3)
    (entry,) = made.data
    assert entry.type == "url"
    still = Image.open(io.BytesIO(HTTP.get(entry.url).content)).resize((320, 192), Image.Resampling.BILINEAR)
    asked_before = api.calls("link")

    shot = clip(finished(client, "a fox runs", media={"frame_images": [{"input_image": entry.url}]}))

    assert apart(shot[0], still) < CLOSE
    assert api.calls("link") == asked_before + 1, "only the clip's own link was fetched over the network"


@pytest.mark.parametrize("plan", [SMALL, ClipPlan(320, 192, 1.0, 12, webm=True), ClipPlan(320, 192, 0.1, 12)])
def test_any_container_and_length_begins_and_ends_with_the_pictures(tmp_path: Path, plan: ClipPlan) -> None:
    colours = ((200, 60, 20), (20, 60, 200))
    pictures = [Image.new("RGB", (320, 192), colour) for colour in colours]
    first, last = (fit_picture(plan, jpeg(picture)) for picture in pictures)
    path = tmp_path / f"clip{plan.suffix}"

    encode_clip(path, plan, draw_clip(plan, prompt="the sea", model=MODEL), Inputs(first, last))

    shot = frames(path)
    assert len(shot) == plan.frames
    assert apart(shot[0], pictures[0]) < CLOSE
    assert plan.frames == 1 or apart(shot[-1], pictures[1]) < CLOSE


def test_a_clip_with_a_picture_can_be_joined_to_one_without_by_copying(tmp_path: Path) -> None:
    """The stream's parameters are the same, whatever was sent."""
    own, picture = draw_clip(SMALL, prompt="the sea", model=MODEL), fit_picture(SMALL, jpeg(Image.new("RGB", (9, 9))))
    heads: list[bytes | None] = []
    for name, inputs in (("a.mp4", Inputs()), ("b.mp4", Inputs(picture, picture))):
        encode_clip(tmp_path / name, SMALL, own, inputs)
        with av.open(str(tmp_path / name)) as container:
            heads.append(container.streams.video[0].codec_context.extradata)

    assert heads[0] == heads[1] is not None


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n"])
def test_what_is_no_picture_is_left_out(content: bytes) -> None:
    assert fit_picture(SMALL, content) is None


def test_a_continuation_begins_with_the_clip_and_has_the_total_length(client: Together) -> None:
    job = finished(client, "a lighthouse above the sea", seconds="2")
    before = clip(job)

    longer = clip(
        finished(client, "rain comes", model=WAN, seconds="4", media={"frame_videos": [{"video": link(job)}]})
    )

    assert longer[0].size == before[0].size
    assert len(longer) == 2 * len(before)
    assert max(apart(old, new) for old, new in zip(before, longer, strict=False)) < CLOSE
    assert apart(longer[len(before) - 1], longer[-1]) > 10


def test_a_continuation_that_adds_nothing_fails(client: Together) -> None:
    source = link(finished(client, "a lighthouse above the sea", seconds="2"))

    job = finished(client, "rain comes", model=WAN, seconds="2", media={"frame_videos": [{"video": source}]})

    assert (job.status, job.error.code) == ("failed", "invalidDuration")


@pytest.mark.parametrize("field", ["frame_videos", "reference_videos", "source_video", "frame_images"])
def test_an_own_link_must_be_fresh(field: str) -> None:
    with Sandbox() as api, Together(api_key="key", base_url=api.base_url, max_retries=0) as client:
        if field == "frame_images":
            made = client.images.generate(model="black-forest-labs/FLUX.2-pro", prompt="a fox", width=256, height=256)
            (entry,) = made.data
            assert entry.type == "url"
            url = entry.url
        else:
            url = link(finished(client, "a lighthouse", seconds="2"))
        entry_of = {"frame_images": [{"input_image": url}], "source_video": url}
        media: Any = {field: entry_of.get(field, [{"video": url}])}

        fresh = finished(client, "goes on", seconds="5", media=media)
        api.expire_links()
        late = finished(client, "goes on", seconds="5", media=media)

    assert fresh.status == "completed"
    assert (late.status, late.error.code) == ("failed", "InvalidParameter")
    assert f"media.{field}" in late.error.message
    assert "the link has expired" in late.error.message


def test_addresses_elsewhere_are_not_fetched(client: Together) -> None:
    media: Any = {
        "frame_images": [{"input_image": "http://127.0.0.1:1/a.png"}],
        "reference_videos": [{"video": "http://127.0.0.1:1/a.mp4"}],
    }

    assert finished(client, "a lighthouse", media=media).status == "completed"


def test_the_pictures_of_a_clip_that_was_not_rendered_are_kept_over_a_restart(tmp_path: Path) -> None:
    picture = Image.new("RGB", (320, 192), (200, 60, 20))
    with Sandbox(clip="render", state_dir=tmp_path) as api, Together(api_key="key", base_url=api.base_url) as client:
        job = finished(client, "the sea", media={"frame_images": [inline(picture)]})
    for rendered in (tmp_path / "clips").glob("*.mp4"):
        rendered.unlink()

    with Sandbox(clip="render", state_dir=tmp_path) as api, Together(api_key="key", base_url=api.base_url) as client:
        deadline = time.monotonic() + STEADY_SECONDS
        while (seen := client.videos.retrieve(job.id)).status != "completed":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert apart(clip(seen)[0], picture) < CLOSE
