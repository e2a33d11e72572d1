"""Evidence about members: refused connections, goodbyes, names, restarts, clocks, versions."""

from __future__ import annotations

import pytest

from parkingd.protocol.commands import Leave, ReadCandidates, ReadMembers
from parkingd.protocol.effects import Stop
from parkingd.protocol.facts import Candidate, ConnectionFailed, LinkFailure
from parkingd.protocol.messages import Goodbye, Heartbeat, Hello, Message
from parkingd.protocol.outcomes import CandidateList, MemberList
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    beats,
    claims,
    gate_states,
    is_whole,
    member,
    owners,
    serves,
    state,
    states,
    wait_until,
    warnings,
)

# --- refused connections ---------------------------------------------------------------------


def test_a_killed_process_is_dead_at_once_when_all_who_held_it_alive_were_refused() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.kill()
    stage.pass_ms(10)
    assert state(a, "b") == state(c, "b") == "dead"
    assert is_whole([a, c])


def test_of_two_nodes_one_is_dead_as_soon_as_the_other_is_refused() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.kill()
    stage.pass_ms(1)
    assert state(a, "b") == "dead"
    assert is_whole([a])


def test_a_refusal_is_told_at_once_and_whoever_hears_of_it_tries_a_connection_too() -> None:
    """c has no link to b that could break."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.subscribed.discard("b")
    before = len(beats(a))
    b.kill()
    stage.pass_ms(10)
    assert any(each.refused for beat in beats(a)[before:] for each in beat.suspicions)
    assert state(a, "b") == state(c, "b") == "dead"


def test_who_was_not_refused_itself_keeps_the_others_from_a_quick_verdict() -> None:
    """c does not reach the machine at all: silence has to decide."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.cuts.add(frozenset(("b", "c")))
    b.kill()
    last_ms = member(a, "b").last_heard_ms
    stage.pass_ms(10)
    assert (state(a, "b"), state(c, "b")) == ("suspect", "alive")
    stage.pass_ms(last_ms + 1_990 - stage.mono_ms)
    assert state(a, "b") == "suspect"
    stage.pass_ms(300)
    assert state(a, "b") == state(c, "b") == "dead"


def test_a_power_cut_refuses_nothing_and_is_judged_by_silence() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    last_ms = min(member(box, "b").last_heard_ms for box in (a, c))
    b.stop()
    stage.pass_ms(last_ms + 1_990 - stage.mono_ms)
    assert "dead" not in (state(a, "b"), state(c, "b"))
    stage.pass_ms(300)
    assert state(a, "b") == state(c, "b") == "dead"


def test_a_refusal_at_one_node_only_takes_no_gate_from_a_member_that_others_hear() -> None:
    """Somebody's firewall refuses in the name of b."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = claims(a)
    for _ in range(20):
        a.observe(ConnectionFailed(b.address, LinkFailure.REFUSED))
        stage.pass_ms(500)
        assert state(a, "b") != "dead"
    assert state(c, "b") == "alive"
    assert claims(a) == before


@pytest.mark.parametrize("failure", [LinkFailure.TIMEOUT, LinkFailure.OTHER_COOKIE])
def test_only_a_refusal_is_evidence(failure: LinkFailure) -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.observe(ConnectionFailed(b.address, failure))
    stage.pass_ms(10)
    assert state(a, "b") == "alive"


@pytest.mark.parametrize(("late_ms", "verdict"), [(90, "dead"), (110, "alive")])
def test_messages_up_to_100_ms_after_a_refusal_were_under_way_before_it(
    late_ms: int, verdict: str
) -> None:
    """b is there again, and silent; only this message of it arrives."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.pause()
    for box in (a, c):
        box.observe(ConnectionFailed(b.address, LinkFailure.REFUSED))
    stage.pass_ms(late_ms)
    assert state(a, "b") == state(c, "b") == "dead"
    a.receive(b.sender(None), Heartbeat(beats(b)[-1].beat + 1, 0, b.now.wall_ms))
    stage.pass_ms(300)
    assert state(a, "b") == verdict


