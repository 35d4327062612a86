"""The credentials block: complete for the UI, found by Prefect, and tight-lipped."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from pydantic import SecretStr

from prefect_server import PrefectServer
from prefect_together.credentials import TogetherCredentials
from prefect_together.errors import NotConfigured

KEY = "sk-never-to-be-seen-7431"
BIN = os.path.dirname(sys.executable)  # noqa: PTH120 - not resolved: the environment's own programs


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def run_program(
    server: PrefectServer, *words: str, key: str = KEY, base_url: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PREFECT_API_URL": server.api_url, "TOGETHER_API_KEY": key}
    if base_url:
        environment["TOGETHER_BASE_URL"] = base_url
    program, *arguments = words
    return subprocess.run(
        [os.path.join(BIN, program), *arguments],  # noqa: PTH118
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_form_in_the_ui_has_all_it_can_show() -> None:
    assert "API key" in (TogetherCredentials.get_description() or "")
    assert "create_video" in (TogetherCredentials.get_code_example() or "")
    assert str(TogetherCredentials._logo_url).startswith("https://")  # pyright: ignore[reportPrivateUsage]
    assert str(TogetherCredentials._documentation_url).startswith("https://")  # pyright: ignore[reportPrivateUsage]
    fields = TogetherCredentials.model_json_schema()["properties"]
    assert all(field["description"] and field["title"] for field in fields.values())


def test_the_key_is_in_no_text_of_the_block() -> None:
    block = TogetherCredentials(api_key=SecretStr(KEY))

    assert KEY not in f"{block} {block!r} {block.model_dump()} {block.model_dump_json()}"


async def test_the_client_has_the_key_and_the_address_of_the_block() -> None:
    block = TogetherCredentials(api_key=SecretStr(KEY), base_url="http://127.0.0.1:9")

    async with block.open_client() as client:
        assert client.api_key == KEY
        assert str(client.base_url).startswith("http://127.0.0.1:9")


async def test_an_address_that_ends_in_v1_is_refused() -> None:
    block = TogetherCredentials(api_key=SecretStr(KEY), base_url="https://api.together.ai/v1")

    with pytest.raises(NotConfigured, match="must not end in /v1"):
        async with block.open_client():
            pass


def test_prefect_finds_the_block_by_the_collections_entry_point() -> None:
    (entry,) = entry_points(group="prefect.collections", name="prefect_together")

    assert entry.load().TogetherCredentials is TogetherCredentials


def test_the_package_imports_neither_prefect_nor_pandas_and_the_block_not_the_sdk() -> None:
    run_python("import sys, prefect_together; assert not {'prefect', 'pandas', 'together'} & sys.modules.keys()")
    run_python("import sys, prefect_together.credentials; assert 'together' not in sys.modules")


@pytest.mark.slow
def test_prefect_block_register_registers_it_from_the_package(prefect_server: PrefectServer) -> None:
    done = run_program(prefect_server, "prefect", "block", "register", "-m", "prefect_together")

    assert done.returncode == 0, done.stderr
    assert "Together Credentials" in done.stdout


@pytest.mark.slow
def test_the_command_saves_the_key_and_says_nothing_of_it(prefect_server: PrefectServer) -> None:
    saved = run_program(
        prefect_server, "prefect-together", "credentials", "saved-by-command", base_url="http://127.0.0.1:9"
    )
    again = run_program(prefect_server, "prefect-together", "credentials", "saved-by-command", key="another")
    replaced = run_program(prefect_server, "prefect-together", "credentials", "saved-by-command", "--overwrite")

    assert (saved.returncode, again.returncode, replaced.returncode) == (0, 2, 0), saved.stderr + again.stderr
    assert "--overwrite" in again.stderr
    assert KEY not in saved.stdout + saved.stderr + again.stdout + again.stderr + replaced.stdout + replaced.stderr

    async def load() -> TogetherCredentials:
        return await TogetherCredentials.aload("saved-by-command")

    assert prefect_server.run(load).api_key.get_secret_value() == KEY


@pytest.mark.slow
def test_the_command_without_a_key_saves_nothing(prefect_server: PrefectServer) -> None:
    done = run_program(prefect_server, "prefect-together", "credentials", "empty", key="")

    assert done.returncode == 2
    assert "TOGETHER_API_KEY" in done.stderr
