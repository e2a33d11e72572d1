"""The machine and the software that the figures belong to."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import zmq

from parkingd import __version__

FSYNCS: Final = 50


def describe(directory: Path | None) -> dict[str, Any]:
    """Everything that a figure may depend on. ``directory``: where the data will be."""
    where = str(directory or tempfile.gettempdir())
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_at_start": load(),
        "python": platform.python_version(),
        "parkingd": __version__,
        "libzmq": zmq.zmq_version(),
        "pyzmq": zmq.pyzmq_version(),
        "sqlite": sqlite3.sqlite_version,
        "msgpack": ".".join(map(str, msgpack.version)),
        "data_on": f"{where} ({_file_system(where)})",
        "fsync_ms": _fsync_ms(where),
    }


def load() -> float:
    """Processes that want to run, over the last minute. Above the cores the figures are worse."""
    return round(os.getloadavg()[0], 2)


def text(machine: dict[str, Any]) -> str:
    """For people."""
    width = max(map(len, machine))
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in machine.items())


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_system(where: str) -> str:
    asked = subprocess.run(
        ["stat", "-f", "-c", "%T", where], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _fsync_ms(where: str) -> float:
    """Median of an appended page and its fsync, milliseconds."""
    with tempfile.TemporaryFile(dir=where, buffering=0) as file:
        took = []
        for _ in range(FSYNCS):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begun)
    return round(median(took) * 1000, 2)
