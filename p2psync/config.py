"""The config file: TOML text to a frozen `Config` and back.

Every default and every limit stands here once. Reading is strict: a key nobody knows, a value of
the wrong type or out of range is refused with one sentence that names the key, its line and what is
allowed, because a setting that is silently ignored is worse than a daemon that does not start.
"""

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from p2psync.core.names import name_fault
from p2psync.errors import ConfigError, UsageError

Address = tuple[str, int]
"""Host (IP address or name; IPv6 without brackets) and TCP port; port 0 is any free one."""

FILE_NAME = "config.toml"
DEFAULT_LISTEN: tuple[Address, ...] = (("0.0.0.0", 0), ("::", 0))
DEFAULT_BEACON_PORT = 21_527
MAX_PAIRING_TTL_S = 3600
MAX_RATE_MB_S = 100_000
GIB = 1024**3

_MAX_LISTEN = 16
_MAX_INTERFACES = 64
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_INTERFACE = re.compile(r"[^\s/\x00-\x1f\x7f]{1,64}\Z")


class LogLevel(StrEnum):
    """How much the daemon writes to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Which ways of finding peers on the local network are used."""

    mdns: bool = True
    beacon: bool = True
    beacon_port: int = DEFAULT_BEACON_PORT


@dataclass(frozen=True, slots=True)
class TrashConfig:
    """Bounds of the local trash for displaced content; `max_bytes` 0 keeps no trash."""

    max_age_days: int = 30
    max_bytes: int = 5 * GIB


@dataclass(frozen=True, slots=True)
class BrakesConfig:
    """More deletions at once than the larger of the two wait for `p2psync approve`."""

    delete_files: int = 100
    delete_percent: int = 20


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    """How often everything is read to find damage (`interval_days` 0: only when asked), and how
    fast."""

    interval_days: int = 30
    rate_mb_s: int = 20


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one daemon. `name` None: the host's name; `interfaces` None: all of them."""

    name: str | None = None
    listen: tuple[Address, ...] = DEFAULT_LISTEN
    interfaces: tuple[str, ...] | None = None
    scan_interval_s: int = 3600
    pairing_ttl_s: int = 300
    log_level: LogLevel = LogLevel.INFO
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    trash: TrashConfig = field(default_factory=TrashConfig)
    brakes: BrakesConfig = field(default_factory=BrakesConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)

    @property
    def loopback_only(self) -> bool:
        """True if all listening addresses are loopback ones: discovery stays on loopback too."""
        return all(is_loopback(host) for host, _ in self.listen)


def is_loopback(host: str) -> bool:
    """Whether `host`, as `parse_address` returns it, can be reached from this machine only."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def parse_address(text: str, *, lowest_port: int = 0) -> Address:
    """Read `HOST:PORT`: `192.0.2.1:22000`, `name:22000`, IPv6 in brackets `[2001:db8::1]:22000`.

    Raises UsageError, a sentence that shows the text and what is expected.
    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or bracketed != (":" in host) or not _is_host(host):
        raise UsageError(
            f"“{text}” is not an address: write HOST:PORT, "
            "such as 192.168.1.5:22000 or [fe80::1]:22000."
        )
    if not re.fullmatch(r"[0-9]{1,5}", port) or not lowest_port <= int(port) <= 65535:
        raise UsageError(f"The port in “{text}” is not a number from {lowest_port} to 65535.")
    return host, int(port)


def _is_host(host: str) -> bool:
    address, percent, scope = host.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        # Digits and dots alone are a mistyped IPv4 address, never a name.
        return bool(_HOST_NAME.match(host)) and not re.fullmatch(r"[0-9.]+", host)
    return not percent or bool(_SCOPE.match(scope))


def format_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _FaultyError(Exception):
    """What is wrong with one value, as the end of the sentence “KEY must be …”."""


def _text_name(value: object) -> str:
    if not isinstance(value, str):
        raise _FaultyError("a text in quotes")
    if fault := name_fault(value):
        raise _FaultyError(f"another one: {fault}")
    return value


def _addresses(value: object) -> tuple[Address, ...]:
    texts = _texts(value, at_most=_MAX_LISTEN, example='["127.0.0.1:0"]')
    try:
        return tuple(parse_address(text) for text in texts)
    except UsageError as error:
        raise _FaultyError(f"a list of addresses. {error}") from None


def _interfaces(value: object) -> tuple[str, ...]:
    names = _texts(value, at_most=_MAX_INTERFACES, example='["eth0"]')
    if not all(_INTERFACE.match(name) for name in names):
        raise _FaultyError('a list of interface names such as ["eth0"]')
    return names


