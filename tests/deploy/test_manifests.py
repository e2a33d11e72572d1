"""What would be applied: valid for every supported Kubernetes, and as strict as we say it is."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from parkingd.config import load_config
from tests.deploy import zone
from tests.deploy.engine import ROOT, tool
from tests.deploy.rendering import (
    CHART,
    K8S,
    OVERLAYS,
    SECRET,
    SOURCES,
    Manifest,
    named,
    pod_spec,
    refusal,
)

why = refusal()
pytestmark = pytest.mark.skipif(why is not None, reason=why or "")

OLDEST, NEWEST = "1.27", "1.37"
"""The versions of Kubernetes that are supported."""
CUSTOM = ("ServiceMonitor", "PrometheusRule")
"""Kinds that are not Kubernetes' own: there is no schema of them here."""


@pytest.fixture(scope="module", params=SOURCES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return SOURCES[request.param]()


# --- valid ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_what_kubernetes_expects(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_finds_a_misspelt_field(manifests: list[Manifest]) -> None:
    spec = dict(named(manifests, "StatefulSet"))
    spec["spec"] = spec["spec"] | {"minReadySecond": 5}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spec, NEWEST, strict=True)


def test_the_chart_wants_at_least_the_oldest_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_helm_lint_finds_nothing() -> None:
    words = ["helm", "lint", "--strict", "--set", f"cookie.existingSecret={SECRET}", str(CHART)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_yamllint_finds_nothing() -> None:
    files = [str(path) for path in sorted(K8S.rglob("*.yaml")) if "templates" not in path.parts]
    assert len(files) > 10
    rules = "{extends: default, rules: {line-length: {max: 160}, document-start: disable, " \
            "octal-values: disable, comments: {min-spaces-from-content: 1}}}"  # fmt: skip
    found = subprocess.run(
        [tool("yamllint"), "--strict", "-d", rules, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


# --- what a pod may do ---------------------------------------------------------------------------


def test_a_pod_has_no_privilege_at_all(manifests: list[Manifest]) -> None:
    spec = pod_spec(manifests)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["runAsGroup"] == 10001
    assert spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for absent in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
        assert absent not in spec
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_nobody_gets_a_token_for_the_api(manifests: list[Manifest]) -> None:
    assert named(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod_spec(manifests)["automountServiceAccountToken"] is False
    assert [m["kind"] for m in manifests if "Role" in m["kind"]] == []


def test_no_variable_comes_from_a_service_of_the_same_name(manifests: list[Manifest]) -> None:
    assert pod_spec(manifests)["enableServiceLinks"] is False


def test_the_processor_has_no_limit_and_the_memory_has(manifests: list[Manifest]) -> None:
    (container,) = pod_spec(manifests)["containers"]
    assert "cpu" not in container["resources"]["limits"]
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


def test_only_two_folders_can_be_written_and_the_control_socket_is_in_memory(
    manifests: list[Manifest],
) -> None:
    spec = pod_spec(manifests)
    (container,) = spec["containers"]
    writable = {m["mountPath"]: m["name"] for m in container["volumeMounts"] if "readOnly" not in m}
    data = {"/var/lib/parkingd": "data"}
    assert writable in (data | {"/run/parkingd": "run"}, {"/run/parkingd": "run"})
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    for manifest in manifests:
        if manifest["kind"] == "Service":
            assert {port["name"] for port in manifest["spec"]["ports"]} <= {
                "gossip",
                "events",
                "ops",
            }


def test_the_cookie_is_a_file_and_in_no_variable_and_no_configmap(
    manifests: list[Manifest],
) -> None:
    (container,) = pod_spec(manifests)["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["PARKINGD_COOKIE_FILE"]["value"] == "/etc/parkingd-cookie/cookie"
    assert "PARKINGD_COOKIE" not in variables
    assert "envFrom" not in container
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap" and "parkingd.toml" in manifest["data"]:
            assert "cookie" not in tomllib.loads(manifest["data"]["parkingd.toml"])


# --- how nodes find each other, and how they are asked -------------------------------------------


def test_the_headless_service_names_the_port_and_publishes_who_is_not_ready(
    manifests: list[Manifest],
) -> None:
    service = named(manifests, "Service", "parkingd-gossip")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    ports = {port["name"]: port["port"] for port in service["ports"]}
    assert ports == {"gossip": 7744, "events": 7745, "ops": 9744}
    assert named(manifests, "StatefulSet")["spec"]["serviceName"] == "parkingd-gossip"


def test_the_other_service_offers_the_read_only_port_and_nothing_else(
    manifests: list[Manifest],
) -> None:
    service = named(manifests, "Service", "parkingd")["spec"]
    assert [port["name"] for port in service["ports"]] == ["ops"]
    assert "publishNotReadyAddresses" not in service


def test_a_service_selects_the_nodes_and_nobody_else(manifests: list[Manifest]) -> None:
    nodes = named(manifests, "StatefulSet")["spec"]
    labels = nodes["template"]["metadata"]["labels"]
    for manifest in manifests:
        if manifest["kind"] == "Service":
            assert manifest["spec"]["selector"].items() <= labels.items()
            for pod in manifests:
                if pod["kind"] == "Pod":
                    other = pod["metadata"]["labels"]
                    assert not manifest["spec"]["selector"].items() <= other.items()
    assert nodes["selector"]["matchLabels"].items() <= labels.items()
    budget = named(manifests, "PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_all_start_at_once_and_one_after_the_other_is_replaced(manifests: list[Manifest]) -> None:
    spec = named(manifests, "StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["minReadySeconds"] >= 3  # The life of a joiner before it gets gates.
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 10


def test_life_and_readiness_are_asked_apart_on_the_named_port(manifests: list[Manifest]) -> None:
    (container,) = pod_spec(manifests)["containers"]
    asked = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    paths = {name: (p["httpGet"]["path"], p["httpGet"]["port"]) for name, p in asked.items()}
    assert paths == {
        "startup": ("/livez", "ops"),
        "liveness": ("/livez", "ops"),
        "readiness": ("/readyz", "ops"),
    }
    assert "lifecycle" not in container
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "gossip": 7744,
        "events": 7745,
        "ops": 9744,
    }


def configuration(manifests: list[Manifest], tmp_path: Path, pod: str = "parkingd-0") -> Any:
    """What the daemon makes of the file and the variables of a pod."""
    (container,) = pod_spec(manifests)["containers"]
    (config,) = [m for m in manifests if m["kind"] == "ConfigMap" and "parkingd.toml" in m["data"]]
    file = tmp_path / "parkingd.toml"
    file.write_text(config["data"]["parkingd.toml"])
    fields = {"metadata.namespace": "parking", "metadata.name": pod}
    environ: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom")
        value = fields[source["fieldRef"]["fieldPath"]] if source else variable["value"]
        for name, before in environ.items():
            value = value.replace(f"$({name})", before)
        environ[variable["name"]] = value
    assert environ.pop("PARKINGD_CONFIG") == "/etc/parkingd/parkingd.toml"
    del environ["POD_NAMESPACE"]
    image = {"PARKINGD_DATA_DIR": "/var/lib/parkingd", "PARKINGD_RUNTIME_DIR": "/run/parkingd"}
    return load_config({}, environ | image, config_file=str(file))


def test_the_daemon_understands_what_it_is_told(manifests: list[Manifest], tmp_path: Path) -> None:
    config = configuration(manifests, tmp_path)
    assert config.warnings == ()
    assert (config.name, config.cluster) == ("parkingd-0", "parking.parkingd")
    assert config.srv == zone.SERVICE.removesuffix(".")
    assert (config.port, config.mdns) == (7744, False)


# --- the network policy --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["production", "chart-everything"])
def test_with_a_network_policy_only_nodes_reach_the_gossip_ports(source: str) -> None:
    manifests = SOURCES[source]()
    spec = named(manifests, "NetworkPolicy")["spec"]
    labels = named(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    for rule in spec["ingress"]:
        ports = {port["port"] for port in rule["ports"]}
        if ports & {"gossip", "events"}:
            (only,) = rule["from"]
            assert only["podSelector"]["matchLabels"].items() <= labels.items()
            assert ports == {"gossip", "events"}
        else:
            assert ports == {"ops"}
            assert all(peer for peer in rule["from"])
    outward = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert outward == {"gossip", "events", 53}


def test_both_network_policies_are_the_same() -> None:
    production, chart = (SOURCES[name]() for name in ("production", "chart-everything"))
    assert named(production, "NetworkPolicy")["spec"] == named(chart, "NetworkPolicy")["spec"]


def test_the_production_overlay_spreads_nodes_and_pins_the_image() -> None:
    spec = pod_spec(SOURCES["production"]())
    keys = [spread["topologyKey"] for spread in spec["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert re.fullmatch(r".+@sha256:[0-9a-f]{64}", spec["containers"][0]["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_itself_refuses_privileged_pods(overlay: str) -> None:
    labels = named(SOURCES[overlay](), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_cookie_of_minikube_is_not_kept_in_git() -> None:
    assert (K8S / "overlays/minikube/.gitignore").read_text().split() == ["cookie"]
    assert not (K8S / "overlays/production/cookie").exists()


# --- chart and base do not drift -----------------------------------------------------------------


def plain(manifest: Manifest) -> Manifest:
    """Without what only one of the two ways of deploying has: provenance, hashes, versions."""
    text = re.sub(r"parkingd-[0-9a-z]{10}\b", "parkingd", json.dumps(manifest))
    found: Manifest = json.loads(text)
    for part in (found["metadata"], found["spec"]["template"]["metadata"] if "template" in
                 found.get("spec", {}) else {}):  # fmt: skip
        labels = part.get("labels", {})
        for provenance in ("helm.sh/chart", "app.kubernetes.io/managed-by",
                           "app.kubernetes.io/version"):  # fmt: skip
            labels.pop(provenance, None)
        part.get("annotations", {}).pop("checksum/config", None)
        if not part.get("annotations", True):
            del part["annotations"]
        part.pop("namespace", None)
        if part.get("creationTimestamp", 0) is None:
            del part["creationTimestamp"]
    if found["kind"] == "StatefulSet":
        for container in found["spec"]["template"]["spec"]["containers"]:
            container["image"] = container["image"].split(":")[0]
        for claim in found["spec"]["volumeClaimTemplates"]:
            claim["metadata"].pop("creationTimestamp", None)
    if found["kind"] == "ConfigMap":
        found["data"] = {"parkingd.toml": tomllib.loads(found["data"]["parkingd.toml"])}
    return found


def test_the_chart_with_its_defaults_says_what_the_base_says_field_by_field() -> None:
    base = {(m["kind"], plain(m)["metadata"]["name"]): plain(m) for m in SOURCES["base"]()}
    chart = {
        (m["kind"], m["metadata"]["name"]): plain(m)
        for m in SOURCES["chart"]()
        if m["kind"] != "Pod"  # helm test
    }
    assert base.keys() == chart.keys()
    for key, manifest in base.items():
        assert manifest == chart[key], key


@pytest.mark.parametrize("source", ["production", "chart-everything"])
def test_alerts_and_dashboard_are_those_of_the_docs(source: str) -> None:
    """Neither kustomize nor Helm reads a file outside its folder, so there are copies."""
    docs, manifests = ROOT / "docs/monitoring", SOURCES[source]()
    rules = yaml.safe_load((docs / "alerts.yaml").read_text())
    assert named(manifests, "PrometheusRule")["spec"] == rules
    (shown,) = [m for m in manifests if m["kind"] == "ConfigMap" and "dashboard.json" in m["data"]]
    dashboard = (docs / "grafana-dashboard.json").read_text()
    assert shown["data"]["dashboard.json"] == dashboard
    assert json.loads(dashboard)["title"] == "parkingd"
    assert (CHART / "files/alerts.yaml").read_text() == (docs / "alerts.yaml").read_text()


def test_the_service_monitor_reads_every_node_once() -> None:
    for source in ("production", "chart-everything"):
        manifests = SOURCES[source]()
        wanted = named(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
        matched = [
            m["metadata"]["name"]
            for m in manifests
            if m["kind"] == "Service" and wanted.items() <= m["metadata"]["labels"].items()
        ]
        assert matched == ["parkingd-gossip"]
