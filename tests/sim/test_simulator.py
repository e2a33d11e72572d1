"""The simulator itself: it repeats itself exactly, its checkers can fail; and some seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from parkingd.core.causal import CausalContext
from parkingd.core.events import Body, Correction, Enter, Event, Exit, Join, Removal, Seal
from parkingd.core.ids import dot_cause
from parkingd.protocol.codec import pack_event, unpack_event_untrusted
from parkingd.protocol.effects import Effects, Publish, Reply
from parkingd.protocol.messages import Delta, Heartbeat
from parkingd.protocol.messages import Run as WireRun
from parkingd.protocol.outcomes import Entry
from tests.sim import __main__ as command
from tests.sim import faults
from tests.sim.cluster import Cluster
from tests.sim.history import History, Violation
from tests.sim.machine import Machine
from tests.sim.options import draw
from tests.sim.run import PASSED, Run, run
from tests.sim.trace import Trace

A, B = 0xA, 0xB
CAUSE = b"c" * 16


def history_of(*events: Event) -> History:
    history = History(unpack_event_untrusted)
    for event in events:
        history.see("test", event.origin, event.seq, pack_event(event))
    return history


def event(origin: int, seq: int, time: int, body: Body) -> Event:
    return Event(origin, seq, time, body)


def everything(history: History) -> CausalContext:
    context = CausalContext()
    for origin, seq in history.events:
        context.add_span(origin, seq, seq)
    return context


# --- seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5, 8, 9, 11, 12, 14, 15, 16, 19, 20])
def test_a_seed_keeps_every_promise(seed: int) -> None:
    result = run(seed)
    assert result.code == PASSED, (
        f"{result.text}\nreplay: python -m tests.sim --seed {seed} --trace"
    )


def test_a_seed_does_something() -> None:
    figures = dict(run(2).figures)
    assert figures["minted"] > 100
    assert figures["acknowledged"] > 100
    assert figures["plates_checked"] > 500
    assert figures["judged"] > 10
    assert figures["told"] > 100


def test_a_third_of_the_seeds_is_free_of_each_fault() -> None:
    seeds = [draw(seed) for seed in range(600)]
    for fault in (
        "loss",
        "duplication",
        "replay",
        "partition_every_ms",
        "crash_every_ms",
        "disk_full_every_ms",
        "pause_every_ms",
        "slow_every_ms",
        "skew_ms",
    ):
        free = sum(1 for options in seeds if not getattr(options, fault))
        assert 150 < free < 260, fault


def test_a_run_is_the_same_under_another_hash_seed() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "9"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 1
    assert "digest" in digests.pop()


def test_a_trace_changes_nothing_and_reads_in_fixed_columns() -> None:
    trace = Trace()
    assert run(9, trace=trace).digest == run(9).digest
    lines = [str(line) for line in trace.lines]
    assert any(line[11:13] == "n0" and line[18:26].strip() == "start" for line in lines)
    minted = next(line for line in trace.lines if line.word == "mint" and "CAR" in line.text)
    plate = next(word for word in minted.text.split() if word.startswith("CAR"))
    about = trace.about((plate,), tail=0)
    assert 0 < len(about) < len(lines)
    assert str(minted) in about


def test_a_failure_is_explained_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with faults.PLANTS["reply-before-the-commit"]():
        result = run(1)
    command.explain(result, "reply-before-the-commit")
    printed = capsys.readouterr().out
    assert "seed=1 nodes=3" in printed
    assert "commit first: " in printed
    assert "exit status 129; replay with: python -m tests.sim --seed 1 --trace" in printed
    assert "NOT DETERMINISTIC" not in printed


# --- checkers can fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "likely", "seeds"),
    [
        ("marks-only-on-blind-exits", 2, 10),
        ("collection-against-the-live-view", 2, 10),
        ("chunks-applied-as-they-come", 0, 10),
        ("dots-reused-after-disk-loss", 5, 10),
        ("reply-before-the-commit", 0, 10),
        ("published-before-the-commit", 0, 10),
        ("lines-told-before-the-commit", 0, 10),
        ("truncated-reply-with-full-context", 0, 10),
        ("removals-of-a-covered-event-skipped", 6, 10),
        ("seal-in-one-phase", 3, 20),
        ("collection-without-the-second-clause", 10, 20),
    ],
)
def test_a_planted_fault_is_caught(name: str, likely: int, seeds: int) -> None:
    """By the seed that did it last; when that one draws something else, by one of the first."""
    with faults.PLANTS[name]():
        assert any(run(seed).code != PASSED for seed in (likely, *range(seeds)))


def test_a_dot_with_two_payloads_is_a_violation() -> None:
    history = history_of(event(A, 1, 5, Join("a", False)))
    other = pack_event(event(A, 1, 6, Join("a", False)))
    with pytest.raises(Violation, match="dot uniqueness"):
        history.see("test", A, 1, other)


def test_what_was_taken_back_may_be_minted_otherwise() -> None:
    first = event(A, 1, 5, Enter("P", 1, None))
    history = history_of(first, event(A, 2, 6, Exit("P", 1, None, ((A, 1),), (CAUSE,))))
    history.take_back(A, 1)
    assert history.visible(everything(history), "P") == {(A, 1)}
    history.see("test", A, 2, pack_event(event(A, 2, 9, Removal("P", None, ((A, 1),)))))
    assert history.visible(everything(history), "P") == set()


@pytest.fixture
def node_in_a_cluster() -> tuple[Cluster, Machine]:
    cluster = Run(draw(0)).cluster
    machine = cluster.machines[0]
    cluster.start(machine)
    cluster.run(5_000)
    assert machine.node is not None
    assert machine.durable_seq > 0
    return cluster, machine


def test_a_head_beyond_the_disk_is_a_violation(
    node_in_a_cluster: tuple[Cluster, Machine],
) -> None:
    cluster, machine = node_in_a_cluster
    beat = Heartbeat(1, machine.durable_seq + 1, 0)
    with pytest.raises(Violation, match="commit first"):
        cluster.checkers.before_effects(machine, Effects(outgoing=(Publish(beat),)))


def test_an_event_that_nobody_minted_is_a_violation(
    node_in_a_cluster: tuple[Cluster, Machine],
) -> None:
    cluster, machine = node_in_a_cluster
    packed = pack_event(event(B, 1, 5, Join("b", False)))
    delta = Delta((WireRun(B, 1, (packed,)),))
    with pytest.raises(Violation, match="which nobody minted"):
        cluster.checkers.before_effects(machine, Effects(outgoing=(Publish(delta),)))


def test_a_context_that_grows_out_of_nothing_is_a_violation(
    node_in_a_cluster: tuple[Cluster, Machine],
) -> None:
    cluster, machine = node_in_a_cluster
    assert machine.node is not None
    machine.node.state.context.add_span(B, 1, 1)
    with pytest.raises(Violation, match="which nobody minted"):
        cluster.checkers.after_verb(machine, machine.node)


def test_an_answer_that_names_an_uncommitted_event_is_a_violation(
    node_in_a_cluster: tuple[Cluster, Machine],
) -> None:
    cluster, machine = node_in_a_cluster
    dot = (machine.replica, machine.durable_seq + 1)
    reply = Reply(1, Entry("P", 1, dot, 0))
    with pytest.raises(Violation, match="commit first"):
        cluster.checkers.before_effects(machine, Effects(replies=(reply,)))


# --- the reference function, sentence by sentence ------------------------------------------------


def test_an_exit_hides_every_earlier_stay_and_no_later_one() -> None:
    history = history_of(
        event(A, 1, 5, Enter("P", 1, None)),
        event(B, 1, 6, Exit("P", 1, None)),
        event(A, 2, 7, Enter("P", 1, None)),
    )
    assert history.visible(everything(history), "P") == {(A, 2)}


def test_an_exit_at_the_very_time_of_a_stay_hides_it() -> None:
    history = history_of(event(A, 1, 5, Enter("P", 1, None)), event(B, 1, 5, Exit("P", 1, None)))
    assert history.visible(everything(history), "P") == set()


def test_concurrent_stays_are_both_shown() -> None:
    history = history_of(event(A, 1, 5, Enter("P", 1, None)), event(B, 1, 6, Enter("P", 1, None)))
    assert history.visible(everything(history), "P") == {(A, 1), (B, 1)}


def test_of_equal_causes_only_the_greatest_is_shown_on_whatever_plate() -> None:
    history = history_of(
        event(A, 1, 5, Enter("P", 1, CAUSE)),
        event(B, 1, 6, Enter("Q", 1, CAUSE)),
    )
    context = everything(history)
    assert history.visible(context, "P") == set()
    assert history.visible(context, "Q") == {(B, 1)}


def test_a_cause_that_an_exit_lists_is_closed_even_for_later_stays() -> None:
    history = history_of(
        event(A, 1, 5, Enter("P", 1, CAUSE)),
        event(A, 2, 6, Exit("P", 1, None, ((A, 1),), (CAUSE,))),
        event(B, 1, 7, Enter("P", 1, CAUSE)),
    )
    assert history.visible(everything(history), "P") == set()


def test_a_correction_carries_the_dot_of_a_stay_without_a_request() -> None:
    history = history_of(
        event(A, 1, 5, Enter("P", 1, None)),
        event(B, 1, 6, Correction("P", ((A, 1),), "Q", 1, dot_cause((A, 1)), None, 0)),
    )
    context = everything(history)
    assert history.visible(context, "P") == set()
    assert history.visible(context, "Q") == {(B, 1)}


def test_what_a_seal_voids_counts_for_nothing() -> None:
    history = history_of(
        event(A, 1, 5, Enter("P", 1, None)),
        event(A, 2, 6, Exit("P", 1, None)),
        event(B, 1, 7, Seal(A, 1, ())),
    )
    context = everything(history)
    assert history.visible(context, "P") == {(A, 1)}
    assert history.is_void(context, A, 2)
