"""Whether what the extra ``[ops]`` brings is installed: asked before anything of it is imported."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from parkingd.errors import ConfigError

PACKAGES: Final = ("h11", "prometheus_client")


def require_extra() -> None:
    """ConfigError with the line that installs it, if something is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        is_one = len(missing) == 1
        raise ConfigError(
            f"--ops needs {' and '.join(missing)}, which {'is' if is_one else 'are'} not installed",
            f"install the extra: {sys.executable} -m pip install 'parkingd[ops]'",
        )
