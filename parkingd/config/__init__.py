"""The configuration of one daemon: defaults < TOML file < environment < flags.

How it works. `options` names every setting once; help, flags and file are all read from there.
`load_config` lays the layers over each other, each value with its origin, and turns them into a
checked, frozen `Config`. A list of a higher layer replaces that of a lower one.

Invariant: nothing here writes to the disk or opens a socket.

Source: DESIGN section 11.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from parkingd.adapters.discovery.addresses import valid_name
from parkingd.adapters.rundir import control_socket_path, default_runtime_dir
from parkingd.config.layers import Settings, Value, environment_layer, file_layer, quoted
from parkingd.config.options import FILE_VARIABLE, OPTIONS
from parkingd.core.registers import DEFAULT_THRESHOLDS, PERCENT_MAX, Thresholds
from parkingd.errors import ConfigError
from parkingd.protocol.limits import GATES_MAX, NAME_LENGTH_MAX, SPACES_MAX
from parkingd.protocol.messages import Address

PORT_MAX: Final = 65_534
"""PUB takes the next one."""

JOURNAL_DAYS_MAX: Final = 3_650
"""Ten years: a number above that is a mistake."""

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
ADMISSIONS_TO_COME: Final = ("escrow", "strong")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the daemon is told, checked."""

    name: str
    cluster: str
    cookie: str | None = field(repr=False)
    """The secret itself; None: it is in a file."""
    cookie_file: Path | None
    """The file that the operator named; None: that in the home directory."""
    home: Path | None
    """HOME. Never None if neither ``cookie`` nor ``cookie_file`` is given."""
    spaces: int
    gates: int
    admission: str
    almost_full: int
    """Percent of the spaces, as are the next three."""
    almost_full_clear: int
    full: int
    full_clear: int
    host: str | None
    """IP address; None: all interfaces."""
    port: int | None
    """0: any; None: the first free pair."""
    peers: tuple[Address, ...]
    """The hosts may be names."""
    mdns: bool
    srv: str | None
    """Full DNS name without the last dot."""
    dns: Address | None
    """The name server for ``srv``; None: the system's."""
    data_dir: Path | None
    """None if ``ephemeral``."""
    ephemeral: bool
    journal_days: int
    runtime_dir: Path
    log_level: str
    log_format: str | None
    """``text``, ``json``; None: by where the log goes."""
    ops: Address | None
    """Where to serve health, metrics and status over HTTP; None: nowhere."""
    origins: Mapping[str, str] = field(repr=False)
    """Key of every setting -> ``default``, ``file PATH, line N``, a variable or a flag."""
    warnings: tuple[str, ...] = ()
    """What is allowed and still worth a word, one line each."""

    @property
    def thresholds(self) -> Thresholds:
        """Where the lot is almost full and full, if this node founds it."""
        return Thresholds(self.almost_full, self.almost_full_clear, self.full, self.full_clear)

    @property
    def control_path(self) -> Path:
        """Where the control socket is; `load_config` has checked that it is short enough."""
        return control_socket_path(self.runtime_dir, self.cluster, self.name)


def load_config(
    flags: Mapping[str, str | bool | list[str]],
    environ: Mapping[str, str],
    *,
    config_file: str | None = None,
    host_name: str | None = None,
) -> Config:
    """Lay the layers over each other and check the result.

    ``flags``: key of `OPTIONS` -> what was given, absent if it was not. ``config_file``: what
    ``--config`` said. ``host_name``: for the default name; None asks the system.
    Raises ConfigError.
    """
    path = config_file or environ.get(FILE_VARIABLE) or None
    from_environment, warnings = environment_layer(environ)
    from_file, places = file_layer(path, environ) if path is not None else ({}, {})
    layers: tuple[tuple[Mapping[str, object], Mapping[str, str]], ...] = (
        (from_file, places),
        (from_environment, {option.key: option.environment for option in OPTIONS}),
        (flags, {option.key: option.flag for option in OPTIONS}),
    )
    values: dict[str, Value] = {}
    for depth, (layer, origins) in enumerate(layers):
        for key, raw in layer.items():
            values[key] = Value(key, raw, origins[key], depth)
    if "cookie" in flags:
        warnings.append("--cookie can be read by every user of this machine; use --cookie-file")
    config = _checked(Settings(values, environ), host_name, tuple(warnings))
    control_socket_path(config.runtime_dir, config.cluster, config.name)
    return config


