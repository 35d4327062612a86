"""The sandbox's clips: what was asked for is what is in the file, whatever the prompt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import av
import httpx
import psutil
import pytest
from av.video.frame import VideoFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFont, ImageStat

from prefect_together.clips.inspection import inspect_clip
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.drawing import SCENE_SHARE, draw_clip, readable, strip_top, wrap
from prefect_together.sandbox.encoding import encode_clip
from prefect_together.sandbox.jobs import ClipPlan, plan_clip
from prefect_together.sandbox.models import facts_of
from prefect_together.sandbox.scenes import kind_of, scene_of
from prefect_together.sandbox.studio import Studio

MODEL = "minimax/video-01-director"
FREE_MODEL = "pixverse/pixverse-v6"
"""A model without documented lengths and sizes: nothing small fails."""

SMALL = ClipPlan(320, 192, 1.0, 12)


def made(folder: Path, plan: ClipPlan, *, prompt: str = "a lighthouse") -> Path:
    path = folder / f"clip{plan.suffix}"
    encode_clip(path, plan, draw_clip(plan, prompt=prompt, model=MODEL))
    return path


def frames_of(path: Path) -> list[VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plan(**request: Any) -> ClipPlan:
    facts = facts_of(request.setdefault("model", MODEL), accept_unknown=True)
    assert facts is not None
    return plan_clip(request, facts)


@pytest.mark.parametrize(
    "plan",
    [
        ClipPlan(1366, 768, 5, 25),
        ClipPlan(1366, 768, 5, 25, audio=True),
        ClipPlan(270, 360, 2.5, 16, audio=True),
        ClipPlan(640, 360, 1, 24, webm=True, audio=True),
        ClipPlan(640, 360, 7, 30),
        ClipPlan(16, 16, 1, 1),
    ],
)
def test_a_clip_has_the_size_length_rate_and_sound_asked_for(tmp_path: Path, plan: ClipPlan) -> None:
    path = made(tmp_path, plan)

    facts = inspect_clip(path)
    assert (facts.width, facts.height, facts.has_audio) == (plan.width, plan.height, plan.audio)
    assert facts.container == ("webm" if plan.webm else "mp4")
    assert facts.duration_seconds == pytest.approx(plan.seconds, abs=0.03)  # pyright: ignore[reportUnknownMemberType]
    assert facts.fps == pytest.approx(plan.fps, abs=0.01)  # pyright: ignore[reportUnknownMemberType]
    assert len(frames_of(path)) == plan.frames
    assert path.stat().st_size < 400_000


def test_an_mp4_starts_with_its_index_and_is_h264_in_420(tmp_path: Path) -> None:
    path = made(tmp_path, SMALL)

    content = path.read_bytes()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert content.index(b"moov") < content.index(b"mdat")


def test_two_clips_of_a_size_differ_in_their_words_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first = frames_of(made(tmp_path / "a", SMALL, prompt="one lighthouse"))
    second = frames_of(made(tmp_path / "b", SMALL, prompt="a wholly different harbour"))

    for index in (0, 5, 11):
        upper, lower = _halves(first[index]), _halves(second[index])
        assert _distance(upper[0], lower[0]) > 1
        assert _distance(upper[1], lower[1]) < 1


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("A fishing harbour at dawn", "sea"),
        ("a paper boat in heavy rain", "rain"),
        ("a red fox in the snow", "snow"),
        ("A mountain road at sunset", "hills"),
        ("a rocket among stars", "night"),
        ("A cat asleep on a drum", "lights"),
    ],
)
def test_the_words_of_a_prompt_choose_its_scene(prompt: str, kind: str) -> None:
    assert draw_clip(SMALL, prompt=prompt, model=MODEL).scene == scene_of(prompt, 320, 115)
    assert kind_of(prompt) == kind


@pytest.mark.parametrize("plan", [ClipPlan(640, 368, 2, 12), ClipPlan(368, 640, 2, 12)])
@pytest.mark.parametrize("prompt", ["harbour", "rain", "snow", "mountain", "stars", "lamp"])
def test_the_scene_moves_and_all_below_it_stays_in_every_clip_of_its_kind(
    tmp_path: Path, plan: ClipPlan, prompt: str
) -> None:
    """Its moving frames are encoded once for all clips: with other words and colours they must fit as well."""
    made(tmp_path, plan, prompt=prompt)

    frames = frames_of(made(tmp_path, plan, prompt=f"{prompt} again, in some other words and other colours"))

    scene = scene_of(prompt, plan.width, round(strip_top(plan.height) * SCENE_SHARE))
    assert scene is not None
    first, middle = (_image(frames[number]) for number in (0, 11))
    assert _difference(first, middle, (0, 0, plan.width, scene.ground)) > 0.1
    assert _difference(first, middle, (0, scene.ground, plan.width, strip_top(plan.height))) < 0.1


def test_the_mark_moves_and_the_words_stay(tmp_path: Path) -> None:
    frames = frames_of(made(tmp_path, ClipPlan(320, 90, 1.0, 12)))  # too low for a scene

    first, later = (_image(frame) for frame in (frames[0], frames[6]))
    assert _difference(first, later, (0, 0, 320, 48)) < 1
    assert _difference(first, later, (0, 48, 320, 90)) > 5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(max_size=300))
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    planes = draw_clip(SMALL, prompt=prompt, model=MODEL)

    assert len(planes.luma) == 320 * 192


@pytest.mark.parametrize(
    "prompt", ["\0\x07", "\ud800 half", "🎬👩‍👩‍👧‍👦 film", "שלום עולם", "风景", "a" * 20_000, "a b " * 8000, "\n" * 500]
)
def test_odd_prompts_can_be_drawn(prompt: str) -> None:
    planes = draw_clip(ClipPlan(1366, 768, 5, 25), prompt=prompt, model=MODEL)

    assert len(planes.luma) >= 1366 * 768


def test_long_words_are_broken_and_long_texts_cut_with_an_ellipsis() -> None:
    font = ImageFont.load_default(20)

    lines = wrap("short " + "x" * 200 + " tail" * 100, font, width=200, max_lines=6)

    assert len(lines) == 6
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 200 for line in lines)


def test_control_characters_do_not_reach_the_font() -> None:
    assert readable("a\0b\x1bc\ud800d\n\u200de") == "a b cd\n\u200de"


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        ({}, (1366, 768)),
        ({"width": 641, "height": 359}, (640, 360)),
        ({"width": 0, "height": 0}, (1366, 768)),
        ({"width": 683}, (684, 384)),
        ({"model": "Wan-AI/wan2.7-t2v"}, (1920, 1080)),
        ({"model": "Wan-AI/wan2.7-t2v", "resolution": "720P", "ratio": "4:3"}, (1104, 832)),
        ({"model": "Wan-AI/wan2.7-t2v", "resolution": "1080P", "ratio": "9:16"}, (1080, 1920)),
        ({"model": "ByteDance/Seedance-2.0", "resolution": "480p"}, (854, 480)),
        ({"model": "ByteDance/Seedance-2.0", "resolution": "4k"}, (3840, 2160)),
        ({"model": "ByteDance/Seedance-2.0", "resolution": "720p", "ratio": "21:9"}, (1680, 720)),
        ({"model": "ByteDance/Seedance-2.0", "resolution": "720p", "ratio": "1:1"}, (720, 720)),
        ({"model": "MiniMaxAI/MiniMax-H3", "resolution": "2k"}, (2560, 1440)),
        ({"model": "black-forest-labs/FLUX-3", "resolution": "fhd", "ratio": "auto"}, (1920, 1080)),
        ({"model": "model", "resolution": "resolution", "ratio": "ratio"}, (1366, 768)),
    ],
)
def test_the_size_follows_pixels_or_resolution_and_ratio(request_: dict[str, Any], size: tuple[int, int]) -> None:
    made = plan(**request_)

    assert (made.width, made.height) == size


def test_what_is_not_asked_for_is_the_models_own() -> None:
    director, seedance, flux = plan(), plan(model="ByteDance/Seedance-2.0"), plan(model="black-forest-labs/FLUX-3")

    assert (director.seconds, director.fps, director.audio) == (5, 25, False)
    assert (seedance.seconds, seedance.fps, seedance.audio) == (5, 24, True)
    assert flux.audio
    assert not plan(model="ByteDance/Seedance-2.0", settings={"audio": False}).audio
    assert not plan(model="black-forest-labs/FLUX-3", generate_audio=False).audio
    assert plan(model="ByteDance/Seedance-2.5", generate_audio=False).audio
    assert plan(output_format="WEBM", seconds="8", fps=30) == ClipPlan(1366, 768, 8, 30, webm=True)


def test_a_rendered_job_completes_once_its_clip_is_there() -> None:
    with Sandbox(clip="render", generation_seconds=0, render_processes=1) as api, httpx.Client() as http:
        http.headers["authorization"] = "Bearer key"
        body = {"model": FREE_MODEL, "prompt": "a lighthouse", "width": 320, "height": 192, "seconds": "1"}
        job_id = http.post(f"{api.base_url}/v2/videos", json=body).json()["id"]
        first = http.get(f"{api.base_url}/v2/videos/{job_id}").json()
        deadline = time.monotonic() + 100
        while (job := http.get(f"{api.base_url}/v2/videos/{job_id}").json())["status"] != "completed":
            assert time.monotonic() < deadline

        clip = http.get(job["outputs"]["video_url"], follow_redirects=True)

    assert first["status"] == "in_progress"
    assert clip.content[4:8] == b"ftyp"


def test_a_scripted_job_needs_no_wait_and_its_file_waits_for_the_rendering() -> None:
    with Sandbox(clip="render", render_processes=1) as api, httpx.Client() as http:
        http.headers["authorization"] = "Bearer key"
        api.script("completed")
        body = {"model": FREE_MODEL, "prompt": "a lighthouse", "width": 320, "height": 192, "seconds": "1"}

        job_id = http.post(f"{api.base_url}/v2/videos", json=body).json()["id"]
        job = http.get(f"{api.base_url}/v2/videos/{job_id}").json()
        clip = http.get(job["outputs"]["video_url"], follow_redirects=True, timeout=100)

    assert job["status"] == "completed"
    assert clip.content[4:8] == b"ftyp"


def test_shared_clips_are_rendered_once_for_each_size() -> None:
    with Sandbox(clip="shared", render_processes=1) as api, httpx.Client() as http:
        http.headers["authorization"] = "Bearer key"
        links: list[str] = []
        for prompt, width in (("a", 320), ("b", 320), ("c", 480)):
            api.script("completed")
            body = {"model": FREE_MODEL, "prompt": prompt * 5, "width": width, "height": 192, "seconds": "1"}
            job_id = http.post(f"{api.base_url}/v2/videos", json=body).json()["id"]
            links.append(http.get(f"{api.base_url}/v2/videos/{job_id}").json()["outputs"]["video_url"])
        clips = [http.get(link, follow_redirects=True, timeout=100).content for link in links]

    assert clips[0] == clips[1] != clips[2]


async def test_the_clip_that_is_due_first_is_made_first(tmp_path: Path) -> None:
    done: list[str] = []
    finished = asyncio.Event()

    def on_done(job_id: str, problem: str | None) -> None:
        assert problem is None
        done.append(job_id)
        if len(done) == 4:
            finished.set()

    studio = Studio(on_done, processes=1)
    for name, due_at in (("c", 3.0), ("d", 4.0), ("a", 1.0), ("b", 2.0)):
        await studio.order(name, path=tmp_path / f"{name}.mp4", plan=SMALL, prompt=name, model=MODEL, due_at=due_at)
    await asyncio.wait_for(finished.wait(), 100)
    await studio.close()

    assert done == ["a", "b", "c", "d"]
    assert names_in(tmp_path) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


async def test_a_renderer_that_is_killed_loses_no_clip(tmp_path: Path) -> None:
    done: list[tuple[str, str | None]] = []
    finished = asyncio.Event()

    def on_done(job_id: str, problem: str | None) -> None:
        done.append((job_id, problem))
        for child in psutil.Process().children():
            if "render_worker" in " ".join(child.cmdline()):
                child.kill()
        if len(done) == 3:
            finished.set()

    studio = Studio(on_done, processes=1)
    for name in "abc":
        await studio.order(name, path=tmp_path / name, plan=SMALL, prompt=name, model=MODEL, due_at=0)
    await asyncio.wait_for(finished.wait(), 100)
    await studio.close()

    assert done == [("a", None), ("b", None), ("c", None)]


async def test_a_clip_that_cannot_be_written_is_a_problem_of_that_clip_only(tmp_path: Path) -> None:
    problems: dict[str, str | None] = {}
    finished = asyncio.Event()

    def on_done(job_id: str, problem: str | None) -> None:
        problems[job_id] = problem
        if len(problems) == 2:
            finished.set()

    studio = Studio(on_done, processes=1)
    for name, folder in (("bad", tmp_path / "missing"), ("good", tmp_path)):
        await studio.order(name, path=folder / "x.mp4", plan=SMALL, prompt="", model=MODEL, due_at=0)
    await asyncio.wait_for(finished.wait(), 100)
    await studio.close()

    assert problems["bad"] is not None
    assert problems["good"] is None


def _image(frame: VideoFrame) -> Image.Image:
    return cast("Image.Image", frame.to_image())  # pyright: ignore[reportUnknownMemberType]


def _difference(one: Image.Image, other: Image.Image, box: tuple[int, int, int, int]) -> float:
    """How far the colours of a part of two pictures are apart, on average."""
    pixels = ImageStat.Stat(ImageChops.difference(one.crop(box), other.crop(box))).mean
    return sum(pixels) / len(pixels)


def _halves(frame: VideoFrame) -> tuple[list[int], list[int]]:
    """Brightness of the picture, and of the strip at its foot."""
    pixels = list(_image(frame).convert("L").tobytes())
    return pixels[: 160 * 320], pixels[160 * 320 :]


def _distance(one: list[int], other: list[int]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