def test_who_took_over_an_address_is_not_spared_and_who_had_it_is_not_accused() -> None:
    """b has moved to another address; n was started at its old one, and is killed there."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    old = b.address
    b.address = stage.box("spare", 50).address
    b.start(knows=["a", "c"])
    stage.pass_ms(5_000)
    n = stage.box("n", 9)
    n.address = old
    n.start(knows=["a", "c"])
    stage.pass_ms(5_000)
    assert (state(a, "b"), state(a, "n")) == ("alive", "alive")
    n.kill()
    stage.pass_ms(10)
    assert state(a, "n") == state(c, "n") == "dead"
    assert state(a, "b") == state(c, "b") == "alive"


def test_who_took_over_an_address_is_heard_when_its_former_holder_shows_at_another() -> None:
    """n was started at the address of b, which is off; then b comes back at another address."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.stop()
    n = stage.box("n", 9)
    n.address, b.address = b.address, n.address
    n.start(knows=["a", "c"])
    stage.pass_ms(1_000)
    b.start(knows=["a", "c"])
    stage.pass_ms(5_000)
    assert state(a, "b") == state(c, "b") == "alive"
    suspected = {
        dict(notice.values)["member"]
        for box in (a, c)
        for notice in box.notices
        if notice.event == "member_suspect"
    }
    assert suspected == {"b"}, "nobody has missed a heartbeat of n"


def test_an_address_that_a_stranger_listens_at_now_is_no_evidence_of_a_death() -> None:
    """b is cut off; its address answers, but it is n that answers there."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.stop()
    n = stage.box("n", 9)
    n.address = b.address
    n.start(knows=["a", "c"])
    last_ms = min(member(box, "b").last_heard_ms for box in (a, c))
    stage.knocks += [(a, b.address), (c, b.address)]
    stage.pass_ms(last_ms + 1_990 - stage.mono_ms)
    assert "dead" not in (state(a, "b"), state(c, "b"))
    n.kill()
    stage.pass_ms(10)
    assert state(a, "n") == state(c, "n") == "dead"


def test_a_dead_member_that_is_back_by_a_hello_is_back_with_a_notice() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    stage.cut("b")
    wait_until(stage, lambda: state(a, "b") == "dead")
    a.notices.clear()
    stage.holds = (Heartbeat,)
    stage.heal()
    hello = b.has_sent(Hello)[-1]
    a.receive(b.sender(b.route), hello)
    stage.pass_ms(10)
    assert state(a, "b") == "alive"
    assert [n.event for n in a.notices if "member_alive" in n.event] == ["member_alive"]


# --- goodbyes --------------------------------------------------------------------------------


def test_left_is_final_for_that_incarnation_whatever_of_it_comes_late() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    hello, beat = b.has_sent(Hello)[-1], beats(b)[-1].beat
    b.submit(Leave(), 10_000)
    wait_until(stage, lambda: isinstance(b.end, Stop))
    assert state(a, "b") == state(c, "b") == "left"
    for sender, message in (
        (b.sender(None), Heartbeat(beat + 100, 0, b.now.wall_ms, gates=((1, 99),))),
        (b.sender(b.route), hello),
        (b.sender(b.address), hello),
        (b.sender(None), Goodbye(1)),
    ):
        a.receive(sender, message)
        stage.pass_ms(10)
        assert state(a, "b") == "left", message
    assert is_whole([a, c])


def test_who_missed_a_goodbye_is_helped_by_those_who_heard_it() -> None:
    """c takes b for silent, and nobody else suspects it: they know that it has left."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.cuts = {frozenset("bc")}
    b.submit(Leave(), 10_000)
    wait_until(stage, lambda: isinstance(b.end, Stop))
    stage.heal()
    assert state(a, "b") == "left" != state(c, "b")
    wait_until(stage, lambda: state(c, "b") == "dead", 3_000)
    assert is_whole([a, c])
    assert state(a, "b") == "left"


def test_who_has_left_is_back_as_another_incarnation() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.submit(Leave(), 10_000)
    wait_until(stage, lambda: isinstance(b.end, Stop))
    b.start(knows=["a"])
    stage.pass_ms(10_000)
    assert state(a, "b") == state(c, "b") == "alive"
    assert serves(b)
    assert is_whole([a, b, c])


# --- names -----------------------------------------------------------------------------------


