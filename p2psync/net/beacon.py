"""The beacon: a signed UDP broadcast that finds devices where multicast is filtered.

Goals: a newcomer and those already there know of each other within a second; nothing is sent to or
taken from a network that was not chosen; a flood costs little. Non-goals: secrecy (the public key
and the ports are for all to read), freshness (see `Beacon`), and reaching beyond the local network.

Every subnet has one socket, bound to its broadcast address: Linux hands a broadcast to all sockets
of that address that set SO_REUSEADDR, so several daemons of one machine hear one another, and
what comes to any other address of this machine never reaches the socket. That also keeps the
beacon of a daemon on 127.0.0.1 on the loopback interface.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated

import asyncio_dgram
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2psync.core.ids import DeviceID, device_id_of_public_key
from p2psync.net.interfaces import Interface

DEFAULT_PORT = 21037
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


def _take(
    bucket: tuple[float, float], rate: float, now: float
) -> tuple[tuple[float, float], bool]:
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


class BeaconExchange:
    """Sends this device's beacon on the chosen networks and hands on those of others.

    `on_beacon(beacon, host)` gets every verified beacon of another device, also repeated ones;
    `on_problem` gets a sentence when beacons cannot be sent, and None when they can again. Both
    are called on the event loop and must not block. What is announced may change at any time.
    """

    def __init__(
        self,
        public_key: bytes,
        sign: Callable[[bytes], bytes],
        *,
        interfaces: Callable[[], Sequence[Interface]],
        on_beacon: Callable[[Beacon, str], None],
        on_problem: Callable[[str | None], None],
        port: int = DEFAULT_PORT,
        rescan_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._sign = sign
        self._interfaces = interfaces
        self._on_beacon = on_beacon
        self._on_problem = on_problem
        self._port = port
        self._rescan_s = rescan_s
        self._clock = clock
        self._randomness = randomness
        self._beacon = Beacon(public_key, randomness(8))
        self._datagram: bytes | None = None
        self._streams: dict[str, asyncio_dgram.DatagramServer] = {}
        self._timetable = Timetable(clock())
        self._changed = asyncio.Event()
        self._rates = RateLimit()
        self._greeted: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    def announce(self, port: int) -> None:
        self._say(msgspec.structs.replace(self._beacon, port=port))

    def announce_pairing(self, nameplate: int, port: int) -> None:
        self._say(msgspec.structs.replace(self._beacon, nameplate=nameplate, pairing_port=port))

    def withdraw_pairing(self) -> None:
        self._say(msgspec.structs.replace(self._beacon, nameplate=0, pairing_port=0))

    def ask(self) -> None:
        """Have everyone on the networks answer now, not within the next half minute."""
        self._say(msgspec.structs.replace(self._beacon, greeting=self._randomness(8)))

    async def run(self) -> None:
        """Until cancelled. Sockets come and go with the interfaces, looked at every `rescan_s`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                sender: asyncio.Task[None] | None = None
                while True:
                    await self._open_and_close(tasks)
                    sender = sender or tasks.create_task(self._send_when_due())
                    await asyncio.sleep(self._rescan_s)
        finally:
            for stream in self._streams.values():
                stream.close()
            self._streams.clear()

    def _say(self, beacon: Beacon) -> None:
        if beacon == self._beacon:
            return
        self._beacon, self._datagram = beacon, None
        self._timetable.restart(self._clock())
        self._changed.set()

    async def _open_and_close(self, tasks: asyncio.TaskGroup) -> None:
        """Have one socket per subnet that is there now; greet anew where one was added."""
        wanted = {address for one in self._interfaces() for address in one.broadcasts}
        for address in self._streams.keys() - wanted:
            self._streams.pop(address).close()
        problem = None if wanted else _NO_NETWORK
        opened = False
        for address in sorted(wanted - self._streams.keys()):
            try:
                stream = await _open_socket(address, self._port)
            except OSError as error:
                problem = (
                    f"The beacon cannot use UDP port {self._port} ({error.strerror}), so devices "
                    "are not found where multicast is filtered. Close the program that holds the "
                    "port, or connect by address."
                )
                continue
            self._streams[address] = stream
            # Ends when its socket is closed, here, in `run` or by an error of the network.
            tasks.create_task(self._receive(address, stream))
            opened = True
        if opened:
            self.ask()
        if problem is not None or opened:
            self._on_problem(problem)

    async def _send_when_due(self) -> None:
        while True:
            self._changed.clear()
            wait = self._timetable.due - self._clock()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                continue
            self._timetable.sent(self._clock())
            await self._send()

    async def _send(self) -> None:
        if self._datagram is None:
            self._datagram = encode_beacon(self._beacon, self._sign)
        failure: OSError | None = None
        reached = False
        for address, stream in list(self._streams.items()):
            try:
                await stream.send(self._datagram, (address, self._port))
                _ = stream.exception  # what the kernel said to this very send is raised only here
                reached = True
            except OSError as error:
                failure = error
            except asyncio_dgram.TransportClosed:
                continue
        if reached:
            self._on_problem(None)
        elif failure is not None:
            self._on_problem(
                f"The beacon cannot be sent ({failure.strerror}), so devices are not found where "
                f"multicast is filtered. Let the firewall pass UDP port {self._port}, or connect "
                "by address."
            )

    async def _receive(self, address: str, stream: asyncio_dgram.DatagramServer) -> None:
        while True:
            try:
                datagram, source = await stream.recv()
            except OSError:  # of an earlier send on the same socket; `_send` has told of it
                continue
            except asyncio_dgram.TransportClosed:
                if self._streams.get(address) is stream:
                    del self._streams[address]
                return
            # Own datagrams come back too. They are told by their bytes first, as that is free.
            if datagram == self._datagram or not self._rates.allows(source[0], self._clock()):
                continue
            with contextlib.suppress(BeaconError):
                self._take(decode_beacon(datagram), source[0])

    def _take(self, beacon: Beacon, host: str) -> None:
        if beacon.public_key == self._beacon.public_key:
            return
        greeting = (beacon.public_key, beacon.greeting)
        if greeting not in self._greeted:
            self._greeted[greeting] = None
            if len(self._greeted) > _MAX_GREETINGS:
                self._greeted.popitem(last=False)
            self._timetable.hurry()
            self._changed.set()
        self._on_beacon(beacon, host)


_MAX_GREETINGS = 1024
_NO_NETWORK = (
    "No network with an IPv4 broadcast address is up, so the beacon cannot find devices. "
    "Connect this device to a network; it is noticed within seconds."
)


async def _open_socket(address: str, port: int) -> asyncio_dgram.DatagramServer:
    """Raises OSError where the address is gone or the port is held without SO_REUSEADDR."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)  # noqa: FBT003
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((address, port))
        stream = await asyncio_dgram.from_socket(sock)
    except BaseException:
        sock.close()
        raise
    assert isinstance(stream, asyncio_dgram.DatagramServer)
    return stream
