"""deploy/kubernetes: every object is valid, confined, and in step with what it follows from."""

import re
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest
import yaml

from streams.app import STOP_SECONDS
from streams.settings import load
from streams.topics import topics_of
from streams.watchdog import PROGRESS_TICKS, TICK_SECONDS
from tests.deploy import image as images
from tests.deploy.files import services
from tests.deploy.kubernetes_files import KUBERNETES, base_settings, files
from tests.deploy.kustomize import Object, containers, objects_of, resolve
from tests.deploy.monitoring_schemas import ALERTMANAGER_CONFIG
from tests.deploy.strimzi_schemas import KAFKA_TOPIC, KAFKA_USER

OVERLAYS: Final = ("small", "production")
STRIMZI: Final = {"KafkaTopic": KAFKA_TOPIC, "KafkaUser": KAFKA_USER}
RELEASE: Final = "1.33"
"""The oldest Kubernetes that is checked."""


def overlay(name: str) -> list[Object]:
    return resolve(KUBERNETES / "overlays" / name)


def find(objects: list[Object], kind: str, name: str = "leadpulse") -> Object:
    [found] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def pod(objects: list[Object]) -> dict[str, Any]:
    found: dict[str, Any] = find(objects, "Deployment")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("path", sorted(files()), ids=lambda path: path.name)
def test_file_is_in_step_with_what_it_follows_from(path: Path) -> None:
    assert path.read_text() == files()[path], "run `python -m tests.deploy.kubernetes_files`"