def namesake(stage: Stage, holder: Box) -> Box:
    """Another machine that calls itself like this one; off."""
    box = stage.box("namesake", 77)
    box.settings = holder.settings
    return box


def test_a_name_is_free_when_its_holder_has_been_silent_for_two_seconds() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    last_ms = member(a, "b").last_heard_ms
    b.stop()
    fresh = namesake(stage, b)
    fresh.start(knows=["a", "c"], patient=True)
    stage.pass_ms(last_ms + 1_950 - stage.mono_ms)
    assert member(a, "b").replica == b.replica
    stage.pass_ms(5_000)
    assert fresh.end is None
    assert (state(a, "b"), member(a, "b").replica) == ("alive", fresh.replica)


def test_a_name_is_free_at_once_when_its_holder_refuses_connections() -> None:
    """Even while c, which does not reach that machine, keeps it from being dead."""
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    stage.cuts.add(frozenset(("b", "c")))
    b.kill()
    stage.pass_ms(10)
    assert state(a, "b") == "suspect"
    fresh = namesake(stage, b)
    fresh.start(knows=["a"])
    stage.pass_ms(10)
    assert (state(a, "b"), member(a, "b").replica) == ("alive", fresh.replica)


def two_that_meet(
    stage: Stage, *, discovered: bool = True, holds: tuple[type[Message], ...] = ()
) -> tuple[Box, Box, list[Box]]:
    """An older and a newer node of one name, and the others, that meet after a partition."""
    a, b, c = stage.found("a", "b", "c")
    stage.cut("b")
    stage.pass_ms(3_000)
    newer = namesake(stage, b)
    stage.cut("b")
    newer.start(knows=["a", "c"])
    stage.pass_ms(10_000)
    assert serves(b) == {1, 2, 3, 4}
    assert serves(newer)
    stage.holds = holds
    stage.heal()
    if discovered:
        b.observe(Candidate(newer.address, "mdns"))
    return b, newer, [a, c]


def test_of_two_nodes_of_one_name_the_newer_gives_up_its_gates_and_warns() -> None:
    stage = Stage()
    _, newer, others = two_that_meet(stage)
    wait_until(stage, lambda: newer.heard("namesake"))
    assert not serves(newer)
    assert "a second node calls itself b" in warnings(newer)
    stage.pass_ms(4_000)
    assert not serves(newer)
    assert beats(newer)[-1].gates is None
    for box in others:
        assert gate_states(box) == {"served"}
        assert "b" not in owners(box).values()


def test_who_is_refused_by_its_own_lot_gives_up_its_gates_and_greets_the_holder_of_its_name() -> (
    None
):
    """The others hold the newer one, and no discovery has ever shown the two to each other."""
    stage = Stage()
    older, newer, others = two_that_meet(stage, discovered=False)
    wait_until(stage, lambda: newer.heard("namesake"))
    assert older.heard("namesake")
    assert "this one serves no gates" in warnings(older)
    claimed = older.node.counters["gates_claimed"] + newer.node.counters["gates_claimed"]
    for _ in range(8):
        stage.pass_ms(4_000)
        assert not serves(older)
        assert not serves(newer)
        assert all("a second node calls itself b" in warnings(box) for box in others)
    assert claimed == older.node.counters["gates_claimed"] + newer.node.counters["gates_claimed"]
    assert is_whole(others)


def test_who_asks_without_a_hello_under_a_name_that_is_held_is_told_that_too() -> None:
    stage = Stage()
    older, _, _ = two_that_meet(stage, discovered=False, holds=(Hello,))
    wait_until(stage, lambda: older.heard("namesake"))
    assert not serves(older)


def test_a_name_that_is_free_again_gives_the_gates_back() -> None:
    stage = Stage()
    older, newer, (a, c) = two_that_meet(stage, discovered=False)
    wait_until(stage, lambda: newer.heard("namesake"))
    newer.kill()
    stage.pass_ms(30_000)
    assert serves(older)
    assert is_whole([older, a, c])
    for box in (older, a, c):
        assert "calls itself b" not in warnings(box)
        assert "another node" not in warnings(box)


# --- restarts, clocks and versions ---------------------------------------------------------------


