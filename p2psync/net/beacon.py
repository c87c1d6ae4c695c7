"""What a beacon is: its bytes, when it is due, and how many of a source are listened to.

Pure: the sockets are in `beacon_exchange`. A beacon is no secret (the public key and the ports are
for all to read) and no proof of presence, see `Beacon`.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2psync.core.ids import DeviceID, device_id_of_public_key

MAX_DATAGRAM = 512

_MAGIC = b"p2psync\x01"
_SIGNED_AS = b"p2psync beacon v1\x00"
"""Put before what is signed: the identity's key signs other things too, none of which begins so."""
_SIGNATURE = 64
_SPKI_OF_ED25519 = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo (DER) of an Ed25519 key up to the 32 bytes of the key itself, RFC 8410."""

_Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class BeaconError(Exception):
    """A datagram is no beacon, or not one of the device it names."""


class Beacon(msgspec.Struct, frozen=True, array_like=True):
    """What one device says of itself. Later versions may append fields.

    There is no clock in it and no check of age: a beacon is a hint, so one that is recorded and
    played again costs its hearers one failed dial, while a device whose clock starts in 1970 must
    be found like any other.
    """

    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """Ed25519, raw. The device ID follows from it."""
    greeting: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    """Random. Whoever hears one for the first time answers at once with a beacon of its own."""
    port: _Port = 0
    """Of the sync endpoint; 0 where there is none (yet)."""
    pairing_port: _Port = 0
    nameplate: _Port = 0
    """Of the open pairing window; 0 where there is none."""

    @property
    def device(self) -> DeviceID:
        return device_id_of_public_key(_SPKI_OF_ED25519 + self.public_key)


def encode_beacon(beacon: Beacon, sign: Callable[[bytes], bytes]) -> bytes:
    """The datagram: magic, signature, msgpack. `sign` is Ed25519 with the key the beacon names."""
    body = msgspec.msgpack.encode(beacon)
    return _MAGIC + sign(_SIGNED_AS + body) + body


def decode_beacon(datagram: bytes) -> Beacon:
    """Read and verify a datagram of anyone. Raises BeaconError, and nothing else."""
    if len(datagram) > MAX_DATAGRAM:
        raise BeaconError("too long")
    if not datagram.startswith(_MAGIC):
        raise BeaconError("not a beacon")
    signature = datagram[len(_MAGIC) : len(_MAGIC) + _SIGNATURE]
    body = datagram[len(_MAGIC) + _SIGNATURE :]
    try:
        beacon = msgspec.msgpack.decode(body, type=Beacon)
        key = Ed25519PublicKey.from_public_bytes(beacon.public_key)
        key.verify(signature, _SIGNED_AS + body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise BeaconError("not readable") from error
    except InvalidSignature as error:
        raise BeaconError("bad signature") from error
    return beacon


class RateLimit:
    """Token buckets: `per_second` for each source and `total_per_second` for all, both with a
    burst of twice that. Remembers the `max_sources` sources heard last, so memory is bounded;
    inventing sources evades only the first bucket."""

    def __init__(
        self, *, per_second: float = 10, total_per_second: float = 200, max_sources: int = 1024
    ) -> None:
        self._rate = per_second
        self._total_rate = total_per_second
        self._max_sources = max_sources
        self._sources: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._total = (total_per_second * 2, 0.0)

    def allows(self, source: str, now: float) -> bool:
        """Whether one more datagram of `source` may be looked at; if so, it is counted."""
        bucket = self._sources.pop(source, (self._rate * 2, now))
        level, allowed = _take(bucket, self._rate, now)
        if allowed:
            self._total, allowed = _take(self._total, self._total_rate, now)
        self._sources[source] = level
        if len(self._sources) > self._max_sources:
            self._sources.popitem(last=False)
        return allowed


def _take(bucket: tuple[float, float], rate: float, now: float) -> tuple[tuple[float, float], bool]:
    tokens, at = bucket
    tokens = min(rate * 2, tokens + max(0.0, now - at) * rate)
    return ((tokens - 1, now), True) if tokens >= 1 else ((tokens, now), False)


class Timetable:
    """When the next beacon is due: 0, 1, 3 and 7 s after `restart`, then every 30 s; at once after
    `hurry`; never two within 0.2 s, so that no one can make a device shout."""

    _OFFSETS = (0.0, 1.0, 3.0, 7.0)
    _INTERVAL = 30.0
    _GAP = 0.2

    def __init__(self, now: float) -> None:
        self._last = now - self._GAP
        self._hurried = False
        self.restart(now)

    @property
    def due(self) -> float:
        planned = self._planned[0] if self._planned else self._last + self._INTERVAL
        earliest = self._last + self._GAP
        return earliest if self._hurried else max(planned, earliest)

    def restart(self, now: float) -> None:
        self._planned = [now + offset for offset in self._OFFSETS]

    def hurry(self) -> None:
        self._hurried = True

    def sent(self, now: float) -> None:
        self._last = now
        self._hurried = False
        self._planned = [at for at in self._planned if at > now]
