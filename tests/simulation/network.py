"""A network in memory: links with latency, which can be cut, stalled, or fall silent one way."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from p2psync.core.ids import DeviceID
from p2psync.errors import P2psyncError
from p2psync.ports import DialRefusedError, Link
from tests.simulation.loop import SimulatedLoop
from tests.simulation.trace import Trace

_WINDOW = 64 * 1024


class CutError(P2psyncError):
    """The link ended without a goodbye."""


class _Pipe:
    """One direction. What is put in comes out in order, after a while."""

    def __init__(self, loop: SimulatedLoop, source: random.Random, latency_s: float) -> None:
        self._loop = loop
        self._source = source
        self._latency_s = latency_s
        self._last_arrival = 0.0
        self._line: deque[bytes | None] = deque()
        """What is on its way, in order; None is the end."""
        self._owed = 0
        """How much of it would have arrived but for a stall."""
        self._arrived = bytearray()
        self._on_its_way = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.is_stalled = False
        self.is_lost = False
        """Nothing comes out any more, and nobody is told."""
        self.is_ended = False
        self.error: str | None = None
        self.passed = 0
        self.is_deaf = False
        """Whoever was to read closed its end."""
        self.on_unheard: Callable[[], None] = lambda: None

    def put(self, data: bytes | None) -> None:
        self._on_its_way += len(data or b"")
        self._line.append(data)
        if self.is_stalled:
            self._owed += 1
        else:
            self._schedule()

    def _schedule(self) -> None:
        pause = self._latency_s * (0.5 + self._source.random())
        self._last_arrival = max(self._last_arrival + 1e-7, self._loop.time() + pause)
        self._loop.at(self._last_arrival, self._arrive)

    def _arrive(self) -> None:
        if self.is_stalled:
            self._owed += 1
            return
        data = self._line.popleft()
        if self.is_lost or self.error is not None:
            return
        if self.is_deaf:
            if data is not None:
                self.on_unheard()
            return
        if data is None:
            self.is_ended = True
        else:
            self._arrived += data
        self.wake()

    def flow(self) -> None:
        self.is_stalled = False
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._schedule()

    def fail(self, reason: str) -> None:
        self.error = self.error or reason
        self.wake()

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self) -> None:
        future = self._loop.create_future()
        self._waiting.append(future)
        await future

    @property
    def is_full(self) -> bool:
        return self._on_its_way >= _WINDOW

    def take(self) -> bytes | None:
        """What has arrived, or a part of it; None while nothing has."""
        if not self._arrived:
            return b"" if self.is_ended else None
        size = len(self._arrived)
        if self._source.random() < 0.2:
            size = self._source.randint(1, size)
        piece = bytes(self._arrived[:size])
        del self._arrived[:size]
        self.passed += size
        self._on_its_way -= size
        self.wake()
        return piece


class SimulatedLink:
    """`ports.Link`; one end."""

    def __init__(
        self, pair: "Pair", owner: DeviceID, peer: DeviceID, remote_address: str, pipes: list[_Pipe]
    ) -> None:
        self.pair = pair
        self.owner = owner
        self.peer = peer
        self.remote_address = remote_address
        self._incoming, self._outgoing = pipes
        self._sending = asyncio.Lock()
        self._is_closed = False
        self.on_send: Callable[[bytes], None] = lambda _: None

    @property
    def bytes_received(self) -> int:
        return self._incoming.passed

    @property
    def bytes_sent(self) -> int:
        return self._outgoing.passed

    def _check(self) -> None:
        if self._is_closed:
            raise CutError("The link was closed on this side.")
        if self._incoming.error is not None:
            raise CutError(self._incoming.error)

    async def receive(self) -> bytes:
        while True:
            self._check()
            if (data := self._incoming.take()) is not None:
                return data
            await self._incoming.changed()

    async def send(self, data: Sequence[bytes | memoryview]) -> None:
        whole = b"".join(data)
        async with self._sending:
            self.on_send(whole)
            for at in range(0, len(whole), _WINDOW):
                self._check()
                while self._outgoing.is_full:
                    await self._outgoing.changed()
                    self._check()
                self._outgoing.put(whole[at : at + _WINDOW])

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._outgoing.put(None)
        self._incoming.is_deaf = True
        self._incoming.wake()
        self._outgoing.wake()
        self.pair.closed(self)


class Pair:
    """Both ends of a link."""

    def __init__(
        self,
        network: "Network",
        ids: tuple[DeviceID, DeviceID],
        addresses: tuple[str, str],
        latency_s: float,
    ) -> None:
        self._network = network
        self.ids = ids
        self.pipes = [_Pipe(network.loop, network.source, latency_s) for _ in range(2)]
        there, back = self.pipes
        self.ends = (
            SimulatedLink(self, ids[0], ids[1], addresses[1], [back, there]),
            SimulatedLink(self, ids[1], ids[0], addresses[0], [there, back]),
        )
        self._open = set(ids)
        there.on_unheard = lambda: back.fail("The other side had closed the link.")
        back.on_unheard = lambda: there.fail("The other side had closed the link.")

    def closed(self, end: SimulatedLink) -> None:
        self._open.discard(end.owner)
        if not self._open and self in self._network.pairs:
            self._network.pairs.remove(self)

    def stall(self) -> None:
        for pipe in self.pipes:
            pipe.is_stalled = True

    def flow(self) -> None:
        for pipe in self.pipes:
            pipe.flow()

    def cut(self) -> None:
        for pipe in self.pipes:
            pipe.fail("The link was cut.")
            # Whoever waits for room in it looks up too.
            pipe.wake()
        if self in self._network.pairs:
            self._network.pairs.remove(self)

    def silence(self, way: int) -> None:
        """One direction falls silent for good."""
        self.pipes[way].is_lost = True

    def owner_died(self, device: DeviceID, *, is_told: bool) -> None:
        mine = self.ids.index(device)
        self.pipes[1 - mine].is_deaf = True
        if is_told:
            self.pipes[mine].put(None)
        else:
            self.pipes[mine].is_lost = True
            self.pipes[1 - mine].on_unheard = lambda: None
        self._open.discard(device)
        if not self._open and self in self._network.pairs:
            self._network.pairs.remove(self)


class Host(Protocol):
    """A device, as the network sees it."""

    @property
    def id(self) -> DeviceID: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def listens(self) -> bool: ...
    def accepts(self, device: DeviceID) -> bool: ...
    def serve(self, link: SimulatedLink) -> None:
        """A link came in."""


class Network:
    def __init__(self, loop: SimulatedLoop, source: random.Random, trace: Trace) -> None:
        self.loop = loop
        self.source = source
        self.trace = trace
        self.hosts: dict[str, Host] = {}
        self.pairs: list[Pair] = []
        self.unconnectable: set[frozenset[DeviceID]] = set()
        """Pairs of devices that never reach each other."""
        self.apart: set[frozenset[DeviceID]] = set()
        """Those that do not at present."""
        self.latency_s = 0.001
        self.on_send: Callable[[SimulatedLink, bytes], None] = lambda _link, _data: None

    def part(self, ids: frozenset[DeviceID]) -> None:
        self.apart.add(ids)
        for pair in self.pairs:
            if frozenset(pair.ids) == ids:
                pair.stall()

    def join(self, ids: frozenset[DeviceID]) -> None:
        self.apart.discard(ids)
        for pair in list(self.pairs):
            if frozenset(pair.ids) == ids:
                pair.flow()

    def died(self, device: DeviceID, *, is_told: bool) -> None:
        for pair in list(self.pairs):
            if device in pair.ids:
                pair.owner_died(device, is_told=is_told)

    def dialer_of(self, host: Host) -> "_Dialer":
        return _Dialer(self, host)


class _Dialer:
    """`ports.Dialer`."""

    def __init__(self, network: Network, own: Host) -> None:
        self._network = network
        self._own = own

    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID,
        timeout: float,  # noqa: ASYNC109 - as in the port
    ) -> Link:
        network = self._network
        await asyncio.sleep(network.latency_s * (1.0 + 2.0 * network.source.random()))
        there = network.hosts.get(host)
        ids = frozenset((self._own.id, expect))
        if there is None or ids in network.unconnectable or ids in network.apart:
            await asyncio.sleep(timeout)
            raise P2psyncError("Nobody answered.")
        if not there.listens or there.port != port:
            raise P2psyncError("Nobody listens there.")
        if there.id != expect or not there.accepts(self._own.id):
            raise DialRefusedError("The device does not know this one.")
        addresses = (f"{self._own.host}:{40_000 + network.source.randrange(9)}", f"{host}:{port}")
        latency = network.latency_s * network.source.choice((0.2, 1.0, 3.0))
        pair = Pair(network, (self._own.id, expect), addresses, latency)
        for end in pair.ends:
            with contextlib.suppress(AttributeError):
                end.on_send = lambda data, end=end: network.on_send(end, data)  # type: ignore[misc]
        network.pairs.append(pair)
        there.serve(pair.ends[1])
        return pair.ends[0]
