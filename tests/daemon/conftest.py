"""Clusters for tests with real daemons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.harness import Cluster, Daemon


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An empty one."""
    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that all tests of a worker share."""
    with Cluster(tmp_path_factory.mktemp("shared")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _trio(shared_cluster: Cluster) -> tuple[Daemon, ...]:
    return tuple(shared_cluster.start_all("gary", "diane", "joe"))


@pytest.fixture
def trio(_trio: tuple[Daemon, ...]) -> Iterator[tuple[Daemon, ...]]:
    """Gary, Diane and Joe in one lot. Nobody stops them, and each test has its own plates."""
    yield _trio
    assert all(daemon.is_running for daemon in _trio), [daemon.said() for daemon in _trio]
