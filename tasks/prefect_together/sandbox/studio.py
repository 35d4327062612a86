"""Renders clips in worker processes of low priority; of the orders that wait, the job that is due first is next.

A worker (`python -m prefect_together.sandbox.studio`) reads one JSON order a line from stdin and writes one JSON answer
a line to stdout. It ends when its stdin does, that is with the sandbox, however that ended.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefect_together.sandbox.jobs import ClipPlan

ATTEMPTS = 2
"""How many worker processes may die over one clip before it is given up."""

NICENESS = 10
_LINE_LIMIT = 1 << 20


@dataclass(order=True)
class Order:
    """A clip to be made. Orders compare by when they are due."""

    due_at: float
    number: int
    id: str = field(compare=False)
    path: Path = field(compare=False)
    plan: ClipPlan = field(compare=False)
    prompt: str = field(compare=False)
    model: str = field(compare=False)
    inputs: Mapping[str, Path] = field(compare=False, default_factory=dict[str, Path])

    def line(self) -> bytes:
        body: dict[str, Any] = {"id": self.id, "path": str(self.path), "plan": asdict(self.plan)}
        body |= {"prompt": self.prompt, "model": self.model}
        body["inputs"] = {name: str(path) for name, path in self.inputs.items()}
        return json.dumps(body).encode() + b"\n"


class Studio:
    """Renders orders in up to `processes` worker processes, started when the first order comes.

    `on_done(id, problem)` is called on the event loop, `problem` being None for a clip that is on disk.
    """

    def __init__(self, on_done: Callable[[str, str | None], None], processes: int | None = None) -> None:
        self._on_done = on_done
        self._processes = processes or max(1, os.cpu_count() or 1)
        self._orders: list[Order] = []
        self._wake = asyncio.Condition()
        self._workers: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._idle = 0

    async def order(
        self,
        job_id: str,
        *,
        path: Path,
        plan: ClipPlan,
        prompt: str,
        model: str,
        due_at: float,
        inputs: Mapping[str, Path] | None = None,
    ) -> None:
        """Queue a clip. Returns at once. `inputs` are files: pictures `first` and `last`, the clip `source`."""
        self._numbers += 1
        order = Order(due_at, self._numbers, job_id, path, plan, prompt, model, inputs or {})
        heapq.heappush(self._orders, order)
        if self._idle == 0 and len(self._workers) < self._processes:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        async with self._wake:
            self._wake.notify()

    async def close(self) -> None:
        """Stop rendering; what is not done stays undone."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        process: asyncio.subprocess.Process | None = None
        try:
            while True:
                order = await self._next()
                problem: str | None = None
                for _ in range(ATTEMPTS):
                    if process is None or process.returncode is not None:
                        process = await _start_worker()
                    problem = await _render(process, order)
                    if process.returncode is None:
                        break
                self._on_done(order.id, problem)
        finally:
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    async def _next(self) -> Order:
        async with self._wake:
            self._idle += 1
            try:
                await self._wake.wait_for(lambda: self._orders)
            finally:
                self._idle -= 1
            return heapq.heappop(self._orders)


async def _start_worker() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "prefect_together.sandbox.studio",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE_LIMIT,
    )


async def _render(process: asyncio.subprocess.Process, order: Order) -> str | None:
    """Have a worker render one clip; what went wrong, if anything. A worker that died has a return code afterwards."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(order.line())
        await process.stdin.drain()
        answer = await process.stdout.readline()
    except ConnectionError:
        answer = b""
    if not answer:
        await process.wait()
        return f"the renderer ended with {process.returncode}"
    problem: str | None = json.loads(answer)["problem"]
    return problem


def render(order: dict[str, Any]) -> str | None:
    """In a worker: render one clip to `order["path"]`, whole or not at all. Returns what went wrong, if anything."""
    import av  # here, so that the sandbox itself loads no encoder; first, as two threads may do this at once
    import av.error

    from prefect_together.sandbox.drawing import draw_clip, fit_picture
    from prefect_together.sandbox.encoding import Inputs, encode_clip

    path = Path(order["path"])
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    plan = ClipPlan(**order["plan"])
    try:
        files = {name: Path(file) for name, file in order["inputs"].items()}
        pictures = {name: fit_picture(plan, files[name].read_bytes()) for name in ("first", "last") if name in files}
        planes = draw_clip(plan, prompt=order["prompt"], model=order["model"])
        encode_clip(partial, plan, planes, Inputs(**pictures, source=files.get("source")))
        partial.replace(path)
    except (OSError, ValueError, MemoryError, av.error.FFmpegError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    for line in sys.stdin:
        order = json.loads(line)
        problem = render(order)
        print(json.dumps({"id": order["id"], "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
