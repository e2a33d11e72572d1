"""What a configuration asks for, as parts: discovery sources, node settings, the start banner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from parkingd import __version__
from parkingd.adapters.discovery.addresses import LOOPBACK
from parkingd.adapters.discovery.local import AddressFile, LocalSource
from parkingd.adapters.discovery.search import Source
from parkingd.adapters.discovery.static import StaticSource
from parkingd.adapters.keys import Cookie
from parkingd.adapters.transport.curve import KeyPair
from parkingd.config import Config
from parkingd.core.ids import ReplicaId, replica_hex
from parkingd.core.registers import Thresholds
from parkingd.protocol.messages import Address
from parkingd.protocol.settings import DAY_MS, NodeSettings

FOUNDING_KEYS = ("spaces", "gates", "admission", *Thresholds._fields)


@dataclass(frozen=True, slots=True)
class Started:
    """What the start banner shows."""

    name: str
    cluster: str
    replica: str
    addresses: tuple[str, ...]
    pub_port: int
    control: str
    cookie: str
    fingerprint: str
    data_dir: str
    spaces: str
    discovery: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where this daemon listens, and as whom."""

    addresses: tuple[str, ...]
    port: int
    pub_port: int
    replica: ReplicaId
    incarnation: int
    keys: KeyPair


def node_settings(config: Config, port: int, pub_port: int) -> NodeSettings:
    """What the node is told."""
    return NodeSettings(
        name=config.name,
        cluster=config.cluster,
        version=__version__,
        spaces=config.spaces,
        gates=config.gates,
        admission=config.admission,
        thresholds=config.thresholds,
        ephemeral=config.ephemeral,
        journal_ms=config.journal_days * DAY_MS,
        port=port,
        pub_port=pub_port,
    )


def chosen_founding_keys(config: Config) -> frozenset[str]:
    """The founding values that the operator gave: a lot that differs is worth a warning."""
    given = (key for key in FOUNDING_KEYS if config.origins.get(key, "default") != "default")
    return frozenset(given)


def source_names(config: Config) -> tuple[str, ...]:
    """Which sources are used."""
    static = ("static",) if config.peers else ()
    srv = ("srv",) if config.srv is not None else ()
    mdns = ("mdns",) if config.mdns else ()
    return ("local", *static, *srv, *mdns)


def is_patient(config: Config) -> bool:
    """Whether the operator has said where the others are: then they are worth waiting for."""
    return bool(config.peers) or config.srv is not None


def make_sources(config: Config, own: Endpoint, is_alone: Callable[[], bool]) -> Iterator[Source]:
    """The sources, not started. What mDNS and SRV need is imported only if they are used.

    ``is_alone``: whether no member is alive.
    """
    here = config.host if config.host is not None else LOOPBACK
    fingerprint = own.keys.fingerprint
    file = AddressFile(config.name, here, own.port, own.pub_port, os.getpid(), fingerprint)
    yield LocalSource(config.control_path.parent, file)
    if config.peers:
        yield StaticSource(config.peers)
    if config.srv is not None:
        from parkingd.adapters.discovery.resolver import look_up
        from parkingd.adapters.discovery.srv import SrvSource

        yield SrvSource(config.srv, partial(look_up, config.srv, config.dns), is_alone)
    if config.mdns:
        from parkingd.adapters.discovery.mdns import Announcement, MdnsSource

        announcement = Announcement(
            config.cluster,
            config.name,
            own.replica,
            own.incarnation,
            own.port,
            own.pub_port,
            fingerprint,
        )
        yield MdnsSource(announcement, own.addresses)


def describe_start(config: Config, own: Endpoint, cookie: Cookie) -> Started:
    """The start banner's content."""
    return Started(
        config.name,
        config.cluster,
        replica_hex(own.replica),
        tuple(_listening(own)),
        own.pub_port,
        str(config.control_path),
        cookie.origin,
        own.keys.fingerprint,
        str(config.data_dir) if config.data_dir is not None else "nothing is kept on disk",
        f"{config.spaces} spaces, {config.gates} gates if this node founds the lot",
        source_names(config),
    )


def logged_start(config: Config, own: Endpoint) -> dict[str, object]:
    """What the log says of the same."""
    return {
        "name": config.name,
        "cluster": config.cluster,
        "replica": replica_hex(own.replica),
        "port": own.port,
        "cookie": own.keys.fingerprint,
        "addresses": _listening(own),
        "data": str(config.data_dir) if config.data_dir is not None else None,
    }


def _listening(own: Endpoint) -> list[str]:
    return [str(Address(host, own.port)) for host in own.addresses]
