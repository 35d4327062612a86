"""`prefect-together sandbox`, or `python -m prefect_together.sandbox`: the imitated service as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from prefect_together.sandbox.faults import ANSWERS, CREATE, DOWNLOAD, IMAGES, RETRIEVE
from prefect_together.sandbox.server import READY, RunningServer, serve
from prefect_together.sandbox.settings import RENDER, Generation, SandboxSettings, Shape

DEFAULTS = SandboxSettings()
ABOUT = """\
A local imitation of Together's video and images API, on 127.0.0.1 until Ctrl-C. Nothing is billed; any key is taken:

  prefect-together sandbox --port 8902
  export TOGETHER_BASE_URL=http://127.0.0.1:8902 TOGETHER_API_KEY=any     (in another terminal)

Imitated: POST /v2/videos, GET /v2/videos/ID, the clips behind their links, POST /v1/images/generations with its
pictures, GET /v1/models and GET /v3/whoami; jobs that queue, generate, complete and fail; rate limits, faults and
expiring links on demand. Clips and pictures show their prompt; they have the size, and clips the length and frame
rate, that were asked for.

A clip begins with the picture sent as its first frame and ends with the one sent as its last; between them the drawn
scene comes in. One that continues a video (frame_videos) begins with all frames of it, `seconds` being the total.
Pictures are taken inline or from the sandbox's own links, videos from its own links; an own link that has expired makes
the job fail.

Not imitated: any model (clips and pictures are drawn scenes); what all other pictures, videos and sounds that were
sent do to a clip; the checks of addresses elsewhere (they are not fetched); moderation; organizations, balances and
the true limits of rate and size; TLS, HTTP/2 and the content delivery network; every other endpoint of Together.
Prices are estimates; failed jobs cost nothing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT, SIGTERM or, if asked for, the end of stdin. Exit code 2 for a wrong argument."""
    parser = command_parser()
    given = parser.parse_args(argv)
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
        prog="prefect-together sandbox",
        usage="%(prog)s [options]",
        description=ABOUT,
        epilog=_faults_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--speed", type=float, default=1.0, help="how many times faster than usual jobs are generated (default: 1)")
    add("--generation-seconds", metavar="TIME", help="e.g. 3, uniform:2:6, lognormal:90:0.35 or exponential:60")
    add("--state-dir", type=Path, help="keep jobs and clips there, and take up those of an earlier run")
    add("--shape", choices=get_args(Shape), default=DEFAULTS.shape, help="which of the documented forms answers have")
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
    add("--creates-per-second", type=float, help="a rate limit on create calls that no header announces")
    add(
        "--rate-window-seconds",
        type=float,
        default=DEFAULTS.rate_window_seconds,
        help="over which it grows",
    )
    add("--answer-unknown-ids", action="store_true", help="a completed job for any id")
    add("--accept-unknown-models", action="store_true", help="make clips for models that are not in the catalogue")
    add("--no-cost", action="store_true", help="leave outputs.cost out")
    add("--unmarked", action="store_true", help="leave out the header by which clients recognize the sandbox")
    add("--cost-factor", type=float, default=1.0, help="what is charged, as a multiple of the estimate")
    add("--file-host", default=DEFAULTS.file_host, help="host name in clip links; localhost makes another origin")
    add("--link-seconds", type=float, default=DEFAULTS.link_seconds, help="how long a link to a clip holds")
    add(
        "--expired-status",
        type=int,
        choices=(403, 404, 410),
        default=DEFAULTS.expired_status,
        help="of a late link",
    )
    add("--no-ranges", action="store_true", help="200 and the whole clip for every Range")
    add("--no-etags", action="store_true", help="clips without an ETag header")
    add("--no-content-lengths", action="store_true", help="clips without a Content-Length header")
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
