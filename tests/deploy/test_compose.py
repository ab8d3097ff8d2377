"""docker-compose.yml is valid, closed to other machines, and its parts fit each other."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import yaml

from streams.settings import load
from tests.deploy.files import (
    ADMIN,
    CHECK_JSONSCHEMA,
    COMPOSE,
    Service,
    compose,
    flags,
    mounts,
    on_host,
    run_tool,
    services,
    settings_of,
)
from tests.parts.install import ROOT, kafka_version

BUILT_HERE: Final = "leadpulse:"
DEPLOYMENT: Final = ROOT / "docs" / "deployment.md"
NAMES: Final = sorted(services())


def environments() -> Iterator[tuple[str, str, str]]:
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            yield name, variable, value


def ports(service: Service) -> Iterator[tuple[str, range, int]]:
    """Return the address, the ports of the host and the port of the container."""
    for text in service.get("ports", ()):
        address, host, container = text.rsplit(":", 2)
        first, _, last = host.partition("-")
        yield address, range(int(first), int(last or first) + 1), int(container)


@pytest.mark.parametrize("file", [COMPOSE, ADMIN], ids=lambda file: file.name)
def test_compose_file_follows_the_compose_specification(file: Path) -> None:
    done = run_tool(
        CHECK_JSONSCHEMA, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_administrator_has_a_password_from_a_file_that_git_ignores() -> None:
    told = yaml.safe_load(ADMIN.read_text())
    settings = told["services"]["grafana"]["environment"]

    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "false"
    [secret] = told["services"]["grafana"]["secrets"]
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{secret}"
    file = told["secrets"][secret]["file"].removeprefix("./")
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert f"/{file.partition('/')[0]}/" in ignored


def test_everything_that_the_issue_asks_for_is_there() -> None:
    assert {"kafka", "redis", "prometheus", "alertmanager", "grafana", "simulator"} <= set(NAMES)
    assert services()["worker"]["deploy"]["replicas"] == "2"
    assert [name for name, service in services().items() if service.get("profiles")] == [
        "simulator"
    ]


def test_every_open_port_is_open_to_this_machine_only_and_to_one_service() -> None:
    taken = [
        (port, name)
        for name, service in services().items()
        for address, of_host, _ in ports(service)
        for port in of_host
        if address == "127.0.0.1"
    ]

    assert len(taken) == sum(len(h) for s in services().values() for _, h, _ in ports(s))
    assert len(dict(taken)) == len(taken)
    assert not any("network_mode" in service for service in services().values())


def told_for_env() -> dict[str, str]:
    """Return every variable that docs/deployment.md tells to put into .env."""
    blocks = re.findall(r"^```sh\n((?:\w+=.*\n)+)```", DEPLOYMENT.read_text(), re.MULTILINE)
    lines = [line.partition("=") for block in blocks for line in block.splitlines()]
    return {name: value for name, _, value in lines}


@pytest.mark.parametrize("variables", [{}, told_for_env()], ids=["as it comes", "as is told"])
def test_there_is_a_port_for_every_worker(variables: dict[str, str]) -> None:
    worker = services(**variables)["worker"]

    [(_, of_host, of_container)] = ports(worker)

    assert worker["deploy"]["replicas"] == variables.get("WORKERS", "2")
    assert len(of_host) == int(worker["deploy"]["replicas"])
    address = load(settings_of(worker)).metrics
    assert (address.host, address.port) == ("0.0.0.0", of_container)


@pytest.mark.parametrize("name", NAMES)
def test_service_is_confined(name: str) -> None:
    service = services()[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= set(limits)
    assert float(limits["cpus"]) <= 1, "an engine refuses more than the machine has"
    assert service["logging"]["options"]["max-size"]
    # Kafka's start writes into its image.
    assert service.get("read_only") is True or name == "kafka"


@pytest.mark.parametrize("name", NAMES)
def test_image_is_pinned_to_one_release(name: str) -> None:
    image, _, tag = services()[name]["image"].rpartition(":")

    assert image
    assert re.match(r"v?\d+\.\d+\.\d+", tag), tag


def test_kafka_is_the_one_that_the_tests_run_on() -> None:
    assert services()["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


@pytest.mark.parametrize("name", NAMES)
def test_service_waits_only_for_what_can_come_about(name: str) -> None:
    for needed, how in services()[name].get("depends_on", {}).items():
        other = services()[needed]
        if how["condition"] == "service_healthy":
            assert other["healthcheck"]["test"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other["restart"].startswith("on-failure")
        assert not other.get("profiles")


@pytest.mark.parametrize("name", NAMES)
def test_service_that_runs_on_is_watched_and_comes_back(name: str) -> None:
    service = services()[name]
    if name == "topics":
        assert service["restart"] == "on-failure:5"
        return
    assert service["restart"] == "unless-stopped"
    assert name == "simulator" or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", NAMES)
def test_mount_is_of_the_repository_and_there(name: str) -> None:
    for mount in mounts(services()[name]):
        if not mount.is_of_host:
            assert mount.source in compose()["volumes"]
            continue
        assert mount.is_read_only, mount
        path = (ROOT / mount.source).resolve()
        assert path.is_relative_to(ROOT), mount
        assert path.exists(), mount


def test_no_secret_stands_in_the_file() -> None:
    for name, variable, value in environments():
        if re.search("SECRET|PASSWORD|TOKEN|KEY", variable):
            assert value == "", f"{name}: {variable}"
    assert not re.search(r"://[^/\s]*:[^/\s]*@", COMPOSE.read_text())


@pytest.mark.parametrize("name", ["topics", "worker", "simulator"])
def test_settings_are_accepted(name: str) -> None:
    service = services()[name]
    assert service["image"].startswith(BUILT_HERE)

    settings = load(settings_of(service))

    host, _, port = settings.kafka.servers.partition(":")
    assert (
        f"CONTAINERS://{host}:{port}"
        in services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert urlsplit(settings.redis.url).hostname in services()


def test_settings_that_a_user_makes_reach_every_program() -> None:
    chosen = {"LEADPULSE_CURRENCY": "CHF", "LEADPULSE_TIME_ZONE": "Europe/Zurich"}

    for name in ("topics", "worker", "simulator"):
        settings = load(settings_of(services(**chosen)[name]))
        assert (settings.currency, str(settings.time_zone)) == ("CHF", "Europe/Zurich")


@pytest.mark.parametrize("name", ["topics", "worker", "simulator"])
def test_what_env_says_reaches_every_program_or_is_said_to_be_fixed(name: str) -> None:
    chosen = {
        "LEADPULSE_APP_ID": "shop",
        "LEADPULSE_TOPICS_PREFIX": "shop.",
        "LEADPULSE_CURRENCY": "CHF",
    }
    fixed = re.findall(r"`(LEADPULSE_\w+)`", DEPLOYMENT.read_text().partition("Fixed by")[2])[:4]
    service = services(**chosen)[name]

    settings = load(settings_of(service, **chosen))

    assert (settings.app_id, settings.topics.prefix) == ("shop", "shop.")
    assert settings.currency == "CHF"
    assert service["env_file"] == [{"path": ".env", "required": False}]
    of_env = services(**dict.fromkeys(service["environment"], "chosen"))[name]["environment"]
    assert {name for name, value in of_env.items() if value != "chosen"} <= set(fixed)


def test_files_are_never_named_by_one_command_alone() -> None:
    """What one command does not read it takes away: the worker's settings, say."""
    for file in (ADMIN, COMPOSE, DEPLOYMENT):
        text = file.read_text()
        assert not re.search(r"docker compose [^\n`]*(-f|--file) ", text), file
        for named in re.findall(r"COMPOSE_FILE=(\S+)", text):
            assert all((ROOT / one).is_file() for one in named.split(":")), named
    assert "COMPOSE_FILE=docker-compose.yml:deploy/compose.admin.yml" in ADMIN.read_text()


