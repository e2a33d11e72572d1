"""The unit: verified, as closed as we say, and run by a real systemd, as init in a container."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.harness import until
from tests.deploy.engine import BUILD_S, DOWNLOAD_RETRIES, ROOT, Engine

pytestmark = pytest.mark.timeout(900)

UNIT = ROOT / "examples/systemd/parkingd.service"
PAGE = ROOT / "docs/howto-systemd.md"
EXPOSURE_MAX = 1.5
"""Of systemd-analyze; 10 is a service without any restriction."""
START_S = 60.0
WATCHDOG_S = 60.0
"""Six times what the unit gives the daemon."""

INIT = """\
#!/bin/sh
# A cgroup of its own, and mounts that are seen by services, as on a machine.
set -e
mkdir -p /mnt/cgroup && mount -t cgroup2 none /mnt/cgroup
mkdir -p /mnt/cgroup/$HOSTNAME && echo $$ > /mnt/cgroup/$HOSTNAME/cgroup.procs
exec unshare --cgroup /bin/sh -ec '
    umount /mnt/cgroup
    umount --recursive /sys/fs/cgroup || true
    mount -t cgroup2 none /sys/fs/cgroup
    mount --make-rshared /
    exec /lib/systemd/systemd systemd.unified_cgroup_hierarchy=1'
"""

NOT_OURS = (
    "systemd-sysctl systemd-udevd systemd-modules-load systemd-logind systemd-timesyncd "
    "systemd-networkd systemd-resolved console-getty getty.target"
)
"""The machine is not the container's to change."""

DOCKERFILE = f"""\
ARG BASE
FROM parkingd-test AS made
FROM ${{BASE}}
RUN apt-get update -qq -o Acquire::Retries={DOWNLOAD_RETRIES} \\
    && apt-get install -qq -y --no-install-recommends -o Acquire::Retries={DOWNLOAD_RETRIES} \\
       systemd dbus
COPY --from=made /opt/parkingd /opt/parkingd
COPY init /init
COPY parkingd.service /etc/systemd/system/
RUN chmod 755 /init && ln -s /opt/parkingd/bin/parkingd-ctl /usr/local/bin/ \\
    && install -d -m 0700 /etc/parkingd && umask 077 \\
    && echo 'a cookie for tests only' > /etc/parkingd/cookie \\
    && echo 'PARKINGD_NAME=lane-1' > /etc/parkingd/environment \\
    && systemctl enable parkingd && systemctl mask {NOT_OURS} \\
    && systemctl set-default multi-user.target
ENV container=docker
ENTRYPOINT ["/init"]
"""

CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH")
UNCONFINED = ("seccomp", "apparmor", "systempaths")


# --- without running it --------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, as if parkingd were in its place."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs `systemd-analyze` (Debian package systemd)")
    program = tmp_path / "parkingd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/parkingd/bin/parkingd", str(program)))
    return unit


