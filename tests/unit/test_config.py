"""The layers of the configuration, and what each says when it is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.config import Config, load_config
from parkingd.config.lines import key_lines
from parkingd.config.options import OPTIONS
from parkingd.core.registers import Thresholds
from parkingd.errors import ConfigError
from parkingd.protocol.messages import Address

HOME = {"HOME": "/home/ann", "XDG_RUNTIME_DIR": "/run/user/7"}


def load(
    flags: dict[str, str | bool | list[str]] | None = None,
    environ: dict[str, str] | None = None,
    *,
    config_file: str | None = None,
    host_name: str = "lane-1.example.org",
    base: dict[str, str] | None = None,
) -> Config:
    return load_config(
        flags or {},
        (HOME if base is None else base) | (environ or {}),
        config_file=config_file,
        host_name=host_name,
    )


def complaint(*args: object, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)  # type: ignore[arg-type]
    text = f"{caught.value}; {caught.value.hint}"
    assert "\n" not in text
    return text


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "parkingd.toml"
        path.write_text(text)
        return str(path)

    return write


def test_nothing_has_to_be_said():
    config = load()
    assert (config.name, config.cluster) == ("lane-1", "default")
    assert (config.spaces, config.gates, config.admission) == (100, 4, "local")
    assert (config.host, config.port, config.peers, config.mdns) == (None, None, (), True)
    assert (config.srv, config.dns, config.ops) == (None, None, None)
    assert (config.cookie, config.cookie_file, config.home) == (None, None, Path("/home/ann"))
    assert config.data_dir == Path("/home/ann/.local/state/parkingd/default/lane-1")
    assert config.runtime_dir == Path("/run/user/7/parkingd")
    assert config.control_path == Path("/run/user/7/parkingd/default/lane-1.ctl")
    assert (config.log_level, config.log_format, config.ephemeral) == ("info", None, False)
    assert config.journal_days == 30
    assert config.warnings == ()
    assert set(config.origins.values()) == {"default"}


def test_each_layer_wins_over_the_one_below_and_is_named_as_the_origin(toml):
    path = toml("spaces = 1\ngates = 2\ncluster = 'file'\n")
    environ = {"PARKINGD_SPACES": "10", "PARKINGD_GATES": "20"}
    config = load({"spaces": "100"}, environ, config_file=path)
    assert (config.spaces, config.gates, config.cluster) == (100, 20, "file")
    assert config.origins["spaces"] == "--spaces"
    assert config.origins["gates"] == "PARKINGD_GATES"
    assert config.origins["cluster"] == f"file {path}, line 3"
    assert config.origins["name"] == "default"


def test_the_variable_names_the_file_and_the_flag_names_another(toml, tmp_path: Path):
    other = tmp_path / "other.toml"
    other.write_text("gates = 9")
    environ = {"PARKINGD_CONFIG": toml("gates = 8")}
    assert load({}, environ).gates == 8
    assert load({}, environ, config_file=str(other)).gates == 9


def test_a_file_can_say_everything_that_this_version_knows(toml):
    config = load(
        config_file=toml(
            'name = "gary"\ncluster = "air.port"\ncookie = "s3cret"\nspaces = 5\ngates = 6\n'
            'admission = "local"\nhost = "10.0.0.1"\nport = 0\nmdns = false\nephemeral = true\n'
            'peers = ["10.0.0.2:7744", "[fd00::2]:7746", "lane-3.lan:1"]\n'
            'srv = "_gossip._tcp.lot.test."\ndns = "[fd00::53]:5353"\n'
            'runtime_dir = "~/run"\nlog_level = "debug"\nlog_format = "json"\nops = 9744\n'
            "journal_days = 7\n"
        )
    )
    assert config.peers == (
        Address("10.0.0.2", 7744),
        Address("fd00::2", 7746),
        Address("lane-3.lan", 1),
    )
    assert (config.srv, config.dns) == ("_gossip._tcp.lot.test", Address("fd00::53", 5353))
    assert (config.name, config.cluster, config.cookie) == ("gary", "air.port", "s3cret")
    assert (config.host, config.port, config.mdns, config.ephemeral) == ("10.0.0.1", 0, False, True)
    assert config.data_dir is None
    assert config.journal_days == 7
    assert config.cookie_file is None
    assert config.runtime_dir == Path("/home/ann/run")
    assert (config.log_level, config.log_format) == ("debug", "json")
    assert config.ops == Address("127.0.0.1", 9744)
    assert set(config.origins) == {option.key for option in OPTIONS}


def test_every_option_has_its_own_key_flag_and_variable():
    for values in (
        [option.key for option in OPTIONS],
        [option.flag for option in OPTIONS],
        [option.environment for option in OPTIONS],
    ):
        assert len(set(values)) == len(values)


def test_an_empty_variable_counts_as_unset():
    config = load({}, {option.environment: "" for option in OPTIONS} | {"PARKINGD_CONFIG": ""})
    assert set(config.origins.values()) == {"default"}


def test_the_cookie_shows_in_no_repr_and_no_error(toml):
    assert "hunter2" not in repr(load({"cookie": "hunter2"}))
    assert "4711" not in complaint(config_file=toml("cookie = 4711"))


def test_a_cookie_on_the_command_line_is_warned_about():
    assert any("--cookie-file" in warning for warning in load({"cookie": "x"}).warnings)
    assert load({}, {"PARKINGD_COOKIE": "x"}).warnings == ()


def test_of_cookie_and_cookie_file_the_higher_layer_wins():
    config = load({"cookie_file": "/etc/c"}, {"PARKINGD_COOKIE": "x"})
    assert (config.cookie, config.cookie_file) == (None, Path("/etc/c"))
    config = load({"cookie": "x"}, {"PARKINGD_COOKIE_FILE": "/etc/c"})
    assert (config.cookie, config.cookie_file) == ("x", None)
    assert "--cookie-file" in complaint({"cookie": "x", "cookie_file": "/etc/c"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spaes = 1", "did you mean spaces?"),
        ("peer = ['a:1']", "did you mean peers?"),
        ("[network]\nport = 1", "unknown key 'network'"),
        ("spaces = '100'", "without quotes"),
        ("spaces = true", "is not a number"),
        ("spaces = 1.5", "is not a whole number"),
        ("spaces = 0", "from 1 to 10000000"),
        ("gates = 1001", "from 1 to 1000"),
        ("almost_full = 0", "from 1 to 100"),
        ("full = 101", "from 1 to 100"),
        ("almost_full_clear = 95", "is above almost_full, which is 90; give 1 to 90"),
        ("full = 90\nfull_clear = 91", "line 2) is above full, which is 90"),
        ("[lot]\nspaces = 5", "line 1: unknown key 'lot' (spaces stands before every table)"),
        ("port = 65535", "from 0 to 65534"),
        ("port = -1", "out of range"),
        ("name = 7", "put it in quotes"),
        ("name = '-x'", "letters, digits"),
        ("name = ''", "is empty"),
        ("cluster = 'a/b'", "letters, digits"),
        ("mdns = 'no'", "true or false"),
        ("mdns = 0", "true or false"),
        ("peers = 'a:1'", 'peers = ["host:port"]'),
        ("peers = [1]", "HOST:PORT"),
        ("peers = ['a']", "HOST:PORT"),
        ("peers = ['fd00::1:7744']", "[fd00::2]:7744"),
        ("peers = ['[::::]:7744']", "HOST:PORT"),
        ("peers = ['0.0.0.0:7744']", "HOST:PORT"),
        ("peers = ['a:0']", "HOST:PORT"),
        ("peers = ['a:65536']", "HOST:PORT"),
        ("host = 'localhost'", "such as 127.0.0.1"),
        ("host = '224.0.0.1'", "such as 127.0.0.1"),
        ("log_level = 'inof'", "did you mean info?"),
        ("log_format = 'xml'", "text or json"),
        ("journal_days = 0", "from 1 to 3650"),
        ("data_dir = ''", "is empty"),
        ('data_dir = "a\\u0000b"', "UTF-8"),
        ("admission = 'escrow'", "not in this version"),
        ("admission = 'strong'", "not in this version"),
        ("admission = 'lokal'", "did you mean local?"),
        ("srv = '_gossip tcp.x'", "is not a name in the DNS"),
        ("srv = '10.0.0.53'", "is not a name in the DNS"),
        ("srv = ['a.test']", "is not a text"),
        ("dns = 'ns.lot.test'", "is not the address of a name server"),
        ("dns = 53", "is not a text"),
        ("ops = 65536", "write 9744, 10.0.0.2:9744, 0.0.0.0:9744 or [::]:9744"),
        ("ops = true", "is not a text"),
        ("name = ", "is not TOML"),
        ("name = 'a'\nname = 'b'", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong_and_where(toml, text: str, expected: str):
    path = toml(text)
    said = complaint(config_file=path)
    assert expected in said
    assert path in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gates = 4\n# spaces = 1\n\nspaces = 0\n", 4),
        ("gates = 4\r\n\r\nspaces = 0\r\n", 3),
        ('"spaces" = 0', 1),
        ("\n'spaces' = 0", 2),
        ('\n\n"\\u0073paces" = 0', 3),
        ("peers = [\n  'a:1', # spaces = 7 ]\n  'b:2',\n]\n  spaces=0", 5),
        ('data_dir = """\nspaces = 7\n[spaces]\n"""\nspaces = 0', 5),
        ("data_dir = '''a\n''b\nspaces = 7''''\nspaces = 0", 4),
        ('data_dir = """a\\"""\nspaces = 7"""""\nspaces = 0', 3),
        ('data_dir = "[{ \\" #"\nspaces = 0', 2),
        ("spaces = [\n]", 1),
        ("\n[spaces]\nspaces = 1", 2),
        ("\n\n[[spaces]]\n", 3),
        ("\nspaces.of.spaces = 1", 2),
        ("[spaces . gates]\ngates = 1", 1),
    ],
)
def test_a_wrong_value_is_found_in_its_line(toml, text: str, line: int):
    path = toml(text)
    assert f"(from file {path}, line {line}) is" in complaint(config_file=path)


