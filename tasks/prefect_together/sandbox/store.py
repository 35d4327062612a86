"""Accepted jobs on disk, one JSON line each, only ever appended: a sandbox that is started again finds its jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from prefect_together.sandbox.jobs import ClipPlan, Failure, Job, Script

JOBS_FILE = "jobs.jsonl"
LONGEST_TEXT = 40_000
"""Inline images are longer than any prompt: they are not kept."""


class JobStore:
    """The jobs file of a state directory."""

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._path = state_dir / JOBS_FILE
        self._file = self._path.open("ab", buffering=0)
        if not _ends_with_newline(self._path):
            self._file.write(b"\n")

    def append(self, job: Job) -> None:
        """Write one job before its acceptance is answered. It outlives a kill of the sandbox, not of the machine."""
        line = {
            "id": job.id,
            "request": job.request,
            "plan": asdict(job.plan),
            "created_at": job.created_at,
            "generation_seconds": job.generation_seconds,
            "cost_usd": job.cost_usd,
            "ending": job.ending,
            "failure": asdict(job.failure) if job.failure else None,
            "script": asdict(job.script) if job.script else None,
        }
        self._file.write(json.dumps(line).encode() + b"\n")

    def load(self) -> Iterator[Job]:
        """The jobs of earlier runs, oldest first. A line that was cut short is left out."""
        for line in self._path.read_bytes().splitlines():
            try:
                fields: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            yield _job(fields)

    def close(self) -> None:
        self._file.close()


def _job(fields: dict[str, Any]) -> Job:
    script, failure = fields["script"], fields["failure"]
    return Job(
        id=fields["id"],
        request=fields["request"],
        plan=ClipPlan(**fields["plan"]),
        created_at=fields["created_at"],
        generation_seconds=fields["generation_seconds"],
        cost_usd=fields["cost_usd"],
        ending=fields["ending"],
        failure=Failure(**failure) if failure else None,
        script=_script(script) if script else None,
    )


def _script(fields: dict[str, Any]) -> Script:
    at, failure = fields["at_seconds"], fields["failure"]
    return Script(
        tuple(fields["statuses"]),
        at_seconds=None if at is None else tuple(at),
        failure=Failure(**failure) if failure else None,
    )


def without_long_texts(value: Any) -> Any:
    """A JSON value with every very long text (an inline image) left out."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: without_long_texts(item) for name, item in fields.items()}
    if isinstance(value, list):
        return [without_long_texts(item) for item in cast("list[Any]", value)]
    return "(left out)" if isinstance(value, str) and len(value) > LONGEST_TEXT else value


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
