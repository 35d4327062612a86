"""What Python and notebooks get: a run's results.csv as a DataFrame, its outcome as HTML with clips, its progress."""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fsspec

from prefect_together.clock import SYSTEM_CLOCK, Clock, in_background
from prefect_together.errors import NoFrame
from prefect_together.grid.columns import PLAIN_CELLS, unescape_cell
from prefect_together.grid.source import long_cells
from prefect_together.results.progress import Progress
from prefect_together.results.results import TakeResult
from prefect_together.results.text import dollars, duration, state_counts

if TYPE_CHECKING:
    from pandas import DataFrame

    from prefect_together.results.outcome import RunOutcome

SHOWN_VIDEOS = 24
"""Of an outcome in a notebook: each clip's poster is some 10 kB in the file of the notebook."""
REFRESH_SECONDS = 0.5


def results_frame(output_dir: str) -> DataFrame:
    """The rows of a run into `output_dir`, a path or any fsspec URL, in the table's order.

    The table's own columns are text as it stood in the table. `status` is a category, `cost_usd` a float in dollars
    (NaN where the cost is unknown), and so is `still_usd` where the table asks for stills; `attempts` is an integer;
    `job_id`, `file` and `error` are text, of a row of several takes joined by "|". Such a frame, or some of its rows,
    is itself a table of prompts for `read_table`.
    Raises FileNotFoundError if no run has written results there.
    """
    import pandas  # not small, and used by nothing else here

    address = f"{output_dir.rstrip('/')}/results.csv"
    with cast("Any", fsspec).open(address, "r", encoding="utf-8-sig", newline="") as file, long_cells():
        header, *lines = [[unescape_cell(cell) for cell in line] for line in csv.reader(file, strict=True)]
    frame = pandas.DataFrame(lines, columns=header, dtype="str")
    frame.attrs[PLAIN_CELLS] = True
    priced = [name for name in ("cost_usd", "still_usd") if name in frame]
    return frame.assign(
        **{name: pandas.to_numeric(frame[name]).astype("float64") for name in priced},
        status=frame["status"].astype("category"),
        attempts=pandas.to_numeric(frame["attempts"]).astype("Int64"),
    )


def outcome_html(outcome: RunOutcome) -> str:
    """The first SHOWN_VIDEOS as a table, each clip beside its prompt, under the run's headline."""
    takes = [take for row in outcome.rows for take in row.takes]
    shown = [_row_html(take, outcome.output_dir) for take in takes[:SHOWN_VIDEOS]]
    rest = len(takes) - len(shown)
    more = f"<p>{rest:,} more: <code>results_frame({outcome.output_dir!r})</code></p>" if rest > 0 else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in outcome.notes)
    header = "".join(f"<th>{name}</th>" for name in ("clip", "row", "prompt", "status", "cost"))
    return (
        f"<p><strong>{escape(outcome.headline)}</strong><br>{_link(outcome.page)}</p>{notes}"
        f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(shown)}</tbody></table>{more}"
    )


def _link(page: str) -> str:
    """To the page of the run; a path as text as well, as a notebook may be unable to open it."""
    address = page if "://" in page else _beside_the_notebook(Path(page))
    return f'every clip beside its prompt: <a href="{escape(address)}">{escape(address)}</a>'


def _row_html(take: TakeResult, output_dir: str) -> str:
    cost = "" if take.cost_usd is None else dollars(take.cost_usd)
    status = take.status.replace("_", " ") + (f"<br><small>{escape(take.error)}</small>" if take.error else "")
    name = f"{escape(take.row_id)}<br><small>{escape(take.model)}</small>"
    cells = (_clip_html(take, output_dir), name, escape(take.prompt or ""), status, cost)
    return "<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in cells) + "</tr>"


def _clip_html(take: TakeResult, output_dir: str) -> str:
    if take.file is None or take.status != "downloaded":
        return ""
    source = take.file_url or _beside_the_notebook(Path(output_dir) / take.file)
    picture = ""
    if take.file_url is None:
        from prefect_together.films.frames import poster  # libav and Pillow

        with suppress(NoFrame):
            jpeg = base64.b64encode(poster(Path(output_dir) / take.file)).decode()
            picture = f' poster="data:image/jpeg;base64,{jpeg}"'
    return f'<video controls preload="none" width="240"{picture} src="{escape(source)}"></video>'


def _beside_the_notebook(file: Path) -> str:
    """A path that a notebook's page can open: relative to the working directory, which is the notebook's own."""
    with suppress(ValueError):
        return file.absolute().relative_to(Path.cwd()).as_posix()
    return file.as_posix()


@asynccontextmanager
async def notebook_progress(progress: Progress, *, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[None]:
    """Shows a run's progress below the notebook cell that awaits it, updated in place. Elsewhere it does nothing."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    if ipython is None or getattr(shell, "kernel", None) is None:  # an IPython terminal has none
        yield
        return

    def view() -> object:
        return ipython.display.HTML(_progress_html(progress, clock.time()))

    handle = ipython.display.display(view(), display_id=True)

    async def keep_updating() -> None:
        while True:
            await clock.sleep(REFRESH_SECONDS)
            handle.update(view())

    try:
        async with in_background(keep_updating()):
            yield
    finally:
        handle.update(view())


def _progress_html(progress: Progress, now: float) -> str:
    left = progress.seconds_left(now)
    time_left = f", about {duration(left)} left" if left else ""
    return (
        f'<progress value="{progress.finished}" max="{max(progress.total, 1)}"></progress> '
        f"{progress.finished:,} of {progress.total:,} videos in {duration(now - progress.started_at)}{time_left}<br>"
        f"{state_counts(progress.by_status)} · {progress.money}"
    )
