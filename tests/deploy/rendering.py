"""What kustomize and Helm make of k8s/, as data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import yaml

from tests.deploy.engine import ROOT

K8S: Final = ROOT / "k8s"
CHART: Final = K8S / "chart/parkingd"
OVERLAYS: Final = ("minikube", "production")
SECRET: Final = "parkingd-cookie"
"""The one that has to be there already."""

Manifest = dict[str, Any]


def kustomize(path: str) -> list[Manifest]:
    """What `kubectl apply -k` would apply, in order. The cookie that minikube wants is given."""
    if shutil.which("kubectl") is not None:
        command = ["kubectl", "kustomize"]
    else:
        command = ["kustomize", "build"]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "k8s")
        shutil.copytree(K8S, copy)
        (copy / "overlays/minikube/cookie").write_text("a cookie for tests only\n")
        made = _run([*command, str(copy / path)])
    return [found for found in yaml.safe_load_all(made) if found]


def helm(*flags: str, values: str = "") -> list[Manifest]:
    """What `helm template` makes of the chart; ``values``: a values file."""
    words = ["helm", "template", "parkingd", str(CHART), "--namespace=parking", "--values=-"]
    made = _run([*words, *flags], stdin=values)
    return [found for found in yaml.safe_load_all(made) if found]


def helm_set(**values: object) -> list[Manifest]:
    """The chart with these values, and a Secret."""
    return helm(values=_with_secret(values))


def _with_secret(values: dict[str, object]) -> str:
    """A values file; YAML reads JSON."""
    return json.dumps({"cookie": {"existingSecret": SECRET}} | values)


def helm_refusal(*flags: str, release: str = "parkingd") -> str:
    """Why Helm renders nothing; it must not."""
    ended = subprocess.run(
        ["helm", "template", release, str(CHART), "--namespace=parking", *flags],
        capture_output=True,
        text=True,
        check=False,
        env=_environ(),
    )
    assert ended.returncode != 0, ended.stdout
    return ended.stderr


def helm_notes(**values: object) -> str:
    """What NOTES.txt says."""
    flags = ("--dry-run=client", "--namespace=parking", "--values=-")
    words = ["helm", "install", "parkingd", str(CHART), *flags]
    said = _run(words, stdin=_with_secret(values))
    return said.split("\nNOTES:\n")[1]


def _run(command: list[str], stdin: str = "") -> str:
    ended = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=_environ()
    )
    assert ended.returncode == 0, (command, ended.stderr)
    return ended.stdout


def _environ() -> dict[str, str]:
    """No cluster is asked, whichever this user has."""
    return os.environ | {"KUBECONFIG": "/dev/null"}


def named(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one of this kind, or of this kind and name."""
    found = [m for m in manifests if m["kind"] == kind]
    if name is not None:
        found = [m for m in found if m["metadata"]["name"] == name]
    (one,) = found
    return one


def pod_spec(manifests: list[Manifest]) -> Manifest:
    """Of the StatefulSet."""
    return cast(Manifest, named(manifests, "StatefulSet")["spec"]["template"]["spec"])


def refusal() -> str | None:
    """Why nothing can be rendered here; None when it can."""
    if shutil.which("helm") is None:
        return "needs `helm`"
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        return "needs `kubectl` or `kustomize`"
    return None


EVERYTHING: Final[dict[str, Any]] = {
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboard": True},
    "networkPolicy": {"enabled": True},
    "image": {"repository": "registry.example.org/parkingd", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": ["pull"],
    "topologySpread": ["kubernetes.io/hostname"],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "lane", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "podLabels": {"team": "lanes"},
    "podAnnotations": {"note": "1"},
    "persistence": {"storageClassName": "fast", "size": "1Gi"},
    "config": {"spaces": 400, "peers": ["10.0.0.1:7744"]},
}

SOURCES: Final[dict[str, Callable[[], list[Manifest]]]] = {
    "base": lambda: kustomize("base"),
    "minikube": lambda: kustomize("overlays/minikube"),
    "production": lambda: kustomize("overlays/production"),
    "chart": helm_set,
    "chart-everything": lambda: helm_set(**EVERYTHING),
    "chart-ephemeral": lambda: helm_set(persistence={"enabled": False}),
}