def test_rules_of_alerts_are_where_the_worker_looks_for_them() -> None:
    worker = services()["worker"]

    assert on_host(worker, worker["environment"]["LEADPULSE_ALERTS_RULES"]).is_file()


# ----------------------------------------------------------------------------- Prometheus and friends


def prometheus_file() -> Path:
    prometheus = services()["prometheus"]
    return on_host(prometheus, flags(prometheus)["--config.file"])


def addresses(found: object) -> Iterator[str]:
    """Return every host:port that a part of prometheus.yml names."""
    if isinstance(found, dict):
        if found.get("type") == "A":
            yield from (f"{name.removeprefix('tasks.')}:{found['port']}" for name in found["names"])
        yield from found.get("targets", ())
        for inner in found.values():
            yield from addresses(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from addresses(inner)


def test_prometheus_accepts_its_files() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", prometheus_file()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_workers_and_alertmanager_by_the_names_of_services() -> None:
    named = set(addresses(yaml.safe_load(prometheus_file().read_text())))

    assert {"worker:9464", "alertmanager:9093"} <= named
    assert {address.rpartition(":")[0] for address in named} <= {*NAMES, "localhost", "127.0.0.1"}


def test_alertmanager_accepts_its_file() -> None:
    alertmanager = services()["alertmanager"]
    file = on_host(alertmanager, flags(alertmanager)["--config.file"])

    done = subprocess.run(
        ["amtool", "check-config", file], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_dashboards_and_prometheus_where_they_are() -> None:
    grafana = services()["grafana"]
    provisioning = on_host(grafana, "/etc/grafana/provisioning")

    [source] = [
        one
        for file in provisioning.glob("datasources/*.y*ml")
        for one in yaml.safe_load(file.read_text())["datasources"]
    ]
    [provider] = [
        one
        for file in provisioning.glob("dashboards/*.y*ml")
        for one in yaml.safe_load(file.read_text())["providers"]
    ]

    assert source["url"] == "http://prometheus:9090"
    assert list(on_host(grafana, provider["options"]["path"]).glob("*.json"))


def test_grafana_has_no_account_with_a_known_password() -> None:
    settings = services()["grafana"]["environment"]

    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
