"""The imitated service without its HTTP: jobs accepted and read, pictures, links, clips, scripts, limits, figures.

All of it is used from one event loop. Time comes from the clock that is passed in.
"""

from __future__ import annotations

import asyncio
import base64
import random
import shutil
import tempfile
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.sandbox.answers import Recorder, billed_usd
from prefect_together.sandbox.downloads import ServedFile
from prefect_together.sandbox.faults import Faults
from prefect_together.sandbox.images import MAX_SEED, Picture, pictures_of
from prefect_together.sandbox.jobs import (
    JOBS_FILE,
    ClipPlan,
    Ending,
    Failure,
    Job,
    JsonLines,
    Script,
    has_ended,
    is_completed,
    job_fields,
    job_of,
    peak_in_flight,
    plan_clip,
    without_long_texts,
)
from prefect_together.sandbox.models import ModelFacts, failure_of, frame_pictures, price_usd, video_addresses
from prefect_together.sandbox.settings import RENDER, SHARED, TINY, SandboxSettings
from prefect_together.sandbox.studio import Studio

PICTURES_FILE = "images.jsonl"
TINY_CLIP = Path(__file__).with_name("tiny.mp4")
EARLY_FAILURE_SHARE = 0.2
"""A bad parameter is found out soon: such a job fails after this share of its generation time."""

_JOB_FAULTS: Mapping[str, tuple[Ending, Failure | None]] = {
    "job-fails": ("failed", Failure("internal_error", "The upstream provider failed to generate this video.")),
    "job-moderated": (
        "failed",
        Failure("content_policy_violation", "The prompt was rejected by the provider's content moderation."),
    ),
    "job-cancelled": ("cancelled", None),
    "job-stuck": ("stuck", None),
}


