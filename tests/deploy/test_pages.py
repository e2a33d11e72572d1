"""What the pages about deploying tell people to type is understood, and what they name is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from parkingd.cli import ctl_options, ctl_parsing
from parkingd.config.options import OPTIONS, OTHER_VARIABLES
from tests.deploy.engine import ROOT, tool
from tests.deploy.rendering import CHART, OVERLAYS
from tests.unit import test_documentation as documentation

README = ROOT / "k8s/README.md"
SYSTEMD = ROOT / "docs/howto-systemd.md"
PAGES = [README, SYSTEMD]


def typed() -> list[str]:
    return [line for page in PAGES for line in documentation.shell_lines(page)]


def inner_commands() -> list[list[str]]:
    """Of parkingd-ctl, in a pod or as root."""
    found = []
    for line in typed():
        words = line.removeprefix("$ ").replace(" > ", " ").split()
        if "parkingd-ctl" in words:
            found.append(
                documentation.words(line[line.index("parkingd-ctl") :].split(" > ")[0])[1:]
            )
    return [[word for word in words if word != "<" and ".csv" not in word] for words in found]


@pytest.mark.parametrize("arguments", inner_commands(), ids=" ".join)
def test_a_ctl_command_that_a_page_shows_is_understood(arguments: list[str]) -> None:
    command, _ = ctl_parsing.parse(arguments)
    assert command in ctl_options.COMMANDS


def test_the_pages_show_commands_at_all() -> None:
    assert len(inner_commands()) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_typed_is_sound_shell(page: Path) -> None:
    script = "\n".join(documentation.blocks(page, "sh"))
    found = subprocess.run(
        [tool("shellcheck"), "--shell=sh", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_minikube_takes_six_commands() -> None:
    section = README.read_text().split("\n## minikube in six commands\n")[1]
    first = documentation.FENCE.findall(section)[0][1].splitlines()
    assert len(first) == 6
    assert first[0] == "minikube start"
    assert first[-1].endswith("parkingd-ctl top")
    assert f"kubectl apply -k k8s/overlays/{OVERLAYS[0]}" in first


def test_every_value_of_the_chart_is_in_the_table() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = " ".join(re.findall(r"^\| (`.*?) \|", README.read_text(), re.MULTILINE))
    for key, value in values.items():
        if isinstance(value, dict) and key not in ("resources", "nodeSelector", "affinity"):
            whole = f"`{key}.*`" in rows
            assert whole or all(f"`{key}.{name}`" in rows for name in value) or not value, key
        else:
            assert f"`{key}`" in rows, key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_and_file_that_a_page_names_is_there(page: Path) -> None:
    text = documentation.text_of(page)
    variables = {option.environment for option in OPTIONS} | set(OTHER_VARIABLES)
    assert set(re.findall(r"PARKINGD_[A-Z_]+", text)) <= variables
    linked = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in linked if not (page.parent / link).exists()] == []
    folders = re.findall(r"`((?:base|overlays|components|chart)/[\w./-]+)`", text)
    assert [name for name in folders if not (ROOT / "k8s" / name).exists()] == []
    lines = text.splitlines()
    assert [line for line in lines if line != line.rstrip() or "\t" in line] == []
