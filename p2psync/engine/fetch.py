"""Fetches chunks from every peer that offers them, several requests under way at each.

Each chunk is verified before it is kept; one that a peer lacks, or sent wrong, is asked of
the next. Which peer serves which chunk is settled by who is free first. Of a file that others are
fetching too, they serve what they have so far: what nobody but its sources has is asked of these
first, and then what fewest have.

What is left, and who can serve it, are sets of numbers, each as the bits of one integer: to look
for what a peer can serve takes the same few steps however large the file is.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Generic, NamedTuple, Protocol, TypeVar

import blake3

from p2psync.core.bits import bits_of, each, lowest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.window import FIRST, MOST
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.tasks import together, whole
from p2psync.protocol.chunks import Data
from p2psync.protocol.messages import MAX_CHUNKS_IN_REQUEST

_COMPARED = 16
"""So many chunks that a peer could serve are compared by how rare they are."""
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
    """Those who are fetching the same file, as far as they told."""

    def chance(self, number: int) -> int:
        """What `number` stands for, as if by chance: something else on each device."""

    def told(self) -> Mapping[DeviceID, int]:
        """The numbers that each of them has."""

    def news_of(self, peer: DeviceID) -> asyncio.Event:
        """Set when the peer tells of something next, or by `wake`."""

    def wake(self, peer: DeviceID) -> None: ...


T = TypeVar("T")
Chunks = Sequence[tuple[Digest, Data]]


class _Batch(NamedTuple):
    numbers: list[int]
    is_common: bool = False
    """Whether a source is asked for what others have too."""


class _Fetch(Generic[T]):
    def __init__(
        self,
        folder: str,
        needs: Sequence[Need],
        keep: Callable[[Chunks], T],
        kept: Callable[[T], None],
        others: Others | None,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._kept = kept
        self._others = others
        self._needs = {at if others is None else need.number: need for at, need in enumerate(needs)}
        self._left = 0
        """What is to be asked for."""
        self._offered: dict[DeviceID, int] = defaultdict(int)
        """What each source has."""
        alike: dict[frozenset[DeviceID], list[int]] = defaultdict(list)
        for number, need in self._needs.items():
            alike[need.sources].append(number)
        for sources, numbers in alike.items():
            theirs = bits_of(numbers)
            self._left |= theirs
            for peer in sources:
                self._offered[peer] |= theirs
        self._turn = 0
        self._span = max(1, self._left.bit_length())
        self._tried: dict[DeviceID, int] = defaultdict(int)
        self._silent: set[DeviceID] = set()
        """Peers that did not answer."""
        self._common: set[DeviceID] = set()
        """Sources that are asked for what others have too: by one request at a time, so that they
        have room for what nobody else has."""
        self._asking = 0
        self._asked_at = 0.0
        self._waiting: set[DeviceID] = set()
        """Peers for whose news somebody waits."""
        self._workers: Counter[DeviceID] = Counter()
        self._under_way: Counter[DeviceID] = Counter()

    # --- what to ask for -------------------------------------------------------------------

    def take(self, peer: DeviceID, most: int) -> _Batch | None:
        """The next that `peer` may serve, of so many bytes at most unless it is one chunk."""
        offered = self._offered[peer]
        told = self._told()
        mine = (offered | told.get(peer, 0)) & self._left & ~self._tried[peer]
        if not mine:
            return None
        common = 0
        for has in told.values():
            common |= has
        rare = mine & ~common
        is_common = not rare and bool(offered & mine)
        if is_common and peer in self._common:
            return None
        if is_common:
            self._common.add(peer)
        chosen = self._request_of(rare or mine, told, most)
        self._left &= ~bits_of(chosen)
        return _Batch(chosen, is_common)

    def _told(self) -> dict[DeviceID, int]:
        """What the others have, without those who told of it and failed at it."""
        if self._others is None:
            return {}
        return {
            peer: has & ~self._tried[peer]
            for peer, has in self._others.told().items()
            if peer not in self._silent
        }

    def _request_of(self, numbers: int, told: Mapping[DeviceID, int], most: int) -> list[int]:
        if self._others is None:
            first = lowest(numbers)
        else:
            # On each device elsewhere: two that went the same way would ask for the same, before
            # either could tell of it.
            chance = self._others.chance
            self._turn += 1
            at = chance(self._turn) % self._span
            candidates = islice(each(numbers >> at << at or numbers), _COMPARED)
            holders = told.values()
            first = min(candidates, key=lambda at: (sum(h >> at & 1 for h in holders), chance(at)))
        chosen: list[int] = []
        size = 0
        behind = numbers >> first << first
        for number in chain(each(behind), each(numbers ^ behind)):
            size += self._needs[number].size
            if chosen and (size > most or len(chosen) == MAX_CHUNKS_IN_REQUEST):
                break
            chosen.append(number)
        return chosen

    def fell_silent(self, peer: DeviceID) -> None:
        """It is not to be counted on for what it told of."""
        self._silent.add(peer)

    def give_back(self, peer: DeviceID, numbers: Sequence[int]) -> None:
        given = bits_of(numbers)
        self._tried[peer] |= given
        self._left |= given

    def begun(self, now: float) -> None:
        """Time counts from here (the loop's)."""
        self._asked_at = now

    # --- asking ----------------------------------------------------------------------------

    def begin(self, session: Session, tasks: asyncio.TaskGroup) -> None:
        """Have as many workers ask the peer as its window allows."""
        while self._workers[session.peer] < self._allowed(session):
            self._workers[session.peer] += 1
            tasks.create_task(self._work(session, tasks), name="fetch")

    def _allowed(self, session: Session) -> int:
        # What is under way elsewhere is asked for here too: others cannot tell of it yet.
        return session.window.requests(MOST if self._others is None else FIRST)

    async def _work(self, session: Session, tasks: asyncio.TaskGroup) -> None:
        """Ends when nothing is left that this peer may serve, the peer fails, or others are enough
        for it."""
        peer = session.peer
        try:
            while self._workers[peer] <= self._allowed(session):
                if (batch := self.take(peer, session.window.request_bytes)) is not None:
                    if not await self._ask(session, batch):
                        return
                    self.begin(session, tasks)
                elif not await self._more_may_come(peer):
                    return
        finally:
            self._workers[peer] -= 1

    async def _ask(self, session: Session, batch: _Batch) -> bool:
        """Whether the peer answered."""
        peer = session.peer
        unserved: Sequence[int] = batch.numbers
        self._asking += 1
        self._under_way[peer] += 1
        try:
            needs = [self._needs[number] for number in batch.numbers]
            try:
                replies = await self._request(session, needs)
            except (SessionClosedError, TimeoutError):
                self.fell_silent(peer)
                return False
            verified = await self._received(session, needs, replies)
            numbers = zip(batch.numbers, verified, strict=True)
            unserved = [number for number, right in numbers if not right]
            return True
        finally:
            self._asking -= 1
            self._under_way[peer] -= 1
            self._asked_at = asyncio.get_running_loop().time()
            if batch.is_common:
                self._common.discard(peer)
            if unserved:
                self.give_back(peer, unserved)
            if unserved or batch.is_common or not (self._left or self._asking):
                self._wake_all()

    async def _more_may_come(self, peer: DeviceID) -> bool:
        """Wait until the peer may have come by something; False when that is not to be hoped for.
        News alone are no hope for ever: they may be of nothing that is needed."""
        if self._others is None or not (self._left or self._asking):
            return False
        now = asyncio.get_running_loop().time()
        since = now if self._asking else self._asked_at
        self._waiting.add(peer)
        try:
            async with asyncio.timeout_at(since + NEWS_S):
                await self._others.news_of(peer).wait()
        except TimeoutError:
            return self._asking > 0
        return True

    def _wake_all(self) -> None:
        """Something is to be asked for again, or nothing is left."""
        if self._others is not None:
            for peer in self._waiting:
                self._others.wake(peer)
        self._waiting.clear()

    async def _request(self, session: Session, needs: Sequence[Need]) -> list[Data | None]:
        began, under_way = asyncio.get_running_loop().time(), self._under_way[session.peer]
        replies = await session.request_chunks(self._folder, [need.digest for need in needs])
        seconds = asyncio.get_running_loop().time() - began
        came = sum(len(data) for data in replies if data is not None)
        session.window = session.window.after(came, seconds, under_way)
        return replies

    async def _received(
        self, session: Session, needs: Sequence[Need], replies: Sequence[Data | None]
    ) -> list[bool]:
        """Which of them were right, and are kept."""
        # What a thread writes must be over when a cancelled fetch is.
        verified, kept = await whole(asyncio.to_thread(self._verify_and_keep, needs, replies))
        if any(
            data is not None and not right for data, right in zip(replies, verified, strict=True)
        ):
            session.strike()
        if kept is not None:
            self._kept(kept)
        return verified

    def _verify_and_keep(
        self, needs: Sequence[Need], replies: Sequence[Data | None]
    ) -> tuple[list[bool], T | None]:
        """Runs in a worker thread."""
        verified = _verify(needs, replies)
        good = [
            (need.digest, data)
            for need, data, right in zip(needs, replies, verified, strict=True)
            if right and data is not None
        ]
        return verified, self._keep(good) if good else None

    def left(self, peers: set[DeviceID]) -> bool:
        """Whether another round could serve more."""
        told = self._told()
        return any(
            (self._offered[peer] | told.get(peer, 0)) & self._left & ~self._tried[peer]
            for peer in peers
        )

    def pending(self) -> list[Need]:
        return [self._needs[number] for number in each(self._left)]


def _verify(needs: Sequence[Need], replies: Sequence[Data | None]) -> list[bool]:
    return [
        data is not None
        and (len(data) == need.size or not need.exact)
        and blake3.blake3(data).digest() == need.digest
        for need, data in zip(needs, replies, strict=True)
    ]


async def fetch_chunks(
    folder: str,
    needs: Sequence[Need],
    sessions: Callable[[], dict[DeviceID, Session]],
    keep: Callable[[Chunks], T],
    kept: Callable[[T], None],
    others: Others | None = None,
) -> list[Need]:
    """Have what can be had kept, each chunk once and verified; what no connected peer served.

    `needs` holds each digest once. `keep` is called in worker threads, several at a time; what it
    raises ends the fetch, and what it returns is given to `kept`.
    """
    fetch = _Fetch(folder, needs, keep, kept, others)
    fetch.begun(asyncio.get_running_loop().time())
    while fetch.left(set(current := sessions())):
        # Each worker ends by itself when its peer has nothing left to serve.
        async with together() as tasks:
            for session in current.values():
                fetch.begin(session, tasks)
    return fetch.pending()
