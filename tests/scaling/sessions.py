"""What a session takes of a process: real TLS over loopback, idle and after bulk."""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2psync.core.ids import Digest
from p2psync.daemon.clock import SystemClock
from p2psync.daemon.memory import trim
from p2psync.engine.session import Reply, Session
from p2psync.net.link import TlsLink, handshake
from p2psync.protocol.messages import AnyMessage, ChunkReply, ChunkRequest, Hello
from tests.net.devices import Device, make_device, roster, tcp_pair
from tests.oracle.gauges import look

_PATIENCE_S = 60.0
_BULK = bytes(1_000_000)


@dataclass(frozen=True, slots=True)
class Taken:
    """Of one end of a connection, on the average of so many."""

    ends: int
    descriptors: float
    idle: int
    """Bytes of memory once both sides are introduced."""
    after_bulk: int
    """Likewise after a megabyte went each way, and what was freed is given back."""


async def measure(pairs: int) -> Taken:
    with tempfile.TemporaryDirectory() as directory:
        ada, bob = (make_device(Path(directory) / name) for name in ("ada", "bob"))
        # The first ones bring in what all of them share.
        first = await _Pairs.made(ada, bob, 2)
        memory, descriptors = _reading()
        more = await _Pairs.made(ada, bob, pairs)
        idle, opened = _reading()
        await more.bulk()
        after, _ = _reading()
        await more.end()
        await first.end()
    ends = 2 * pairs
    return Taken(
        ends, (opened - descriptors) / ends, (idle - memory) // ends, (after - memory) // ends
    )


class _Pairs:
    """Sessions of both ends, all in this process."""

    def __init__(self, count: int) -> None:
        self._sessions: list[Session] = []
        self._tasks: list[asyncio.Task[str]] = []
        self._strangers = 2 * count
        self._all_met = asyncio.Event()

    @classmethod
    async def made(cls, client: Device, server: Device, count: int) -> "_Pairs":
        pairs = cls(count)
        contexts = client.client(server), server.server(client)
        for _ in range(count):
            ends = tcp_pair()
            links: Sequence[TlsLink] = await asyncio.gather(
                handshake(
                    ends[0],
                    contexts[0],
                    server_side=False,
                    pinned=roster(server),
                    timeout=_PATIENCE_S,
                ),
                handshake(
                    ends[1],
                    contexts[1],
                    server_side=True,
                    pinned=roster(client),
                    timeout=_PATIENCE_S,
                ),
            )
            for link in links:
                session = Session(link, Hello(1, (), "scaling", bytes(32), 0), SystemClock())
                pairs._sessions.append(session)
                pairs._tasks.append(asyncio.create_task(session.run(pairs._serve)))
        async with asyncio.timeout(_PATIENCE_S):
            await pairs._all_met.wait()
        return pairs

    async def _serve(self, session: Session, message: AnyMessage, _payload: bytes) -> None:
        if isinstance(message, Hello):
            self._strangers -= 1
            if not self._strangers:
                self._all_met.set()
        elif isinstance(message, ChunkRequest):
            session.answer(_chunk(message.request))

    async def bulk(self) -> None:
        for session in self._sessions:
            await session.request_chunks("folder", [Digest(bytes(32))])

    async def end(self) -> None:
        for session in self._sessions:
            session.drop("The measurement is over.")
        await asyncio.gather(*self._tasks)


async def _chunk(request: int) -> Reply:
    return ChunkReply(request, (len(_BULK),)), [_BULK]


def _reading() -> tuple[int, int]:
    trim()
    found = look(os.getpid())
    if found is None:
        raise RuntimeError("there is no /proc")
    return found[:2]
