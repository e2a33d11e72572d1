"""Letting a replica go: fence, flush, seal; and what becomes of it when it comes back."""

from __future__ import annotations

import pytest

from parkingd.core.events import Fence, Seal
from parkingd.core.ids import Dot
from parkingd.protocol.codec import unpack_record_untrusted
from parkingd.protocol.commands import ForgetMember, Leave, ReadStatus, Track
from parkingd.protocol.effects import StartOver, StartOverReason
from parkingd.protocol.messages import Delta, FenceReport, Pull, PullReply, Refused
from parkingd.protocol.outcomes import Change, Entry, ErrorCode, Failure, Left, Status
from tests.unit.scripted import Box, Stage


def without_c() -> tuple[Stage, Box, Box, Box]:
    """Three nodes of which the last has died."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.stop()
    stage.pass_ms(3_000)
    return stage, a, b, c


def forget(stage: Stage, box: Box, name: str) -> Change | Failure:
    handle = box.submit(ForgetMember(name), 10_000)
    stage.pass_ms(4_000)
    outcome = box.answer(handle)
    assert isinstance(outcome, Change | Failure), outcome
    return outcome


def test_nothing_is_collected_while_a_dead_member_is_waited_for_and_all_once_it_is_let_go() -> None:
    stage, a, b, c = without_c()
    a.exit("KA1")
    stage.pass_ms(3_700_000 // 10)
    assert a.node.state.stays.mark_count == b.node.state.stays.mark_count == 1
    outcome = forget(stage, a, "c")
    assert isinstance(outcome, Change)
    stage.pass_ms(6_000)
    assert a.node.state.stays.mark_count == b.node.state.stays.mark_count == 0
    assert c.replica in b.node.state.record.seals


def test_a_living_member_and_a_stranger_are_not_forgotten() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b")
    assert a.ask(ForgetMember("b"), Failure).code == ErrorCode.MEMBER_ALIVE
    assert a.ask(ForgetMember("a"), Failure).code == ErrorCode.MEMBER_ALIVE
    assert a.ask(ForgetMember("z"), Failure).code == ErrorCode.UNKNOWN_MEMBER
    assert not a.node.state.record.fences


def test_a_member_forgotten_twice_is_unknown_with_a_hint() -> None:
    stage, a, _, _ = without_c()
    forget(stage, a, "c")
    failure = a.ask(ForgetMember("c"), Failure)
    assert failure.code == ErrorCode.UNKNOWN_MEMBER
    assert "already" in failure.hint


def test_a_member_that_does_not_report_is_named_and_nothing_is_sealed() -> None:
    stage, a, b, c = without_c()
    b.stop()
    stage.pass_ms(3_000)
    outcome = forget(stage, a, "c")
    assert isinstance(outcome, Failure)
    assert outcome.code == ErrorCode.NOT_ANSWERED
    assert "b" in outcome.reason
    assert not a.node.state.record.seals
    assert any("fenced" in line for line in a.ask(ReadStatus(), Status).warnings)
    b.start(knows=["a"])
    stage.pass_ms(12_000)
    assert c.replica in b.node.state.record.seals, "it was let go by itself when b was back"


def test_the_seal_names_what_any_member_holds_and_the_issuer_holds_it_then() -> None:
    """The last events of the dead one are known to one other member only."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", sync_ms=3_600_000)
    stage.flows = False
    last = c.track("KC1")
    b.give(c, last)
    stage.letters.clear()
    c.stop()
    stage.mono_ms += 100
    a.node._replication._gaps.clear()
    stage.flows = True
    stage.pass_ms(3_000)
    outcome = forget(stage, a, "c")
    assert isinstance(outcome, Change)
    assert a.node.state.record.seals[c.replica].upto == last[1]
    assert a.shown("KC1") == b.shown("KC1") == {last}


