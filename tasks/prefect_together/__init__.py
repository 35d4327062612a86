"""Together AI's video generation for Prefect: from a table of prompts to a folder of checked videos.

The public names are here; each is imported when it is first asked for, so that what is not used is not paid for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_together.api.jobs import VideoJob
    from prefect_together.api.session import VideoSession, open_session
    from prefect_together.clips.download import DownloadedClip
    from prefect_together.credentials import TogetherCredentials
    from prefect_together.ledger.ledger import Ledger, open_ledger
    from prefect_together.request.catalogue import catalogue as known_models
    from prefect_together.request.catalogue import check_request, estimate_usd
    from prefect_together.request.media import LocalImage, Media
    from prefect_together.request.request import VideoRequest
    from prefect_together.results.notebook import results_frame
    from prefect_together.results.outcome import RowsFailed, RunOutcome
    from prefect_together.sandbox import Sandbox, SandboxProcess
    from prefect_together.steps.stills import create_still, download_still
    from prefect_together.steps.tasks import create_video, download_video, wait_for_video
    from prefect_together.steps.video_job import TogetherVideoJob
    from prefect_together.stills.request import StillRequest
    from prefect_together.table.prompt_table import read_table
    from prefect_together.table.rows import PromptTable

_HOMES = {
    "DownloadedClip": "clips.download",
    "Ledger": "ledger.ledger",
    "LocalImage": "request.request",
    "Media": "request.request",
    "PromptTable": "table.rows",
    "RowsFailed": "results.outcome",
    "RunOutcome": "results.outcome",
    "Sandbox": "sandbox",
    "SandboxProcess": "sandbox",
    "StillRequest": "stills.request",
    "TogetherCredentials": "credentials",
    "TogetherVideoJob": "steps.video_job",
    "VideoJob": "api.jobs",
    "VideoRequest": "request.request",
    "VideoSession": "api.session",
    "check_request": "request.catalogue",
    "create_still": "steps.stills",
    "create_video": "steps.tasks",
    "download_still": "steps.stills",
    "download_video": "steps.tasks",
    "estimate_usd": "request.catalogue",
    "known_models": "request.catalogue:catalogue",
    "open_ledger": "ledger.ledger",
    "open_session": "api.session",
    "read_table": "table.prompt_table",
    "results_frame": "results.notebook",
    "wait_for_video": "steps.tasks",
}

__all__ = [
    "DownloadedClip",
    "Ledger",
    "LocalImage",
    "Media",
    "PromptTable",
    "RowsFailed",
    "RunOutcome",
    "Sandbox",
    "SandboxProcess",
    "StillRequest",
    "TogetherCredentials",
    "TogetherVideoJob",
    "VideoJob",
    "VideoRequest",
    "VideoSession",
    "check_request",
    "create_still",
    "create_video",
    "download_still",
    "download_video",
    "estimate_usd",
    "known_models",
    "open_ledger",
    "open_session",
    "read_table",
    "results_frame",
    "wait_for_video",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)


def __dir__() -> list[str]:
    return __all__
