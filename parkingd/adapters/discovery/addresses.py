"""Which addresses this machine can be dialled at, and which names and addresses are possible.

How it works. The kernel is asked for the source address it would use towards an address reserved
for documentation: a UDP `connect` sends no packet and needs no third party. On Linux every other
interface that is up is added, because a lane computer may have one network towards the other
lanes and another towards the world, or no default route at all. Virtual bridges of container
engines and link-local addresses are left out: what is announced there leads nowhere.

Invariant: the answer is never empty; a machine without a network has its loopback address.

Source: DESIGN sections 9 and 10.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from parkingd.protocol.limits import NAME_LENGTH_MAX

LOOPBACK: Final = "127.0.0.1"

ADDRESSES_MAX: Final = 8
"""Addresses announced by one node: all of them fit into one mDNS packet."""

_FAR_AWAY: Final = (
    (socket.AF_INET, "198.51.100.1"),
    (socket.AF_INET6, "2001:db8::1"),
)
"""RFC 5737 and RFC 3849: addresses that belong to nobody."""

_PORT_DISCARD: Final = 9

_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}")

_VIRTUAL_PREFIXES: Final = ("docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lo")

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFADDR: Final = 0x8915
_IFREQ_BYTES: Final = 40
_IFF_UP: Final = 0x1

_IF_INET6: Final = Path("/proc/net/if_inet6")
_SCOPE_GLOBAL: Final = 0x00
_UNUSABLE_FLAGS: Final = 0x01 | 0x08 | 0x20 | 0x40
"""Temporary, duplicate, deprecated, tentative."""


def advertised_addresses(host: str | None) -> tuple[str, ...]:
    """The addresses to tell to others: ``host`` if one was chosen, else every routable one.

    ``0.0.0.0`` and ``::`` mean all interfaces, as if nothing had been chosen.
    """
    if host is not None and not ipaddress.ip_address(host).is_unspecified:
        return (host,)
    found: dict[str, None] = {}
    for family, target in _FAR_AWAY:
        source = _source_towards(family, target)
        if source is not None and _routable(source):
            found[source] = None
    if sys.platform == "linux":
        for address in (*_interface_addresses_ipv4(), *_interface_addresses_ipv6()):
            if _routable(address):
                found.setdefault(address)
    return tuple(found)[:ADDRESSES_MAX] or (LOOPBACK,)


def dialable(host: str) -> bool:
    """Whether ``host`` is an IP address that one machine, and no group of them, can answer at."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified or address == _BROADCAST)


def is_ip_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name that has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def valid_name(name: str) -> bool:
    """Whether a node or a cluster may be called so: 1-63 of A-Z a-z 0-9 . _ - the first no mark."""
    return _NAME.fullmatch(name) is not None


def is_loopback(host: str) -> bool:
    """Whether ``host``, an IP address, never leaves this machine."""
    return ipaddress.ip_address(host).is_loopback


def _routable(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return dialable(host) and not address.is_loopback and not address.is_link_local


def _source_towards(family: socket.AddressFamily, target: str) -> str | None:
    """The own address the kernel would use; None when it knows no way there."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, _PORT_DISCARD))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _interface_addresses_ipv4() -> list[str]:
    """The first IPv4 address of each interface that is up (Linux ioctl numbers)."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if name.startswith(_VIRTUAL_PREFIXES):
                continue
            request = struct.pack(f"{_IFREQ_BYTES}s", name.encode()[:15])
            try:
                flags = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO):
                    continue  # no IPv4 there, or just unplugged
                break
            if struct.unpack_from("=H", flags, 16)[0] & _IFF_UP:
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _interface_addresses_ipv6() -> list[str]:
    """The global IPv6 addresses of all interfaces, as the kernel lists them."""
    try:
        lines = _IF_INET6.read_text("ascii").splitlines()
    except OSError:
        return []  # IPv6 is switched off
    found: list[str] = []
    for line in lines:
        digits, _, _, scope, flags, name = line.split()
        if name.startswith(_VIRTUAL_PREFIXES) or int(flags, 16) & _UNUSABLE_FLAGS:
            continue
        if int(scope, 16) == _SCOPE_GLOBAL:
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return found
