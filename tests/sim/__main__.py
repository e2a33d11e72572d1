"""``python -m tests.sim``: play seeds, say what they do first, and replay what fails.

    --seed N [--trace]          one seed; with every line of its trace
    --seeds A:B [--jobs 2]      many; ends with the first failure, after showing its trace
    --corpus                    those that once failed
    --plant NAME                with a fault planted in the product: must be caught

Exit status: 0 all passed, 128 no convergence, 129 a promise broken, 127 a crash or an assertion.
With ``--plant`` 0 means caught and 1 that it was not; a crash is not caught by a checker.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

from tests.sim import faults
from tests.sim.corpus import ONCE_FAILED
from tests.sim.options import draw
from tests.sim.run import CRASHED, Result, run
from tests.sim.trace import Trace


def main() -> int:
    """Parse, play, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--seeds",
        type=seeds_of,
        default=range(20),
        metavar="FIRST:END",
        help="END not included; a number alone: that many from 0",
    )
    parser.add_argument("--corpus", action="store_true", help="the seeds that once failed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="print every line")
    parser.add_argument("--plant", choices=sorted(faults.PLANTS))
    parser.add_argument(
        "--keep-going", action="store_true", help="do not end with the first failure"
    )
    arguments = parser.parse_args()
    seeds: Sequence[int]
    if arguments.corpus:
        seeds = tuple(ONCE_FAILED)
    elif arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    else:
        seeds = arguments.seeds
    results = play(seeds, arguments)
    failed = [result for result in results if result.code]
    if arguments.plant:
        failed = [result for result in failed if not run(result.seed).code]
        # A crash is none of the checkers' findings: the fault is badly planted.
        is_caught = bool(failed) and all(result.code != CRASHED for result in failed)
        print(f"{arguments.plant}: {'caught' if is_caught else 'NOT CAUGHT'}", end=" ")
        print(f"after {len(results)} seeds")
        for result in failed[:1]:
            print(f"  seed {result.seed}: {result.text.splitlines()[-1]}")
        return 0 if is_caught else 1
    for result in failed[:1]:
        explain(result, arguments.plant)
    return failed[0].code if failed else 0


def seeds_of(text: str) -> range:
    """What ``--seeds`` says. Raises ArgumentTypeError, of which argparse makes a line."""
    found = re.fullmatch(r"(?:([0-9]{1,18}):)?([0-9]{1,18})", text)
    seeds = range(int(found[1] or 0), int(found[2])) if found else range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:END, such as 0:1000")
    return seeds


def play(seeds: Sequence[int], arguments: argparse.Namespace) -> list[Result]:
    """All seeds, or up to the first that fails."""
    results: list[Result] = []
    figures: Counter[str] = Counter()
    began, cpu = time.monotonic(), time.process_time()
    single = len(seeds) == 1
    if single:
        print(draw(seeds[0]).describe(), flush=True)
    if arguments.jobs > 1 and not single:
        with multiprocessing.Pool(arguments.jobs) as pool:
            tasks = ((seed, arguments.plant) for seed in seeds)
            for result in pool.imap_unordered(_play_one, tasks, chunksize=1):
                results.append(result)
                if _is_over(result, arguments):
                    pool.terminate()
                    break
    else:
        for seed in seeds:
            trace = Trace() if arguments.trace else None
            results.append(_play_one((seed, arguments.plant), trace))
            if trace is not None:
                print("\n".join(str(line) for line in trace.lines))
            if _is_over(results[-1], arguments):
                break
    for result in results:
        figures.update(dict(result.figures))
        if result.code and not single:
            line = result.text.splitlines()[-1]
            print(f"seed {result.seed}: {result.code} {line}")
            if result.seed in ONCE_FAILED:
                print(f"  it once showed: {ONCE_FAILED[result.seed]}")
    node_s = sum(result.virtual_ms * result.nodes for result in results) / 1000
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    failed = sum(1 for result in results if result.code)
    print(f"{len(results)} seeds, {failed} failed, {node_s:.0f} node-seconds")
    print(f"{wall_s:.1f} s, {cpu_s:.1f} s CPU here, {sum(r.steps for r in results)} steps", end="")
    print(f", {1e6 * cpu_s / node_s:.0f} us per node-second" if arguments.jobs == 1 else "")
    print(" ".join(f"{name}={count}" for name, count in figures.items()))
    if single:
        print(f"digest {results[0].digest}, healed after {results[0].healed_after_ms} ms")
    return results


def _is_over(result: Result, arguments: argparse.Namespace) -> bool:
    """A failure ends it; with a plant only one that the plant has made."""
    if not result.code or arguments.keep_going:
        return False
    return arguments.plant is None or not run(result.seed).code


def _play_one(task: tuple[int, str | None], trace: Trace | None = None) -> Result:
    seed, plant = task
    with faults.PLANTS[plant]() if plant else nullcontext():
        return run(seed, trace=trace)


def explain(result: Result, plant: str | None) -> None:
    """Play a failed seed again with a trace, and print what belongs to the failure."""
    trace = Trace()
    again = _play_one((result.seed, plant), trace)
    print(f"\nseed {result.seed} failed: {draw(result.seed).describe()}\n")
    print("\n".join(trace.about(result.subjects)))
    print(f"\n{result.text}")
    if again.digest != result.digest:
        print("NOT DETERMINISTIC: the repetition ended differently")
    print(
        f"exit status {result.code}; replay with: python -m tests.sim --seed {result.seed} --trace"
    )


if __name__ == "__main__":
    sys.exit(main())
