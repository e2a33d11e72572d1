"""What the Dockerfile says, and what the image made of it is."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.daemon.harness import until
from tests.deploy.engine import LOCK, ROOT, Engine, download, tool

pytestmark = pytest.mark.timeout(900)
"""The first test makes the image."""

DOCKERFILE = ROOT / "Dockerfile"
IMAGE_BYTES_MAX = 200 * 1000 * 1000
NOTHING = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL")


@pytest.fixture(scope="session")
def settings(engine: Engine, image: str) -> dict[str, Any]:
    """What the image tells a container engine."""
    (found,) = json.loads(engine.run("image", "inspect", image))
    return dict(found)


# --- the Dockerfile ------------------------------------------------------------------------------


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run([tool("hadolint"), str(DOCKERFILE)], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


@pytest.mark.parametrize("word", ["# syntax", "--mount", "--chmod", "--link", "<<", "# escape"])
def test_nothing_in_it_needs_buildkit(word: str) -> None:
    assert word not in DOCKERFILE.read_text()


def test_both_stages_start_from_one_base_that_can_be_chosen() -> None:
    text = DOCKERFILE.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.\d+-slim$", text, re.MULTILINE)


def test_only_what_the_image_needs_is_sent_to_the_engine() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert sorted(kept) == sorted(" ".join(copied).split())


# --- the lock ------------------------------------------------------------------------------------


def locked() -> dict[str, Version]:
    found = re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK.read_text(), re.MULTILINE)
    return {name: Version(version) for name, version in found}


def declared() -> list[Requirement]:
    """What the package and its operations port want, and what builds it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["ops"]
    return [Requirement(line) for line in lines.split("\n") if line] + [Requirement("setuptools")]


@pytest.mark.parametrize("wanted", declared(), ids=str)
def test_the_lock_has_what_is_declared_in_a_version_that_will_do(wanted: Requirement) -> None:
    name = wanted.name.lower().replace("_", "-")
    assert locked()[name] in wanted.specifier


def test_everything_in_the_lock_has_hashes() -> None:
    parts = re.split(r"^(?=[a-z0-9-]+==)", LOCK.read_text(), flags=re.MULTILINE)[1:]
    assert len(parts) == len(locked())
    assert [part.split("\n")[0] for part in parts if "--hash=sha256:" not in part] == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_for_each_machine_there_is_a_wheel_of_everything_with_a_hash_in_the_lock(
    machine: str, tmp_path: Path
) -> None:
    # glibc 2.26 and later: what slim images of Debian 12 and 13 have.
    platforms = [f"manylinux{glibc}_{machine}" for glibc in ("2014", "_2_26", "_2_28")]
    flags = [word for name in platforms for word in ("--platform", name)]
    wheels = download(tmp_path, "--python-version", "3.13", "--implementation", "cp", *flags)
    assert len(wheels) == len(locked())
    assert sum(machine in wheel for wheel in wheels) >= 3


# --- the image -----------------------------------------------------------------------------------


def test_it_is_smaller_than_200_mb(settings: dict[str, Any]) -> None:
    print(f"{settings['Size'] / 1e6:.0f} MB")
    assert settings["Size"] < IMAGE_BYTES_MAX


def test_it_runs_as_a_numeric_user_that_is_not_root_and_stops_by_sigterm(
    settings: dict[str, Any],
) -> None:
    config = settings["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["parkingd"]
    assert not config["Cmd"]
    assert set(config["Volumes"]) == {"/var/lib/parkingd"}
    assert set(config["ExposedPorts"]) == {"7744/tcp", "7745/tcp", "9744/tcp"}
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"


def test_its_health_is_asked_by_parkingd_ctl(settings: dict[str, Any]) -> None:
    kind, program, *words = settings["Config"]["Healthcheck"]["Test"]
    assert (kind, program, words[-1]) == ("CMD", "parkingd-ctl", "status")


def test_what_builds_is_left_behind(engine: Engine, image: str) -> None:
    listed = engine.run(
        "run", *NOTHING, "--entrypoint", "/opt/parkingd/bin/python3", image, "-c",
        "import importlib.metadata as m, sys; path = [p for p in sys.path if p[:4] == '/opt'];"
        "print(*{d.name.lower().replace('_', '-') for d in m.distributions(path=path)})",
    ).split()  # fmt: skip
    assert "parkingd" in listed
    assert {"pip", "setuptools"}.isdisjoint(listed)
    assert set(listed) - {"parkingd"} == locked().keys() - {"setuptools"}


def test_the_daemon_that_lives_is_healthy(engine: Engine, image: str) -> None:
    name = engine.run(
        "run", "--detach", "--network=none", "--read-only", "--cap-drop=ALL",
        "--tmpfs", "/run/parkingd", "--env", "PARKINGD_COOKIE=x", "--health-interval=1s", image,
        "--name", "gary", "--no-mdns",
    )  # fmt: skip
    try:

        def health() -> str:
            return engine.run("inspect", "--format", "{{.State.Health.Status}}", name)

        until(lambda: health() == "healthy", "it is healthy", 60.0)
    finally:
        engine.run("rm", "--force", "--volumes", name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "set PARKINGD_COOKIE or --cookie-file"),
        (("--no-such-flag",), "unknown flag --no-such-flag"),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_status_2(
    words: tuple[str, ...], said: str, engine: Engine, image: str
) -> None:
    ended = engine.attempt("run", *NOTHING, "--tmpfs", "/run/parkingd", image, *words)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("parkingd: ")
    assert said in line
