"""The command `prefect-together`: runs, the catalogue, plans, the sandbox, and what ledgers say.

Prefect is imported for runs and `credentials` alone: the others answer in a second. Exit codes: 0, it is said; 1, the
service or the ledger did not answer; 2, the command, the table or a setting is wrong, and everything wrong with it is
listed; those of a run are in `run_flow`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from prefect_together.cli.local_prefect import as_program, needs_local_server
from prefect_together.cli.run_flow import (
    INVALID,
    is_flow_function,
    option_error,
    run_flow,
    with_standard_input,
)
from prefect_together.clips.store import redacted
from prefect_together.errors import NotConfigured, TogetherVideoError
from prefect_together.problems import MISTAKES, SettingsInvalid
from prefect_together.request.model_spec import Mode

if TYPE_CHECKING:
    from prefect_together.ledger.view import LedgerView

FAILED = 1
RUN, READ, SET_UP = (
    Group(title, sort_key=position) for position, title in enumerate(("Make videos", "See what there is", "Set up"))
)
FIRST_TABLE = """\
id,prompt,model
cat-on-drum,"A cat asleep on a snare drum, one paw twitching, warm lamp light",minimax/video-01-director
harbour-dawn,"A fishing harbour at dawn, mist over still water, slow pan to the right",minimax/video-01-director
paper-boat,Close-up of a paper boat carried along a gutter in heavy rain,vidu/vidu-q1
"""
"""The table of `examples/prompts.csv`."""

app = App(
    name="prefect-together",
    help="Together AI's video generation with Prefect: runs, models, plans, ledgers, the sandbox.",
    version_flags=["--version"],
    error_formatter=option_error,
)
for name, group, function, text in (
    ("generate", RUN, "flows.functions:generate_videos", "Turn a table of prompts into a folder of videos."),
    ("video", RUN, "flows.functions:generate_video", "Make one video from a prompt."),
    ("collect", RUN, "flows.functions:collect_videos", "Download what earlier runs submitted. Sends no create call."),
    (
        "plan",
        READ,
        "cli.table_commands:plan",
        "Check every row of a table, its price and its time. Sends nothing.",
    ),
    ("join", SET_UP, "cli.table_commands:join", "Join the clips of the last table into its films. Sends nothing."),
    ("recover", SET_UP, "cli.table_commands:recover", "Rebuild a lost ledger from videos.csv and the clips."),
):
    app.command(f"prefect_together.{function}", name=name, group=group, help=text)  # imported when asked for
app.register_install_completion_command(  # pyright: ignore[reportUnknownMemberType]
    group=SET_UP, help="Complete commands and options in this shell: bash, zsh or fish."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, `argv` or that of the process, and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["sandbox"]:
        return _serve_sandbox(given[1:])
    try:
        command, bound, _ = app.parse_args(with_standard_input(given), exit_on_error=False, print_error=True)
    except CycloptsError:
        return INVALID
    if is_flow_function(command):
        return as_program(lambda: run_flow(command.__name__, bound))
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except TogetherVideoError as error:
        print(error, file=sys.stderr)
        return INVALID if isinstance(error, MISTAKES) else FAILED


@app.command(group=SET_UP)
def init(table: str = "prompts.csv") -> int:
    """Write a small table of prompts to begin with. An existing file is left alone.

    Args:
        table: The CSV file to write.
    """
    path = Path(table)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(FIRST_TABLE)
    except FileExistsError as error:
        raise SettingsInvalid.of(f"{table} is there already and was left alone: give another name") from error
    except OSError as error:
        raise SettingsInvalid.of(f"{table} cannot be written: {error.strerror or error}") from error
    command = f"prefect-together generate {shlex.quote(table)} --sandbox"
    print(f"wrote {table}, three prompts to edit. Next, without a key or cost:\n  {command}")
    return 0


@app.command(group=READ)
def models(
    *,
    listed: bool = False,
    retired: bool = False,
    mode: Mode | None = None,
    organization: str | None = None,
    max_price: float | None = None,
    live: bool = False,
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """List the known models with their limits and prices.

    Args:
        listed: Only what Together lists today.
        retired: Also models that their makers have shut down.
        mode: Only models that can: t2v (text), i2v (first frame), ref (reference images), v2v, audio ...
        organization: Only this maker's, for example ByteDance.
        max_price: Only models of which one default clip costs at most so many dollars, by the high reading.
        live: Compare with what the service serves now (GET /v1/models; needs TOGETHER_API_KEY), without filters.
        as_json: Everything that is known, as JSON.
    """
    from prefect_together.cli import printing

    if live:
        found = printing.live_differences(asyncio.run(_live_models()))
        printing.print_json(asdict(found)) if as_json else printing.print_differences(found)
        return 0
    chosen = printing.listed_models(
        listed=listed, retired=retired, mode=mode, organization=organization, max_price_usd=max_price
    )
    printing.print_json([model.as_dict() for model in chosen]) if as_json else printing.print_models(chosen)
    return 0


@app.command(group=READ)
def status(
    output_dir: str,
    *,
    ledger: str | None = None,
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """Say how far the videos of an output directory are, what they cost, and what is in doubt. Changes nothing.

    Args:
        output_dir: The output directory of the runs.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
        as_json: The whole of it as JSON.
    """
    from prefect_together.cli import printing
    from prefect_together.ledger.view import ledger_of, read_ledger

    view = asyncio.run(read_ledger(ledger_of(output_dir, ledger)))
    if as_json:
        about = {"ledger": view.url, "is_sandbox": view.is_sandbox}
        counts = {"by_status": Counter(record.status for record in view.records.values())}
        printing.print_json({**about, **counts, **asdict(view.totals), **_lists(view)})
    else:
        printing.print_status(view)
    return 0


@app.command(group=SET_UP)
def report(output_dir: str, *, ledger: str | None = None) -> int:
    """Write index.html and results.csv again from the ledger, for the table of the last run into the directory.

    Args:
        output_dir: The output directory of the runs.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
    """
    from prefect_together.cli import printing
    from prefect_together.cli.table_commands import last_table
    from prefect_together.clips.remote_store import open_store
    from prefect_together.films.films import make_films
    from prefect_together.ledger.plans import budget_in
    from prefect_together.results.outputs import PAGE_FILE, RESULTS_FILE, PageSummary, row_results, write_outputs
    from prefect_together.results.results import totals

    view, text, last = asyncio.run(last_table(output_dir, ledger))
    store = open_store(output_dir)
    rows = row_results(last, view.records, view.unsettled, store)
    films = asyncio.run(make_films(last, view.records, store, only_read=True))
    written_at = datetime.now().astimezone().isoformat(timespec="seconds")
    summary = PageSummary(
        table=last.source,
        written_at=written_at,
        budget_usd=budget_in(text),
        is_running=bool(view.runs),
        is_sandbox=view.is_sandbox,
        warnings=tuple(str(warning) for warning in last.warnings),
        films=films,
    )
    asyncio.run(write_outputs(store, last, rows, summary))
    written = [store.uri(PAGE_FILE), store.uri(RESULTS_FILE)]
    printing.print_totals(totals(rows), written, is_sandbox=view.is_sandbox)
    return 0


@app.command(group=READ)
def view(output_dir: str, *, port: int = 0) -> int:
    """Serve the page and the clips of an output directory, local or remote, on this machine until Ctrl-C.

    Args:
        output_dir: The output directory of the runs, or its fsspec URL (s3://...).
        port: Port on 127.0.0.1. Default: a free one.
    """
    from prefect_together.cli.page_server import serve_page
    from prefect_together.clips.remote_store import open_store
    from prefect_together.results.outputs import PAGE_FILE

    store = open_store(output_dir)
    if PAGE_FILE not in asyncio.run(store.sizes([PAGE_FILE])):
        raise SettingsInvalid.of(f"no {PAGE_FILE} in {redacted(output_dir)}: no run has been made into it")
    try:
        serve_page(store, port=port, on_start=lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))
    except OSError as error:
        raise SettingsInvalid.of(f"port {port} cannot be used: {error.strerror or error}") from error
    return 0


@app.command(group=SET_UP)
def sandbox() -> int:
    """Serve a local imitation of the video API until Ctrl-C: `prefect-together sandbox --help` has its options."""
    return _serve_sandbox([])


@app.command(group=SET_UP)
def credentials(name: str, *, overwrite: bool = False) -> int:
    """Save TOGETHER_API_KEY (and TOGETHER_BASE_URL, if set) of the environment as a TogetherCredentials block.

    Args:
        name: The block's name, to be given as credentials_block: small letters, digits and dashes.
        overwrite: Replace the key of a block that is there already.
    """
    from prefect_together.cli.local_prefect import prepare_prefect

    api_key, base_url = os.environ.get("TOGETHER_API_KEY", "").strip(), os.environ.get("TOGETHER_BASE_URL") or None
    if not api_key:
        raise NotConfigured("no API key: set TOGETHER_API_KEY for this command; it is stored encrypted")
    asyncio.run(_try_client(api_key, base_url))
    if not re.fullmatch("[a-z0-9-]+", name):
        raise SettingsInvalid.of(f"{name!r} is not a block's name: small letters, digits and dashes")
    local = prepare_prefect()  # before Prefect is imported: it reads its settings
    from pydantic import SecretStr

    from prefect_together.credentials import TogetherCredentials

    if local is not None:
        local.wait_until_ready()
    try:
        TogetherCredentials(api_key=SecretStr(api_key), base_url=base_url).save(name, overwrite=overwrite)
    except ValueError as error:
        raise SettingsInvalid.of(f"there is a block {name} already: --overwrite replaces it") from error
    print(f"saved as together-credentials/{name}: give credentials_block={name}")
    return 0


@app.command(group=SET_UP)
def deploy(*, pool: str = "together-video", directory: str = ".", image: str | None = None) -> int:
    """Put the deployments on the Prefect server of PREFECT_API_URL, for the workers of a work pool.

    Run it again after an upgrade: schedules stay as active as they are.

    Args:
        pool: The work pool; one that is not there is made, of type process.
        directory: Where runs in processes start: relative paths in their parameters begin there.
        image: Image with prefect-together installed, for a work pool of containers.
    """
    _require_server()
    from prefect.settings import get_current_settings

    from prefect_together.deployments.deploy import deploy as put_deployments

    names = asyncio.run(put_deployments(pool, directory=Path(directory).absolute(), image=image))
    print(f"{len(names)} deployments on the work pool {pool}: {get_current_settings().ui_url}/deployments")
    print("\n".join(f"  {name}" for name in names))
    print(f"Next, on a machine that runs them:\n  prefect worker start --pool {shlex.quote(pool)}")
    return 0


@app.command(group=SET_UP)
def serve(*, limit: int = 4) -> int:
    """Serve the deployments from this process until Ctrl-C, without a work pool or a worker.

    Runs start in the working directory. Ctrl-C stops the active ones first. Schedules stay as active as they are.

    Args:
        limit: Runs at once.
    """
    _require_server()
    from prefect_together.deployments.serve import serve as serve_until_stopped
    from prefect_together.deployments.serve import served_deployments

    asyncio.run(serve_until_stopped(asyncio.run(served_deployments()), limit))
    return 0


def _require_server() -> None:
    if needs_local_server():
        raise NotConfigured("no Prefect server: start one (`prefect server start`) and set PREFECT_API_URL")


def _serve_sandbox(argv: Sequence[str]) -> int:
    from prefect_together.sandbox.__main__ import main as serve_sandbox

    return serve_sandbox(argv)


async def _try_client(api_key: str, base_url: str | None) -> None:
    """Raises NotConfigured for an address that would be refused later; nothing is sent."""
    from prefect_together.api.client import open_client

    async with open_client(api_key=api_key, base_url=base_url):
        pass


async def _live_models() -> object:
    import together

    from prefect_together.api.client import open_client

    async with open_client() as client:
        try:
            return await client.get("/v1/models", cast_to=object)
        except together.TogetherError as error:
            raise TogetherVideoError(f"GET /v1/models: {error}") from error


def _lists(view: LedgerView) -> dict[str, Any]:
    """The parts of a view that are lists, for JSON."""
    videos = [
        {
            "kind": record.kind,
            "row_id": record.row_id,
            "take": record.take,
            "model": record.model,
            "status": record.status,
            "job_id": record.job_id,
            "file": record.file,
            "cost_usd": record.cost_usd,
            "estimate_usd": record.estimate_usd,
            "error": record.error,
        }
        for record in view.records.values()
    ]
    doubts, runs = [asdict(doubt) for doubt in view.doubts], [asdict(run) for run in view.runs]
    return {"in_doubt": doubts, "runs_at_work": runs, "videos": videos}


if __name__ == "__main__":
    sys.exit(main())