def test_a_seal_waits_until_its_issuer_has_fetched_all_that_it_names() -> None:
    """Else it could name what a reporter's disk takes with it."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.holds = (Delta, PullReply)
    last = c.track("KC1")
    b.give(c, last)
    c.stop()
    stage.letters.clear()
    stage.pass_ms(3_000)
    handle = a.submit(ForgetMember("c"), 10_000)
    for letter in stage.waiting(Delta, b):
        stage.deliver(letter)
    stage.pass_ms(1_000)
    assert b.has_sent(FenceReport)
    assert c.replica not in a.node.state.record.seals
    assert a.answer(handle) is None
    before = len(a.has_sent(Pull))
    stage.pass_ms(1_000)
    assert 1 < len(a.has_sent(Pull)) - before < 12, "it asks again, but is no storm"
    stage.release()
    stage.pass_ms(1_500)
    assert isinstance(a.answer(handle), Change)
    assert a.shown("KC1") == b.shown("KC1") == {last}
    assert a.node.state.record.seals[c.replica].upto == last[1]


def test_a_report_speaks_of_what_is_on_the_disk() -> None:
    """It becomes part of the seal, so it must survive a crash."""
    stage, a, b, _ = without_c()
    b.commits = False
    handle = a.submit(ForgetMember("c"), 10_000)
    stage.pass_ms(1_000)
    assert not b.has_sent(FenceReport)
    assert a.answer(handle) is None
    b.commits = True
    b.persist()
    stage.pass_ms(2_000)
    assert b.has_sent(FenceReport)
    assert isinstance(a.answer(handle), Change)


def test_what_nobody_holds_is_void_and_no_gap_or_early_dot_remains() -> None:
    """E0, E1 covers 0 at C; A gets 1 only."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.flows = False
    zero, one = c.track("KC1"), c.track("KC1")
    a.give(c, one)
    c.stop()
    stage.letters.clear()
    stage.flows = True
    stage.pass_ms(3_000)
    assert isinstance(forget(stage, a, "c"), Change)
    stage.pass_ms(3_000)
    for box in (a, b):
        assert box.shown("KC1") == {one}
        assert not box.node.state.context.has_intervals()
        assert not box.node.state.stays.early
        assert box.node.is_synced()
    assert zero[1] == one[1] - 1
    a.exit("KC1")
    stage.pass_ms(6_000)
    assert a.node.state.stays.mark_count == b.node.state.stays.mark_count == 0


# --- two that let one go at once ---------------------------------------------------------------


def two_issuers() -> tuple[Stage, Box, Box, Box, Box, Dot]:
    """C is lost, and D alone has a car of C's; C is fenced, and A and B have told each other what
    they hold of it: nothing of that car."""
    stage = Stage()
    a, b, c, d = stage.found("a", "b", "c", "d", gates=1)
    stage.cut("c", "d")
    car = c.track("KC1")
    c.stop(keep=False)
    stage.pass_ms(3_000)
    outcome = forget(stage, a, "c")
    assert isinstance(outcome, Failure)
    assert "d" in outcome.reason
    assert a.has_sent(FenceReport)
    assert b.has_sent(FenceReport)
    assert d.shown("KC1") == {car}
    stage.heal()
    return stage, a, b, c, d, car


def test_two_that_let_one_go_at_once_do_not_disagree() -> None:
    """B fetches from D what it did not hold when it reported, and D is lost with its disk."""
    stage, a, b, c, d, car = two_issuers()
    stage.cut("b", "d")
    stage.pass_ms(12_000)
    assert b.node.state.record.seals[c.replica].upto == car[1], "D has given it to B"
    assert b.shown("KC1") == {car}
    stage.cut("b")
    d.stop(keep=False)
    stage.pass_ms(3_000)
    for name in ("d", "c"):
        outcome = forget(stage, a, name)
        assert isinstance(outcome, Failure), "B has not said what it holds since D is fenced"
        assert "b" in outcome.reason
    assert not a.node.state.record.seals
    stage.heal()
    stage.pass_ms(20_000)
    assert b.runs, "it was never fenced"
    for box in (a, b):
        assert box.shown("KC1") == {car}
        assert box.node.state.record.seals.keys() == {c.replica, d.replica}
        assert box.node.state.record.seals[c.replica].upto == car[1]
    assert a.node.state.root() == b.node.state.root()