def test_systemd_finds_nothing_wrong_with_the_unit(installed: Path) -> None:
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(installed)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_unit_is_as_closed_as_the_page_says(installed: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (level,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert float(level) <= EXPOSURE_MAX
    assert re.search(r"says \d\.\d, \"OK\"", PAGE.read_text())


def test_no_secret_is_in_the_unit_and_the_cookie_comes_as_a_credential() -> None:
    settings = UNIT.read_text()
    assert "LoadCredential=cookie:/etc/parkingd/cookie" in settings
    assert "PARKINGD_COOKIE_FILE=%d/cookie" in settings
    assert "PARKINGD_COOKIE=" not in settings


# --- run by systemd ------------------------------------------------------------------------------


class Machine:
    """A container in which systemd is the first process."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    def run(self, command: str) -> str:
        """A shell command; what it wrote."""
        return self._engine.run("exec", self.name, "sh", "-c", command)

    def shown(self, setting: str) -> str:
        """A property of the service."""
        return self.run(f"systemctl show --value --property={setting} parkingd")

    def log(self) -> str:
        """What the service and systemd said of it."""
        return self.run("journalctl --sync; journalctl --unit=parkingd --output=cat --no-pager")


def remove_cgroups(name: str) -> None:
    """What INIT made and no process is in any more; a name of a container is its host name."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2":
            folders = [path for path in Path(mount, name).rglob("*") if path.is_dir()]
            for folder in (*sorted(folders, reverse=True), Path(mount, name)):
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()


@pytest.fixture(scope="module")
def machine(
    engine: Engine, base: str, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("systemd")
    assert image == "parkingd-test"
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "init").write_text(INIT)
    shutil.copy(UNIT, folder)
    tag = "parkingd-test-systemd"
    engine.run(
        "build", "--network=host", "--tag", tag, "--build-arg", f"BASE={base}", folder,
        timeout_s=BUILD_S,
    )  # fmt: skip
    words = [f"--cap-add={capability}" for capability in CAPABILITIES]
    words += [f"--security-opt={what}=unconfined" for what in UNCONFINED]
    words += [f"--tmpfs={path}" for path in ("/run", "/run/lock", "/tmp")]
    name = engine.run("run", "--detach", "--network=none", *words, tag)
    try:
        up = ("exec", name, "systemctl", "is-active", "parkingd")
        until(lambda: engine.attempt(*up).returncode == 0, "systemd says active", START_S)
        yield Machine(engine, name)
    finally:
        engine.run("rm", "--force", name)
        remove_cgroups(name[:12])


def test_it_is_active_when_it_is_bound_and_shows_how_it_is(machine: Machine) -> None:
    machine.run("parkingd-ctl wait --for ready --for gates=4 --timeout 30")
    status = "ready; members: 1 alive; gates here: 1, 2, 3, 4 of 4; 0 of 100 spaces taken"
    until(lambda: machine.shown("StatusText") == status, "the status line", START_S)
    assert machine.shown("NRestarts") == "0"


def test_its_user_owns_its_two_directories_and_reads_the_cookie_as_a_credential(
    machine: Machine,
) -> None:
    user = machine.run("stat --format=%u /proc/$(systemctl show --value -p MainPID parkingd)")
    assert int(user) >= 61184  # Of systemd's range of dynamic users.
    owned = machine.run("stat --format='%u %a' /var/lib/private/parkingd /run/parkingd")
    assert owned.split("\n") == [f"{user} 700"] * 2
    log = machine.log()
    assert '"event": "started", "name": "lane-1"' in log
    assert '"level": "warning"' not in log


def test_a_loop_that_hangs_is_ended_and_started_anew_with_its_record(machine: Machine) -> None:
    machine.run("parkingd-ctl wait --for ready --timeout 30")
    machine.run("parkingd-ctl track ABC123 1")
    before = machine.shown("NRestarts")
    machine.run("kill -STOP $(systemctl show --value -p MainPID parkingd)")
    until(lambda: machine.shown("NRestarts") != before, "it was started anew", WATCHDOG_S)
    assert "Watchdog timeout" in machine.log()
    until(lambda: machine.shown("SubState") == "running", "it runs", START_S)
    machine.run("parkingd-ctl wait --for ready --for inside=1 --timeout 30")


def test_a_stop_is_a_leave_in_good_order(machine: Machine) -> None:
    machine.run("systemctl start parkingd && parkingd-ctl wait --for ready --timeout 30")
    before = machine.log().count('"event": "left"')
    machine.run("systemctl stop parkingd")
    assert machine.shown("Result") == "success"
    assert machine.shown("ExecMainStatus") == "0"
    assert machine.log().count('"event": "left"') == before + 1


def test_what_cannot_run_as_it_is_configured_is_not_tried_again(machine: Machine) -> None:
    machine.run("systemctl stop parkingd; echo PARKINGD_PORT=none >> /etc/parkingd/environment")
    machine.run("systemctl start parkingd || true")
    assert machine.shown("ActiveState") == "failed"
    assert machine.shown("ExecMainStatus") == "2"
    assert machine.shown("SubState") == "failed"  # Not "auto-restart".
