"""The config file: what it means, and that no mistake in it passes in silence."""

from dataclasses import replace

import pytest

from p2psync.config import (
    GIB,
    BrakesConfig,
    Config,
    DiscoveryConfig,
    LogLevel,
    TrashConfig,
    VerifyConfig,
    format_address,
    format_config,
    parse_address,
    parse_config,
)
from p2psync.errors import ConfigError, UsageError

FULL = """\
name = "laptop"
listen = ["127.0.0.1:0", "[::1]:22000"]
interfaces = ["eth0"]
scan_interval_s = 60
pairing_ttl_s = 30
log_level = "debug"
[discovery]
mdns = false
beacon = false
beacon_port = 4000
[trash]
max_age_days = 1
max_bytes = 0
[brakes]
delete_files = 5
delete_percent = 50
[verify]
interval_days = 0
rate_mb_s = 7
"""


def test_an_empty_file_gives_the_defaults() -> None:
    config = parse_config("")

    assert config == Config()
    assert config.listen == (("0.0.0.0", 0), ("::", 0))
    assert (config.scan_interval_s, config.pairing_ttl_s) == (3600, 300)
    assert config.log_level == LogLevel.INFO
    assert config.discovery == DiscoveryConfig(mdns=True, beacon=True)
    assert config.trash == TrashConfig(max_age_days=30, max_bytes=5 * GIB)
    assert config.brakes == BrakesConfig(delete_files=100, delete_percent=20)
    assert config.verify == VerifyConfig(interval_days=30, rate_mb_s=20)


def test_every_setting_can_be_set() -> None:
    assert parse_config(FULL) == Config(
        name="laptop",
        listen=(("127.0.0.1", 0), ("::1", 22000)),
        interfaces=("eth0",),
        scan_interval_s=60,
        pairing_ttl_s=30,
        log_level=LogLevel.DEBUG,
        discovery=DiscoveryConfig(mdns=False, beacon=False, beacon_port=4000),
        trash=TrashConfig(max_age_days=1, max_bytes=0),
        brakes=BrakesConfig(delete_files=5, delete_percent=50),
        verify=VerifyConfig(interval_days=0, rate_mb_s=7),
    )


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        parse_config(FULL),
        replace(Config(), name='say "hi" \\ bye'),
        replace(Config(), name="Ünï 🎉", listen=(("fe80::1%eth0", 1), ("my-host.lan", 2))),
    ],
)
def test_what_is_formatted_reads_back_the_same(config: Config) -> None:
    assert parse_config(format_config(config)) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 5", "Line 1 of config.toml: “name” must be a text in quotes."),
        ('name = ""', "“name” must be another one: a name has 1 to 64 characters."),
        ('name = "a/b"', "holds no slash"),
        ('name = "a\\u001bb"', "holds no control characters"),
        ('name = " a"', "neither begins nor ends with a space"),
        ("\n\nlisten = 5", "Line 3 of config.toml: “listen” must be a list of 1 to 16 texts"),
        ("listen = []", "“listen” must be a list of 1 to 16 texts"),
        ('listen = ["nowhere"]', "“nowhere” is not an address: write HOST:PORT"),
        ('listen = ["1.2.3.4:70000"]', "“1.2.3.4:70000” is not a number from 0 to 65535."),
        ("interfaces = []", "“interfaces” must be a list of 1 to 64 texts"),
        ('interfaces = ["a b"]', "“interfaces” must be a list of interface names"),
        ("scan_interval_s = 1", "must be a whole number from 10 to 604800."),
        ("pairing_ttl_s = 0", "“pairing_ttl_s” must be a whole number from 1 to 3600."),
        ("pairing_ttl_s = 3601", "must be a whole number from 1 to 3600."),
        ("scan_interval_s = true", "must be a whole number from 10 to 604800."),
        ("scan_interval_s = 60.0", "must be a whole number"),
        ('log_level = "loud"', '“log_level” must be one of "debug", "info", "warning", "error".'),
        ("log_level = []", "“log_level” must be one of"),
        ("colour = 1", "“colour” is not a setting; the top of the file may have: name, listen"),
        ("trash = 5", "“trash” must be a table: [trash]."),
        ("[trash]\nmax_bytes = -1", "Line 2 of config.toml: “trash.max_bytes” must be a whole"),
        ("[trash]\nmax_byte = 1", "Line 2 of config.toml: “trash.max_byte” is not a setting"),
        ("trash.max_age_days = 'x'", "Line 1 of config.toml: “trash.max_age_days” must be"),
        ("trash = {max_age_days = 'x'}", "“trash.max_age_days” must be a whole number"),
        ("[discovery]\nmdns = 1", "“discovery.mdns” must be true or false."),
        ("[discovery]\nbeacon_port = 0", "must be a whole number from 1 to 65535."),
        ("[brakes]\ndelete_percent = 101", "must be a whole number from 0 to 100."),
        ("[verify]\nrate_mb_s = 0", "“verify.rate_mb_s” must be a whole number from 1 to 100000"),
        ("[other]\na = 1", "Line 1 of config.toml: “other” is not a setting"),
        ("name = ", "config.toml is not valid TOML"),
        ("name = 'a'\nname = 'b'", "config.toml is not valid TOML"),
        ("a = " + "[" * 5000, "config.toml is"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text)

    message = str(raised.value)
    assert says in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:22000", ("192.0.2.1", 22000)),
        ("[2001:db8::1]:22000", ("2001:db8::1", 22000)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("my-host.lan:65535", ("my-host.lan", 65535)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
    ],
)
def test_an_address_reads_and_prints_the_same(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "host",
        "host:",
        ":22000",
        "host:-1",
        "host:65536",
        "host:2x",
        "host:٣",
        "::1:22000",
        "[::1]",
        "[host]:1",
        "[::1%a\nb]:1",
        "256.1.1.1:1",
        "1.2.3:1",
        "a b:1",
        "a\x1b:1",
        "x" * 300 + ":1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_port_0_is_refused_where_one_has_to_dial() -> None:
    with pytest.raises(UsageError, match="from 1 to 65535"):
        parse_address("192.0.2.1:0", lowest_port=1)


@pytest.mark.parametrize(
    ("hosts", "confined"),
    [
        (["127.0.0.1"], True),
        (["127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"], True),
        (["127.0.0.1", "192.0.2.1"], False),
        (["0.0.0.0"], False),
        (["::"], False),
        (["localhost.example.com"], False),
    ],
)
def test_only_loopback_addresses_confine_discovery(hosts: list[str], confined: bool) -> None:
    assert Config(listen=tuple((host, 0) for host in hosts)).loopback_only is confined
