"""Who is who: names, replica ids, incarnations, and a disk that has forgotten."""

from __future__ import annotations

import random

from parkingd.protocol.commands import ReadCandidates, ReadStatus, Track
from parkingd.protocol.effects import StartOver, StartOverReason, Stop
from parkingd.protocol.facts import Candidate, ConnectionFailed, LinkFailure
from parkingd.protocol.messages import Goodbye, Heartbeat, Hello, Refused
from parkingd.protocol.outcomes import CandidateList, Entry, Status
from tests.sim.disk import FakeDisk
from tests.unit.scripted import Box, Stage


def candidates(box: Box) -> dict[str, str]:
    return {row.address: row.state for row in box.ask(ReadCandidates(), CandidateList).items}


# --- amnesia -----------------------------------------------------------------------------------


def test_a_peer_that_holds_later_events_of_ours_makes_us_take_a_new_id_before_minting() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    older = b.disk.snapshot()
    lost = b.track("KB1")
    b.stop()
    b.disk.restore(older, noticed=False)
    b.start(knows=["a"])
    stage.pass_ms(500)
    end = b.end
    assert isinstance(end, StartOver)
    assert end.reason is StartOverReason.DOTS_SEEN_ELSEWHERE
    assert end.keep, "what is on the disk is sound; only the id has been used elsewhere"
    assert b.node.own_seq == lost[1] - 1, "nothing was minted under the doubtful id"
    old = b.replica
    b.succeed(knows=["a"])
    stage.pass_ms(5_000)
    assert b.replica != old
    assert b.shown("KB1") == a.shown("KB1") == {lost}
    fresh = b.track("KB2")
    assert a.shown("KB2") == {fresh}
    assert fresh[0] == b.replica


def test_a_restarted_node_asks_before_it_mints_and_waits_two_seconds_at_most() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.cut("a")
    b.start(knows=["a"])
    handle = b.submit(Track("KB1", 1, None), 5_000)
    stage.pass_ms(1_900)
    assert b.answer(handle) is None
    stage.pass_ms(300)
    assert isinstance(b.answer(handle), Entry)
    stage.heal()
    b.start(knows=["a"])
    handle = b.submit(Track("KB2", 1, None), 5_000)
    stage.pass_ms(200)
    assert isinstance(b.answer(handle), Entry), "a member has answered: no need to wait"
    assert a.runs


def test_later_events_of_ours_that_show_only_in_an_exchange_make_us_take_a_new_id_too() -> None:
    """At the hello the one member that could be asked did not know of them itself.

    It has no gate and records no car meanwhile: what it minted would have the dots of others.
    """
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=1)
    older = b.disk.snapshot()
    stage.cut("a")
    b.track("KB1")
    stage.pass_ms(3_000)
    b.stop()
    b.disk.restore(older, noticed=False)
    stage.heal()
    stage.cut("c")
    b.start(knows=["a"])
    stage.pass_ms(3_000)
    assert b.end is None
    stage.cuts = {frozenset(("b", "c"))}
    stage.pass_ms(6_000)
    assert a.shown("KB1")
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.DOTS_SEEN_ELSEWHERE
    stage.heal()
    b.succeed(knows=["a", "c"])
    stage.pass_ms(8_000)
    assert a.node.state.root() == b.node.state.root() == c.node.state.root()
    assert b.shown("KB1")


# --- one replica id twice ------------------------------------------------------------------------


def copy_of(stage: Stage, box: Box, name: str, *knows: str) -> Box:
    """The same disk in a second machine, and nobody noticed."""
    twin = stage.box(name, box.replica)
    twin.disk = FakeDisk(random.Random(7))
    twin.disk.restore(box.disk.snapshot(), noticed=False)
    stage.mono_ms += 10  # A later start is a greater incarnation.
    return twin.start(knows=knows)


