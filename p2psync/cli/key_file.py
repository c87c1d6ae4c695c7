"""Files that hold the long-lived key of a fleet."""

import base64
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from p2psync.cli.terminal import note
from p2psync.errors import ConfigError, NotFoundError, UsageError

_KEY_BYTES = 32
_MIN_BITS = 128
_MIN_DIFFERENT = 8
_MAX_KEY = 4096


def create_key_file(path: Path, random_bytes: Callable[[int], bytes]) -> str:
    """Write a new key of 256 bits to `path`, mode 0600, and return it. Raises ConfigError."""
    key = base64.b32encode(random_bytes(_KEY_BYTES)).decode("ascii").rstrip("=").lower()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"The key file {path} cannot be made: {error.strerror}.") from error
    return key


def read_key_file(path: Path) -> str:
    """The key in `path`; says on standard error if others can read it.

    Raises NotFoundError, ConfigError, or UsageError if what it holds is too short to be a key.
    """
    try:
        # Not to wait on a pipe that nobody writes to.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise UsageError(f"The key file {path} is not a file.")
            content = os.read(handle, _MAX_KEY + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no key file {path}; copy it from the device that made it with "
            "`p2psync pair new --key-file`."
        ) from None
    except OSError as error:
        raise ConfigError(f"The key file {path} cannot be read: {error.strerror}.") from error
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if len(content) > _MAX_KEY or not re.fullmatch(r"[!-~]+", key):
        raise UsageError(f"{path} holds no key: a key is one line of letters and digits.")
    if _bits(key) < _MIN_BITS or len(set(key)) < _MIN_DIFFERENT:
        raise UsageError(
            f"The key in {path} is too short: it needs {_MIN_BITS} random bits. Let "
            "`p2psync pair new --key-file` make one in a new file."
        )
    if facts.st_mode & 0o077:
        note(f"Other users of this machine can read {path}; run `chmod 600 {path}`.")
    return key


def _bits(key: str) -> int:
    """At most what random text of this length and alphabet carries."""
    if re.fullmatch(r"[0-9]+", key):
        return len(key) * 3
    if re.fullmatch(r"[0-9a-fA-F]+", key):
        return len(key) * 4
    if re.fullmatch(r"[a-z2-7]+|[A-Z2-7]+", key):
        return len(key) * 5
    return len(key) * 6
