"""What a video client does when the service misbehaves: this project beside what a user would take instead.

    python benchmarks/faults_of_peers.py [--extra-path DIR]

Measured here, each scenario against a sandbox of its own: this project's flow; the Together SDK on its defaults in the
loop that its documentation shows; huggingface_hub's `together` provider, if it can be imported (`--extra-path`: a
directory made by `pip install --target`). The other columns need services of their own: quoted from the survey of
November 2026, in which each was run against a local imitation of its service.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from together import Together, TogetherError

from prefect_together.cli.local_prefect import prepare_prefect
from prefect_together.clips.inspection import inspect_clip
from prefect_together.errors import ClipInvalid
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.faults import Endpoint

MODEL = "minimax/video-01-director"
PROMPT = "A cat asleep on a snare drum"
SDK_LOOP_SECONDS = 5.0
GENERATION_SECONDS = 3.0
LONG_JOB_SECONDS = 20.0
QUOTED = ("openai", "runway", "fal", "replicate", "Vercel AI SDK v6 / v7")

Client = Callable[[str, Path], str | None]
"""Makes one video at a base URL into a file; returns what it says instead of a clip, None if all is well."""


@dataclass(frozen=True)
class Scenario:
    """One fault, met once, and what the survey quotes for those who are not measured here."""

    name: str
    fault: tuple[str, Endpoint] | None
    quoted: tuple[str, str, str, str, str]
    generation_seconds: float = GENERATION_SECONDS
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


SCENARIOS = (
    Scenario(
        "create accepted, answered 500",
        ("500-after", "create"),
        ("2 jobs", "2 jobs", "1, error", "1, error", "2 jobs / same key"),
    ),
    Scenario(
        "create accepted, connection dropped",
        ("drop-after", "create"),
        ("2 jobs", "2 jobs", "2 jobs", "1, error", "2 jobs / same key"),
    ),
    Scenario("one 429 on create", ("429", "create"), ("ok", "ok", "ok", "fails", "ok")),
    Scenario("one 503 on a poll", ("503", "retrieve"), ("ok", "ok", "job lost", "ok", "2nd job / job lost")),
    Scenario("one dropped poll", ("drop", "retrieve"), ("ok", "ok", "ok", "job lost", "2nd job / job lost")),
    Scenario(
        "download cut half-way",
        ("cut", "download"),
        ("partial file at the final path", "error", "error", "empty file", "-"),
        settings={"clip_bytes": 2_000_000},
    ),
    Scenario("polls for one 20 s job", None, ("21", "3", "193", "40", "11 / 4"), LONG_JOB_SECONDS),
)


def with_flow(base_url: str, target: Path) -> str | None:
    """This project: the flow over a table of one row, as from the shell."""
    os.environ |= {"TOGETHER_BASE_URL": base_url, "TOGETHER_API_KEY": "sandbox"}
    table = f"id,prompt,model\nonly,{PROMPT},{MODEL}\n"
    state = asyncio.run(_flow()(table, output_dir=str(target.parent), return_state=True))
    result: Any = asyncio.run(state.aresult(raise_on_failure=False))
    rows = getattr(result, "outcome", result).rows
    clip = target.parent / "videos" / "only.mp4"
    if clip.exists():
        clip.rename(target)
    status = rows[0].status
    return None if status == "downloaded" else str(status).replace("_", " ")


def _flow() -> Any:
    path = Path(__file__).parents[1] / "flows" / "generate_videos.py"
    spec = importlib.util.spec_from_file_location("generate_videos", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_videos"] = module
    spec.loader.exec_module(module)
    return module.generate_videos


def with_sdk_loop(base_url: str, target: Path) -> str | None:
    """The Together SDK on its defaults, polled every 5 s as its documentation does, the link fetched with httpx."""
    with Together(api_key="sandbox", base_url=base_url) as client:
        try:
            job = client.videos.create(prompt=PROMPT, model=MODEL)
            while True:
                seen = client.videos.retrieve(job.id)
                if seen.status == "completed" and seen.outputs is not None:
                    target.write_bytes(httpx.get(seen.outputs.video_url, follow_redirects=True).content)
                    return None
                if seen.status == "failed":
                    return "error"
                time.sleep(SDK_LOOP_SECONDS)
        except (TogetherError, httpx.HTTPError):
            return "error"


def with_hub(base_url: str, target: Path) -> str | None:
    """huggingface_hub's text_to_video through its together provider, pointed at the sandbox."""
    hub = importlib.import_module("huggingface_hub")
    providers = importlib.import_module("huggingface_hub.inference._providers")
    common = importlib.import_module("huggingface_hub.inference._providers._common")
    mapping = importlib.import_module("huggingface_hub.hf_api").InferenceProviderMapping
    entry = mapping(
        provider="together",
        hf_model_id=MODEL,
        providerId=MODEL,
        status="live",
        task="text-to-video",
        type="single-model",
    )
    common.HARDCODED_MODEL_INFERENCE_MAPPING.setdefault("together", {})[MODEL] = entry
    providers.PROVIDERS["together"]["text-to-video"].base_url = base_url
    client = hub.InferenceClient(provider="together", api_key="sandbox")
    transport = "httpx2" if importlib.util.find_spec("httpx2") else "httpx"  # by its version
    errors = (importlib.import_module(transport).HTTPError, OSError, ValueError, RuntimeError)
    try:
        target.write_bytes(client.text_to_video(PROMPT, model=MODEL))
    except errors:
        return "error"
    return None