def test_what_a_fenced_replica_had_on_its_way_comes_too_late() -> None:
    """B has reported again since D is fenced: what only D held may not come in any more."""
    stage, a, b, c, d, car = two_issuers()
    stage.cut("a")
    stage.pass_ms(1_000)
    stage.holds = (Delta, PullReply)
    d.give(b, *fence_and_seal(b))
    stage.pass_ms(3_000)
    assert d.has_sent(FenceReport)
    late = [letter for letter in stage.waiting(PullReply, b) if letter.source == "d"]
    assert late
    d.stop(keep=False)
    stage.letters.clear()
    stage.heal()
    stage.holds = ()
    stage.pass_ms(3_000)
    stage.holds = (FenceReport,)
    b.submit(ForgetMember("c"), 10_000)
    stage.pass_ms(200)
    assert b.node.state.expected[c.replica].upto == car[1], "D had told B of it"
    a.submit(ForgetMember("d"), 10_000)
    a.submit(ForgetMember("c"), 10_000)
    stage.pass_ms(1_000)
    stage.holds = (FenceReport, Delta, PullReply)
    for letter in stage.waiting(FenceReport, a):
        stage.deliver(letter)
    stage.pass_ms(200)
    assert a.node.state.record.seals[c.replica].upto == car[1] - 1
    for letter in late:
        stage.deliver(letter, keep=True)
    stage.release()
    stage.pass_ms(6_000)
    assert b.runs, "it holds nothing that is void"
    assert a.node.state.root() == b.node.state.root()
    assert b.shown("KC1") == set()


def test_the_fence_of_somebody_who_is_fenced_himself_reaches_all() -> None:
    """D has fenced C and told A alone: B, who knows D's fence, takes nothing of D's any more."""
    stage = Stage()
    a, b, c, d = stage.found("a", "b", "c", "d", gates=1)
    c.stop()
    stage.pass_ms(3_000)
    stage.cut("d")
    d.submit(ForgetMember("c"))
    (fence,) = fence_and_seal(d)
    d.stop()
    stage.pass_ms(3_000)
    stage.flows = False
    b.submit(ForgetMember("d"), 10_000)
    a.give(d, fence)
    stage.flows = True
    for name in ("c", "d"):
        a.submit(ForgetMember(name), 10_000)
    stage.pass_ms(20_000)
    for box in (a, b):
        assert box.node.state.record.seals.keys() == {c.replica, d.replica}
    assert a.node.state.root() == b.node.state.root()


# --- coming back -------------------------------------------------------------------------------


def returned() -> tuple[Stage, Box, Box, Box]:
    """C was cut off, recorded a car, and was let go meanwhile."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.track("KC1")
    stage.pass_ms(3_000)
    stage.cut("c")
    c.track("KC2")
    stage.pass_ms(3_000)
    assert isinstance(forget(stage, a, "c"), Change)
    stage.heal()
    stage.pass_ms(8_000)
    return stage, a, b, c


def test_a_fenced_node_that_returns_takes_a_new_id_and_offers_what_only_it_has() -> None:
    stage, a, b, c = returned()
    end = c.end
    assert isinstance(end, StartOver)
    assert end.reason is StartOverReason.FENCED
    assert not end.keep
    assert end.pending == ()
    assert [unpack_record_untrusted(each)[3] for each in end.review] == ["KC2"]
    old = c.replica
    c.succeed(knows=["a", "b"])
    stage.pass_ms(5_000)
    assert c.replica != old
    assert c.node.state.root() == a.node.state.root() == b.node.state.root()
    assert c.shown("KC1")
    assert not c.shown("KC2"), "it is never merged"
    c.ask(Track("KC3", 1, None), Entry)
    assert a.shown("KC3")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_the_others_hold_is_not_listed_when_a_fenced_node_is_started_again(
    is_sealed: bool,
) -> None:
    """It has just begun and knows of nobody's disk: who tells it so says what is known there."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.track("KB1")
    c.track("KC1")
    stage.pass_ms(500)
    stage.cut("c")
    c.track("KC2")
    c.kill()
    stage.pass_ms(3_000)
    if not is_sealed:
        stage.cut("b")  # Who has to report.
    assert isinstance(forget(stage, a, "c"), Change) is is_sealed
    stage.heal()
    if not is_sealed:
        stage.cut("b")
    c.start(knows=["a"])
    stage.pass_ms(2_000)
    assert isinstance(c.end, StartOver)
    assert [unpack_record_untrusted(each)[3] for each in c.end.review] == ["KC2"]