def test_a_key_of_another_table_is_not_taken_for_one_of_the_root():
    text = "[a]\nspaces = 1\n[a.spaces]\nb = {spaces = 2}\n[[c]]\n'spaces' = 3\n"
    assert key_lines(text) == {"a": 1, "c": 5}


VALUES = (
    "0",
    "1979-05-27T07:32:00Z",
    '"# [ { \\" "',
    "'[\\'",
    "[1, # ]\n  '''[\n''',\n]",
    "{spaces = 2, a.b = '}'}",
    '"""\nspaces = 1\n\\""" "" [spaces]"""""',
    "'''\n[spaces]\n\\'''",
)


@given(st.lists(st.sampled_from(VALUES)), st.lists(st.sampled_from(VALUES)))
def test_keys_are_found_whatever_stands_before_them(values: list[str], inner: list[str]):
    text, lines = "", {}
    for number, value in enumerate(values):
        lines[f"key{number}"] = text.count("\n") + 1
        text += f"key{number} = {value} # spaces = 1\n"
    lines["table"] = text.count("\n") + 1
    text += "[table]\n" + "".join(f"key{n} = {value}\n" for n, value in enumerate(inner))
    assert tomllib.loads(text).keys() == lines.keys()
    assert key_lines(text) == lines


def test_thresholds_that_are_given_and_those_that_follow(toml):
    path = toml("almost_full = 80\nfull = 95\n")
    assert load(config_file=path).thresholds == Thresholds(80, 78, 95, 95)
    assert load({"almost_full": "1"}).thresholds == Thresholds(1, 1, 100, 100)
    environ = {"PARKINGD_ALMOST_FULL_CLEAR": "70"}
    assert load({}, environ, config_file=path).thresholds == Thresholds(80, 70, 95, 95)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    assert "No such file" in complaint(config_file=str(tmp_path / "none.toml"))
    assert "directory" in complaint(config_file=str(tmp_path))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in complaint(config_file=str(binary))
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    assert "larger than 1 MiB" in complaint(config_file=str(large))


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("PARKINGD_SPACES", "many", "spaces = 'many' (from PARKINGD_SPACES) is not a whole number"),
        ("PARKINGD_SPACES", "1_000", "is not a whole number"),
        ("PARKINGD_SPACES", "٣", "is not a whole number"),
        ("PARKINGD_SPACES", "9" * 5000, "is out of range"),
        ("PARKINGD_PORT", "70000", "from 0 to 65534"),
        ("PARKINGD_MDNS", "perhaps", "1 or 0"),
        ("PARKINGD_EPHEMERAL", "2", "1 or 0"),
        ("PARKINGD_NAME", "a b", "PARKINGD_NAME"),
        ("PARKINGD_NAME", "x" * 64, "1-63"),
        ("PARKINGD_NAME", "gary\n", "PARKINGD_NAME"),
        ("PARKINGD_DATA_DIR", "/x/\udcff", "UTF-8"),
        ("PARKINGD_OPS", "on", "is not a port, nor an IP address with one"),
        ("PARKINGD_OPS", "-1", "is not a port"),
        ("PARKINGD_OPS", ":9744", "is not a port"),
        ("PARKINGD_OPS", "localhost:9744", "is not a port"),
        ("PARKINGD_OPS", "10.0.0:9744", "is not a port"),
        ("PARKINGD_OPS", "224.0.0.1:9744", "is not a port"),
        ("PARKINGD_OPS", "::1:9744", "is not a port"),
        ("PARKINGD_OPS", "[10.0.0.1:9744", "is not a port"),
        ("PARKINGD_SRV", "-a.test", "srv = '-a.test' (from PARKINGD_SRV) is not a name in the DNS"),
        ("PARKINGD_SRV", ".", "is not a name in the DNS"),
        ("PARKINGD_SRV", "a..test", "is not a name in the DNS"),
        ("PARKINGD_SRV", "bücher.test", "is not a name in the DNS"),
        ("PARKINGD_SRV", f"{'x' * 64}.test", "is not a name in the DNS"),
        ("PARKINGD_SRV", "x." * 128, "has more than 253 characters"),
        ("PARKINGD_DNS", "10.0.0.53:0", "is not the address of a name server"),
        ("PARKINGD_DNS", "10.0.0.53:65536", "[fd00::53]:5353"),
        ("PARKINGD_DNS", "10.0.0.53:", "is not the address of a name server"),
        ("PARKINGD_DNS", "10.0.0", "is not the address of a name server"),
        ("PARKINGD_DNS", "0.0.0.0", "is not the address of a name server"),
        ("PARKINGD_DNS", "224.0.0.251:5353", "is not the address of a name server"),
        ("PARKINGD_DNS", "ns.lot.test:53", "is not the address of a name server"),
        ("PARKINGD_PEERS", "a:1,b", "'b' is not HOST:PORT"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_what_is_allowed(
    variable: str, text: str, expected: str
):
    assert expected in complaint({}, {variable: text})


def test_switches_are_read_from_words_and_digits():
    for text in ("0", "false", "No", "OFF"):
        assert load({}, {"PARKINGD_MDNS": text}).mdns is False
    for text in ("1", "true", "Yes", "ON"):
        assert load({}, {"PARKINGD_EPHEMERAL": text}).ephemeral is True


def test_peers_come_with_commas_and_each_once_and_flags_replace_them():
    environ = {"PARKINGD_PEERS": "a:1, b:2 ,a:1,"}
    assert load({}, environ).peers == (Address("a", 1), Address("b", 2))
    assert load({"peers": ["c:3"]}, environ).peers == (Address("c", 3),)
    assert "at most 256" in complaint({"peers": [f"h{n}:1" for n in range(257)]})


@pytest.mark.parametrize(
    "name",
    [
        "_gossip._tcp.parkingd.default.svc.cluster.local",
        "lot",
        "xn--bcher-kva.test",
        f"{'x' * 63}.test",
        f"{'x.' * 126}x",
    ],
)
def test_a_name_in_the_dns_may_end_with_a_dot_and_means_the_same(name: str):
    for typed in (name, f"{name}.", f" {name} "):
        assert load({}, {"PARKINGD_SRV": typed}).srv == name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10.0.0.53", Address("10.0.0.53", 53)),
        ("10.0.0.53:5353", Address("10.0.0.53", 5353)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("fd00::53", Address("fd00::53", 53)),
        ("[fd00::53]", Address("fd00::53", 53)),
        ("[fd00::53]:65535", Address("fd00::53", 65_535)),
    ],
)
def test_a_name_server_is_an_address_with_or_without_a_port(given: str, expected: Address):
    config = load({"srv": "lot.test"}, {"PARKINGD_DNS": given})
    assert config.dns == expected
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("9744", Address("127.0.0.1", 9744)),
        ("0", Address("127.0.0.1", 0)),
        (" 10.0.0.1:9744 ", Address("10.0.0.1", 9744)),
        ("0.0.0.0:9744", Address("0.0.0.0", 9744)),
        ("[::]:9744", Address("::", 9744)),
        ("[fd00::1]:65535", Address("fd00::1", 65_535)),
    ],
)
def test_the_ops_port_is_on_loopback_unless_an_address_is_given(given: str, expected: Address):
    assert load({"ops": given}).ops == expected


