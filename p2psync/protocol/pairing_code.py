"""What two people share to pair two devices: a one-time code, or a fleet's long-lived key; and the
window in which it can be used.

Text, randomness and time in, values out. `password` is what the exchange in `pairing` runs on;
`repr` never shows it. Only a code's nameplate may be told to others.
"""

import base64
import binascii
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from p2psync.errors import UsageError
from p2psync.protocol.words import WORDS

MAX_NAMEPLATE = 99
WINDOW_S = 300.0
MAX_FAILURES = 3
"""Three guesses at 31 bits: one chance in 700 million."""

_NEW_KEY_BYTES = 32
_MIN_KEY_BYTES = 16
_MAX_KEY_BYTES = 256
_MIN_DIFFERENT_BYTES = 8
"""Fewer in 128 random bits: once in 10^13 keys. Keys of one repeated letter are caught."""

_KNOWN = frozenset(WORDS)
_WHERE_CODES_COME_FROM = "Enter the code as `p2psync pair new` shows it on the other device."
_WHERE_KEYS_COME_FROM = "Let `p2psync pair new --key-file FILE` make one in a new file."


@dataclass(frozen=True, slots=True)
class PairingCode:
    """A one-time code: a public number to find the host by, and the secret words."""

    nameplate: int
    words: tuple[str, str, str] = field(repr=False)

    def __str__(self) -> str:
        return "-".join([str(self.nameplate), *self.words])

    @property
    def password(self) -> bytes:
        return b"p2psync pairing code 1\0" + str(self).encode("ascii")


@dataclass(frozen=True, slots=True)
class FleetKey:
    """A long-lived key of at least 128 bits."""

    key: bytes = field(repr=False)

    def __str__(self) -> str:
        return base64.b32encode(self.key).decode("ascii").rstrip("=").lower()

    @property
    def password(self) -> bytes:
        return b"p2psync fleet key 1\0" + self.key


PairingSecret = PairingCode | FleetKey


def new_code(random_bytes: Callable[[int], bytes]) -> PairingCode:
    """A code drawn evenly: 31 bits in its words."""
    nameplate = 1 + _draw(MAX_NAMEPLATE, random_bytes)
    first, second, third = (WORDS[_draw(len(WORDS), random_bytes)] for _ in range(3))
    return PairingCode(nameplate, (first, second, third))


def parse_code(text: str) -> PairingCode:
    """Read a code in any case, its parts parted by dashes, spaces or the like.

    Raises UsageError; a mistyped word is answered with the nearest one of the list.
    """
    nameplate, *words = re.findall(r"[^\W_]+", text[:256].lower()) or [""]
    if not re.fullmatch(r"[0-9]{1,2}", nameplate) or int(nameplate) == 0:
        raise UsageError(f"A pairing code starts with a number. {_WHERE_CODES_COME_FROM}")
    if len(words) != 3:
        raise UsageError(
            f"A pairing code has a number and three words, like 4-acorn-velvet-mango; this one "
            f"has {len(words)}. {_WHERE_CODES_COME_FROM}"
        )
    for word in words:
        if word not in _KNOWN:
            near = difflib.get_close_matches(word, WORDS, n=1)
            hint = f"Is it “{near[0]}”?" if near else _WHERE_CODES_COME_FROM
            raise UsageError(f"“{word[:32]}” is not a word of pairing codes. {hint}")
    return PairingCode(int(nameplate), (words[0], words[1], words[2]))


def new_fleet_key(random_bytes: Callable[[int], bytes]) -> FleetKey:
    return FleetKey(random_bytes(_NEW_KEY_BYTES))


def parse_fleet_key(text: str) -> FleetKey:
    """Read a key in hex, if it has only hex digits, or else in base32; case, spaces and dashes do
    not matter. Raises UsageError if it is neither, too long, or cannot have 128 random bits."""
    compact = re.sub(r"[\s-]+", "", text[: 8 * _MAX_KEY_BYTES]).rstrip("=").lower()
    try:
        if re.fullmatch(r"(?:[0-9a-f]{2})+", compact):
            key = bytes.fromhex(compact)
        else:
            padding = "=" * (-len(compact) % 8)
            key = base64.b32decode(compact.upper() + padding)
    except (binascii.Error, ValueError):
        raise UsageError(
            f"The key is not one: it is written in base32 or in hex. {_WHERE_KEYS_COME_FROM}"
        ) from None
    if len(key) > _MAX_KEY_BYTES:
        raise UsageError(f"The key is longer than {_MAX_KEY_BYTES} bytes. {_WHERE_KEYS_COME_FROM}")
    if len(key) < _MIN_KEY_BYTES or len(set(key)) < _MIN_DIFFERENT_BYTES:
        raise UsageError(
            f"The key is too short or not random: it needs {8 * _MIN_KEY_BYTES} random bits. "
            f"{_WHERE_KEYS_COME_FROM}"
        )
    return FleetKey(key)


class WindowState(Enum):
    OPEN = "open"
    EXPIRED = "expired"
    BURNED = "burned"
    USED = "used"


class PairingWindow:
    """How long and how often a secret may be tried: once right, `max_failures` times wrong, and
    not after `ttl` seconds. `now` is any clock that does not go back."""

    def __init__(
        self, now: float, *, ttl: float = WINDOW_S, max_failures: int = MAX_FAILURES
    ) -> None:
        self._end = now + ttl
        self._failures_left = max_failures
        self._used = False

    @property
    def failures_left(self) -> int:
        return self._failures_left

    def state(self, now: float) -> WindowState:
        if self._used:
            return WindowState.USED
        if self._failures_left <= 0:
            return WindowState.BURNED
        return WindowState.OPEN if now < self._end else WindowState.EXPIRED

    def remaining(self, now: float) -> float:
        """Seconds until it expires by itself."""
        return max(0.0, self._end - now)

    def attempt_failed(self) -> None:
        """Somebody had a guess and it was wrong, or not shown to be right."""
        self._failures_left -= 1

    def attempt_succeeded(self) -> None:
        self._used = True


def _draw(choices: int, random_bytes: Callable[[int], bytes]) -> int:
    """An even draw from range(choices): numbers past the last whole multiple are drawn again."""
    limit = 65536 - 65536 % choices
    while (number := int.from_bytes(random_bytes(2))) >= limit:
        pass
    return number % choices