def test_of_two_machines_with_one_replica_id_the_newer_takes_another() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    twin = copy_of(stage, b, "t", "a", "b")
    stage.pass_ms(2_000)
    assert isinstance(twin.end, StartOver)
    assert twin.end.reason is StartOverReason.REPLICA_TWICE
    assert twin.end.keep
    assert b.end is None
    twin.succeed(knows=["a", "b"])
    stage.pass_ms(5_000)
    entry = twin.track("KT1")
    stage.pass_ms(3_000)
    assert a.shown("KT1") == b.shown("KT1") == {entry}


def test_the_older_of_two_greets_the_newer_that_has_only_heard_of_others() -> None:
    stage = Stage()
    _, b = stage.found("a", "b")
    twin = copy_of(stage, b, "t")
    b.observe(Candidate(twin.address, "local"))
    stage.pass_ms(2_000)
    assert isinstance(twin.end, StartOver)
    assert b.end is None


# --- names -------------------------------------------------------------------------------------


def test_a_newcomer_whose_name_is_held_by_a_living_member_stops_and_names_the_holder() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    newcomer = namesake(stage, b)
    newcomer.start(knows=["a"])
    stage.pass_ms(2_500)
    assert newcomer.end is None, "it insists for a while: the holder may be dead"
    assert newcomer.node.lot is None, "and founds none of its own"
    stage.pass_ms(4_000)
    assert isinstance(newcomer.end, Stop)
    assert newcomer.end.error is not None
    assert str(b.address) in newcomer.end.error
    assert "--name" in newcomer.end.hint
    assert any("calls itself b" in line for line in a.ask(ReadStatus(), Status).warnings)
    assert b.runs


def namesake(stage: Stage, holder: Box) -> Box:
    """Another machine that calls itself like ``holder``."""
    newcomer = stage.box("namesake", 77)
    newcomer.settings = holder.settings
    return newcomer


def test_the_warning_of_a_second_node_of_a_name_stands_as_long_as_there_is_one() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    newcomer = namesake(stage, b)
    newcomer.start(knows=["a"])

    def is_told() -> bool:
        return any("calls itself b" in line for line in a.ask(ReadStatus(), Status).warnings)

    stage.pass_ms(100)
    assert is_told()
    a.receive(c.sender(c.route), c.has_sent(Hello)[-1])
    assert is_told(), "somebody else was admitted"
    stage.pass_ms(12_000)
    assert isinstance(newcomer.end, Stop)
    assert is_told()
    stage.pass_ms(15_000)
    assert not is_told()


def test_who_was_alone_until_a_newcomer_of_its_name_comes_stays_and_that_one_goes() -> None:
    stage = Stage()
    (b,) = stage.found("b")
    newcomer = namesake(stage, b)
    newcomer.start(knows=["b"])
    b.observe(Candidate(newcomer.address, "mdns"))
    stage.pass_ms(10_000)
    assert isinstance(newcomer.end, Stop)
    assert b.end is None
    assert b.node.counters["gates_claimed"] == 4
    status = b.ask(ReadStatus(), Status)
    assert status.gates_owned == (1, 2, 3, 4)


def test_a_silent_holder_of_a_name_is_replaced() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.stop()
    stage.pass_ms(2_500)
    fresh = namesake(stage, b)
    fresh.start(knows=["a"])
    stage.pass_ms(5_000)
    assert fresh.end is None
    assert fresh.node.is_synced()
    member = next(member for member in a.node.members if member.name == "b")
    assert (member.replica, member.address) == (fresh.replica, fresh.address)


def test_a_node_that_dials_itself_notices_and_is_no_member_of_its_own() -> None:
    stage = Stage()
    a = stage.box("a", 1)
    a.start(knows=["a"])
    stage.pass_ms(3_000)
    assert candidates(a) == {str(a.address): "self"}
    assert not a.node.members
    assert a.node.lot is not None
    hellos = len(a.has_sent(Hello))
    stage.pass_ms(30_000)
    assert len(a.has_sent(Hello)) == hellos


