"""The index exchange of one folder with one connected peer.

Sends the own index from where the peer says it knows it, and everything recorded later as soon as
it is recorded; stores what the peer sends as offers. The order "row before announcement" holds
because only what the index returns is sent.

Either side may make its offer again at any time, while batches are under way: so what was already
received may come again and is passed over, and the sender starts anew from where it is asked to.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from p2psync import failpoints
from p2psync.core.decide import is_news
from p2psync.engine.session import Session
from p2psync.engine.tasks import whole
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

_NOTHING = (-1, -1, -1)
_FROM_EARLIER = "it was from an earlier time, as a peer knows more of it"
_MISSED = "a peer that was left out, or put back, may have missed deletions forgotten meanwhile"


class ExchangeOwner(Protocol):
    """What an exchange asks of its folder."""

    def offers_arrived(self) -> None: ...
    def offers_settled(self) -> None:
        """What this device lacks may be less than before: all peers are to hear of it."""

    def may_be_mended(self) -> None:
        """A peer that has caught up may hold what is damaged here."""

    def begin_anew(self, epoch: int, reason: str) -> Coroutine[Any, Any, None]:
        """A peer cannot go on from what it knows of our index of that epoch.

        To do: drop the folder's sessions; then, holding its turn (a new version may be half made
        under the old replica), `renew_replica`. What is held keeps its versions: peers that know
        later ones by the old replica offer them, and no dot of it is given out any more.
        """


class Exchange:
    def __init__(
        self, folder: str, session: Session, index: FolderIndex, owner: ExchangeOwner
    ) -> None:
        self.folder = folder
        self._index = index
        self._owner = owner
        self.session = session
        self.turn = asyncio.Lock()
        """To be held by whoever calls one of the `on_` methods."""
        self.peer = session.peer
        self.theirs = Cursor(0, 0)
        """The peer's epoch and latest sequence, as it said."""
        self.received = 0
        self.applied_by_peer = Cursor(0, 0)
        self.status: Status | None = None
        """What the peer said last of what it lacks."""
        self._told_need: Status | None = None
        self._sent: int | None = None
        """Our sequence up to which the peer was told; None until it said what it knows."""
        self._wake = asyncio.Event()
        self._acknowledged = _NOTHING
        self._acknowledging = asyncio.Lock()
        """So that none overtakes another, and the last that the peer hears is the latest."""

    def recorded(self) -> None:
        """The own index has new rows, or offers were settled: `run` tells the peer."""
        self._wake.set()

    @property
    def pending(self) -> bool:
        """Whether either side, as far as the peer takes part, has not heard all of the other's
        index."""
        behind = self._sent is not None and self._sent != self._index.sequence
        return behind or self.received < self.theirs.sequence

    @property
    def peer_holds_ours(self) -> bool:
        return self.applied_by_peer == Cursor(self._index.epoch, self._index.sequence)

    async def offer(self) -> None:
        """Tell the peer of our index and of what we know of its."""
        cursor = await self._index.cursor(self.peer)
        self.session.post(
            FolderOffer(
                self.folder, self._index.epoch, self._index.sequence, cursor.epoch, cursor.sequence
            )
        )

    async def run(self) -> None:
        """Send what the peer does not know yet, for as long as the session lives. Raises
        SessionClosedError."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.acknowledge()
            await self._tell_need()
            while self._sent is not None and self._sent < self._index.sequence:
                await self._send_next(self._sent)

    async def _send_next(self, after: int) -> None:
        epoch, latest = self._index.epoch, self._index.sequence
        entries = await self._index.entries_after(after, ENTRIES_IN_BATCH)
        if epoch != self._index.epoch or after != self._sent:
            # Meanwhile it was asked for from elsewhere.
            return
        batch = _fitting(entries)
        # Numbers without a row are of rows that were replaced and come under later numbers, or of
        # tombstones that nobody needs any more.
        self._sent = batch[-1][0] if batch else latest
        message = IndexBatch(self.folder, epoch, after, self._sent)
        failpoints.reach("exchange.before-sending")
        await self.session.send(message, pack_entries(batch))
        failpoints.reach("exchange.after-sending")

    async def on_offer(self, offer: FolderOffer) -> None:
        # In one step: this may go on when its session has ended and another one is far ahead.
        cursor = await self._index.follow(self.peer, offer.epoch)
        if self.session.has_ended:
            return
        # An offer may be older than what came since. If the peer's index is, it learns that from
        # our offer and begins a new epoch.
        self.theirs = Cursor(offer.epoch, max(offer.sequence, cursor.sequence))
        self.received = cursor.sequence
        epoch = self._index.epoch
        known = Cursor(offer.cursor_epoch, offer.cursor_sequence)
        sent = known if known.epoch == epoch else Cursor(epoch, 0)
        if not self._index.has_reached(sent.sequence):
            await self._begin_anew(epoch, _FROM_EARLIER)
            return
        is_first = self._sent is None
        if (is_first or sent.sequence == 0) and not await self._index.resume(self.peer, sent):
            await self._begin_anew(epoch, _MISSED)
            return
        if sent.sequence == 0:
            self.applied_by_peer = sent
        self._sent = sent.sequence
        # A folder that was paused there has missed what it was told meanwhile.
        self._acknowledged, self._told_need = _NOTHING, None
        self._wake.set()
        # What was offered before can be asked for again.
        self._owner.offers_arrived()

    async def _begin_anew(self, epoch: int, reason: str) -> None:
        # All exchanges are to hear of it, even if this one ends meanwhile.
        await whole(self._owner.begin_anew(epoch, reason))

    async def on_batch(self, batch: IndexBatch, payload: bytes) -> None:
        entries = unpack_entries(payload)
        if batch.epoch != self.theirs.epoch:
            return
        sequences = [sequence for sequence, _, _ in entries]
        if sequences != sorted(set(sequences)) or (sequences and sequences[-1] > batch.upto):
            raise RemoteProtocolError("The peer sent its index out of order.")
        # One that does not join on was sent before the folder was paused here or begun anew, and
        # what lies between was passed over. The peer begins again where our offer asks it to.
        if batch.upto <= self.received or batch.after > self.received:
            return
        entries = [entry for entry in entries if entry[0] > self.received]
        if self._knows_more_of_us(entries):
            await self._begin_anew(self._index.epoch, _FROM_EARLIER)
            return
        held = await self._index.held([path for _, path, _ in entries])
        news: list[SequencedEntry] = []
        seen = []
        mends = False
        for item in entries:
            known = held.get(item[1])
            mends = mends or (known is not None and known.damage is not None)
            if is_news(known.entry if known else None, item[2]):
                news.append(item)
            else:
                seen.append(item[1])
        lacked = await self._index.counts()
        upto = Cursor(batch.epoch, batch.upto)
        if not await self._index.receive(self.peer, upto, news, seen=seen, after=self.received):
            self.session.drop("What came of an index does not join on to what is known of it.")
            return
        if seen and await self._index.counts() != lacked:
            self._owner.offers_settled()
        self.received = batch.upto
        self.theirs = Cursor(batch.epoch, max(self.theirs.sequence, batch.upto))
        if news:
            self._owner.offers_arrived()
        if mends:
            self._owner.may_be_mended()
        await self.acknowledge()

    def _knows_more_of_us(self, entries: list[SequencedEntry]) -> bool:
        replica, counter = self._index.replica, self._index.counter
        return any(
            known > counter
            for _, _, entry in entries
            for author, known in entry.version.vector
            if author == replica
        )

    async def _tell_need(self) -> None:
        counts = await self._index.counts()
        need = Status(self.folder, counts.need_files, counts.need_bytes)
        if need != self._told_need and self.theirs.epoch:
            self._told_need = need
            self.session.post(need)

    async def acknowledge(self) -> None:
        """Tell the peer how far its index is stored and settled here, if that is news."""
        async with self._acknowledging:
            epoch, received = self.theirs.epoch, self.received
            applied = await self._index.applied(self.peer)
            now = (epoch, received, min(applied, received))
            if now != self._acknowledged and epoch == self.theirs.epoch != 0:
                self._acknowledged = now
                failpoints.reach("exchange.before-acknowledging")
                self.session.post(IndexAck(self.folder, *now))
                failpoints.reach("exchange.after-acknowledging")

    async def on_ack(self, ack: IndexAck) -> None:
        if ack.epoch != self._index.epoch:
            return
        if ack.applied > self._index.sequence:
            raise RemoteProtocolError("The peer acknowledges what was never sent.")
        if self.applied_by_peer == Cursor(ack.epoch, ack.applied):
            return
        self.applied_by_peer = Cursor(ack.epoch, ack.applied)
        await self._index.set_acknowledged(self.peer, self.applied_by_peer)


def _fitting(entries: list[SequencedEntry]) -> list[SequencedEntry]:
    """As many of the first entries as surely fit in a batch."""
    size = 0
    for number, (_, path, entry) in enumerate(entries):
        size += _ENTRY_ROOM + 4 * len(path) + len(entry.content) + 4 * len(entry.copy_of)
        size += 20 * (len(entry.version.vector) + len(entry.version.kept))
        if size > MAX_PACKED_ENTRIES and number:
            return entries[:number]
    return entries