class VideoService:
    """Everything that the sandbox remembers."""

    def __init__(self, settings: SandboxSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        if settings.clip not in (RENDER, SHARED, TINY) and not Path(settings.clip).is_file():
            raise ValueError(f"clip {settings.clip!r} is neither render, shared, tiny nor a file")
        self.settings = settings
        self.clock = clock
        self.base_url = ""
        self.file_url = ""
        self.jobs: dict[str, Job] = {}
        self.pictures: dict[tuple[str, int], Picture] = {}
        self.faults = Faults(random.Random(settings.seed))
        self.recorder = Recorder(settings.keep_requests)
        self.limit = (
            DynamicLimit(settings.creates_per_second, settings.rate_window_seconds)
            if settings.creates_per_second
            else None
        )
        self._rng = random.Random(settings.seed)
        self._scripts: deque[Script] = deque()
        self._prompt_scripts: list[tuple[str, Script]] = []
        self._link_generation = 0
        self._temporary = None if settings.state_dir else Path(tempfile.mkdtemp(prefix="together-sandbox-"))
        self._folder = settings.state_dir or self._temporary
        assert self._folder is not None
        self._clips = self._folder / "clips"
        self._clips.mkdir(parents=True, exist_ok=True)
        for partial in self._clips.glob("*.part"):
            partial.unlink(missing_ok=True)
        self._job_file = JsonLines(self._folder / JOBS_FILE)
        self._picture_file = JsonLines(self._folder / PICTURES_FILE)
        self._studio = Studio(self._clip_done, settings.render_processes)
        self._files: dict[object, ServedFile] = {}
        self._waiting: dict[ClipPlan, list[Job]] = {}
        self._clip_made = asyncio.Event()

    async def start(self) -> None:
        """Take up the jobs and pictures of an earlier run in the same state directory."""
        for fields in self._picture_file.load():
            picture = Picture(**fields)
            self.pictures[picture.id, picture.index] = picture
        for fields in self._job_file.load():
            job = self.jobs[fields["id"]] = job_of(fields)
            await self._order_clip(job)

    async def close(self) -> None:
        await self._studio.close()
        self._job_file.close()
        self._picture_file.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    async def accept(self, request: Mapping[str, Any], facts: ModelFacts, fault: str | None = None) -> Job:
        """Accept a job: from here on it exists and is billed."""
        seconds = self.settings.generation.sample(self._rng) / self.settings.speed
        ending, failure = _JOB_FAULTS.get(fault or "", ("completed", None))
        plan = plan_clip(request, facts)
        source = self._continued(request)
        if source is not None:
            plan = replace(plan, width=source.plan.width, height=source.plan.height, fps=source.plan.fps)
        if found := failure_of(request, facts) or self._wrong_inputs(request, plan):
            ending, failure, seconds = "failed", found, seconds * EARLY_FAILURE_SHARE
        script = self._next_script(str(request.get("prompt") or ""))
        if script is not None:
            ending, failure = "completed", script.failure or failure
        price = price_usd(request) * self.settings.cost_factor
        job = Job(
            id=str(uuid.uuid4()),
            request=without_long_texts(dict(request)),
            plan=plan,
            created_at=self.clock.time(),
            generation_seconds=seconds,
            cost_usd=billed_usd(price, self.settings.shape),
            ending=ending,
            failure=failure,
            script=script,
            hidden_reads=self.settings.hidden_reads if fault == "hidden" else 0,
        )
        await self._keep_pictures(job, request)  # before the job is kept: a restart renders it with them
        self._job_file.append(job_fields(job))
        self.jobs[job.id] = job
        await self._order_clip(job)
        return job

    def shows_completed(self, job: Job) -> bool:
        """Whether one more read would show `completed`."""
        return is_completed(job.status(self.clock.time(), next_read=True))

    def read(self, job: Job) -> str | None:
        """The status that one more read of the job shows."""
        job.reads += 1
        now = self.clock.time()
        status = job.status(now)
        if has_ended(status) and job.seen_final_at is None:
            job.seen_final_at = now
        return status

    def script(self, script: Script, *, prompt: str | None = None) -> None:
        """Lay down the life of the next job, or of all jobs to come whose prompt holds `prompt`."""
        if prompt is None:
            self._scripts.append(script)
        else:
            self._prompt_scripts.append((prompt, script))

    def link(self, job: Job) -> str:
        """The job's short link: the same until half of its time is gone, then a fresh one."""
        now = self.clock.time()
        current = f"-{self._link_generation}-"
        stale = now - job.link_issued_at > self.settings.link_seconds / 2
        if job.link is None or stale or current not in job.link:
            job.link_issued_at = now
            job.link = f"{job.id.replace('-', '')}{current}{round(now * 1000):x}"
        return f"{self.file_url}/shrt/{job.link}"

    def linked(self, token: str) -> tuple[Job | Picture | None, bool]:
        """The job or picture behind a link's token, and whether the link has not expired."""
        parts = token.split("-")
        try:
            key = str(uuid.UUID(parts[0]))
            generation, issued_at = int(parts[1]), int(parts[2], 16) / 1000
            linked = self.pictures.get((key, int(parts[3]))) if len(parts) > 3 else self.jobs.get(key)
        except (ValueError, IndexError):
            return None, False
        fresh = self.clock.time() - issued_at <= self.settings.link_seconds
        return linked, fresh and generation >= self._link_generation

    def make_pictures(self, request: Mapping[str, Any]) -> list[Picture]:
        """Accept a call for pictures: from here on they exist and are billed."""
        seed, now = self._rng.randint(0, MAX_SEED), self.clock.time()
        made = pictures_of(request, any_seed=seed, now=now, cost_factor=self.settings.cost_factor)
        for picture in made:
            self._picture_file.append(asdict(picture))
            self.pictures[picture.id, picture.index] = picture
        return made

    def picture_link(self, picture: Picture) -> str:
        """The picture's short link. It is answered once: there is no fresh one later."""
        token = f"{picture.id.replace('-', '')}-{self._link_generation}-{round(self.clock.time() * 1000):x}"
        return f"{self.file_url}/shrt/{token}-{picture.index}"

    def expire_links(self) -> None:
        """Make every link that was handed out invalid. The next read of a job gives a fresh one."""
        self._link_generation += 1

    async def clip(self, job: Job) -> ServedFile | None:
        """The job's clip, waited for if it is still being made; None if there will be none."""
        while job.clip_ready_at is None:
            if job.ending in ("failed", "cancelled"):
                return None
            await self._clip_made.wait()
        mode, pad = self.settings.clip, self.settings.clip_bytes
        path = self._clip_path(job)
        key = path if mode != RENDER else None
        if key is None or key not in self._files:
            content = path if mode == RENDER else path.read_bytes()
            file = ServedFile.of(content, pad_to_bytes=pad)
            if key is None:
                return file
            self._files[key] = file
        return self._files[key]

    def accepted(self, prompt: str) -> int:
        return sum(1 for job in self.jobs.values() if job.prompt == prompt)

    def stats(self) -> dict[str, Any]:
        """Counts of requests, jobs and pictures, dollars billed. Failed and cancelled jobs are not billed here."""
        now = self.clock.time()
        images_usd = sum(picture.cost_usd for picture in self.pictures.values())
        statuses = Counter(str(job.status(now)) for job in self.jobs.values())
        billed = [job for job in self.jobs.values() if job.is_billed]
        spans = [job.span(now) for job in self.jobs.values()]
        return {
            "requests": self.recorder.by_endpoint(),
            "jobs": dict(statuses),
            "accepted": len(self.jobs),
            "accepted_by_prompt": dict(Counter(job.prompt for job in self.jobs.values())),
            "images": len(self.pictures),
            "images_by_prompt": dict(Counter(picture.prompt for picture in self.pictures.values())),
            "images_billed_usd": round(images_usd, 6),
            "billed_usd": round(sum(job.cost_usd for job in billed) + images_usd, 6),
            "peak_in_flight": peak_in_flight(spans),
            "reads": sum(job.reads for job in self.jobs.values()),
            "faults_met": dict(self.faults.met),
        }

    def job_list(self) -> list[dict[str, Any]]:
        """Every job with its times, reads and downloads: what happened, seen from the service's side."""
        now = self.clock.time()
        return [
            {
                "id": job.id,
                "model": job.model,
                "prompt": job.prompt,
                "status": job.status(now),
                "created_at": job.created_at,
                "due_at": job.due_at,
                "clip_ready_at": job.clip_ready_at,
                "seen_final_at": job.seen_final_at,
                "reads": job.reads,
                "downloads": job.downloads,
                "cost_usd": job.cost_usd,
            }
            for job in self.jobs.values()
        ]

    def image_list(self) -> list[dict[str, Any]]:
        """Every picture with its prompt, seed, size, downloads and cost."""
        return [asdict(picture) for picture in self.pictures.values()]

    def fault_list(self) -> list[dict[str, Any]]:
        return [asdict(rule) for rule in self.faults.rules]

    def _next_script(self, prompt: str) -> Script | None:
        for part, script in reversed(self._prompt_scripts):
            if part in prompt:
                return script
        return self._scripts.popleft() if self._scripts else None

    def _clip_path(self, job: Job) -> Path:
        mode = self.settings.clip
        if mode == RENDER:
            return self._clips / (job.id + job.plan.suffix)
        if mode == SHARED:
            plan = job.plan
            sound = "-sound" if plan.audio else ""
            name = f"shared-{plan.width}x{plan.height}-{plan.seconds:g}s-{plan.fps}fps{sound}{plan.suffix}"
            return self._clips / name
        return TINY_CLIP if mode == TINY else Path(mode)

    def _own(self, url: str) -> tuple[Job | Picture | None, bool] | None:
        """What one of this sandbox's own links leads to, and whether it has not expired; None for other addresses.

        A link of an earlier run over the same state directory may have another port.
        """
        if not url.startswith(("http://", "https://")):
            return None
        linked = self.linked(url.rpartition("/")[2].partition(".")[0])
        return linked if linked[0] is not None or url.startswith(self.file_url + "/") else None

    def _continued(self, request: Mapping[str, Any]) -> Job | None:
        """The job of this sandbox whose clip is to be continued."""
        for name, url in video_addresses(request):
            linked = self._own(url) if name == "media.frame_videos" else None
            if linked is not None and isinstance(linked[0], Job):
                return linked[0]
        return None

    def _wrong_inputs(self, request: Mapping[str, Any], plan: ClipPlan) -> Failure | None:
        """What is wrong with own links that were sent, None for nothing. Other addresses are not fetched."""
        pictures = [("media.frame_images", text) for text in frame_pictures(request, plan.frames).values()]
        for name, url in [*pictures, *video_addresses(request)]:
            linked = self._own(url)
            if linked is None:
                continue
            if linked[0] is None or not linked[1]:
                why = "the link has expired" if linked[0] else "not found"
                return Failure("InvalidParameter", f"{name}: {url} could not be fetched: {why}.")
            kind = "image" if name == "media.frame_images" else "video"
            if isinstance(linked[0], Job) != (kind == "video"):
                return Failure("InvalidParameter", f"{name}: {url} is no {kind}.")
        source = self._continued(request)
        if source is not None and plan.seconds <= source.plan.seconds:
            lengths = f"{plan.seconds:g} seconds are the total, and the video to continue has {source.plan.seconds:g}"
            return Failure("invalidDuration", f"{lengths}: nothing would be new.")
        return None

    async def _keep_pictures(self, job: Job, request: Mapping[str, Any]) -> None:
        """Write the pictures sent for the clip's first and last frame beside the clip, for whoever renders it."""
        if self.settings.clip != RENDER:
            return
        for name, text in frame_pictures(request, job.plan.frames).items():
            linked = self._own(text)
            if linked is not None and isinstance(linked[0], Picture):
                content = await asyncio.to_thread(linked[0].content)
            else:
                content = _inline_picture(text)
            if content is not None:
                (self._clips / f"{job.id}.{name}").write_bytes(content)

    async def _inputs(self, job: Job) -> dict[str, Path]:
        """The files that the job's clip begins and ends with."""
        files = {name: self._clips / f"{job.id}.{name}" for name in ("first", "last")}
        files = {name: path for name, path in files.items() if path.exists()}
        source = self._continued(job.request)
        if source is not None and await self.clip(source) is not None:
            files["source"] = self._clip_path(source)
        return files

    async def _order_clip(self, job: Job) -> None:
        if job.ending not in ("completed", "stuck") and job.script is None:
            return
        mode, path = self.settings.clip, self._clip_path(job)
        if mode not in (RENDER, SHARED) or path.exists():
            job.clip_ready_at = job.created_at
            return
        if mode == SHARED:
            waiting = self._waiting.setdefault(job.plan, [])
            waiting.append(job)
            if len(waiting) > 1:
                return
        await self._studio.order(
            job.id,
            path=path,
            plan=job.plan,
            prompt=job.prompt if mode == RENDER else "The same clip for all jobs of this size",
            model=job.made_by,
            due_at=job.due_at,
            inputs=await self._inputs(job) if mode == RENDER else None,
        )

    def _clip_done(self, job_id: str, problem: str | None) -> None:
        job = self.jobs[job_id]
        for waiting in self._waiting.pop(job.plan, [job]):
            if problem is None:
                waiting.clip_ready_at = self.clock.time()
            else:
                waiting.ending, waiting.failure = "failed", Failure("sandbox_render_error", problem)
        self._clip_made.set()
        self._clip_made = asyncio.Event()


def _inline_picture(text: str) -> bytes | None:
    """The bytes of bare base64 or a data URI; None for an address elsewhere and for what is no base64."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return None if text.startswith(("http://", "https://")) else base64.b64decode(encoded)
    except ValueError:
        return None


class DynamicLimit:
    """`take(now)` spends one create, or says in how many seconds the next one would be taken."""

    def __init__(self, floor_per_second: float, window_seconds: float) -> None:
        if not (floor_per_second > 0 and window_seconds > 0):
            raise ValueError("the limit's creates a second and its window must be above 0")
        self._floor, self._window = floor_per_second, window_seconds
        self._accepted: deque[float] = deque()
        self._tokens, self._filled_at = 1.0, None

    def per_second(self, now: float) -> float:
        """The limit that holds at `now`."""
        while self._accepted and self._accepted[0] <= now - self._window:
            self._accepted.popleft()
        return max(self._floor, 2 * len(self._accepted) / self._window)

    def take(self, now: float) -> float | None:
        rate = self.per_second(now)
        if self._filled_at is not None:
            gained = (now - self._filled_at) * rate
            self._tokens = min(max(1.0, rate), self._tokens + gained)
        self._filled_at: float | None = now
        if self._tokens < 1 - 1e-9:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        self._accepted.append(now)
        return None