def test_a_name_server_without_a_name_to_ask_for_is_a_warning():
    (warning,) = load({"dns": "10.0.0.53"}).warnings
    assert "--dns" in warning
    assert "--srv" in warning


def test_an_unknown_variable_is_a_warning_with_a_suggestion():
    (warning,) = load({}, {"PARKINGD_SPACE": "3"}).warnings
    assert "PARKINGD_SPACE " in warning
    assert "did you mean PARKINGD_SPACES?" in warning


def test_variables_of_the_control_command_are_known():
    environ = {
        "PARKINGD_CONTROL": "ipc:///x",
        "PARKINGD_TIMEOUT": "5",
        "PARKINGD_OUTPUT": "json",
    }
    assert load({}, environ).warnings == ()


def test_what_kubernetes_injects_for_a_service_called_parkingd_does_no_harm():
    config = load(
        {},
        {
            "PARKINGD_PORT": "tcp://10.0.0.1:7744",
            "PARKINGD_PORT_7744_TCP_ADDR": "10.0.0.1",
            "PARKINGD_SERVICE_HOST": "10.0.0.1",
            "PARKINGD_SERVICE_PORT": "7744",
        },
    )
    assert config.port is None
    (warning,) = config.warnings
    assert "Kubernetes" in warning


@pytest.mark.parametrize(
    ("host_name", "name"),
    [
        ("lane-1", "lane-1"),
        ("lane-1.example.org", "lane-1"),
        ("lane 1", "lane-1"),
        ("-lane", "lane"),
        ("x" * 80, "x" * 63),
    ],
)
def test_the_default_name_is_the_short_host_name_made_valid(host_name: str, name: str):
    assert load(host_name=host_name).name == name


