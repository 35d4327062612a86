"""What deployments/ holds loads, names what there is, and stores nothing that is secret."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import Settings
from pydantic_core import to_jsonable_python

from repository import ROOT

DEPLOYMENTS = ROOT / "deployments"
DEFINITIONS: list[dict[str, Any]] = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
NAMES = {one["name"] for one in DEFINITIONS}
SHARD = {"plan": "some-id", "shard": 2, "output_dir": "/shared", "limits": {"shards": 4}}


def definition(name: str) -> dict[str, Any]:
    return next(one for one in DEFINITIONS if one["name"] == name)


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_entrypoint_loads_and_takes_the_parameters_that_it_is_given(name: str) -> None:
    deployment = definition(name)
    given = {
        "prompts": "prompt\nx\n",
        "prompt": "x",
        **(SHARD if name == "shard" else {}),
        **deployment.get("parameters", {}),
    }

    flow: Any = load_flow_from_entrypoint(deployment["entrypoint"])
    known = {parameter: value for parameter, value in given.items() if parameter in flow.parameters.properties}
    validated = flow.validate_parameters(known)

    assert deployment.get("parameters", {}).keys() <= flow.parameters.properties.keys()
    assert to_jsonable_python({name: validated[name] for name in known}) == known
    assert deployment["work_pool"]["name"] == "together-video"


def test_schedules_are_there_and_switched_off() -> None:
    (nightly,), (collect,) = definition("nightly")["schedules"], definition("collect-videos")["schedules"]

    assert (nightly["slug"], nightly["cron"], nightly["active"]) == ("every-night", "0 2 * * *", False)
    assert (collect["interval"], collect["active"]) == (600, False)
    assert definition("nightly")["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_the_deployment_that_nobody_runs_by_hand_sorts_last_and_says_so() -> None:
    assert max(NAMES) == "shard"
    assert definition("shard")["description"].startswith("Internal, not to be run by hand.")
    assert definition("shard")["tags"] == ["together-video", "internal"]


def test_no_deployment_holds_what_would_be_stored_in_clear() -> None:
    lines = (DEPLOYMENTS / "prefect.yaml").read_text().splitlines()
    text = "".join(line for line in lines if not line.startswith("#"))

    assert "{{" not in text
    assert "$ref" not in text
    assert "api_key" not in text


def test_compose_listens_on_this_machine_only_and_takes_its_secrets_from_the_environment_file() -> None:
    services = COMPOSE["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    settings = [setting for service in services.values() for setting in service.get("environment", {}).items()]

    assert ports == ["127.0.0.1:4200:4200"]
    secrets = [str(value) for name, value in settings if "PASSWORD" in name or "KEY" in name or "URL" in name]
    assert all("${" in value or "@" not in value for value in secrets)
    assert all("${" in str(value) for name, value in settings if "PASSWORD" in name)
    assert services["worker"]["env_file"] == ".env"
    lasting = {name for name, service in services.items() if service["restart"] != "no"}
    assert all("healthcheck" in services[name] for name in lasting - {"prefect-services"})


def test_compose_names_only_settings_that_prefect_has() -> None:
    known = set(re.findall(r"PREFECT_\w+", json.dumps(Settings.model_json_schema())))
    given = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}

    unknown = {name for name in given - known if name.startswith("PREFECT_")}

    assert {name for name in unknown if not name.startswith("PREFECT_REDIS_MESSAGING_")} == set()
    assert "PREFECT_UI_STATIC_DIRECTORY" in COMPOSE["services"]["prefect-server"]["environment"]


def test_each_file_that_the_image_takes_and_that_a_command_names_is_there() -> None:
    image: str = COMPOSE["x-image"]["build"]["dockerfile_inline"]
    copied = [line.split()[1:-1] for line in image.splitlines() if line.startswith("COPY")]
    taken = {word for words in copied for word in words if not word.startswith("--")}
    unit = (DEPLOYMENTS / "prefect-together-worker.service").read_text()

    assert all((ROOT / path).exists() for path in taken)
    assert COMPOSE["services"]["worker"]["command"][1] in taken
    assert "deployments/worker.py --pool together-video" in unit
    assert "KillMode=mixed" in unit  # with control-group Prefect's worker gets the signal too, and kills the runs