@pytest.mark.parametrize("name", OVERLAYS)
def test_objects_of_kubernetes_are_valid(name: str) -> None:
    of_kubernetes = [
        o for o in overlay(name) if "." not in o["apiVersion"] or ".k8s.io/" in o["apiVersion"]
    ]

    assert {"Deployment", "Service", "NetworkPolicy"} <= {o["kind"] for o in of_kubernetes}
    for one in of_kubernetes:
        kubernetes_validate.validate(one, RELEASE, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    one = find(overlay("small"), "Deployment")
    one["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, RELEASE, strict=True)


def test_objects_of_strimzi_are_valid() -> None:
    of_strimzi = [o for o in overlay("production") if o["kind"] in STRIMZI]

    assert {o["kind"] for o in of_strimzi} == STRIMZI.keys()
    for one in of_strimzi:
        jsonschema.validate(_without_namespace(one), STRIMZI[one["kind"]])


def _without_namespace(one: Object) -> Object:
    metadata = {name: value for name, value in one["metadata"].items() if name != "namespace"}
    return one | {"metadata": metadata}


def test_there_is_a_topic_for_every_topic() -> None:
    made = {o["metadata"]["name"] for o in overlay("production") if o["kind"] == "KafkaTopic"}

    assert made == {spec.name for spec in topics_of(base_settings()).specs()}


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_confined(name: str) -> None:
    for one in overlay(name):
        if not containers(one):
            continue
        spec = one["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in containers(one):
            limits = container["securityContext"]
            assert limits["readOnlyRootFilesystem"] is True
            assert limits["allowPrivilegeEscalation"] is False
            assert limits["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert ":" in container["image"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_are_accepted(name: str, tmp_path: Path) -> None:
    objects = overlay(name)
    [settings_of_overlay] = [
        o["data"]["leadpulse.toml"]
        for o in objects
        if o["kind"] == "ConfigMap" and "leadpulse.toml" in o["data"]
    ]
    file, certificate = tmp_path / "leadpulse.toml", tmp_path / "ca.crt"
    file.write_text(settings_of_overlay.replace("/etc/leadpulse/kafka-ca/ca.crt", ""))
    assert not certificate.exists()
    variables = {
        entry["name"]: entry.get("value", "from a secret")
        for container in containers(find(objects, "Deployment"))
        for entry in container["env"]
    }

    settings = load(variables | {"LEADPULSE_CONFIG": ""}, file)

    assert settings.metrics.host == "0.0.0.0"
    [port] = pod(objects)["containers"][0]["ports"]
    assert settings.metrics.port == port["containerPort"]
    assert (settings.topics.replication == 3) == (name == "production")


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_a_pod_mounts_and_names_is_there(name: str) -> None:
    objects = overlay(name)
    spec = pod(objects)
    maps = {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}

    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in containers(find(objects, "Deployment")):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
    assert {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} <= maps
    find(objects, "ServiceAccount", spec["serviceAccountName"])


def test_no_secret_stands_in_the_files() -> None:
    for name in OVERLAYS:
        for one in overlay(name):
            assert one["kind"] != "Secret"
            for container in containers(one):
                for entry in container.get("env", ()):
                    assert "valueFrom" in entry or not re.search("SECRET|PASSWORD", entry["name"])


def test_password_and_certificate_are_those_that_strimzi_makes() -> None:
    objects = overlay("production")
    user = find(objects, "KafkaUser")
    cluster = user["metadata"]["labels"]["strimzi.io/cluster"]
    settings = base_settings()

    [secret] = [
        entry["valueFrom"]["secretKeyRef"]
        for entry in pod(objects)["containers"][0]["env"]
        if "valueFrom" in entry
    ]
    [certificate] = [v["secret"]["secretName"] for v in pod(objects)["volumes"] if "secret" in v]

    assert secret == {"name": user["metadata"]["name"], "key": "password"}
    assert certificate == f"{cluster}-cluster-ca-cert"
    assert settings.kafka.sasl_username == user["metadata"]["name"]
    assert settings.kafka.servers.startswith(f"{cluster}-kafka-bootstrap:")


@pytest.mark.parametrize("name", OVERLAYS)
def test_network_lets_a_worker_reach_what_its_settings_name(name: str) -> None:
    objects = overlay(name)
    [settings_of_overlay] = [
        o["data"]["leadpulse.toml"]
        for o in objects
        if o["kind"] == "ConfigMap" and "leadpulse.toml" in o["data"]
    ]
    policy = find(objects, "NetworkPolicy")["spec"]

    allowed = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    kafka = int(settings_of_overlay.split('servers = "')[1].split('"')[0].rpartition(":")[2])

    assert allowed == {53, kafka, 6379, 443}
    assert all(rule["to"] for rule in policy["egress"])
    [names] = [rule for rule in policy["egress"] if rule["ports"][0]["port"] == 53]
    # Where every node has a cache of names, pods ask that address and not kube-dns.
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in names["to"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_selects_the_workers(name: str) -> None:
    objects = overlay(name)
    labels = find(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()

    assert find(objects, "Service")["spec"]["selector"].items() <= labels
    for kind, where in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert find(objects, kind)["spec"][where]["matchLabels"].items() <= labels


def test_probes_wait_longer_than_a_worker_needs_to_help_itself() -> None:
    [worker] = pod(overlay("production"))["containers"]
    probes = {
        kind: worker[f"{kind}Probe"]["periodSeconds"] * worker[f"{kind}Probe"]["failureThreshold"]
        for kind in ("startup", "readiness", "liveness")
    }
    session = base_settings().session

    assert probes["liveness"] > PROGRESS_TICKS * TICK_SECONDS + session.rebalance_seconds
    assert probes["readiness"] <= session.timeout_seconds
    # /healthz speaks of a group that was not joined after a minute.
    assert probes["startup"] > 60
    assert all(
        worker[f"{kind}Probe"]["httpGet"] == {"path": "/healthz", "port": "http"} for kind in probes
    )


def test_a_pod_has_time_to_stop() -> None:
    assert pod(overlay("production"))["terminationGracePeriodSeconds"] > 2 * STOP_SECONDS


def test_image_and_user_are_those_of_the_dockerfile() -> None:
    worker = pod(overlay("small"))

    assert worker["containers"][0]["image"] == services()["worker"]["image"]
    assert worker["securityContext"]["runAsUser"] == images.USER
    assert (
        find(overlay("small"), "Deployment", "redis")["spec"]["template"]["spec"]["containers"][0][
            "image"
        ]
        == services()["redis"]["image"]
    )


def test_monitoring_scrapes_the_service_under_the_name_that_the_rules_know() -> None:
    objects = overlay("production")
    monitor, service = find(objects, "ServiceMonitor")["spec"], find(objects, "Service")

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["endpoints"]] == [
        p["name"] for p in service["spec"]["ports"]
    ]
    job = service["metadata"]["labels"][monitor["jobLabel"]]
    own = yaml.safe_load((KUBERNETES.parent / "prometheus" / "prometheus.yml").read_text())
    assert job in [config["job_name"] for config in own["scrape_configs"]]


def test_rules_of_prometheus_are_all_there() -> None:
    rules = [o for o in overlay("production") if o["kind"] == "PrometheusRule"]

    names = {group["name"] for one in rules for group in one["spec"]["groups"]}
    written = {
        group["name"]
        for file in (KUBERNETES.parent / "prometheus").glob("*.rules.yml")
        for group in objects_of(file)[0]["groups"]
    }
    assert names == written
    assert written


def test_alerts_are_held_back_as_on_one_machine() -> None:
    objects = overlay("production")
    told = find(objects, "AlertmanagerConfig")
    own = yaml.safe_load((KUBERNETES.parent / "alertmanager" / "alertmanager.yml").read_text())

    jsonschema.validate(told, ALERTMANAGER_CONFIG)

    def matchers(found: list[dict[str, str]]) -> list[str]:
        return [f'{one["name"]}{one["matchType"]}"{one["value"]}"' for one in found]

    assert [
        (matchers(rule["sourceMatch"]), matchers(rule["targetMatch"]), rule.get("equal"))
        for rule in told["spec"]["inhibitRules"]
    ] == [
        (rule["source_matchers"], rule["target_matchers"], rule.get("equal"))
        for rule in own["inhibit_rules"]
    ]
    # The operator adds the namespace to every matcher.
    alerts = [
        rule
        for one in objects
        if one["kind"] == "PrometheusRule"
        for group in one["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {rule["labels"].get("namespace") for rule in alerts} == {told["metadata"]["namespace"]}