@pytest.mark.parametrize("host_name", ["", ".", "ä", "--"])
def test_a_host_name_that_is_no_name_asks_for_one(host_name: str):
    assert "give --name" in complaint(host_name=host_name)


def test_without_a_home_the_cookie_and_the_data_directory_are_asked_for():
    base = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert "PARKINGD_COOKIE" in complaint(base=base)
    assert "--data-dir" in complaint({"cookie_file": "/c"}, base=base)
    assert "needs HOME" in complaint({"data_dir": "~/x", "cookie": "c"}, base=base)
    config = load({"cookie_file": "/c", "ephemeral": True}, base=base)
    assert config.data_dir is None
    config = load({"cookie_file": "/c"}, {"XDG_STATE_HOME": "/var/state"}, base=base)
    assert config.data_dir == Path("/var/state/parkingd/default/lane-1")


def test_a_relative_state_home_is_ignored_as_its_specification_says():
    config = load({}, {"XDG_STATE_HOME": "state"})
    assert config.data_dir == Path("/home/ann/.local/state/parkingd/default/lane-1")


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert load({"data_dir": "data"}).data_dir == tmp_path / "data"


def test_a_control_socket_path_that_is_too_long_is_found_at_once():
    assert "--runtime-dir" in complaint({"runtime_dir": "/" + "d" * 100})


def test_a_host_may_be_an_ipv6_address_with_or_without_brackets():
    assert load({"host": "[::1]"}).host == "::1"
    assert load({"host": "::1"}).host == "::1"
