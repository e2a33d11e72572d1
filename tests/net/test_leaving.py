"""Nodes that leave, in good order or not, while cars drive up."""

from __future__ import annotations

import signal

import pytest

from tests.net.lab import (
    GATES,
    NetLab,
    gates_of,
    served_once,
    shared_out,
    taken_over,
    whole,
)
from tests.net.meanwhile import Load, Watch

CARS = 60
"""So many drive up before, during and after each change."""


def test_a_node_that_leaves_hands_its_gates_over_and_no_car_finds_one_without_an_owner(
    trio: NetLab,
) -> None:
    shared_out(trio.all(), GATES)
    leaver, rest = trio.nodes["joe"], trio.others("joe")
    assert gates_of(leaver, "joe")
    with Watch(rest, "gates") as watched, Load(rest, GATES, "LEAVE") as load:
        load.passed(CARS)
        leaver.read("leave")
        load.passed(CARS)
        taken_over(rest, "joe", GATES)
    assert leaver.wait() == 0
    assert watched.items("state") <= {"served", "moving"}
    assert load.refusals() == []
    assert load.troubles == []
    states = {item["name"]: item["state"] for item in rest[0].read("members")["items"]}
    assert states["joe"] == "left"

    trio.boot("joe")
    trio.until_together()
    whole(trio.all())
    for daemon in trio.all():
        assert set(load.plates()) <= set(daemon.plates())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_every_node_in_turn_under_load_loses_no_admitted_car(
    trio: NetLab, number: signal.Signals
) -> None:
    """Nor does one come twice: a car that got no answer asks elsewhere under the same request."""
    shared_out(trio.all(), GATES)
    with Load(trio.all(), GATES, number.name[3:]) as load:
        load.passed(CARS)
        for name in list(trio.nodes):
            status = trio.nodes[name].end(number)
            assert status == (0 if number is signal.SIGTERM else -number)
            load.passed(CARS)
            trio.boot(name)
            trio.until_together()
            served_once(trio.all(), GATES)
    reasons = {reason for _, _, reason in load.refusals()}
    if number is signal.SIGTERM:
        assert reasons <= {"draining", "not_ready"}
    else:
        assert reasons <= {"not_ready", "no_owner"}
    whole(trio.all())
    for daemon in trio.all():
        assert set(load.plates()) <= set(daemon.plates())
        assert daemon.read("lot")["conflicts"] == 0
    shared_out(trio.all(), GATES)
