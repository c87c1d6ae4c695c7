"""The state directory of a daemon, as the command line finds, makes and checks it."""

import os
from dataclasses import replace
from pathlib import Path

from p2psync.config import (
    FILE_NAME,
    Address,
    Config,
    format_config,
    parse_config,
)
from p2psync.core.names import name_fault
from p2psync.errors import ConfigError, UsageError

_MAX_CONFIG = 1024 * 1024
_MARKS = (FILE_NAME, "device.key", "device.crt")
"""Any of these makes a directory a home."""
_UNFINISHED = ".device.key.new"
"""All that a power cut may leave of a home that was being made."""


def is_home(home: Path) -> bool:
    """Whether `home` has been initialised. Raises ConfigError if that cannot be seen."""
    try:
        return any(os.path.lexists(home / mark) for mark in _MARKS) and home.is_dir()
    except OSError as error:
        raise ConfigError(f"The home {home} cannot be read: {error.strerror}.") from error


def create_home(home: Path, *, name: str | None, listen: tuple[Address, ...] | None) -> Config:
    """Make `home` with an identity and a config file; the host's name unless `name` is given.

    Raises UsageError, with nothing changed, if `home` is a home already, holds other files, or if
    `name` is none; ConfigError if the file system refuses.
    """
    if name is not None and (fault := name_fault(name)):
        raise UsageError(f"“{name}” cannot be the name of a device: {fault}.")
    config = Config(name=name or host_name())
    if listen:
        config = replace(config, listen=listen)
    if is_home(home):
        raise UsageError(
            f"{home} is initialised already; to change its settings, edit {home / FILE_NAME}."
        )
    from p2psync.net.identity import load_or_create_identity

    try:
        _make_directory(home)
        load_or_create_identity(home)
        # Last: a home whose making was cut short is not taken for one with settings of its own.
        _write(home / FILE_NAME, format_config(config))
    except OSError as error:
        raise ConfigError(
            f"The home {home} cannot be made ({error.strerror}); choose another with --home."
        ) from error
    return config


def load_config(home: Path) -> Config:
    """The settings of `home`; defaults where it has no config file. Raises ConfigError."""
    path = home / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        return Config(name=host_name())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_CONFIG:
        raise ConfigError(f"{path} is longer than a config file can be (1 MiB).")
    config = parse_config(text)
    return config if config.name is not None else replace(config, name=host_name())


def load_or_create(home: Path) -> Config:
    """The settings of `home`, which is initialised with defaults if there is none."""
    if is_home(home):
        return load_config(home)
    return create_home(home, name=None, listen=None)


def host_name() -> str:
    """The name of this machine, or `device` if that cannot name one."""
    name = os.uname().nodename.partition(".")[0][:64].strip()
    return "device" if name_fault(name) else name


def _make_directory(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not home.is_dir():
            raise UsageError(f"{home} is a file; choose another home with --home.") from None
        if any(path.name != _UNFINISHED for path in home.iterdir()):
            raise UsageError(
                f"{home} holds other files and is no home of p2psync; "
                "choose an empty or a new directory with --home."
            ) from None
        home.chmod(0o700)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
