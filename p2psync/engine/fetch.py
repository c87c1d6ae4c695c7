"""Fetches chunks from every peer that offers them, several requests under way at each.

Each chunk is verified before it is delivered; one that a peer lacks, or sent wrong, is asked of
the next. Which peer serves which chunk is settled by who is free first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import blake3

from p2psync.core.ids import DeviceID, Digest
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.tasks import together
from p2psync.protocol.messages import MAX_CHUNKS_IN_REQUEST

REQUEST_BYTES = 1024 * 1024
"""Asked for at once, unless a single chunk is larger."""
WINDOW = 4
"""Requests under way at each peer for one fetch."""


class Need(NamedTuple):
    digest: Digest
    size: int
    sources: frozenset[DeviceID]
    exact: bool = True
    """Whether all sources say this size. Otherwise it is a guess, and none is to blame for it."""


Deliver = Callable[[Sequence[tuple[Digest, bytes]]], Awaitable[None]]


class _Fetch:
    def __init__(self, folder: str, needs: Sequence[Need], deliver: Deliver) -> None:
        self._folder = folder
        self._deliver = deliver
        self._pending = deque(needs)
        self._tried: set[tuple[DeviceID, Digest]] = set()

    def take(self, peer: DeviceID) -> list[Need]:
        """The next needs that `peer` may serve, one request's worth."""
        batch: list[Need] = []
        passed: list[Need] = []
        size = 0
        while self._pending and len(batch) < MAX_CHUNKS_IN_REQUEST:
            need = self._pending.popleft()
            if peer not in need.sources or (peer, need.digest) in self._tried:
                passed.append(need)
                continue
            if batch and size + need.size > REQUEST_BYTES:
                passed.append(need)
                break
            batch.append(need)
            size += need.size
        self._pending.extendleft(reversed(passed))
        return batch

    def give_back(self, peer: DeviceID, needs: Sequence[Need]) -> None:
        self._tried.update((peer, need.digest) for need in needs)
        self._pending.extend(needs)

    async def work(self, session: Session) -> None:
        """Ends when nothing is left that this peer may serve, or the peer fails."""
        while batch := self.take(session.peer):
            unserved: Sequence[Need] = batch
            try:
                unserved = await self._request(session, batch)
            except (SessionClosedError, TimeoutError):
                return
            finally:
                if unserved:
                    self.give_back(session.peer, unserved)

    async def _request(self, session: Session, batch: list[Need]) -> list[Need]:
        """The needs that this peer did not serve."""
        replies = await session.request_chunks(self._folder, [need.digest for need in batch])
        verified = await asyncio.to_thread(_verify, batch, replies)
        good = [
            (need.digest, data)
            for need, data, right in zip(batch, replies, verified, strict=True)
            if right and data is not None
        ]
        if any(
            data is not None and not right for data, right in zip(replies, verified, strict=True)
        ):
            session.strike()
        await self._deliver(good)
        return [need for need, right in zip(batch, verified, strict=True) if not right]

    def left(self, peers: set[DeviceID]) -> bool:
        """Whether another round could serve more: some pending need has an untried source."""
        return any(
            any((peer, need.digest) not in self._tried for peer in need.sources & peers)
            for need in self._pending
        )

    def pending(self) -> list[Need]:
        return list(self._pending)


def _verify(batch: Sequence[Need], replies: Sequence[bytes | None]) -> list[bool]:
    return [
        data is not None
        and (len(data) == need.size or not need.exact)
        and blake3.blake3(data).digest() == need.digest
        for need, data in zip(batch, replies, strict=True)
    ]


async def fetch_chunks(
    folder: str,
    needs: Sequence[Need],
    sessions: Callable[[], dict[DeviceID, Session]],
    deliver: Deliver,
) -> list[Need]:
    """Deliver what can be had, each chunk once and verified; what no connected peer served.

    `needs` holds each digest once. `deliver` may be called from several tasks at a time; what it
    raises ends the fetch.
    """
    fetch = _Fetch(folder, needs, deliver)
    while fetch.left(set(current := sessions())):
        # Each worker ends by itself when its peer has nothing left to serve.
        async with together() as tasks:
            for session in current.values():
                for _ in range(WINDOW):
                    tasks.create_task(fetch.work(session), name="fetch")
    return fetch.pending()
