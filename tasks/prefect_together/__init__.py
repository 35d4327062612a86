"""Together AI's video generation for Prefect: from a table of prompts to a folder of checked videos.

The public names are here; each is imported when it is first asked for, so that what is not used is not paid for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_together.catalogue import catalogue as known_models
    from prefect_together.catalogue import check_request, estimate_usd
    from prefect_together.credentials import TogetherCredentials
    from prefect_together.download import DownloadedClip
    from prefect_together.jobs import VideoJob
    from prefect_together.ledger import Ledger, open_ledger
    from prefect_together.outcome import RowsFailed, RunOutcome
    from prefect_together.requests import LocalImage, Media, VideoRequest
    from prefect_together.sandbox import Sandbox, SandboxProcess
    from prefect_together.session import VideoSession, open_session
    from prefect_together.table import PromptTable, read_table
    from prefect_together.tasks import create_video, download_video, wait_for_video

_HOMES = {
    "DownloadedClip": "download",
    "Ledger": "ledger",
    "LocalImage": "requests",
    "Media": "requests",
    "PromptTable": "table",
    "RowsFailed": "outcome",
    "RunOutcome": "outcome",
    "Sandbox": "sandbox",
    "SandboxProcess": "sandbox",
    "TogetherCredentials": "credentials",
    "VideoJob": "jobs",
    "VideoRequest": "requests",
    "VideoSession": "session",
    "check_request": "catalogue",
    "create_video": "tasks",
    "download_video": "tasks",
    "estimate_usd": "catalogue",
    "known_models": "catalogue.catalogue",  # a name of its own: `catalogue` is the module once that is imported
    "open_ledger": "ledger",
    "open_session": "session",
    "read_table": "table",
    "wait_for_video": "tasks",
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
    "TogetherCredentials",
    "VideoJob",
    "VideoRequest",
    "VideoSession",
    "check_request",
    "create_video",
    "download_video",
    "estimate_usd",
    "known_models",
    "open_ledger",
    "open_session",
    "read_table",
    "wait_for_video",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = home.partition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)


def __dir__() -> list[str]:
    return __all__
