"""The index exchange of one folder with one connected peer.

Sends the own index from where the peer says it knows it, and everything recorded later as soon as
it is recorded; stores what the peer sends as offers. The order "row before announcement" holds
because only what the index returns is sent.
"""

import asyncio
from typing import Protocol

from p2psync.core.decide import is_news
from p2psync.engine.session import Session
from p2psync.ports import Cursor, FolderIndex
from p2psync.protocol.messages import FolderOffer, IndexAck, IndexBatch, Status
from p2psync.protocol.wire import (
    ENTRIES_IN_BATCH,
    MAX_PACKED_ENTRIES,
    RemoteProtocolError,
    SequencedEntry,
    pack_entries,
    unpack_entries,
)

_ENTRY_ROOM = 400
"""Bytes of an entry beside its path and vector, generously: a batch must fit when unpacked."""


class ExchangeOwner(Protocol):
    """What an exchange asks of its folder."""

    def offers_arrived(self) -> None: ...
    async def rolled_back(self) -> None:
        """A peer knows more of our index than we do: it was restored from an earlier state."""


class Exchange:
    def __init__(
        self, folder: str, session: Session, index: FolderIndex, owner: ExchangeOwner
    ) -> None:
        self._folder = folder
        self._index = index
        self._owner = owner
        self.session = session
        self.peer = session.peer
        self.theirs = Cursor(0, 0)
        """The peer's epoch and latest sequence, as it said."""
        self.received = 0
        self.applied_by_peer = Cursor(0, 0)
        self.status: Status | None = None
        self._sent: int | None = None
        """Our sequence up to which the peer was told; None until it said what it knows."""
        self._wake = asyncio.Event()
        self._acknowledged = (-1, -1)

    def recorded(self) -> None:
        """The own index has new rows."""
        self._wake.set()

    @property
    def pending(self) -> bool:
        """Whether either side may not have heard all of the other's index."""
        return self._sent != self._index.sequence or self.received < self.theirs.sequence

    @property
    def peer_holds_ours(self) -> bool:
        return self.applied_by_peer == Cursor(self._index.epoch, self._index.sequence)

    async def offer(self) -> None:
        """Tell the peer of our index and of what we know of its."""
        cursor = await self._index.cursor(self.peer)
        self.session.post(
            FolderOffer(
                self._folder, self._index.epoch, self._index.sequence, cursor.epoch, cursor.sequence
            )
        )

    async def run(self) -> None:
        """Send what the peer does not know yet, for as long as the session lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._sent is not None and self._sent < self._index.sequence:
                await self._send_next()

    async def _send_next(self) -> None:
        assert self._sent is not None
        epoch = self._index.epoch
        entries = await self._index.entries_after(self._sent, ENTRIES_IN_BATCH)
        batch = _fitting(entries)
        if epoch != self._index.epoch:
            return
        # A gap at the end is of rows that were replaced meanwhile: they come under later numbers.
        self._sent = batch[-1][0] if batch else self._index.sequence
        await self.session.send(IndexBatch(self._folder, epoch, self._sent), pack_entries(batch))

    async def on_offer(self, offer: FolderOffer) -> None:
        cursor = await self._index.cursor(self.peer)
        if cursor.epoch != offer.epoch or cursor.sequence > offer.sequence:
            await self._index.reset_peer(self.peer)
            await self._index.receive(self.peer, Cursor(offer.epoch, 0), [])
            cursor = Cursor(offer.epoch, 0)
        self.theirs = Cursor(offer.epoch, offer.sequence)
        self.received = cursor.sequence
        if offer.cursor_epoch == self._index.epoch:
            if offer.cursor_sequence > self._index.sequence:
                await self._owner.rolled_back()
                return
            self._sent = offer.cursor_sequence
        else:
            self._sent = 0
        self._wake.set()
        await self.acknowledge()

    async def restart(self) -> None:
        """The own epoch changed: the peer is to be told everything anew."""
        self._sent = 0
        await self.offer()
        self._wake.set()

    async def on_batch(self, batch: IndexBatch, payload: bytes) -> None:
        entries = unpack_entries(payload)
        if batch.epoch != self.theirs.epoch:
            return
        sequences = [sequence for sequence, _, _ in entries]
        if sequences != sorted(set(sequences)) or (
            sequences and (sequences[0] <= self.received or sequences[-1] > batch.upto)
        ):
            raise RemoteProtocolError("The peer sent its index out of order.")
        if self._knows_more_of_us(entries):
            await self._owner.rolled_back()
        held = await self._index.held([path for _, path, _ in entries])
        news: list[SequencedEntry] = []
        seen = []
        for item in entries:
            known = held.get(item[1])
            if is_news(known.entry if known else None, item[2]):
                news.append(item)
            else:
                seen.append(item[1])
        await self._index.receive(self.peer, Cursor(batch.epoch, batch.upto), news, seen=seen)
        self.received = batch.upto
        self.theirs = Cursor(batch.epoch, max(self.theirs.sequence, batch.upto))
        await self.acknowledge()
        if news:
            self._owner.offers_arrived()

    def _knows_more_of_us(self, entries: list[SequencedEntry]) -> bool:
        replica, counter = self._index.replica, self._index.counter
        return any(
            known > counter
            for _, _, entry in entries
            for author, known in entry.version.vector
            if author == replica
        )

    async def acknowledge(self) -> None:
        """Tell the peer how far its index is stored and settled here, if that is news."""
        now = (self.received, await self._index.applied(self.peer))
        if now != self._acknowledged and self.theirs.epoch:
            self._acknowledged = now
            self.session.post(IndexAck(self._folder, self.theirs.epoch, *now))

    async def on_ack(self, ack: IndexAck) -> None:
        if ack.epoch != self._index.epoch:
            return
        if ack.applied > self._index.sequence:
            raise RemoteProtocolError("The peer acknowledges what was never sent.")
        self.applied_by_peer = Cursor(ack.epoch, ack.applied)
        await self._index.set_acknowledged(self.peer, self.applied_by_peer)


def _fitting(entries: list[SequencedEntry]) -> list[SequencedEntry]:
    """As many of the first entries as surely fit in a batch."""
    size = 0
    for number, (_, path, entry) in enumerate(entries):
        size += _ENTRY_ROOM + 4 * len(path) + len(entry.content) + 4 * len(entry.copy_of)
        size += 20 * len(entry.version.vector)
        if size > MAX_PACKED_ENTRIES and number:
            return entries[:number]
    return entries