def die(stage: Stage, box: Box, times: int) -> None:
    """A second each time, and a second of life."""
    for _ in range(times):
        box.kill()
        stage.pass_ms(1_000)
        box.start(knows=["a", "c"])
        stage.pass_ms(1_000)


def test_a_member_that_died_three_times_in_a_minute_gets_no_moved_gates_for_half_a_minute() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    die(stage, b, times=3)
    died_ms = stage.mono_ms - 2_000
    stage.pass_ms(died_ms + 29_900 - stage.mono_ms)
    assert state(a, "b") == state(c, "b") == "alive"
    assert not serves(b)
    stage.pass_ms(3_000)
    assert serves(b)
    assert is_whole([a, b, c])


def test_a_member_that_died_twice_gets_gates_as_soon_as_any_other() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    die(stage, b, times=2)
    stage.pass_ms(8_000)
    assert serves(b)
    assert is_whole([a, b, c])


def test_a_clock_set_back_by_an_hour_changes_nothing_of_members_and_gates() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = claims(a)
    b.skew_ms = -3_600_000
    for _ in range(50):
        stage.pass_ms(200)
        assert {*states(a).values(), *states(b).values(), *states(c).values()} == {"alive"}
    assert claims(a) == claims(b) == claims(c) == before
    assert "clock b -3600 s" in warnings(a)


def test_a_node_started_with_its_clock_set_back_is_still_the_newer_incarnation() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    first = b.incarnation
    b.skew_ms = -3_600_000
    b.start(knows=["a", "c"])
    assert b.incarnation > first
    stage.pass_ms(10_000)
    assert member(a, "b").incarnation == member(c, "b").incarnation == b.incarnation
    assert is_whole([a, b, c])
    assert serves(b)


def test_a_member_of_another_protocol_version_is_dead_after_its_silence_and_discover_says_why() -> (
    None
):
    """It is upgraded in place: somebody listens there, and nothing it says can be read."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    last_ms = member(a, "b").last_heard_ms
    b.stop()
    while stage.mono_ms < last_ms + 1_800:
        for box in (a, c):
            box.observe(ConnectionFailed(b.address, LinkFailure.PROTOCOL_VERSION))
        stage.pass_ms(190)
    assert state(a, "b") == "suspect"
    stage.pass_ms(700)
    assert state(a, "b") == state(c, "b") == "dead"
    assert is_whole([a, c])
    a.observe(ConnectionFailed(b.address, LinkFailure.PROTOCOL_VERSION))
    seen = {row.name: row.state for row in a.ask(ReadCandidates(), CandidateList).items}
    assert seen["b"] == "protocol_version"


def test_a_member_that_has_not_stored_what_is_here_is_that_many_events_behind() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b", gates=1)
    row = {row.name: row for row in a.ask(ReadMembers(), MemberList).items}
    assert (row["a"].events_behind, row["a"].synced_s) == (None, None)
    stage.cut("b")
    for number in range(3):
        a.track(f"KA{number}")
    row = {row.name: row for row in a.ask(ReadMembers(), MemberList).items}
    assert row["b"].events_behind == 3
    assert row["b"].synced_s is not None
    stage.heal()
    stage.pass_ms(6_000)
    row = {row.name: row for row in a.ask(ReadMembers(), MemberList).items}
    assert row["b"].events_behind == 0


def test_what_is_said_of_the_one_before_is_no_evidence_against_who_took_its_place() -> None:
    """Its disk is lost and its clock was put back, so that the old incarnation is the greater."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.stop(keep=False)
    wait_until(stage, lambda: state(a, "c") == "suspect" == state(b, "c"))
    c.skew_ms -= 60_000
    c.start(knows=["a", "b"])
    wait_until(stage, lambda: state(a, "c") == "alive" == state(b, "c"))
    known = next(m for m in a.node.members if m.name == "c")
    assert known.incarnation == c.incarnation < max(known.replaced)
    stage.cut("c")
    stage.pass_ms(1_500)
    assert (state(a, "c"), state(b, "c")) == ("suspect", "suspect")
    stage.pass_ms(2_000)
    assert (state(a, "c"), state(b, "c")) == ("dead", "dead")
