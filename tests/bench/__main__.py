"""The benchmark: ``python -m tests.bench`` measures three real daemons through what users use.

Every figure stands beside that of the Elixir system parkingd replaces and the one it must reach.
Nothing here fails because it was slow: the exit status is 1 only when a run itself went wrong.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench import (
    arrivals,
    dashboard,
    failover,
    heartbeats,
    idle,
    importing,
    joining,
    latency,
    leaving,
    machine,
    reading,
    repair,
    scraping,
    simulator,
    starting,
)
from tests.bench.figures import BenchError, Figure, Unavailable, table
from tests.bench.processes import Lot

Measure = Callable[..., list[Figure]]

ROWS: Final[dict[str, Measure]] = {
    "latency": latency.measure,
    "import": importing.measure,
    "join": joining.measure,
    "join1m": joining.measure_many,
    "repair": repair.measure,
    "idle": idle.measure,
    "heartbeats": heartbeats.measure,
    "kill": failover.measure_kill,
    "freeze": failover.measure_freeze,
    "leave": leaving.measure,
    "start": starting.measure,
    "arrivals": arrivals.measure,
    "read": reading.measure,
    "command": reading.measure_command,
    "scrape": scraping.measure,
    "top": dashboard.measure,
    "topkill": dashboard.measure_kill,
    "topcut": dashboard.measure_cut,
    "simulator": simulator.measure,
}
"""``import`` also measures the memory per car."""

LONG: Final = ("join1m",)
"""Left out by ``--quick``."""

RUNS: Final = 3

STOPPED: Final = 130
"""Exit status after Ctrl-C: what was measured by then is printed."""


def main() -> int:
    """Measure, print, and write JSON where asked."""
    args = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ended early, it ends its daemons.
    Lot.directory, Lot.profile = args.directory, args.profile
    if args.profile is not None:
        args.profile.mkdir(parents=True, exist_ok=True)
    here = machine.describe(args.directory)
    print(machine.text(here), end="\n\n", flush=True)
    figures: list[Figure] = []
    missing: list[dict[str, str]] = []
    failed = stopped = False
    for name in args.rows:
        begun = time.monotonic()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            figures += ROWS[name](1 if args.quick else args.runs, quick=args.quick)
        except Unavailable as reason:
            missing.append({"row": name, "not_measured": str(reason)})
        except BenchError as error:
            failed = True
            missing.append({"row": name, "failed": str(error)})
        except KeyboardInterrupt:
            stopped = True
            missing.append({"row": name, "not_measured": "stopped before its end"})
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if stopped:
            break
    here["load_at_end"] = machine.load()
    print(f"load_at_end    {here['load_at_end']}\n")
    if figures:
        print(table(figures))
    for entry in missing:
        row, why = entry["row"], entry.get("failed") or entry["not_measured"]
        print(f"{row}: {'FAILED' if 'failed' in entry else 'not measured'}: {why}")
    if args.json is not None:
        document: dict[str, Any] = {
            "machine": here,
            "figures": [figure.document() for figure in figures],
            "missing": missing,
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return STOPPED if stopped else int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", metavar="ROW,ROW", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each row; default: {RUNS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="one short run each, fewer cars")
    parser.add_argument("--directory", type=Path, help="where the daemons' data goes")
    parser.add_argument("--profile", type=Path, help="profile the daemons' loops into this folder")
    args = parser.parse_args()
    if args.rows is None:
        args.rows = [name for name in ROWS if not (args.quick and name in LONG)]
    else:
        args.rows = args.rows.split(",")
    if sys.platform != "linux":
        parser.error("the processes are looked at through /proc and `ss`, which only Linux has")
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown or args.runs < 1:
        parser.error(f"no row {unknown[0]!r}" if unknown else "--runs is at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
