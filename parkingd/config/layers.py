"""What the file and the environment say, and how a value of any layer is read as what it should be.

Invariants: a value that is not possible is a `ConfigError` that says key, value, origin and what
is allowed; the text of the cookie appears in no message; a variable that is set but empty counts
as unset.

Source: DESIGN section 11.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parkingd.adapters.discovery.addresses import LOOPBACK, dialable, is_ip_address, valid_name
from parkingd.config.lines import key_lines
from parkingd.config.options import BY_KEY, DEFAULT, OPTIONS, OTHER_VARIABLES, suggestion
from parkingd.errors import ConfigError
from parkingd.protocol.limits import NAME_LENGTH_MAX
from parkingd.protocol.messages import Address

PEERS_MAX: Final = 256
FILE_BYTES_MAX: Final = 1024 * 1024

_NAME_RULE: Final = (
    f"give 1-{NAME_LENGTH_MAX} letters, digits, '.', '_' or '-', the first a letter or digit"
)
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")

_SERVICE_LINK: Final = re.compile(r"PARKINGD_(SERVICE|PORT)_[A-Z0-9_]+")
"""What Kubernetes puts into every container when a Service is called parkingd; so is a
PARKINGD_PORT that reads tcp://10.0.0.1:7744."""

_PEER: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]{1,253})):(?P<port>[0-9]{1,5})",
    re.ASCII,
)

DNS_NAME_LENGTH_MAX: Final = 253
"""Without the last dot; RFC 1035 section 2.3.4 counts the lengths of the labels too."""
DNS_PORT: Final = 53

_DNS_NAME: Final = re.compile(
    r"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII
)
_DNS_NAME_RULE: Final = (
    f"give a full name of at most {DNS_NAME_LENGTH_MAX} letters, digits, '-', '_' and dots, "
    "such as _gossip._tcp.parkingd.default.svc.cluster.local"
)
_NAME_SERVER: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<ipv4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_LISTENER: Final = re.compile(
    r"(?:(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<ipv4>[0-9.]+)):)?(?P<port>[0-9]{1,5})",
    re.ASCII,
)


