"""Which addresses are told to others, and which of theirs are believed possible."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from parkingd.adapters.discovery import addresses
from parkingd.adapters.discovery.addresses import (
    advertised_addresses,
    dialable,
    is_ip_address,
    valid_name,
)


def test_an_address_that_was_chosen_is_the_only_one():
    assert advertised_addresses("10.1.2.3") == ("10.1.2.3",)


@pytest.mark.parametrize("host", [None, "0.0.0.0", "::"])
def test_own_addresses_are_some_and_can_all_be_bound(host: str | None):
    own = advertised_addresses(host)
    assert own
    for address in own:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
        assert not ipaddress.ip_address(address).is_link_local


def test_a_machine_without_a_network_has_its_loopback_address(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    class Deaf(socket.socket):
        connect = unreachable  # type: ignore[assignment]

    monkeypatch.setattr(addresses.socket, "socket", Deaf)
    monkeypatch.setattr(addresses.socket, "if_nameindex", list)
    monkeypatch.setattr(addresses, "_interface_addresses_ipv6", list)
    assert advertised_addresses(None) == ("127.0.0.1",)


def test_on_linux_interfaces_without_a_default_route_are_found_too(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(addresses, "_source_towards", lambda *_: None)
    monkeypatch.setattr(addresses.sys, "platform", "linux")
    monkeypatch.setattr(addresses, "_interface_addresses_ipv4", lambda: ["10.9.8.7"])
    monkeypatch.setattr(
        addresses, "_interface_addresses_ipv6", lambda: ["fd00::7", "fe80::1", "::1"]
    )
    assert advertised_addresses(None) == ("10.9.8.7", "fd00::7")


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "::1", "fd00::2", "fe80::1%eth0"])
def test_a_machine_can_answer_at(host: str):
    assert dialable(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "224.0.0.251",
        "ff02::fb",
        "255.255.255.255",
        "host",
        "1.2.3",
        "10.0.0.1\n",
    ],
)
def test_no_machine_can_answer_at(host: str):
    assert not dialable(host)


def test_a_name_is_no_ip_address():
    assert is_ip_address("fd00::1")
    assert not is_ip_address("lane-1.lan")


@pytest.mark.parametrize("name", ["a", "9", "Gate-1_b.c", "x" * 63])
def test_a_name_that_is_allowed(name: str):
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "x" * 64])
def test_a_name_that_is_not_allowed(name: str):
    assert not valid_name(name)
