"""What `discover` tells: of each address what was asked and what became of it, and what failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parkingd.adapters.discovery.proposals import Proposals
from parkingd.protocol.commands import ReadCandidates, ReadStatus
from parkingd.protocol.facts import Candidate, ConnectionFailed, LinkFailure, LookUp
from parkingd.protocol.limits import CANDIDATES_MAX, CANDIDATES_WAITING_MAX, LOOK_UPS_MAX
from parkingd.protocol.messages import Address, Goodbye, Hello, RootQuery
from parkingd.protocol.outcomes import CandidateList, CandidateRow, Status
from tests.unit.scripted import Box, Stage

SERVICE = "_gossip._tcp.lot.test"
TOLD = f"SRV {SERVICE} -> pod-0.lot.test:7744"
SERVFAIL = LookUp("srv", SERVICE, "servfail", "asked 10.0.0.53:53: the server says SERVFAIL")


def rows(box: Box) -> dict[str, CandidateRow]:
    return {row.address: row for row in box.ask(ReadCandidates(), CandidateList).items}


def test_what_the_source_was_told_stands_beside_what_became_of_the_address() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    z = stage.box("z", 99)
    a.observe(Candidate(z.address, "srv", detail=TOLD))
    assert rows(a)[str(z.address)] == CandidateRow("srv", str(z.address), None, "trying", TOLD)
    a.observe(ConnectionFailed(z.address, LinkFailure.REFUSED))
    assert rows(a)[str(z.address)].detail == f"{TOLD}; nobody listens there"
    z.start(knows=["a"], patient=True)
    stage.pass_ms(2_000)
    connected = rows(a)[str(z.address)]
    assert (connected.state, connected.detail) == ("connected", TOLD)


def test_an_address_known_already_is_told_with_what_a_source_says_later() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.observe(Candidate(b.address, "srv", detail=TOLD))
    assert rows(a)[str(b.address)].detail == TOLD
    a.observe(Candidate(b.address, "static"))
    assert rows(a)[str(b.address)].detail == TOLD


def test_a_look_up_that_failed_has_a_row_that_says_when_until_it_is_answered() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.observe(SERVFAIL)
    stage.pass_ms(3_000)
    row = rows(a)[SERVICE]
    assert (row.source, row.name, row.state) == ("srv", None, "servfail")
    assert row.detail == f"{SERVFAIL.detail}; last asked 3 s ago"
    assert list(rows(a))[-1] == SERVICE, "addresses come first"
    a.observe(LookUp("srv", SERVICE, "timeout", "no answer"))
    row = rows(a)[SERVICE]
    assert (row.state, row.detail) == ("timeout", "no answer; last asked 0 s ago")
    a.observe(LookUp("srv", SERVICE, "timeout", "", gone=True))
    assert set(rows(a)) == {str(b.address)}
    a.observe(LookUp("srv", SERVICE, "timeout", "", gone=True))


def test_failed_look_ups_change_nothing_else() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    before = len(a.sent)
    a.observe(SERVFAIL)
    assert len(a.sent) == before
    assert [member.name for member in a.node.members] == ["b"]
    assert rows(a)[str(b.address)].state == "connected"


def test_a_bounded_number_of_failed_look_ups_is_kept_and_the_rest_is_counted() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.observe(SERVFAIL)
    for number in range(LOOK_UPS_MAX + 9):
        a.observe(LookUp("srv", f"pod-{number}.lot.test", "nxdomain", "no such name"))
    a.observe(LookUp("srv", SERVICE, "timeout", "no answer"))
    failed = rows(a)
    assert len(failed) == LOOK_UPS_MAX
    assert failed[SERVICE].state == "timeout", "what is known already is kept up to date"
    counters = dict(a.ask(ReadStatus(), Status).counters)
    assert counters["look_ups_refused"] == 10


# --- several sources -----------------------------------------------------------------------------

AT = Address("10.0.0.1", 7744)


def test_an_address_is_gone_when_the_last_source_has_withdrawn_it() -> None:
    proposals = Proposals()
    static, srv = Candidate(AT, "static"), Candidate(AT, "srv", detail=TOLD)
    for candidate in (static, srv):
        assert proposals.heard(candidate) is candidate
    assert proposals.all() == [static, srv]
    assert proposals.heard(Candidate(AT, "srv", gone=True)) is static
    last = Candidate(AT, "static", gone=True)
    assert proposals.heard(last) is last
    assert proposals.all() == []
    assert proposals.heard(last) is last


@pytest.mark.parametrize("mismatch", [None, LinkFailure.OTHER_COOKIE])
def test_what_a_source_says_anew_replaces_what_it_said(mismatch: LinkFailure | None) -> None:
    proposals = Proposals()
    proposals.heard(Candidate(AT, "mdns", "gary", LinkFailure.OTHER_CLUSTER))
    again = Candidate(AT, "mdns", "gary", mismatch)
    assert proposals.heard(again) is again
    assert proposals.all() == [again]


def test_an_address_where_another_lives_now_is_greeted_when_a_member_says_so() -> None:
    """b and c have changed places. c has not found a, whose word that b lives there is old."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    for box in (b, c):
        box.stop()
    b.address, c.address = c.address, b.address
    stage.holds = (Hello,)
    c.start()
    b.start(knows=["a", "c"])
    stage.pass_ms(1)
    stage.deliver(next(each for each in stage.waiting(Hello, c) if each.source == "b"))
    stage.deliver(next(each for each in stage.waiting(Hello, b) if each.source == "c"))
    assert "c" in {member.name for member in b.node.members}
    stage.pass_ms(600)
    said = [each for each in stage.waiting(Hello, a) if each.source == "b"][-1]
    assert isinstance(said.message, Hello)
    assert c.address in said.message.peers
    stage.letters = [said]
    stage.deliver(said)
    stage.pass_ms(10)
    greeted = [each.target for each in stage.letters if each.source == "a"]
    assert "c" in greeted
    stage.letters.clear()
    for _ in range(3):
        a.receive(said.sender, said.message)
    assert not stage.waiting(Hello, c), "once is enough for a while"