def _texts(value: object, *, at_most: int, example: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= at_most
        or not all(isinstance(item, str) for item in value)
    ):
        raise _FaultyError(f"a list of 1 to {at_most} texts such as {example}")
    return tuple(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _FaultyError("true or false")
    return value


def _log_level(value: object) -> LogLevel:
    try:
        return LogLevel(value)  # type: ignore[arg-type]  # any other type is no level either
    except ValueError:
        raise _FaultyError("one of " + ", ".join(f'"{level}"' for level in LogLevel)) from None


def _number(lowest: int, highest: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise _FaultyError(f"a whole number from {lowest} to {highest}")
        return value

    return read


_Readers = Mapping[str, Callable[[object], Any]]

_TOP: _Readers = {
    "name": _text_name,
    "listen": _addresses,
    "interfaces": _interfaces,
    "scan_interval_s": _number(10, 7 * 86_400),
    "pairing_ttl_s": _number(1, MAX_PAIRING_TTL_S),
    "log_level": _log_level,
}
_TABLES: Mapping[str, tuple[Callable[..., Any], _Readers]] = {
    "discovery": (
        DiscoveryConfig,
        {"mdns": _switch, "beacon": _switch, "beacon_port": _number(1, 65_535)},
    ),
    "trash": (
        TrashConfig,
        {"max_age_days": _number(0, 36_500), "max_bytes": _number(0, 2**63 - 1)},
    ),
    "brakes": (
        BrakesConfig,
        {"delete_files": _number(1, 10**9), "delete_percent": _number(0, 100)},
    ),
    "verify": (
        VerifyConfig,
        {"interval_days": _number(0, 36_500), "rate_mb_s": _number(1, MAX_RATE_MB_S)},
    ),
}


def parse_config(text: str) -> Config:
    """Read the text of a config file; what it leaves out has its default.

    Raises ConfigError: one sentence naming the key, its line if it can be told, what is allowed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{FILE_NAME} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{FILE_NAME} is nested too deeply to be a config file.") from None
    plain = {key: value for key, value in document.items() if key not in _TABLES}
    values = _read(text, "", plain, readers=_TOP)
    for table, (build, readers) in _TABLES.items():
        content = document.get(table, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{_where(text, '', table)}“{table}” must be a table: [{table}].")
        values[table] = build(**_read(text, table, content, readers=readers))
    return Config(**values)


def _read(
    text: str, table: str, content: Mapping[str, object], *, readers: _Readers
) -> dict[str, Any]:
    values = {}
    for key, value in content.items():
        full = f"{table}.{key}" if table else key
        reader = readers.get(key)
        if reader is None:
            known = ", ".join(readers if table else [*readers, *(f"[{name}]" for name in _TABLES)])
            place = f"[{table}]" if table else "the top of the file"
            raise ConfigError(
                f"{_where(text, table, key)}“{full}” is not a setting; {place} may have: {known}."
            )
        try:
            values[key] = reader(value)
        except _FaultyError as fault:
            sentence = f"{_where(text, table, key)}“{full}” must be {fault}"
            raise ConfigError(sentence.rstrip(".") + ".") from None
    return values


def _where(text: str, table: str, key: str) -> str:
    """`Line N of config.toml: `, found by reading headers and keys; no line if that fails."""
    current = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[\s*\"?([^\[\]\"]+?)\"?\s*\]", line):
            current = header[1]
            if not table and current.split(".")[0] == key:
                return f"Line {number} of {FILE_NAME}: "
            continue
        assigned = re.match(r"\s*([^=#]+?)\s*=", line)
        names = re.sub(r"[\s\"']", "", assigned[1]) if assigned else ""
        full = f"{current}.{names}".lstrip(".")
        wanted = f"{table}.{key}".lstrip(".")
        if assigned and (full == wanted or full.startswith(wanted + ".")):
            return f"Line {number} of {FILE_NAME}: "
    return f"In {FILE_NAME}: "


def format_config(config: Config) -> str:
    """A config file with every setting spelt out; `parse_config` reads `config` from it again."""
    listen = ", ".join(_quoted(format_address(address)) for address in config.listen)
    interfaces = ", ".join(map(_quoted, config.interfaces or ("eth0",)))
    off = "# " if config.interfaces is None else ""
    name = f"name = {_quoted(config.name)}" if config.name is not None else '# name = "laptop"'
    return f"""\
# Settings of p2psync. The daemon reads them when it starts.

# How other devices see this one.
{name}

# Addresses to listen on; port 0 is any free one, the same at each start while it stays free.
# With loopback addresses only, discovery stays on this machine too.
listen = [{listen}]

# Network interfaces to use for discovery; without this line, all of them.
{off}interfaces = [{interfaces}]

# Seconds between full scans, which find what file events missed.
scan_interval_s = {config.scan_interval_s}

# Seconds for which a pairing code can be used.
pairing_ttl_s = {config.pairing_ttl_s}

# debug, info, warning or error
log_level = "{config.log_level}"

# Ways to find devices on the local network.
[discovery]
mdns = {_bool(on=config.discovery.mdns)}
beacon = {_bool(on=config.discovery.beacon)}
beacon_port = {config.discovery.beacon_port}

# What other devices delete or replace is kept here, within these bounds; max_bytes = 0: nothing is.
[trash]
max_age_days = {config.trash.max_age_days}
max_bytes = {config.trash.max_bytes}

# More deletions at once than the larger of the two wait for `p2psync approve FOLDER`.
[brakes]
delete_files = {config.brakes.delete_files}
delete_percent = {config.brakes.delete_percent}

# All files are read so often, to find what the disk damaged, and no faster than so many megabytes a
# second; interval_days = 0: only when `p2psync verify` is run.
[verify]
interval_days = {config.verify.interval_days}
rate_mb_s = {config.verify.rate_mb_s}
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bool(*, on: bool) -> str:
    return "true" if on else "false"
