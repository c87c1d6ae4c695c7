"""Two ends of a byte stream in memory, which cuts what is sent into pieces as a network does."""

import asyncio
import random
from collections.abc import Callable, Sequence

from p2psync.core.ids import DeviceID
from p2psync.errors import P2psyncError


class CutError(P2psyncError):
    """The link was cut."""


class _Pipe:
    """One direction; whoever sends waits while `limit` bytes are on their way."""

    def __init__(self, source: random.Random, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._bytes = bytearray()
        self._changed = asyncio.Condition()
        self.is_stalled = False
        self.is_ended = False
        self.is_cut = False
        self.passed = 0

    async def put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: len(self._bytes) < self._limit or self.is_cut or self.is_ended
                )
                if self.is_cut or self.is_ended:
                    raise CutError("The link was cut.")
                room = self._limit - len(self._bytes)
                self._bytes += view[:room]
                view = view[room:]
                self._changed.notify_all()

    async def get(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(self._has_news)
            if self.is_cut:
                raise CutError("The link was cut.")
            size = self._source.choice((1, 7, 1000, len(self._bytes)))
            piece = bytes(self._bytes[:size])
            del self._bytes[:size]
            self.passed += len(piece)
            self._changed.notify_all()
            return piece

    def _has_news(self) -> bool:
        return self.is_cut or (not self.is_stalled and (bool(self._bytes) or self.is_ended))

    async def set(self, *, cut: bool = False, end: bool = False, stall: bool = False) -> None:
        async with self._changed:
            self.is_cut |= cut
            self.is_ended |= end
            self.is_stalled = stall
            self._changed.notify_all()


class MemoryLink:
    """`ports.Link`."""

    remote_address = "memory:1"

    def __init__(self, peer: DeviceID, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.peer = peer
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = asyncio.Lock()
        self.takes: Callable[[int], None] = lambda size: None
        """Called with the bytes of each send, such as to move a clock by how long that takes."""

    @property
    def bytes_received(self) -> int:
        return self._incoming.passed

    @property
    def bytes_sent(self) -> int:
        return self._outgoing.passed

    async def receive(self) -> bytes:
        return await self._incoming.get()

    async def send(self, data: Sequence[bytes | memoryview]) -> None:
        async with self._sending:
            for piece in data:
                await self._outgoing.put(piece)
            self.takes(sum(map(len, data)))

    async def close(self) -> None:
        await self._outgoing.set(end=True)
        await self._incoming.set(end=True)

    async def cut(self) -> None:
        """Both ends lose the link."""
        await self._outgoing.set(cut=True)
        await self._incoming.set(cut=True)

    async def stall(self) -> None:
        """What this end sends does not arrive any more."""
        await self._outgoing.set(stall=True)

    async def flow(self) -> None:
        await self._outgoing.set()


def linked(
    one: DeviceID, other: DeviceID, *, seed: int = 0, limit: int = 64 * 1024
) -> tuple[MemoryLink, MemoryLink]:
    """The end that `one` has, and that which `other` has."""
    source = random.Random(seed)
    there, back = _Pipe(source, limit), _Pipe(source, limit)
    return MemoryLink(other, back, there), MemoryLink(one, there, back)
