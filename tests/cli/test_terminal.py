"""One shell for log lines and the progress display."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from prefect_together.cli.terminal import live


async def test_without_a_terminal_a_line_is_printed_at_the_end() -> None:
    shell = io.StringIO()
    done = ["1 of 2"]

    async with live(lambda: Text("live"), lambda: done[0], console=Console(file=shell), line_seconds=60):
        done[0] = "2 of 2 [row:7]"

    assert shell.getvalue() == "2 of 2 [row:7]\n"


async def test_the_last_line_is_printed_when_the_work_fails() -> None:
    shell = io.StringIO()

    with pytest.raises(OSError, match="disk"):
        async with live(lambda: Text("live"), lambda: "1 of 2", console=Console(file=shell), line_seconds=60):
            raise OSError("disk")

    assert shell.getvalue() == "1 of 2\n"


async def test_on_a_terminal_the_display_ends_with_the_final_state() -> None:
    shell = io.StringIO()
    done = ["half"]
    console = Console(file=shell, force_terminal=True, width=40)

    async with live(lambda: Text(done[0]), lambda: "plain", console=console):
        console.print("a log line")
        done[0] = "all"

    text = shell.getvalue()
    assert "a log line" in text
    assert "plain" not in text
    assert text.rindex("all") > text.rindex("half")
