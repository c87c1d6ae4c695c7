"""Fetches chunks from every peer that offers them, several requests under way at each.

Each chunk is verified before it is delivered; one that a peer lacks, or sent wrong, is asked of
the next. Which peer serves which chunk is settled by who is free first. Of a file that others are
fetching too, they serve what they have so far, and what fewest have is asked for first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import blake3

from p2psync.core.ids import DeviceID, Digest
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.tasks import together
from p2psync.protocol.messages import MAX_CHUNKS_IN_REQUEST

REQUEST_BYTES = 1024 * 1024
"""Asked for at once, unless a single chunk is larger."""
WINDOW = 4
"""Requests under way at each peer for one fetch."""
_COMPARED = 16
"""So many runs that a peer could serve are compared by how rare they are."""
NEWS_S = 2.0
"""So long others who fetch the same file are waited for when nobody else can serve."""


class Need(NamedTuple):
    digest: Digest
    size: int
    sources: frozenset[DeviceID]
    exact: bool = True
    """Whether all sources say this size. Otherwise it is a guess, and none is to blame for it."""
    number: int = 0
    """Of the chunk in its file: those who fetch that file too speak of it so."""


class Others(Protocol):
    """Those who are fetching the same file, as far as they told. All may change at any time."""

    def hold(self, peer: DeviceID, number: int) -> bool: ...
    def holders(self, number: int) -> list[DeviceID]: ...

    def order(self, digest: Digest) -> bytes:
        """What to sort by, so that no two devices begin at the same chunks."""

    def news(self) -> asyncio.Event:
        """Set at the next change."""

    def stir(self) -> None:
        """Wake all who wait for news."""


Deliver = Callable[[Sequence[tuple[Digest, bytes]]], Awaitable[None]]


class _Fetch:
    def __init__(
        self, folder: str, needs: Sequence[Need], deliver: Deliver, others: Others | None
    ) -> None:
        self._folder = folder
        self._deliver = deliver
        self._others = others
        self._runs = deque(_runs(needs))
        """What is still to be asked for, one request's worth each."""
        if others is not None:
            self._runs = deque(sorted(self._runs, key=lambda run: others.order(run[0].digest)))
        self._tried: set[tuple[DeviceID, Digest]] = set()
        self._asking = 0
        self._common: dict[DeviceID, list[Need]] = {}
        """What sources are asked for that others have too: one run at a time, so that they have
        room for what nobody else has."""
        self._asked_at = asyncio.get_running_loop().time()
        self._nothing: dict[DeviceID, asyncio.Event] = {}
        """Peers that can serve nothing of what is left, until there is news."""

    def take(self, peer: DeviceID) -> list[Need]:
        """The next needs that `peer` may serve, one request's worth."""
        news = self._others.news() if self._others is not None else None
        if news is not None and self._nothing.get(peer) is news:
            return []
        best: tuple[int, int, list[Need]] | None = None
        found = 0
        for at, run in enumerate(self._runs):
            served = [need for need in run if self._may_serve(peer, need)]
            if not served:
                continue
            rarity = self._rarity(served[0])
            if best is None or rarity < best[0]:
                best = (rarity, at, served)
            found += 1
            if rarity == 0 or found == _COMPARED:
                break
        if best is None:
            if news is not None:
                self._nothing[peer] = news
            return []
        rarity, at, served = best
        if rarity and peer in served[0].sources:
            if peer in self._common:
                return []
            self._common[peer] = served
        left = [need for need in self._runs[at] if not self._may_serve(peer, need)]
        if left:
            self._runs[at] = left
        else:
            del self._runs[at]
        return served

    def _rarity(self, need: Need) -> int:
        """How many have it who are fetching the file too, and did not fail at it."""
        if self._others is None:
            return 0
        holders = self._others.holders(need.number)
        return sum((peer, need.digest) not in self._tried for peer in holders)

    def _may_serve(self, peer: DeviceID, need: Need) -> bool:
        holds = peer in need.sources or (
            self._others is not None and self._others.hold(peer, need.number)
        )
        return holds and (peer, need.digest) not in self._tried

    def give_back(self, peer: DeviceID, needs: Sequence[Need]) -> None:
        self._tried.update((peer, need.digest) for need in needs)
        self._runs.append(list(needs))

    async def work(self, session: Session) -> None:
        """Ends when nothing is left that this peer may serve, or the peer fails."""
        while True:
            if batch := self.take(session.peer):
                if not await self._ask(session, batch):
                    return
            elif not await self._more_may_come():
                return

    async def _ask(self, session: Session, batch: list[Need]) -> bool:
        """Whether the peer answered."""
        unserved: Sequence[Need] = batch
        self._asking += 1
        try:
            unserved = await self._request(session, batch)
            return True
        except (SessionClosedError, TimeoutError):
            return False
        finally:
            self._asking -= 1
            if self._common.get(session.peer) is batch:
                del self._common[session.peer]
            self._asked_at = asyncio.get_running_loop().time()
            if unserved:
                self.give_back(session.peer, unserved)
            if self._others is not None and (unserved or not self._runs):
                self._others.stir()

    async def _more_may_come(self) -> bool:
        """Wait until the peer may have come by something; False when that is not to be hoped for.
        News alone are no hope for ever: they may be of nothing that is needed."""
        if self._others is None or not (self._runs or self._asking):
            return False
        since = asyncio.get_running_loop().time() if self._asking else self._asked_at
        try:
            async with asyncio.timeout_at(since + NEWS_S):
                await self._others.news().wait()
        except TimeoutError:
            return self._asking > 0
        return True

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
        """Whether another round could serve more."""
        return any(
            self._may_serve(peer, need) for run in self._runs for need in run for peer in peers
        )

    def pending(self) -> list[Need]:
        return [need for run in self._runs for need in run]


def _runs(needs: Sequence[Need]) -> Iterator[list[Need]]:
    run: list[Need] = []
    size = 0
    for need in needs:
        if run and (size + need.size > REQUEST_BYTES or len(run) == MAX_CHUNKS_IN_REQUEST):
            yield run
            run, size = [], 0
        run.append(need)
        size += need.size
    if run:
        yield run


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
    others: Others | None = None,
) -> list[Need]:
    """Deliver what can be had, each chunk once and verified; what no connected peer served.

    `needs` holds each digest once. `deliver` may be called from several tasks at a time; what it
    raises ends the fetch.
    """
    fetch = _Fetch(folder, needs, deliver, others)
    while fetch.left(set(current := sessions())):
        # Each worker ends by itself when its peer has nothing left to serve.
        async with together() as tasks:
            for session in current.values():
                for _ in range(WINDOW):
                    tasks.create_task(fetch.work(session), name="fetch")
    return fetch.pending()
