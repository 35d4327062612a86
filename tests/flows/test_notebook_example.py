"""examples/notebook.ipynb, executed by nbclient in a kernel of its own against a real Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import nbformat
import pytest
from nbclient import NotebookClient

from prefect_server import PrefectServer
from repository import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def read() -> Any:
    return cast("Any", nbformat).read(NOTEBOOK, as_version=4)


def outputs(notebook: Any) -> list[list[Any]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def html(output: Any) -> str:
    return cast("str", output.data["text/html"])


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_the_notebook_shows_its_progress_and_each_clip_beside_its_prompt(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()

    NotebookClient(notebook, timeout=150, resources={"metadata": {"path": str(tmp_path)}}).execute()

    _, price, run, frame = outputs(notebook)
    assert price[0].text.startswith("3 videos, $0.84")
    progress, outcome = (html(output) for output in run if "text/html" in output.data)
    assert "3 of 3 videos" in progress
    assert "3 downloaded · $0.84 so far, $0.84 projected" in progress
    assert "3 downloaded of 3 rows, $0.84" in outcome
    assert outcome.count('poster="data:image/jpeg;base64,') == 3
    assert 'src="out/notebook/videos/cat.mp4"' in outcome
    assert 'href="out/notebook/index.html"' in outcome
    assert "A cat asleep on a drum" in outcome
    assert html(frame[0]).count("downloaded") == 3
    assert (tmp_path / "out" / "notebook" / "videos" / "cat.mp4").stat().st_size > 1000


def test_the_stored_notebook_is_an_executed_one() -> None:
    notebook = read()

    for output in outputs(notebook):
        assert output
        assert all(one.output_type != "error" for one in output)
    assert str(Path.home()) not in NOTEBOOK.read_text()
