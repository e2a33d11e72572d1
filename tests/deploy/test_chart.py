"""The chart: it refuses what makes no sense, documents every value, and warns of what it brings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from parkingd import __version__
from parkingd.config.options import OPTIONS
from tests.deploy.rendering import (
    CHART,
    SECRET,
    SOURCES,
    helm,
    helm_notes,
    helm_refusal,
    pod_spec,
    refusal,
)

why = refusal()
pytestmark = pytest.mark.skipif(why is not None, reason=why or "")


def test_the_chart_never_invents_a_cookie() -> None:
    said = helm_refusal()
    assert "cookie.existingSecret is not set" in said
    assert "kubectl --namespace parking create secret generic parkingd-cookie" in said
    assert [m for m in SOURCES["chart"]() if m["kind"] == "Secret"] == []
    assert SOURCES["chart"]() == SOURCES["chart"]()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("replicaCount=0", "replicaCount"),
        ("replicaCount=three", "replicaCount"),
        ("replicas=3", "replicas"),
        ("config.spaecs=3", "spaecs"),
        ("image.digest=sha256:abc", "digest"),
        ("persistence.size=big", "size"),
        ("networkPolicy.enabled=maybe", "enabled"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(flag: str, said: str) -> None:
    message = helm_refusal("--set", f"cookie.existingSecret={SECRET}", "--set", flag)
    assert "schema" in message
    assert said in message


def test_a_name_for_which_the_control_socket_has_no_room_is_refused() -> None:
    long = ("--set", f"cookie.existingSecret={SECRET}", "--set", f"cluster.name={'x' * 63}")
    assert pod_spec(helm(*long))
    assert "is too long: give a shorter one as cluster.name" in helm_refusal(
        *long, release="parkingd-of-the-airport"
    )


def test_every_value_is_documented_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())

    def check(values: dict[str, Any], allowed: dict[str, Any], prefix: str) -> None:
        assert values.keys() <= allowed["properties"].keys(), prefix
        for key, value in values.items():
            deeper = allowed["properties"][key]
            if prefix == "" and isinstance(value, dict) and "properties" in deeper:
                if key in ("config", "resources"):
                    assert re.search(rf"^# {key}\b", text, re.MULTILINE), key
                else:
                    check(value, deeper, f"{key}.")
            else:
                assert re.search(rf"^ *# {re.escape(prefix + key)}\b", text, re.MULTILINE), key

    check(yaml.safe_load(text), schema, "")


def test_what_the_schema_lets_into_the_configuration_file_is_a_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = schema["properties"]["config"]["properties"].keys()
    keys = {option.key for option in OPTIONS}
    assert allowed <= keys
    elsewhere = {"name", "cluster", "cookie", "cookie_file", "data_dir", "runtime_dir", "srv"}
    assert allowed.isdisjoint(elsewhere | {"port", "ops", "mdns", "ephemeral", "host"})


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({}, ["topologySpread is empty", "networkPolicy.enabled is false"]),
        ({"replicaCount": 1}, ["replicaCount is 1", "networkPolicy.enabled is false"]),
        ({"persistence": {"enabled": False}}, ["persistence.enabled is false"]),
        ({"replicaCount": 5}, ["5 nodes share 4 gates"]),
        ({"podDisruptionBudget": {"enabled": False}}, ["podDisruptionBudget.enabled is false"]),
        ({"resources": {"limits": {"cpu": "1"}}}, ["resources.limits.cpu is set"]),
    ],
)
def test_the_notes_warn_of_what_the_values_bring_about(
    values: dict[str, Any], warned: list[str]
) -> None:
    notes = helm_notes(**values)
    assert "kubectl --namespace parking exec -it parkingd-0 -- parkingd-ctl top" in notes
    for warning in warned:
        assert f"  - {warning}" in notes


def test_the_notes_do_not_warn_of_a_sound_installation() -> None:
    sound = {"networkPolicy": {"enabled": True}, "topologySpread": ["kubernetes.io/hostname"]}
    assert "Consider" not in helm_notes(**sound)


def test_version_and_appversion_are_those_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    (container,) = pod_spec(SOURCES["chart"]())["containers"]
    assert container["image"] == f"parkingd:{__version__}"
