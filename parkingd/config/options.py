"""Every setting of the daemon, said once: key, flag, variable, and what people should know of it.

Source: DESIGN section 11 and the contract of the command.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT: Final = "default"
"""Origin of a value that nobody set."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, everywhere it can be given."""

    key: str
    """In the TOML file and in `Config`."""
    flag: str
    environment: str
    metavar: str
    """Empty: the flag takes no value."""
    group: str
    help: str
    default: str
    """In words, for people."""


OPTIONS: Final = (
    Option("name", "--name", "PARKINGD_NAME", "NAME", "Identity",
           "Name of this node, by which the others know it.", "the host name"),
    Option("cluster", "--cluster", "PARKINGD_CLUSTER", "NAME", "Identity",
           "Name of the car park. Nodes of other clusters are not talked to.", "default"),
    Option("cookie", "--cookie", "PARKINGD_COOKIE", "TEXT", "Identity",
           "Secret that all nodes of the cluster share. On a command line every user of the "
           "machine can read it: better give a file.", "the cookie file"),
    Option("cookie_file", "--cookie-file", "PARKINGD_COOKIE_FILE", "FILE", "Identity",
           "File that holds the secret.", "~/.parkingd.cookie, made when missing"),
    Option("spaces", "--spaces", "PARKINGD_SPACES", "N", "The car park, when it is founded",
           "Number of spaces.", "100"),
    Option("gates", "--gates", "PARKINGD_GATES", "N", "The car park, when it is founded",
           "Number of gates.", "4"),
    Option("admission", "--admission", "PARKINGD_ADMISSION", "MODE",
           "The car park, when it is founded",
           "How cars are admitted. 'escrow' and 'strong' are to come.", "local"),
    Option("almost_full", "--almost-full", "PARKINGD_ALMOST_FULL", "PERCENT",
           "The car park, when it is founded",
           "With so much of its spaces taken it is shown as almost full.", "90"),
    Option("almost_full_clear", "--almost-full-clear", "PARKINGD_ALMOST_FULL_CLEAR", "PERCENT",
           "The car park, when it is founded",
           "Below that it is not any more.", "2 less than almost full"),
    Option("full", "--full", "PARKINGD_FULL", "PERCENT", "The car park, when it is founded",
           "With so much of its spaces taken it is shown as full. Cars are admitted as long as "
           "there is a space.", "100"),
    Option("full_clear", "--full-clear", "PARKINGD_FULL_CLEAR", "PERCENT",
           "The car park, when it is founded",
           "Below that it is not any more.", "the same as full"),
    Option("host", "--host", "PARKINGD_HOST", "ADDR", "Network",
           "IP address to listen on and to tell others.",
           "listen on all interfaces, tell the routable addresses"),
    Option("port", "--port", "PARKINGD_PORT", "N", "Network",
           "Port to listen on; the next one is used too. 0 takes any.",
           "the first free pair from 7744"),
    Option("peers", "--peer", "PARKINGD_PEERS", "HOST:PORT", "Network",
           "Another node to connect to. May be repeated; in the variable, separated by commas.",
           "none"),
    Option("mdns", "--no-mdns", "PARKINGD_MDNS", "", "Network",
           "Do not announce this node by multicast DNS, nor look for others by it. "
           "The variable says 0 for that.", "it does both"),
    Option("srv", "--srv", "PARKINGD_SRV", "NAME", "Network",
           "Full DNS name whose SRV records list the nodes, such as "
           "_gossip._tcp.parkingd.default.svc.cluster.local.", "none"),
    Option("dns", "--dns", "PARKINGD_DNS", "ADDR[:PORT]", "Network",
           "IP address of the name server for --srv; IPv6 in brackets before a port.",
           "those of the system"),
    Option("data_dir", "--data-dir", "PARKINGD_DATA_DIR", "DIR", "Files",
           "Folder of the database.", "$XDG_STATE_HOME/parkingd/<cluster>/<name>"),
    Option("ephemeral", "--ephemeral", "PARKINGD_EPHEMERAL", "", "Files",
           "Keep nothing on disk, for demonstrations. The variable says 1.",
           "the database is kept"),
    Option("journal_days", "--journal-days", "PARKINGD_JOURNAL_DAYS", "N", "Files",
           "Days for which the journal is kept: who came and went, where, when and why. Plates are "
           "personal data; what is older is forgotten.", "30"),
    Option("runtime_dir", "--runtime-dir", "PARKINGD_RUNTIME_DIR", "DIR", "Files",
           "Folder of the control socket, shared by the daemons of this machine.",
           "$XDG_RUNTIME_DIR/parkingd, else a private folder in the temporary folder"),
    Option("log_level", "--log-level", "PARKINGD_LOG_LEVEL", "LEVEL", "Output",
           "Least level that is logged: debug, info, warning or error.", "info"),
    Option("log_format", "--log-format", "PARKINGD_LOG_FORMAT", "FORMAT", "Output",
           "How log lines look: text or json.", "text on a terminal, else json"),
    Option("ops", "--ops", "PARKINGD_OPS", "[ADDR:]PORT", "Output",
           "HTTP port for health, metrics and status; on loopback unless an address is given, IPv6 "
           "in brackets. Needs the extra [ops].", "off"),
)  # fmt: skip

BY_KEY: Final = {option.key: option for option in OPTIONS}

FILE_FLAG: Final = "--config"
FILE_VARIABLE: Final = "PARKINGD_CONFIG"

OTHER_VARIABLES: Final = (
    FILE_VARIABLE,
    "PARKINGD_CONTROL",
    "PARKINGD_TIMEOUT",
    "PARKINGD_OUTPUT",
)
"""Known, but no setting of the daemon."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""
