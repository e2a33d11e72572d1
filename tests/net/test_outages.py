"""Machines that lose power, freeze for a while, or merely stutter."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing

import pytest

from parkingd.adapters.client import Trouble
from tests.daemon.harness import agree, until
from tests.net.lab import (
    GATES,
    PATIENCE_S,
    NetLab,
    admitted,
    epochs,
    frozen,
    gates_of,
    last,
    served_once,
    shared_out,
    taken_over,
    whole,
)
from tests.net.meanwhile import Watch

FREEZE_S = 3.5
"""Longer than any time after which a silent member is given up."""
STUTTERS_S = (0.5, 0.9, 1.5)


def test_the_gates_of_a_killed_node_are_served_by_others_and_it_gets_its_share_back(
    trio: NetLab,
) -> None:
    shared_out(trio.all(), GATES)
    victim = trio.nodes["joe"]
    lost = gates_of(victim, "joe")
    assert len(lost) == GATES // len(trio.nodes)
    before = epochs(victim)
    victim.read("track", "KILLED1", lost[0])
    agree(trio.all())
    victim.end(signal.SIGKILL)

    rest = trio.others("joe")
    taken_over(rest, "joe", GATES)
    after = epochs(rest[0])
    assert {gate for gate in after if after[gate] > before[gate]} == set(lost)
    for gate in lost:
        admitted(rest[0], f"KILLED2{gate}", gate)

    trio.boot("joe")
    trio.until_together()
    shared_out(trio.all(), GATES)
    whole(trio.all())
    for daemon in trio.all():
        assert {"KILLED1", *(f"KILLED2{gate}" for gate in lost)} <= set(daemon.plates())


@pytest.mark.parametrize("sleeper_hears", [True, False])
def test_a_frozen_node_holds_up_nobody_and_when_it_wakes_each_gate_has_one_owner(
    trio: NetLab, sleeper_hears: bool
) -> None:
    """Where its cable is out meanwhile it wakes without any news of the others in its sockets."""
    shared_out(trio.all(), GATES)
    mark = "H" if sleeper_hears else "U"
    sleeper, asker = trio.nodes["diane"], trio.nodes["gary"]
    rest = trio.others("diane")
    lost = gates_of(sleeper, "diane")
    assert lost
    before = epochs(asker)
    inside = asker.read("lot")["inside"]
    with closing(sleeper.client(PATIENCE_S)) as client:
        client.call("lot", {})  # It is connected: what is asked below waits in its socket.
        with frozen(sleeper):
            if not sleeper_hears:
                trio.cut(["diane"], ["gary", "joe"])
            # Nobody has noticed yet, and everything that does not need the sleeper goes on.
            assert asker.read("lot")["inside"] == inside
            for number, owner in enumerate(rest):
                admitted(asker, f"FROZEN{mark}{number}", gates_of(asker, owner.name)[0])
            taken_over(rest, "diane", GATES)
            for gate in lost:
                admitted(asker, f"LOST{mark}{gate}", gate)
            last(FREEZE_S)
            during = epochs(asker)
            for gate in lost:
                car = {
                    "plate": f"ASKED{mark}{gate}",
                    "gate": gate,
                    "request": os.urandom(16),
                }
                client.send("enter", car)
            trio.network.mend()
        woken_s = time.monotonic()
        answers = [client.receive(woken_s + PATIENCE_S) for _ in lost]

    for answer in answers:
        assert not isinstance(answer, Trouble), answer
        decision = answer.body
        # It may have asked who serves the gate now. Under its old claim it admits nobody.
        if decision["decision"] == "admitted":
            assert decision["epoch"] >= during[decision["gate"]], decision
    served_once(trio.all(), GATES)
    whole(trio.all())
    print(f"one root and one owner {time.monotonic() - woken_s:.2f} s after it woke")
    after = epochs(asker)
    for gate in range(1, GATES + 1):
        assert before[gate] <= during[gate] <= after[gate]
    shared_out(trio.all(), GATES)


def test_a_node_that_stutters_is_declared_dead_by_nobody_and_keeps_its_gates(
    trio: NetLab,
) -> None:
    before = shared_out(trio.all(), GATES)
    stutterer = trio.nodes["joe"]
    with Watch(trio.all(), "members") as members:
        for pause_s in STUTTERS_S:
            with frozen(stutterer):
                last(pause_s)
            stutterer.wait_for("members=3", timeout_s=PATIENCE_S)
            last(1.0)
    assert "dead" not in members.items("state")
    assert served_once(trio.all(), GATES) == before


def test_a_node_that_was_frozen_for_long_accuses_nobody_when_it_wakes(trio: NetLab) -> None:
    sleeper = trio.nodes["gary"]
    with Watch([sleeper], "members") as members:
        with frozen(sleeper):
            last(FREEZE_S)
            taken_over(trio.others("gary"), "gary", GATES)
        seen_before = len(members.seen)
        until(lambda: len(members.seen) > seen_before + 20, "it was looked at", PATIENCE_S)
    assert members.items("state") == {"alive"}
    whole(trio.all())
    served_once(trio.all(), GATES)