def test_nothing_is_taken_from_a_fenced_replica_whoever_brings_it() -> None:
    stage, a, b, c = returned()
    (late,) = c.shown("KC2")
    for box in (a, b):
        box.give(b if box is a else a, late)
        assert box.shown("KC2") == set()
        assert not box.node.state.context.contains(*late)
    assert stage.mono_ms


def test_a_fenced_node_is_told_on_any_request_of_its() -> None:
    _, a, b, c = returned()
    assert a.has_sent(Refused) or b.has_sent(Refused), "by whom it asked first"
    assert c.has_sent(Delta)


def test_a_fenced_node_that_crashed_before_it_could_start_over_does_so_after_the_restart() -> None:
    """Its own fence is on its disk: it must neither mint nor break over it."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.track("KC1")
    stage.pass_ms(3_000)
    stage.cut("c")
    stage.pass_ms(3_000)
    assert isinstance(forget(stage, a, "c"), Change)
    fence = next(
        (event.origin, event.seq)
        for event in a.node.state.record.events.values()
        if isinstance(event.body, Fence)
    )
    b.start()
    c.commits = True
    c.give(a, fence)
    assert isinstance(c.end, StartOver)
    c.persist()
    c.start()
    assert isinstance(c.end, StartOver)
    assert c.end.reason is StartOverReason.FENCED


def test_who_holds_void_events_starts_over_also_after_a_crash() -> None:
    """B was cut off with C, and holds an event of C that the seal declares void."""
    stage, a, b, c = cut_off_together()
    fence, seal = fence_and_seal(a)
    b.give(a, fence, seal)
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.FENCED
    assert "KC2" in [unpack_record_untrusted(each)[3] for each in b.end.review]
    b.persist()
    stage.cut("b")
    b.start()
    assert isinstance(b.end, StartOver)
    assert c.replica in a.node.state.record.seals


def test_a_member_that_holds_void_events_and_has_not_heard_is_told_by_the_hello() -> None:
    stage, a, b, c = cut_off_together()
    c.stop()
    stage.heal()
    stage.pass_ms(8_000)
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.FENCED
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    assert b.node.state.root() == a.node.state.root()
    assert b.shown("KC2") == set()


def cut_off_together() -> tuple[Stage, Box, Box, Box]:
    """A alone lets C go, and C has told B of a car that A has never heard of.

    B is unknown to A's roster only because it has another disk: it takes part no more.
    """
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.pass_ms(3_000)
    stage.cut("a")
    entry = c.track("KC2")
    stage.pass_ms(3_000)
    assert b.shown("KC2")
    a.node._shared.replica.mint(Fence(c.replica), a.now.wall_ms)
    a.node._shared.replica.mint(Seal(c.replica, entry[1] - 1, ()), a.now.wall_ms)
    a.tick()
    return stage, a, b, c


def fence_and_seal(box: Box) -> list[tuple[int, int]]:
    return [
        (event.origin, event.seq)
        for event in box.node.state.record.events.values()
        if isinstance(event.body, Fence | Seal)
    ]


# --- ephemeral nodes -----------------------------------------------------------------------------


def test_an_ephemeral_node_seals_itself_when_it_leaves() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    e = stage.box("e", 9, ephemeral=True).start(knows=["a", "b"])
    stage.pass_ms(4_000)
    entry = e.track("KE1")
    handle = e.submit(Leave())
    stage.pass_ms(3_000)
    left = e.answer(handle)
    assert isinstance(left, Left)
    assert left.safe_with in ("a", "b")
    for box in (a, b):
        assert e.replica in box.node.state.record.seals
        assert box.shown("KE1") == {entry}
    a.exit("KE1")
    stage.pass_ms(6_000)
    assert a.node.state.stays.mark_count == 0
    assert not a.node.state.record.fences


def test_the_own_seal_of_one_that_was_fenced_meanwhile_comes_by_the_report_of_who_has_it() -> None:
    """a hears nothing of the leave and lets e go: then it takes nothing more that e has made, not
    its seal either. b holds that, and so for b there is nothing to report."""
    stage = Stage()
    a, b = stage.found("a", "b")
    e = stage.box("e", 9, ephemeral=True).start(knows=["a", "b"])
    stage.pass_ms(3_000)
    stage.cut("a")
    last = e.track("KE1")
    e.submit(Leave())
    stage.pass_ms(3_000)
    assert e.replica in b.node.state.record.seals
    assert isinstance(forget(stage, a, "e"), Failure)
    stage.heal()
    stage.pass_ms(12_000)
    assert e.replica in a.node.state.record.seals
    assert a.shown("KE1") == b.shown("KE1") == {last}
    assert a.node.state.context.parts() == b.node.state.context.parts()


@pytest.mark.parametrize("alive_ms", [3_000, 58 * 60_000])
def test_an_ephemeral_node_that_died_is_let_go_after_an_hour_and_not_before(alive_ms: int) -> None:
    stage = Stage()
    a, b = stage.found("a", "b", heartbeat_ms=1_000, sync_ms=60_000)
    e = stage.box("e", 9, ephemeral=True).start(knows=["a", "b"])
    stage.pass_ms(alive_ms if alive_ms < 60_000 else 4_000)
    e.stop(keep=False)
    stage.pass_ms(59 * 60_000 if alive_ms < 60_000 else alive_ms)
    assert e.replica not in a.node.state.record.fences
    stage.pass_ms(3 * 60_000)
    for box in (a, b):
        assert e.replica in box.node.state.record.seals


def test_a_durable_node_is_never_let_go_by_itself() -> None:
    stage = Stage()
    a, _, c = stage.found("a", "b", "c", heartbeat_ms=1_000, sync_ms=60_000)
    c.stop()
    stage.pass_ms(3_600_000 + 5 * 60_000)
    assert not a.node.state.record.fences


def test_an_ephemeral_node_that_leaves_while_it_lets_another_go_ends_in_good_order() -> None:
    """Its own seal is its last event: nothing may be minted after it."""
    stage, a, b, _ = without_c()
    e = stage.box("e", 9, ephemeral=True).start(knows=["a", "b"])
    stage.pass_ms(4_000)
    stage.holds = (FenceReport, PullReply)
    e.submit(ForgetMember("c"), 10_000)
    stage.pass_ms(1_000)
    for box in (a, b):
        assert box.has_sent(FenceReport)
    handle = e.submit(Leave())
    stage.release(PullReply)
    stage.pass_ms(200)
    assert e.answer(handle) is None
    stage.release()
    stage.pass_ms(4_000)
    assert isinstance(e.answer(handle), Left)
    for box in (a, b):
        assert box.node.state.record.seals[e.replica].upto == e.node.own_seq


def test_a_seal_that_names_what_no_disk_has_any_more_is_made_anew() -> None:
    """Its issuer is lost with the only copy: the others would wait for it for ever."""
    stage, a, b, c = without_c()
    forget(stage, a, "c")
    held = a.node.state.context.upto(c.replica)
    lost = Seal(c.replica, held + 3, ())
    a.node._shared.replica.mint(lost, a.node._now.wall_ms)
    stage.pass_ms(2_000)
    assert b.node.state.record.seals[c.replica].upto == held + 3
    assert not b.node.state.roster.collectable(
        b.node.state.context.vector, b.node.state.sealed_heads()
    )
    stage.pass_ms(25_000)
    for box in (a, b):
        assert box.node.state.record.seals[c.replica].upto == held
        assert not box.node.state.has_voided_events
        assert box.node.state.roster.collectable(
            box.node.state.context.vector, box.node.state.sealed_heads()
        )


def test_an_id_that_was_given_up_unanswered_is_let_go_by_the_very_node() -> None:
    """a has heard of it in a vector, and not its join: nothing of it is known to its node."""
    orphan = 0xABCD
    stage = Stage()
    a, b = stage.found("a", "b")
    b.stop()
    a.node.state.roster.name((orphan,))
    b.start(knows=["a"], orphaned=(orphan,))
    stage.pass_ms(10_000)
    for box in (a, b):
        assert box.node.state.record.seals[orphan].upto == 0
        assert box.node.state.roster.collectable(
            box.node.state.context.vector, box.node.state.sealed_heads()
        )
