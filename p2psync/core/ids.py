"""Names of devices and of content: what they are made from and how people see them."""

import base64
import hashlib
from typing import NewType

from p2psync.errors import UsageError

DeviceID = NewType("DeviceID", bytes)
"""SHA-256 of the public key (SubjectPublicKeyInfo, DER) in a device's certificate: 32 bytes."""

Digest = NewType("Digest", bytes)
"""A BLAKE3 digest: 32 bytes."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_GROUP = 13
"""Characters of payload in a group; a check character follows each."""


def _check_character(group: str) -> str:
    """Weighted sum modulo the prime 31: notices single slips (but a for 7) and swapped ones."""
    total = sum((place + 1) * _ALPHABET.index(char) for place, char in enumerate(group))
    return _ALPHABET[total % 31]


def device_id_of_public_key(spki_der: bytes) -> DeviceID:
    return DeviceID(hashlib.sha256(spki_der).digest())


def format_device_id(device: DeviceID) -> str:
    """Four groups of 13 base32 characters and a check character, joined by dashes."""
    text = base64.b32encode(device).decode("ascii").rstrip("=").lower()
    groups = [text[at : at + _GROUP] for at in range(0, len(text), _GROUP)]
    return "-".join(group + _check_character(group) for group in groups)


def short_device_id(device: DeviceID) -> str:
    """The first seven characters: enough to tell the devices of one group apart."""
    return base64.b32encode(device[:5]).decode("ascii").lower()[:7]


def parse_device_id(text: str) -> DeviceID:
    """Read what `format_device_id` prints, in any case and with or without dashes.

    Raises UsageError, naming the group that is mistyped where a check character tells.
    """
    compact = text.replace("-", "").replace(" ", "").lower()
    size = _GROUP + 1
    groups = [compact[at : at + size] for at in range(0, len(compact), size)]
    if len(compact) != 4 * size or any(char not in _ALPHABET for char in compact):
        raise UsageError(
            f"“{text}” is not a device ID: it has four groups of {size} letters and digits 2-7. "
            "Copy it from `p2psync device list` on that device."
        )
    for number, group in enumerate(groups, start=1):
        if _check_character(group[:_GROUP]) != group[_GROUP]:
            raise UsageError(
                f"Group {number} of the device ID is mistyped (“{group}”). "
                "Compare it with `p2psync device list` on that device."
            )
    payload = "".join(group[:_GROUP] for group in groups)
    return DeviceID(base64.b32decode(payload.upper() + "===="))