def environment_layer(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the environment sets, and warnings about variables that set nothing."""
    by_variable = {option.environment: option.key for option in OPTIONS}
    known = (*by_variable, *OTHER_VARIABLES)
    layer: dict[str, str] = {}
    warnings: list[str] = []
    for variable in sorted(environ):
        text = environ[variable]
        if variable == "PARKINGD_PORT" and text.startswith(("tcp://", "udp://")):
            warnings.append(f"PARKINGD_PORT={text} comes from Kubernetes, not from you: ignored")
        elif variable in by_variable:
            if text:
                layer[by_variable[variable]] = text
        elif (
            variable.startswith("PARKINGD_")
            and variable not in known
            and not _SERVICE_LINK.fullmatch(variable)
        ):
            warnings.append(f"{variable} is no variable of parkingd{suggestion(variable, known)}")
    return layer, warnings


def file_layer(path: str, environ: Mapping[str, str]) -> tuple[dict[str, object], dict[str, str]]:
    """What the TOML file sets, and where each of it stands; every key is known."""
    home = environ.get("HOME")
    full = home + path[1:] if home and path.startswith("~/") else path
    try:
        with open(full, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot read the configuration file {path}: {reason}", "see --config"
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"the configuration file {path} is larger than 1 MiB", "see --config")
    try:
        text = data.decode("utf-8")
        layer: dict[str, object] = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"file {path} is not TOML: {error}", "correct it") from error
    lines = key_lines(text)
    places = {
        key: f"file {path}, line {lines[key]}" if key in lines else f"file {path}" for key in layer
    }
    for key, value in layer.items():
        if key not in BY_KEY:
            inner = [name for name in value if name in BY_KEY] if isinstance(value, dict) else []
            near = f" ({inner[0]} stands before every table)" if inner else suggestion(key, BY_KEY)
            raise ConfigError(
                f"{places[key]}: unknown key {quoted(key)}{near}",
                f"the keys are {', '.join(BY_KEY)}",
            )
    return layer, places


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as somebody gave it."""

    key: str
    raw: object
    origin: str
    depth: int
    """Of its layer; larger wins."""

    def wrong(self, what: str, allowed: str) -> ConfigError:
        """The error for it; a cookie is not quoted."""
        shown = "..." if self.key == "cookie" else quoted(self.raw)
        return ConfigError(f"{self.key} = {shown} (from {self.origin}) {what}", allowed)


class Settings:
    """The winning values, read as what they should be."""

    def __init__(self, values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
        self._values = values
        self.environ = environ
        home = environ.get("HOME")
        self.home = Path(home).absolute() if home else None

    def get(self, key: str) -> Value | None:
        """None: nobody set it."""
        return self._values.get(key)

    def origins(self) -> dict[str, str]:
        """Of every setting."""
        return {
            option.key: self._values[option.key].origin if option.key in self._values else DEFAULT
            for option in OPTIONS
        }

    def text(self, key: str) -> str | None:
        """A text that is not empty."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value.raw, str):
            raise value.wrong("is not a text", "put it in quotes")
        if not value.raw.strip():
            raise value.wrong("is empty", "give a value or leave it out")
        if "\0" in value.raw or any("\ud800" <= char <= "\udfff" for char in value.raw):
            raise value.wrong("is not valid UTF-8 text", "give plain text")
        return value.raw

    def name(self, key: str, default: str) -> str:
        """A node's or a cluster's name."""
        text = self.text(key)
        if text is None:
            return default
        if not valid_name(text):
            raise self._values[key].wrong("is not a name", _NAME_RULE)
        return text

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """One of these words."""
        text = self.text(key)
        if text is not None and text not in allowed:
            what = f"is not possible{suggestion(text, allowed)}"
            raise self._values[key].wrong(what, f"give {' or '.join(allowed)}")
        return text

    def whole(self, key: str, smallest: int, largest: int) -> int | None:
        """A whole number in this range."""
        value = self.get(key)
        if value is None:
            return None
        allowed = f"give a whole number from {smallest} to {largest}"
        match value.raw:
            case bool():
                raise value.wrong("is not a number", allowed)
            case int(number):
                pass
            case str(text) if value.origin.startswith("file "):
                raise value.wrong("is a text, not a number", f"{allowed}, without quotes")
            case str(text) if re.fullmatch(r"-?[0-9]{1,12}", text.strip()):
                number = int(text)
            case str(text) if re.fullmatch(r"-?[0-9]+", text.strip()):
                raise value.wrong("is out of range", allowed)
            case _:
                raise value.wrong("is not a whole number", allowed)
        if not smallest <= number <= largest:
            raise value.wrong("is out of range", allowed)
        return number

    def switch(self, key: str, default: bool) -> bool:
        """On or off."""
        value = self.get(key)
        match value and value.raw:
            case None:
                return default
            case bool(on):
                return on
            case str(text) if text.lower() in _TRUE and not self._in_file(key):
                return True
            case str(text) if text.lower() in _FALSE and not self._in_file(key):
                return False
        allowed = "give true or false" if self._in_file(key) else "give 1 or 0"
        raise self._values[key].wrong("is neither on nor off", allowed)

    def path(self, key: str) -> Path | None:
        """An absolute path; a leading ``~/`` is the home."""
        text = self.text(key)
        if text is None:
            return None
        if text == "~" or text.startswith("~/"):
            if self.home is None:
                raise self._values[key].wrong("needs HOME, which is not set", "give a full path")
            return self.home / text[2:]
        return Path(text).absolute()

    def peers(self) -> tuple[Address, ...]:
        """Addresses to connect to, each once."""
        value = self.get("peers")
        if value is None:
            return ()
        match value.raw:
            case str(text):
                items: list[object] = [part for part in text.split(",") if part.strip()]
                if self._in_file("peers"):
                    raise value.wrong("is not a list", 'write peers = ["host:port"]')
            case list(parts):
                items = list(parts)
            case _:
                raise value.wrong("is not a list", 'write peers = ["host:port"]')
        if len(items) > PEERS_MAX:
            raise ConfigError(
                f"peers (from {value.origin}) are {len(items)}", f"give at most {PEERS_MAX}"
            )
        return tuple(dict.fromkeys(_peer(value, item) for item in items))

    def dns_name(self, key: str) -> str | None:
        """A full name in the DNS, without its last dot."""
        text = self.text(key)
        if text is None:
            return None
        name = text.strip().removesuffix(".")
        if len(name) > DNS_NAME_LENGTH_MAX:
            what = f"has more than {DNS_NAME_LENGTH_MAX} characters"
            raise self._values[key].wrong(what, _DNS_NAME_RULE)
        if not _DNS_NAME.fullmatch(name) or is_ip_address(name):
            raise self._values[key].wrong("is not a name in the DNS", _DNS_NAME_RULE)
        return name

    def name_server(self, key: str) -> Address | None:
        """An IP address with a port, by default 53."""
        text = self.text(key)
        if text is None:
            return None
        given = text.strip()
        match = _NAME_SERVER.fullmatch(given)
        host = given if match is None else match["ipv6"] or match["ipv4"]
        port = int(match["port"] or DNS_PORT) if match is not None else DNS_PORT
        if not dialable(host) or not 1 <= port <= 65_535:
            allowed = "write 10.0.0.53, 10.0.0.53:5353, fd00::53 or [fd00::53]:5353"
            raise self._values[key].wrong("is not the address of a name server", allowed)
        return Address(host, port)

    def listener(self, key: str) -> Address | None:
        """A port to listen on, of loopback unless an IP address stands before it; 0: any."""
        value = self.get(key)
        if value is None:
            return None
        is_number = isinstance(value.raw, int) and not isinstance(value.raw, bool)
        match = _LISTENER.fullmatch(str(value.raw) if is_number else (self.text(key) or "").strip())
        host = LOOPBACK if match is None else match["ipv6"] or match["ipv4"] or LOOPBACK
        port = -1 if match is None else int(match["port"])
        is_possible = dialable(host) or host in ("0.0.0.0", "::")
        if not is_possible or not 0 <= port <= 65_535:
            allowed = "write 9744, 10.0.0.2:9744, 0.0.0.0:9744 or [::]:9744"
            raise value.wrong("is not a port, nor an IP address with one", allowed)
        return Address(host, port)

    def _in_file(self, key: str) -> bool:
        return self._values[key].origin.startswith("file ")


def _peer(value: Value, item: object) -> Address:
    """``host:port``, the host a name, an IPv4 address or an IPv6 address in brackets."""
    if isinstance(item, str):
        match = _PEER.fullmatch(item.strip())
        if match is not None and 1 <= int(match["port"]) <= 65_535:
            host = match["ipv6"] or match["host"]
            if dialable(host) or not (match["ipv6"] or is_ip_address(host)):
                return Address(host, int(match["port"]))
    raise ConfigError(
        f"peers (from {value.origin}): {quoted(item)} is not HOST:PORT",
        "write gate-2.lan:7744, 10.0.0.2:7744 or [fd00::2]:7744",
    )


def quoted(raw: object) -> str:
    """As people would write it, short and on one line."""
    shown = repr(raw)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