# --- incarnations --------------------------------------------------------------------------------


def test_a_message_of_an_earlier_incarnation_revives_nobody() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    old = b.sender(None)
    b.start(knows=["a"])
    stage.pass_ms(500)
    b.stop()
    stage.pass_ms(2_500)
    before = a.node.counters["from_strangers"]
    a.receive(old, Heartbeat(9_999, 0, 0))
    a.tick()
    (member,) = a.node.members
    assert member.state.value == "dead"
    assert a.node.counters["from_strangers"] == before + 1


def test_a_goodbye_is_final_for_its_incarnation_and_a_restart_is_another() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.receive(b.sender(None), Goodbye(b.node.own_seq))
    (member,) = a.node.members
    assert member.state.value == "left"
    a.receive(b.sender(None), Heartbeat(9_999, 0, 0))
    a.tick()
    assert member.state.value == "left"
    b.start(knows=["a"])
    stage.pass_ms(500)
    assert [each.state.value for each in a.node.members] == ["alive"]


def test_a_late_hello_of_an_earlier_incarnation_is_not_admitted() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    old, hello = b.sender(b.route), b.has_sent(Hello)[-1]
    b.start(knows=["a"])
    stage.pass_ms(500)
    a.receive(old, hello)
    assert a.node.counters["stale_incarnation"] == 1
    assert [member.incarnation for member in a.node.members] == [b.incarnation]


def test_a_heartbeat_that_comes_late_or_twice_says_nothing() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    (member,) = a.node.members
    head, beat = member.head, member.beat
    a.receive(b.sender(None), Heartbeat(beat, head + 5, 0))
    a.receive(b.sender(None), Heartbeat(beat - 1, head + 5, 0))
    assert member.head == head
    assert stage.mono_ms


def test_a_restarted_member_is_greeted_when_its_heartbeats_show() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.start()  # It knows of nobody, but a is still subscribed to it.
    a.subscribed.add("b")
    stage.pass_ms(3_000)
    assert [member.incarnation for member in a.node.members] == [b.incarnation]
    assert [member.name for member in b.node.members] == ["a"]


# --- candidates ----------------------------------------------------------------------------------


def test_what_became_of_each_candidate_is_told() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    z, y = stage.box("z", 99), stage.box("y", 98)
    a.observe(Candidate(z.address, "static"))
    a.observe(Candidate(y.address, "mdns", "y", mismatch=LinkFailure.OTHER_COOKIE))
    a.observe(ConnectionFailed(z.address, LinkFailure.REFUSED))
    stage.pass_ms(100)
    states = candidates(a)
    assert states[str(b.address)] == "connected"
    assert states[str(z.address)] == "refused"
    assert states[str(y.address)] == "other_cookie"
    a.observe(Candidate(z.address, "static", gone=True))
    assert str(z.address) not in candidates(a)


def test_a_candidate_withdrawn_by_its_source_is_still_a_member() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.observe(Candidate(b.address, "mdns", "b", gone=True))
    stage.pass_ms(5_000)
    assert candidates(a)[str(b.address)] == "connected"
    assert [member.state.value for member in a.node.members] == ["alive"]


def test_a_candidate_that_belongs_elsewhere_is_not_dialled() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    y = stage.box("y", 98).start()
    a.observe(Candidate(y.address, "mdns", "y", mismatch=LinkFailure.OTHER_CLUSTER))
    stage.pass_ms(5_000)
    assert not a.has_sent(Hello)
    assert not a.has_sent(Refused)


def test_a_silent_candidate_is_greeted_with_growing_pauses() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    z = stage.box("z", 99)
    a.observe(Candidate(z.address, "static"))
    stage.pass_ms(60_000)
    hellos = len(a.has_sent(Hello))
    assert 12 <= hellos <= 18
    z.start(patient=True)
    stage.pass_ms(5_100)
    assert [member.name for member in a.node.members] == ["z"]