def measure(client: Client, scenario: Scenario, folder: Path) -> str:
    """Run one client through one scenario; its cell of the table."""
    folder.mkdir(parents=True)
    target = folder / "clip.mp4"
    with Sandbox(generation_seconds=scenario.generation_seconds, **scenario.settings) as sandbox:
        if scenario.fault is not None:
            name, endpoint = scenario.fault
            sandbox.fault(name, endpoint=endpoint)
        error = client(sandbox.base_url, target)
        jobs, polls = sandbox.jobs(), sandbox.calls("retrieve")
    if scenario.fault is None:
        late_seconds = max(jobs[0]["seen_final_at"] - jobs[0]["due_at"], 0.0)
        return f"{polls} ({late_seconds:.1f} s late)"
    return _cell(len(jobs), error, _is_whole(target), scenario.fault[1])


def _cell(jobs: int, error: str | None, is_whole: bool, endpoint: Endpoint) -> str:
    if jobs > 1:
        return f"{jobs} jobs"
    if error is None:
        return "ok" if is_whole else "a broken file"
    if endpoint == "retrieve" and jobs:
        return "job lost"
    return f"1, {error}" if endpoint == "create" and jobs else error


def _is_whole(path: Path) -> bool:
    try:
        inspect_clip(path)
    except (ClipInvalid, OSError):
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra-path", type=Path, help="where huggingface_hub is, if it is not installed here")
    given = parser.parse_args()
    if given.extra_path:
        sys.path.append(str(given.extra_path))
    local = prepare_prefect()  # before Prefect is imported: it reads its settings
    if local is not None:
        local.wait_until_ready()
    clients: dict[str, Client] = {"prefect-together": with_flow, "together SDK": with_sdk_loop}
    if importlib.util.find_spec("huggingface_hub"):
        clients["huggingface_hub (together)"] = with_hub
    else:
        print("huggingface_hub cannot be imported: its column is left out", file=sys.stderr)
    print("| scenario | " + " | ".join([*clients, *(f"{name}*" for name in QUOTED)]) + " |")
    print("|---" * (1 + len(clients) + len(QUOTED)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for number, scenario in enumerate(SCENARIOS):
            cells = [
                measure(client, scenario, Path(folder) / f"{number}-{place}")
                for place, client in enumerate(clients.values())
            ]
            print("| " + " | ".join([scenario.name, *cells, *scenario.quoted]) + " |", flush=True)
    print("\n\\* quoted, not measured here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
