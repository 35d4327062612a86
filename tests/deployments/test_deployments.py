"""What deployments/ holds: everything in it loads, deploys, runs and says what it should."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import Settings
from pydantic_core import to_jsonable_python

from batch_run import wait_until
from prefect_server import PrefectServer
from prefect_together.deployments.serve import served_deployments
from prefect_together.errors import BudgetReached, FailureClass, TableInvalid
from prefect_together.ledger.states import Status
from prefect_together.results.outcome import RunOutcome
from prefect_together.results.results import RowResult, TakeResult, totals
from prefect_together.sandbox import Sandbox
from prefect_together.steps.events import BUDGET_REACHED, IN_DOUBT, run_events
from repository import ROOT
from table_of_prompts import KEY, MODEL, load_script, prompts, read_results

DEPLOYMENTS = ROOT / "deployments"
DEFINITIONS: list[dict[str, Any]] = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
BIN = Path(sys.executable).parent
NAMES = {"generate-videos", "nightly", "collect-videos", "generate-video", "plan-videos", "shard"}
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


def row(status: Status, error: str | None = None, failure_class: FailureClass | None = None) -> RowResult:
    take = TakeResult(
        row_id=f"row-{status}",
        status=status,
        model=MODEL,
        parameters={},
        estimate_usd=0.28,
        in_doubt_usd=0.28 if status == "in_doubt" else 0.0,
        error=error,
        failure_class=failure_class,
        attempts=1,
    )
    return RowResult(number=2, cells={}, takes=(take,))


def events_of(*rows: RowResult) -> dict[str, dict[str, Any]]:
    return dict(run_events(RunOutcome(rows, totals(rows), "out", "out/index.html")))


def test_a_run_with_money_in_doubt_says_so_in_an_event() -> None:
    events = events_of(row("downloaded"), row("in_doubt", "possibly billed"))

    assert list(events) == [IN_DOUBT]
    assert events[IN_DOUBT]["row_ids"] == ["row-in_doubt"]
    assert events[IN_DOUBT]["dollars"] == 0.28


def test_a_run_that_reached_its_budget_says_so_in_an_event() -> None:
    events = events_of(row("refused", str(BudgetReached(1.0, 0.9, 0.28)), FailureClass.BUDGET))

    assert list(events) == [BUDGET_REACHED]
    assert "$0.28 more needed" in events[BUDGET_REACHED]["message"]


def test_a_quiet_run_emits_no_event() -> None:
    assert events_of(row("downloaded"), row("failed", "moderation")) == {}


def plan_table(server: PrefectServer, table: str) -> Any:
    flow = load_script(ROOT / "flows" / "plan_videos.py").plan_videos

    async def work() -> Any:
        return await flow(table, model=MODEL, return_state=True)

    return server.run(work)


@pytest.mark.slow
def test_plan_videos_publishes_every_row_and_ends_completed(prefect_server: PrefectServer) -> None:
    state = plan_table(prefect_server, prompts("A cat asleep on a drum", "A harbour at dawn"))

    artifacts = prefect_server.artifacts(state.state_details.flow_run_id)
    assert state.is_completed()
    assert "2 rows, 2 videos: $0.56" in state.message
    assert "videos/r2.mp4" in str(artifacts["together-video-plan"].data)
    assert "$0.56" in str(artifacts["together-video-plan-summary"].data)


@pytest.mark.slow
def test_plan_videos_ends_failed_with_every_mistake(prefect_server: PrefectServer) -> None:
    state = plan_table(prefect_server, "prompt,seconds,widht\nA cat,ten,\nA dog,99,\n")

    artifacts = prefect_server.artifacts(state.state_details.flow_run_id)
    assert state.is_failed()
    assert "row 2, column seconds" in state.message
    assert "row 3, column seconds" in state.message
    assert "99 is not a length" in str(artifacts["together-video-plan"].data)
    assert "## 1 warning\n\n- column widht" in str(artifacts["together-video-plan-summary"].data)
    with pytest.raises(TableInvalid):
        asyncio.run(state.aresult())


@pytest.mark.slow
def test_plan_videos_needs_no_key_in_a_shell(prefect_server: PrefectServer) -> None:
    said = run_program(prefect_server, sys.executable, "flows/plan_videos.py", "examples/prompts.csv")

    assert "3 rows, 3 videos: $0.78" in said


def run_program(server: PrefectServer, *words: str) -> str:
    """What one of our programs prints, run from the project's root against the server. Raises if it fails."""
    environment = {**os.environ, "PREFECT_API_URL": server.api_url}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def worker(
    server: PrefectServer, log: Path, settings: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A process worker of the work pool, for as long as the context lasts; then it and its runs end in good order."""
    environment = {**os.environ, "PREFECT_API_URL": server.api_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    words = [sys.executable, str(DEPLOYMENTS / "worker.py"), "--pool", "together-video"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, env={**environment, **(settings or {})}, cwd=log.parent, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def run_deployment(name: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of a deployment, and return it once it has ended."""
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(name)
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    return await ended(run.id)


async def ended(run_id: UUID) -> FlowRun:
    """The run, once it has ended."""
    async with get_client() as client:
        async with asyncio.timeout(150):
            while True:
                run = await client.read_flow_run(run_id)
                if run.state is not None and run.state.is_final():
                    return run
                await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """A server onto which the README's two commands have been typed."""
    prefect = str(BIN / "prefect")
    prefect_server.run(delete_deployments)
    run_program(prefect_server, prefect, "work-pool", "create", "together-video", "--type", "process")
    run_program(prefect_server, prefect, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    return prefect_server


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_deployments_are_deployed_with_their_schedules_inactive(deployed: PrefectServer) -> None:
    async def read() -> dict[str, list[bool]]:
        async with get_client() as client:
            found = await client.read_deployments()
            return {one.name: [bool(schedule.active) for schedule in one.schedules] for one in found}

    schedules = deployed.run(read)

    assert schedules.keys() == NAMES
    assert schedules["nightly"] == schedules["collect-videos"] == [False]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_runs_a_deployment_to_its_videos(deployed: PrefectServer, tmp_path: Path) -> None:
    table = prompts("A cat asleep on a drum", "A harbour at dawn")
    parameters = {
        "prompts": table,
        "model": MODEL,
        "output_dir": str(tmp_path / "out"),
        "sandbox": True,
        "locations": {"sandbox_speed": 50},
    }

    with worker(deployed, tmp_path / "worker.log"):
        run = deployed.run(lambda: run_deployment("generate-videos/generate-videos", parameters))

    assert run.state is not None
    assert run.state.is_completed(), (run.state.message, (tmp_path / "worker.log").read_text()[-3000:])
    assert {path.name for path in (tmp_path / "out" / "videos").glob("*.mp4")} == {"r1.mp4", "r2.mp4"}
    assert "together-video" in run.tags


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_is_stopped_lets_its_runs_put_the_ledger_right(deployed: PrefectServer, tmp_path: Path) -> None:
    parameters = {"prompts": prompts("A long film"), "model": MODEL, "output_dir": str(tmp_path / "out")}

    async def start() -> UUID:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("generate-videos/generate-videos")
            return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id

    with Sandbox() as api:
        api.fault("odd-status", endpoint="retrieve", count=None)  # waited for, as long as it stands
        service = {"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": api.base_url}
        with worker(deployed, tmp_path / "worker.log", service) as process:
            run_id = deployed.run(start)
            polled = wait_until(lambda: api.calls("retrieve") > 0, seconds=100, every_seconds=0.2)
            process.terminate()
            code = process.wait(60)
        run = deployed.run(lambda: ended(run_id))

    assert polled
    assert code == 0
    assert run.state is not None
    assert run.state.is_cancelled(), run.state
    assert run.state.message == "stopped by SIGTERM; the same run again continues where this one stopped"
    assert [row["status"] for row in read_results(tmp_path / "out")] == ["submitted"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_automations_are_the_same_after_a_second_run(prefect_server: PrefectServer) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    async def save() -> None:
        hook: Any = CustomWebhookNotificationBlock.model_validate({"name": "hook", "url": "http://127.0.0.1:9/"})
        await hook.save("alerts", overwrite=True)

    prefect_server.run(save)
    script = [sys.executable, "deployments/automations.py"]

    first = run_program(prefect_server, *script, "custom-webhook/alerts")
    second = run_program(prefect_server, *script, "custom-webhook/alerts")

    async def read() -> dict[str, str]:
        async with get_client() as client:
            return {str(one.id): one.name for one in await client.read_automations()}

    assert first == second
    assert len(prefect_server.run(read)) == len(first.splitlines()) == 6
    assert run_program(prefect_server, *script, "--remove").count("removed") == 6
    assert prefect_server.run(read) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploy_and_serve_put_what_prefect_yaml_says_on_the_server_from_an_empty_directory(
    deployed: PrefectServer, tmp_path: Path
) -> None:
    """Compared with what Prefect's own `deploy` made of the file, but for where the code is."""
    by_prefect = deployed.run(deployed_now)

    refused = run_cli(deployed, tmp_path, "serve")
    done = run_cli(deployed, tmp_path, "deploy")

    by_deploy = deployed.run(deployed_now)
    assert (refused.returncode, done.returncode) == (2, 0), refused.stderr + done.stderr
    assert "together-video: leave it to its workers" in refused.stderr
    assert "prefect worker start --pool together-video" in done.stdout
    assert {name: said_of(one) for name, one in by_deploy.items()} == {
        name: said_of(one) for name, one in by_prefect.items()
    }
    assert {str(one.job_variables["working_dir"]) for one in by_deploy.values()} == {str(tmp_path)}

    deployed.run(delete_deployments)
    served = {deployment.name: deployment for deployment in deployed.run(served_deployments)}
    assert {name: said_of(one) for name, one in served.items()} == {
        name: said_of(one) for name, one in by_deploy.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_deploy_leaves_schedules_as_active_as_they_are(prefect_server: PrefectServer, tmp_path: Path) -> None:
    async def switch_on() -> None:
        async with get_client() as client:
            nightly = await client.read_deployment_by_name("generate-videos/nightly")
            await client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)

    assert run_cli(prefect_server, tmp_path, "deploy", "--pool", "another").returncode == 0
    prefect_server.run(switch_on)

    again = run_cli(prefect_server, tmp_path, "deploy", "--pool", "another")

    found = prefect_server.run(deployed_now)
    active = {name: [bool(one.active) for one in found[name].schedules] for name in found}
    prefect_server.run(delete_deployments)
    assert again.returncode == 0
    assert (active["nightly"], active["collect-videos"]) == ([True], [False])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploy_wants_an_image_for_containers_and_none_for_processes(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    async def make_pool() -> None:
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="containers", type="docker"))

    prefect_server.run(make_pool)

    without = run_cli(prefect_server, tmp_path, "deploy", "--pool", "containers")
    needless = run_cli(prefect_server, tmp_path, "deploy", "--pool", "processes", "--image", "ours:1")
    right = run_cli(prefect_server, tmp_path, "deploy", "--pool", "containers", "--image", "ours:1")

    images = {str(one.job_variables.get("image")) for one in prefect_server.run(deployed_now).values()}
    prefect_server.run(delete_deployments)
    assert (without.returncode, needless.returncode, right.returncode) == (2, 2, 0), right.stderr
    assert "name an image" in without.stderr
    assert "takes no image" in needless.stderr
    assert images == {"ours:1"}


def test_deploy_and_serve_without_a_server_say_what_to_set(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    for command in ("deploy", "serve"):
        words = [sys.executable, "-m", "prefect_together", command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "set PREFECT_API_URL" in done.stderr) == (2, True)


def run_cli(server: PrefectServer, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`prefect-together` in a directory without a checkout, against the server."""
    return subprocess.run(
        [sys.executable, "-m", "prefect_together", *words],
        cwd=directory,
        env={**os.environ, "PREFECT_API_URL": server.api_url},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def deployed_now() -> dict[str, DeploymentResponse]:
    async with get_client() as client:
        return {one.name: one for one in await client.read_deployments()}


async def delete_deployments() -> None:
    async with get_client() as client:
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)


def said_of(deployment: Any) -> dict[str, Any]:
    """What prefect.yaml says of a deployment: of the server's, and of one that is about to be served."""
    on_server = isinstance(deployment, DeploymentResponse)
    limit = deployment.global_concurrency_limit if on_server else deployment.concurrency_limit
    return {
        "description": deployment.description,
        "tags": sorted(deployment.tags),
        "parameters": deployment.parameters,
        "schedules": [
            (one.slug, one.schedule.model_dump(exclude={"anchor_date"}), bool(one.active))
            for one in deployment.schedules
        ],
        "limit": limit.limit if on_server and limit else limit,
        "strategy": deployment.concurrency_options and str(deployment.concurrency_options.collision_strategy),
    }


def dumped(schedule: Any) -> dict[str, Any]:
    """A schedule without the moment at which it was made, from which an interval counts."""
    return schedule.model_dump(exclude={"anchor_date"})
