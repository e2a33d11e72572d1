"""The engine and the image that all tests of a run share; without them those tests are skipped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import Engine, refusal
from tests.deploy.pods import Pods


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Docker Engine; its sockets need a short path."""
    why = refusal()
    if why is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp") as folder:
        engine = Engine(Path(folder))
        yield engine
        engine.close()


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """What the image is built on."""
    return engine.base()


@pytest.fixture(scope="session")
def image(engine: Engine, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built once."""
    return engine.build(base, tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def pods(engine: Engine, image: str, tmp_path: Path) -> Iterator[Pods]:
    """A network without any node."""
    # A container's root may not pass through the folder that pytest makes, mode 0700.
    with tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Pods(engine, image, Path(folder)) as pods:
            yield pods
