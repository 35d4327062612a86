"""`python -m prefect_together.sandbox`: the imitated service as a process, on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import get_args

from prefect_together.sandbox import __doc__ as about
from prefect_together.sandbox.faults import ANSWERS, CREATE, DOWNLOAD, IMAGES, RETRIEVE
from prefect_together.sandbox.server import READY, RunningServer, serve
from prefect_together.sandbox.settings import RENDER, Generation, SandboxSettings, Shape

DEFAULTS = SandboxSettings()


def main() -> int:
    """Serve until SIGINT, SIGTERM or, if asked for, the end of stdin. Exit code 2 for a wrong argument."""
    parser = command_parser()
    given = parser.parse_args()
    try:
        settings = _settings(given)
        asyncio.run(
            serve(
                settings,
                port=given.port,
                faults=given.fault,
                on_ready=lambda running: _announce(running, quiet=given.quiet, exit_with_parent=given.exit_with_parent),
            )
        )
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


def _announce(running: RunningServer, *, quiet: bool, exit_with_parent: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: the process just ends
            running.loop.add_signal_handler(number, running.server.stop)
    if exit_with_parent:
        threading.Thread(target=_stop_at_end_of_stdin, args=(running,), daemon=True).start()
    if not quiet:
        print(f"{READY}{running.service.base_url}", flush=True)


def _stop_at_end_of_stdin(running: RunningServer) -> None:
    with contextlib.suppress(OSError):  # no stdin at all is an end, too
        while os.read(0, 4096):
            pass
    running.loop.call_soon_threadsafe(running.server.stop)


def _settings(given: argparse.Namespace) -> SandboxSettings:
    return SandboxSettings(
        shape=given.shape,
        speed=given.speed,
        generation=Generation.parse(given.generation_seconds) if given.generation_seconds else DEFAULTS.generation,
        state_dir=given.state_dir,
        seed=given.seed,
        clip=given.clip,
        clip_bytes=given.clip_bytes,
        render_processes=given.render_processes,
        answer_unknown_ids=given.answer_unknown_ids,
        accept_unknown_models=given.accept_unknown_models,
        send_cost=not given.no_cost,
        is_marked=not given.unmarked,
        cost_factor=given.cost_factor,
        file_host=given.file_host,
        link_seconds=given.link_seconds,
        expired_status=given.expired_status,
        ranges=not given.no_ranges,
        etags=not given.no_etags,
        content_lengths=not given.no_content_lengths,
        late_seconds=given.late_seconds,
        stall_seconds=given.stall_seconds,
        retry_after_seconds=given.retry_after_seconds,
        creates_per_second=given.creates_per_second,
        rate_window_seconds=given.rate_window_seconds,
        keep_requests=given.keep_requests,
    )


def command_parser() -> argparse.ArgumentParser:
    """The command line of the sandbox as a program."""
    parser = argparse.ArgumentParser(
        prog="python -m prefect_together.sandbox",
        description=about,
        epilog=_faults_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--speed", type=float, default=1.0, help="divides every generation time")
    add("--generation-seconds", metavar="TIME", help="3, uniform:2:6, lognormal:90:0.35, exponential:60")
    add("--state-dir", type=Path, help="keep jobs and clips there, and take up those of an earlier run")
    add("--shape", choices=get_args(Shape), default=DEFAULTS.shape, help="which documented response shape")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help="e.g. 429=0.1, create:drop-after=0.05, storm=0.2",
    )
    add("--seed", type=int, help="makes faults and generation times repeatable")
    add(
        "--clip", default=RENDER, metavar="CLIP", help="render (default), shared, tiny, or a file to serve for all jobs"
    )
    add("--clip-bytes", type=int, default=0, help="pad every MP4 to this size")
    add("--render-processes", type=int, help="default: one a processor")
    add("--creates-per-second", type=float, help="an unannounced limit on create calls")
    add("--rate-window-seconds", type=float, default=DEFAULTS.rate_window_seconds, help="over which it grows")
    add("--answer-unknown-ids", action="store_true", help="a completed job for any id")
    add("--accept-unknown-models", action="store_true")
    add("--no-cost", action="store_true", help="leave outputs.cost out")
    add("--unmarked", action="store_true", help="leave out the header by which clients recognize the sandbox")
    add("--cost-factor", type=float, default=1.0, help="what is charged, as a multiple of the estimate")
    add("--file-host", default=DEFAULTS.file_host, help="host name in clip links; localhost makes another origin")
    add("--link-seconds", type=float, default=DEFAULTS.link_seconds, help="how long a link to a clip holds")
    add("--expired-status", type=int, choices=(403, 404, 410), default=DEFAULTS.expired_status)
    add("--no-ranges", action="store_true", help="200 and the whole clip for every Range")
    add("--no-etags", action="store_true")
    add("--no-content-lengths", action="store_true")
    add("--late-seconds", type=float, default=DEFAULTS.late_seconds, help="how late the fault `late` answers")
    add("--stall-seconds", type=float, default=DEFAULTS.stall_seconds, help="how long the fault `stall` is silent")
    add("--retry-after-seconds", type=float, default=DEFAULTS.retry_after_seconds, help="what a 429 asks for")
    add("--keep-requests", type=int, default=DEFAULTS.keep_requests, help="how many /sandbox/requests remembers")
    add("--exit-with-parent", action="store_true", help="end when stdin ends")
    add("--quiet", action="store_true", help="do not even print the address")
    return parser


def _faults_listed() -> str:
    """Every fault with what it does, for --help."""
    groups = {
        "create, images (with -after: accepted and billed anyway), retrieve, download": ANSWERS,
        "create": CREATE,
        "images": IMAGES,
        "retrieve": RETRIEVE,
        "download": DOWNLOAD,
        "all": {"any": "one fault, drawn evenly", "storm": "every fault at this rate, one of those that come up"},
    }
    lines = ["faults:"]
    for place, faults in groups.items():
        lines += [f"  on {place}:", *(f"    {name:16} {what}" for name, what in faults.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