def test_an_address_where_another_lives_now_is_greeted_when_that_one_asks() -> None:
    """b and c have changed places, and b has met a, which has not met b: its answer was lost."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    for box in (b, c):
        box.stop()
    b.address, c.address = c.address, b.address
    c.start(knows=["a"])
    stage.pass_ms(2_000)
    stage.holds = (Hello,)
    b.start()
    stage.pass_ms(6_000)
    assert not stage.waiting(Hello, b), "c was known there, and is met elsewhere"
    a.receive(b.sender(b.route), RootQuery(1))
    stage.pass_ms(10)
    assert [each.source for each in stage.waiting(Hello, b)] == ["a"]
    a.receive(b.sender(b.route), RootQuery(2))
    stage.pass_ms(10)
    assert len(stage.waiting(Hello, b)) == 1, "once is enough for a while"


# --- more candidates than are tried at once ----------------------------------------------------


def invented(number: int) -> Candidate:
    """An address at which nobody ever answers."""
    return Candidate(Address(f"10.1.{number // 250}.{number % 250}", 7744), "mdns")


def test_a_candidate_that_found_the_table_full_gets_its_turn() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    for number in range(CANDIDATES_MAX + 9):
        a.observe(invented(number))
    z = stage.box("z", 99)
    a.observe(Candidate(z.address, "static"))
    assert str(z.address) not in rows(a)
    a.observe(replace(invented(CANDIDATES_MAX), gone=True))
    stage.pass_ms(6_000)
    z.start(patient=True)
    tried = set(rows(a))
    for _ in range(4):
        stage.pass_ms(3_000)
        tried |= set(rows(a))
    assert rows(a)[str(z.address)].state == "connected"
    assert len(rows(a)) == CANDIDATES_MAX
    others = {invented(number) for number in range(CANDIDATES_MAX + 9) if number != CANDIDATES_MAX}
    assert tried == {str(each.address) for each in (*others, Candidate(z.address, "static"))}
    assert a.node.counters["candidates_refused"] == 0


def test_a_bounded_number_of_candidates_waits_and_the_rest_is_counted() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    for number in range(CANDIDATES_MAX + CANDIDATES_WAITING_MAX + 9):
        a.observe(invented(number))
    assert a.node.counters["candidates_refused"] == 9


def test_the_address_of_a_member_that_has_left_gives_way_at_once() -> None:
    """Its source may never withdraw it: a pod comes back at another address each time."""
    stage = Stage()
    a, b = stage.found("a", "b")
    for number in range(CANDIDATES_MAX - 1):
        a.observe(invented(number))
    assert str(b.address) in rows(a)
    a.receive(b.sender(b.route), Goodbye(b.node.durable_seq))
    a.observe(invented(CANDIDATES_MAX))
    assert str(b.address) not in rows(a)
    assert str(invented(CANDIDATES_MAX).address) in rows(a)
