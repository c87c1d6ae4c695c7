"""The beacon on the network: found by a broadcast where multicast is filtered.

Goals: a newcomer and those already there know of each other within a second; nothing is sent to or
taken from a network that was not chosen; a flood costs little. Non-goal: to reach beyond the local
network.

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

import asyncio_dgram
import msgspec
from asyncio_dgram.aio import DatagramServer

from p2psync.net.beacon import (
    Beacon,
    BeaconError,
    RateLimit,
    Timetable,
    decode_beacon,
    encode_beacon,
)
from p2psync.net.interfaces import Interface

_MAX_GREETINGS = 1024
_NO_NETWORK = (
    "No network with an IPv4 broadcast address is up, so the beacon cannot find devices. "
    "Connect this device to a network; it is noticed within seconds."
)


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
        port: int,
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
        self._streams: dict[str, DatagramServer] = {}
        self._socket_problem: str | None = None
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
        self._socket_problem = None if wanted else _NO_NETWORK
        opened = False
        for address in sorted(wanted - self._streams.keys()):
            try:
                stream = await _open_socket(address, self._port)
            except OSError as error:
                self._socket_problem = (
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
        if self._socket_problem is not None:
            self._on_problem(self._socket_problem)

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
            self._on_problem(self._socket_problem)
        elif failure is not None:
            self._on_problem(
                f"The beacon cannot be sent ({failure.strerror}), so devices are not found where "
                f"multicast is filtered. Let the firewall pass UDP port {self._port}, or connect "
                "by address."
            )

    async def _receive(self, address: str, stream: DatagramServer) -> None:
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
            if datagram == self._datagram or not isinstance(source, tuple):
                continue
            host = str(source[0])
            if self._rates.allows(host, self._clock()):
                with contextlib.suppress(BeaconError):
                    self._take(decode_beacon(datagram), host)

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


async def _open_socket(address: str, port: int) -> DatagramServer:
    """Raises OSError where the address is gone or the port is held without SO_REUSEADDR."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((address, port))
        stream = await asyncio_dgram.from_socket(sock)
    except BaseException:
        sock.close()
        raise
    assert isinstance(stream, DatagramServer)
    return stream