def _checked(settings: Settings, host_name: str | None, warnings: tuple[str, ...]) -> Config:
    admission = settings.text("admission") or "local"
    if admission in ADMISSIONS_TO_COME:
        chosen = settings.get("admission")
        assert chosen is not None
        raise chosen.wrong("is not in this version yet", "give local")
    settings.choice("admission", ("local",))
    name = settings.name("name", "") or _default_name(host_name)
    cluster = settings.name("cluster", "default")
    ephemeral = settings.switch("ephemeral", False)
    cookie, cookie_file = _cookie(settings)
    thresholds = _thresholds(settings)
    dns = settings.get("dns")
    if dns is not None and settings.get("srv") is None:
        warnings += (f"dns (from {dns.origin}) is for --srv, which is not given: it is not used",)
    return Config(
        name=name,
        cluster=cluster,
        cookie=cookie,
        cookie_file=cookie_file,
        home=settings.home,
        spaces=_or(settings.whole("spaces", 1, SPACES_MAX), 100),
        gates=_or(settings.whole("gates", 1, GATES_MAX), 4),
        admission=admission,
        almost_full=thresholds.almost_full,
        almost_full_clear=thresholds.almost_full_clear,
        full=thresholds.full,
        full_clear=thresholds.full_clear,
        host=_host(settings),
        port=settings.whole("port", 0, PORT_MAX),
        peers=settings.peers(),
        mdns=settings.switch("mdns", True),
        srv=settings.dns_name("srv"),
        dns=settings.name_server("dns"),
        data_dir=None if ephemeral else _data_dir(settings, cluster, name),
        ephemeral=ephemeral,
        journal_days=_or(settings.whole("journal_days", 1, JOURNAL_DAYS_MAX), 30),
        runtime_dir=settings.path("runtime_dir") or default_runtime_dir(settings.environ),
        log_level=settings.choice("log_level", LOG_LEVELS) or "info",
        log_format=settings.choice("log_format", LOG_FORMATS),
        ops=settings.listener("ops"),
        origins=settings.origins(),
        warnings=warnings,
    )


def _default_name(host_name: str | None) -> str:
    """The host's name up to the first dot, other characters turned into dashes."""
    given = socket.gethostname() if host_name is None else host_name
    short = re.sub(r"[^A-Za-z0-9._-]", "-", given.split(".")[0]).lstrip("._-")
    if not valid_name(short[:NAME_LENGTH_MAX]):
        raise ConfigError(f"the host name {quoted(given)} is no name for a node", "give --name")
    return short[:NAME_LENGTH_MAX]


def _thresholds(settings: Settings) -> Thresholds:
    """Without a clear of its own a threshold ends as far below itself as it does by default."""
    usual = DEFAULT_THRESHOLDS
    almost = _or(settings.whole("almost_full", 1, PERCENT_MAX), usual.almost_full)
    almost_clear = _or(
        settings.whole("almost_full_clear", 1, PERCENT_MAX),
        max(1, almost - (usual.almost_full - usual.almost_full_clear)),
    )
    full = _or(settings.whole("full", 1, PERCENT_MAX), usual.full)
    full_clear = _or(settings.whole("full_clear", 1, PERCENT_MAX), full)
    for key, at, clear in (("almost_full", almost, almost_clear), ("full", full, full_clear)):
        if clear > at:
            value = settings.get(f"{key}_clear")
            assert value is not None
            raise value.wrong(f"is above {key}, which is {at}", f"give 1 to {at}")
    return Thresholds(almost, almost_clear, full, full_clear)


def _cookie(settings: Settings) -> tuple[str | None, Path | None]:
    """The secret or the file that holds it: whichever the higher layer gives; else neither."""
    text, path = settings.text("cookie"), settings.path("cookie_file")
    from_text, from_file = settings.get("cookie"), settings.get("cookie_file")
    if from_text is not None and from_file is not None:
        if from_text.depth == from_file.depth:
            raise ConfigError(
                f"both {from_text.origin} and {from_file.origin} give a cookie"
                if from_text.origin != from_file.origin
                else f"{from_text.origin} gives both cookie and cookie_file",
                "give one of them",
            )
        return (text, None) if from_text.depth > from_file.depth else (None, path)
    if text is not None or path is not None:
        return text, path
    if settings.home is None:
        raise ConfigError(
            "HOME is not set, so there is no place for the cookie",
            "set PARKINGD_COOKIE or give --cookie-file",
        )
    return None, None


def _data_dir(settings: Settings, cluster: str, name: str) -> Path:
    given = settings.path("data_dir")
    if given is not None:
        return given
    state = settings.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / "parkingd" / cluster / name
    if settings.home is None:
        raise ConfigError(
            "HOME is not set, so there is no place for the database",
            "give --data-dir (PARKINGD_DATA_DIR) or --ephemeral",
        )
    return settings.home / ".local/state/parkingd" / cluster / name


def _host(settings: Settings) -> str | None:
    text = settings.text("host")
    if text is None:
        return None
    try:
        address = ipaddress.ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or address.is_multicast:
        value = settings.get("host")
        assert value is not None
        raise value.wrong("is not an IP address", "give one of this machine, such as 127.0.0.1")
    return str(address)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
