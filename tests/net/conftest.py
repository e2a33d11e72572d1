"""Labs for tests; without root and network namespaces every test here is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.lab import GATES, SPACES, TRIO, NetLab, whole
from tests.net.network import refusal


@pytest.fixture(autouse=True, scope="session")
def _networks() -> None:
    """Skip where they cannot be made."""
    why = refusal()
    if why is not None:
        pytest.skip(why)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NetLab]:
    """A LAN without any daemon."""
    with NetLab(tmp_path) as lab:
        yield lab


@pytest.fixture(scope="session")
def _shared(_networks: None) -> Iterator[list[NetLab]]:
    """The lab that the tests of a worker share, once there is one."""
    labs: list[NetLab] = []
    yield labs
    for lab in labs:
        lab.close()


@pytest.fixture
def trio(_shared: list[NetLab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetLab]:
    """Gary, Diane and Joe, each on a machine of one LAN, in one lot with six gates.

    Tests share them: each has its own plates, mends what it cut and restarts what it ended. Where
    one did not, the next gets others.
    """
    if not _shared:
        _shared.append(NetLab(tmp_path_factory.mktemp("trio")))
        _shared[0].boot_all(*TRIO, flags=("--gates", GATES, "--spaces", SPACES))
    (lab,) = _shared
    try:
        yield lab
        assert all(daemon.is_running for daemon in lab.all()), "a test left it without a node"
        lab.network.mend()
        whole(lab.all())
    except BaseException:
        _shared.clear()
        lab.close()
        raise
