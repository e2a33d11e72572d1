"""What adapters tell the node: a closed union."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from parkingd.protocol.messages import Address


class Persisted(NamedTuple):
    """The batch with this token, and all before it, are on the disk."""

    token: int
    own_seq: int


@dataclass(frozen=True, slots=True)
class StorageFailed:
    """A commit failed. The store keeps the batch and tries again every second."""

    reason: str


@dataclass(frozen=True, slots=True)
class StorageRecovered:
    """The commit that failed has succeeded; `Persisted` follows."""


class LinkFailure(Enum):
    """Why an address could not be talked to."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    OTHER_COOKIE = "other_cookie"
    PROTOCOL_VERSION = "protocol_version"
    OTHER_CLUSTER = "other_cluster"


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """A link to this address failed; for `discover`, and as evidence about members."""

    address: Address
    failure: LinkFailure


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody says that a node may be listening here. Untrusted."""

    address: Address
    source: str
    """``local``, ``static``, ``mdns``, ``srv``."""
    name: str | None = None
    mismatch: LinkFailure | None = None
    """The source already says that it belongs elsewhere: shown, not dialled."""
    gone: bool = False
    """The source withdraws it: shown no longer; a member is never removed by this."""
    detail: str = ""
    """What was asked and what came back, for `discover`. Untrusted."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """A source asked somebody for addresses and got none; for `discover`."""

    source: str
    question: str
    """The name that was asked for."""
    state: str
    """One word: ``nxdomain``, ``servfail``, ``timeout``, ``empty``, ``no_resolver``, ..."""
    detail: str
    """Who was asked, and what came back. Untrusted."""
    gone: bool = False
    """It has been answered since, or is asked no longer: shown no longer."""


Finding: TypeAlias = Candidate | LookUp
"""What a discovery source reports."""


@dataclass(frozen=True, slots=True)
class DiscoveryReady:
    """Sockets are bound and every source has ended its first round: the founding clock starts."""

    patient: bool
    """Peers were given by address or SRV: found a lot after 5 s instead of 1.5 s."""


Fact: TypeAlias = (
    Persisted
    | StorageFailed
    | StorageRecovered
    | ConnectionFailed
    | Candidate
    | LookUp
    | DiscoveryReady
)
