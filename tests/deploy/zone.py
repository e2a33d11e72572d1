"""The cluster's name server, run in a container of the image: SRV and A as a headless Service has.

The records are read anew for every question, from a file beside this one: pod -> address. Run with
the image's Python; needs nothing but what the image has.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

ZONE = "parkingd-gossip.parking.svc.cluster.local."
SERVICE = f"_gossip._tcp.{ZONE}"
PORT = 7744
TTL_S = 5


def answer(query: dns.message.Message, pods: dict[str, str]) -> dns.message.Message:
    """What CoreDNS would say."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    question = query.question[0]
    name, kind = question.name.to_text().lower(), question.rdtype
    addresses = {f"{pod}.{ZONE}": address for pod, address in pods.items()}
    if name == SERVICE and kind == dns.rdatatype.SRV and pods:
        targets = [f"0 50 {PORT} {host}" for host in addresses]
        response.answer.append(dns.rrset.from_text(SERVICE, TTL_S, "IN", "SRV", *targets))
        for host, address in addresses.items():
            response.additional.append(dns.rrset.from_text(host, TTL_S, "IN", "A", address))
    elif name == ZONE and kind == dns.rdatatype.A and pods:
        response.answer.append(dns.rrset.from_text(ZONE, TTL_S, "IN", "A", *addresses.values()))
    elif name in addresses:
        if kind == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(name, TTL_S, "IN", "A", addresses[name]))
    elif name not in (SERVICE, ZONE) or not pods:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response


def serve(records: Path) -> None:
    """For ever, on port 53."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 53))
        while True:
            data, sender = server.recvfrom(4096)
            query = dns.message.from_wire(data)
            server.sendto(answer(query, json.loads(records.read_text())).to_wire(), sender)


if __name__ == "__main__":
    serve(Path(__file__).with_name("records.json"))
