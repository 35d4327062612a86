"""An installation of the wheel without extras: what works, and what names the extra that it needs.

asyncpg is there all the same: Prefect requires it, and its server does not start without it.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prefect_server import PATIENT
from repository import EXAMPLES, FLOWS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UV = (sys.executable, "-m", "uv", "--quiet", "--system-certs")
OF_EXTRAS = ("gcsfs", "openpyxl", "pyarrow", "s3fs")


@dataclass(frozen=True)
class Installation:
    """An environment with the wheel, and an empty directory to work in."""

    python: Path
    directory: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**PATIENT, "PATH": "/usr/bin:/bin", "HOME": str(self.directory)}
        return subprocess.run(
            [str(self.python), *words], cwd=self.directory, env=environment, capture_output=True, text=True, check=False
        )

    def evaluate(self, program: str) -> str:
        done = self.run("-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Generator[Installation]:
    directory = tmp_path_factory.mktemp("without-extras")
    python = directory / "venv" / "bin" / "python"
    pinned = ["--constraints", str(ROOT / "requirements.lock")]
    for command in (
        ["build", "--wheel", "--out-dir", str(directory), str(ROOT)],
        ["venv", "--python", sys.executable, str(directory / "venv")],
        ["pip", "install", "--python", str(python), *pinned, "WHEEL"],
    ):
        wheel = "".join(map(str, directory.glob("*.whl")))
        subprocess.run([*UV, *(wheel if word == "WHEEL" else word for word in command)], check=True)
    yield Installation(python, directory)
    shutil.rmtree(directory)


def test_a_plain_installation_brings_nothing_of_the_extras(installation: Installation) -> None:
    found = f"import importlib.util as u; print([name for name in {OF_EXTRAS} if u.find_spec(name)])"

    assert installation.evaluate(found) == "[]"


def test_the_package_is_imported_and_a_table_planned(installation: Installation) -> None:
    table = json.dumps(str(EXAMPLES / "prompts.csv"))
    program = f"import prefect_together as p; print(len(p.read_table({table}).rows))"

    with (EXAMPLES / "prompts.csv").open(newline="") as file:
        assert installation.evaluate(program) == str(len(list(csv.DictReader(file))))


def test_the_example_table_becomes_videos(installation: Installation) -> None:
    words = [str(FLOWS / "generate_videos.py"), str(EXAMPLES / "prompts.csv"), "--output-dir", "out", "--sandbox"]

    done = installation.run(*words)

    assert done.returncode == 0, done.stdout + done.stderr
    with (installation.directory / "out" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"downloaded"}


@pytest.mark.parametrize(
    ("name", "start", "extra"), [("a.xlsx", b"PK\x03\x04", "excel"), ("a.parquet", b"PAR1", "parquet")]
)
def test_a_table_that_needs_an_extra_names_it(installation: Installation, name: str, start: bytes, extra: str) -> None:
    (installation.directory / name).write_bytes(start + bytes(100))

    done = installation.run(str(installation.python.parent / "prefect-together"), "plan", name)

    assert done.returncode == 2
    assert f"pip install 'prefect-together[{extra}]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_postgresql_ledger_names_its_extra(installation: Installation) -> None:
    asyncpg = ["asyncpg", "--python", str(installation.python)]
    program = (
        "from prefect_together.problems import SettingsInvalid\n"
        "from prefect_together.ledger.engine import parse_ledger_url\n"
        "try:\n"
        "    parse_ledger_url('postgresql://localhost/videos')\n"
        "except SettingsInvalid as error:\n"
        "    print(error)\n"
    )

    subprocess.run([*UV, "pip", "uninstall", *asyncpg], check=True)
    try:
        said = installation.evaluate(program)
    finally:
        subprocess.run([*UV, "pip", "install", *asyncpg], check=True)

    assert said.startswith("ledger: ")
    assert "pip install 'prefect-together[postgres]'" in said


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/videos", "s3"), ("gs://bucket/videos", "gcs")])
def test_an_output_in_a_bucket_names_its_extra(installation: Installation, url: str, extra: str) -> None:
    words = [str(FLOWS / "generate_videos.py"), "prompt\na cat", "--model", "minimax/video-01-director", "--sandbox"]

    done = installation.run(*words, "--output-dir", url)

    assert done.returncode == 2
    assert f"pip install 'prefect-together[{extra}]'" in done.stdout + done.stderr
