"""One exchange with a peer that is played by the test."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, first_version
from p2psync.engine.exchange import Exchange
from p2psync.engine.session import Session
from p2psync.ports import Cursor, Row
from p2psync.protocol.messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    FolderOffer,
    Hello,
    IndexAck,
    IndexBatch,
    Status,
)
from p2psync.protocol.wire import (
    ENTRIES_IN_BATCH,
    RemoteProtocolError,
    SequencedEntry,
    pack_entries,
    unpack_entries,
)
from p2psync.storage.folder_index import SqliteFolderIndex
from tests.support.devices import FOLDER, Lab, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_link import linked

BOB = device_id("bob")
CYD = device_id("cyd")
BOBS = 7
"""Epoch of the peer's index."""


def link(target: str, replica: int, counter: int) -> Entry:
    version = first_version(Dot(replica, counter), stamp=1, author="bob")
    return Entry(Kind.SYMLINK, version, target.encode())


def tombstone(replica: int, counter: int) -> Entry:
    return Entry(Kind.TOMBSTONE, first_version(Dot(replica, counter), stamp=1, author="bob"))


def row(path: str, entry: Entry) -> Row:
    mark = Fingerprint(entry.kind, 1, 1, 1, 1, executable=False, racy=False)
    return Row(RelPath(path), entry, mark if entry.is_live else None)


class Peer:
    """What was sent to it, taken from the session's queues before any link."""

    def __init__(self, index: SqliteFolderIndex) -> None:
        hello = Hello(PROTOCOL_VERSION, (), "test", b"\0" * 32, 0)
        self.session = Session(linked(device_id("ada"), BOB)[0], hello, ManualClock())
        self.index = index
        self.exchange = Exchange(FOLDER, self.session, index, self)
        self.arrived = 0
        self.settled = 0
        self.rolled = 0
        self.mended = 0

    def offers_arrived(self) -> None:
        self.arrived += 1

    def offers_settled(self) -> None:
        self.settled += 1

    def may_be_mended(self) -> None:
        self.mended += 1

    async def begin_anew(self, _epoch: int, _reason: str) -> None:
        self.rolled += 1
        await self.index.renew_replica()

    def posted(self) -> list[AnyMessage]:
        found = [message for message, _ in self.session._posted]
        self.session._posted.clear()
        return found

    async def batches(self) -> list[tuple[int, list[RelPath]]]:
        """All that comes until the exchange has nothing more to send: upto and paths."""
        sending = asyncio.create_task(self.exchange.run())
        found = []
        async with asyncio.timeout(2):
            while True:
                while self.session._bulk:
                    message, (payload,) = self.session._bulk.popleft()
                    self.session._bulk_room.release()
                    assert isinstance(message, IndexBatch)
                    assert message.epoch == self.index.epoch
                    found.append((message.upto, [path for _, path, _ in unpack_entries(payload)]))
                if self.exchange._sent == self.index.sequence and not self.exchange._wake.is_set():
                    break
                await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return found

    async def offers(
        self, *, epoch: int = BOBS, sequence: int = 0, knows: Cursor | None = None
    ) -> None:
        known = Cursor(0, 0) if knows is None else knows
        await self.exchange.on_offer(FolderOffer(FOLDER, epoch, sequence, *known))

    async def sends(
        self, upto: int, *entries: SequencedEntry, after: int = 0, epoch: int = BOBS
    ) -> None:
        batch = IndexBatch(FOLDER, epoch, after, upto)
        await self.exchange.on_batch(batch, pack_entries(entries))

    async def wanted(self) -> dict[str, bytes]:
        found = await self.index.wanted(limit=100, tombstones=False)
        return {each.path: each.offers[0].entry.content for each in found}


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    lab = Lab(tmp_path)
    yield Peer((await lab.device("ada")).index)
    await lab.close()


# --- sending --------------------------------------------------------------------------------------


async def test_the_offer_tells_both_indexes(peer: Peer) -> None:
    await peer.index.receive(BOB, Cursor(BOBS, 12), [], after=0)
    await peer.exchange.offer()
    assert peer.posted() == [FolderOffer(FOLDER, peer.index.epoch, peer.index.sequence, BOBS, 12)]


async def test_nothing_is_sent_before_the_peer_says_what_it_knows(peer: Peer) -> None:
    await peer.index.record([row("a", link("x", 1, 1))])
    peer.exchange.recorded()
    sending = asyncio.create_task(peer.exchange.run())
    await peer.index.counts()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not peer.session._bulk
    assert not peer.exchange.pending, "the peer may not take part at all"
    sending.cancel()


async def test_only_what_the_peer_does_not_know_is_sent(peer: Peer) -> None:
    known = await peer.index.record([row("a", link("x", 1, 1))])
    latest = await peer.index.record([row("b", link("x", 1, 2))])
    await peer.offers(knows=Cursor(peer.index.epoch, known))
    assert await peer.batches() == [(latest, ["b"])]
    assert not peer.exchange.pending


async def test_a_peer_that_knows_another_epoch_is_sent_all(peer: Peer) -> None:
    latest = await peer.index.record([row("a", link("x", 1, 1)), row("b", link("x", 1, 2))])
    await peer.offers(knows=Cursor(peer.index.epoch + 1, latest))
    assert await peer.batches() == [(latest, ["a", "b"])]


async def test_a_long_index_is_sent_in_batches_that_fit(peer: Peer) -> None:
    target = "t" * 4000
    rows = [row(f"{number:04}", link(target, 1, number + 1)) for number in range(600)]
    latest = await peer.index.record(rows)
    await peer.offers()
    batches = await peer.batches()
    assert len(batches) > 1
    assert [path for _, paths in batches for path in paths] == [each.path for each in rows]
    assert batches[-1][0] == latest


async def test_numbers_without_rows_are_told_as_reached(peer: Peer) -> None:
    await peer.offers()
    assert await peer.batches() == [(peer.index.sequence, [])]


async def test_what_is_recorded_while_nothing_was_found_is_sent_too(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.offers()
    entries_after = peer.index.entries_after

    async def slow(sequence: int, limit: int) -> list[tuple[int, RelPath, Entry]]:
        found = await entries_after(sequence, limit)
        if not found:
            await peer.index.record([row("late", link("x", 1, 1))])
        return found

    monkeypatch.setattr(peer.index, "entries_after", slow)
    batches = await peer.batches()
    assert [path for _, paths in batches for path in paths] == ["late"]


async def test_a_peer_that_asks_anew_meanwhile_is_sent_what_it_asks_for(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await peer.index.record([row("a", link("x", 1, 1))])
    await peer.index.record([row("b", link("x", 1, 2))])
    await peer.offers(knows=Cursor(peer.index.epoch, first))
    entries_after = peer.index.entries_after
    asked: list[int] = []

    async def slow(sequence: int, limit: int) -> list[tuple[int, RelPath, Entry]]:
        found = await entries_after(sequence, limit)
        if not asked:
            asked.append(sequence)
            await peer.offers(knows=Cursor(0, 0))
        return found

    monkeypatch.setattr(peer.index, "entries_after", slow)
    assert [path for _, paths in await peer.batches() for path in paths] == ["a", "b"]


# --- receiving ------------------------------------------------------------------------------------


async def test_what_the_peer_holds_becomes_wanted_and_is_acknowledged(peer: Peer) -> None:
    await peer.offers(sequence=5)
    peer.posted()
    arrived = peer.arrived
    await peer.sends(5, (3, RelPath("a"), link("x", 2, 1)), (5, RelPath("b"), link("y", 2, 2)))
    assert await peer.wanted() == {"a": b"x", "b": b"y"}
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 5)
    assert peer.posted() == [IndexAck(FOLDER, BOBS, 5, 2)]
    assert peer.arrived == arrived + 1
    assert not peer.exchange.received < peer.exchange.theirs.sequence


async def test_what_is_held_already_is_no_offer(peer: Peer) -> None:
    entry = link("x", 2, 1)
    await peer.index.record([row("a", entry)])
    await peer.offers(sequence=1)
    peer.posted()
    await peer.sends(1, (1, RelPath("a"), entry))
    assert await peer.wanted() == {}
    assert peer.posted() == [IndexAck(FOLDER, BOBS, 1, 1)]


async def test_settling_is_acknowledged_once(peer: Peer) -> None:
    await peer.offers(knows=Cursor(peer.index.epoch, peer.index.sequence))
    await peer.sends(1, (1, RelPath("a"), link("x", 2, 1)))
    peer.posted()
    (wanted,) = await peer.index.wanted(limit=9, tombstones=False)
    await peer.index.settle([(wanted.path, wanted.offers[0])])
    for _ in range(3):
        await peer.exchange.acknowledge()
    assert peer.posted() == [IndexAck(FOLDER, BOBS, 1, 1)]


async def test_all_hear_of_it_when_a_peer_takes_back_what_it_offered(peer: Peer) -> None:
    """It holds now what is held here, and nothing is lacking any more."""
    entry = link("y", 1, 1)
    await peer.index.record([row("a", entry)])
    await peer.offers(sequence=9)
    await peer.sends(1, (1, RelPath("a"), link("x", 2, 1)))
    assert peer.settled == 0
    await peer.sends(2, (2, RelPath("a"), entry), after=1)
    assert await peer.wanted() == {}
    assert peer.settled == 1
    await peer.sends(3, (3, RelPath("a"), entry), after=2)
    assert peer.settled == 1


async def test_a_peer_that_offers_anew_is_told_again_what_it_may_have_missed(peer: Peer) -> None:
    """Its folder may have been paused, though nothing of that was heard here."""
    for _ in range(2):
        await peer.offers(sequence=7)
        await peer.exchange.acknowledge()
        await peer.exchange._tell_need()
        assert peer.posted() == [IndexAck(FOLDER, BOBS, 0, 0), Status(FOLDER, 0, 0)]


async def test_a_batch_that_comes_again_changes_nothing(peer: Peer) -> None:
    await peer.offers(sequence=9)
    old, new = link("old", 2, 1), link("new", 2, 2)
    await peer.sends(2, (2, RelPath("a"), old))
    await peer.sends(4, (4, RelPath("a"), new))
    await peer.sends(2, (2, RelPath("a"), old))
    await peer.sends(5, (2, RelPath("a"), old), (5, RelPath("b"), old))
    assert await peer.wanted() == {"a": b"new", "b": b"old"}
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 5)


async def test_a_batch_that_leaves_a_gap_is_passed_over(peer: Peer) -> None:
    """It was under way when the folder was paused and resumed here."""
    await peer.offers(sequence=9)
    await peer.sends(5, (5, RelPath("b"), link("x", 2, 2)), after=3)
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 0)
    await peer.sends(3, (3, RelPath("a"), link("x", 2, 1)))
    await peer.sends(5, (5, RelPath("b"), link("x", 2, 2)), after=3)
    assert await peer.wanted() == {"a": b"x", "b": b"x"}
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 5)


async def test_batches_say_what_they_join_on_to(peer: Peer) -> None:
    await peer.index.record(
        [row(f"{number}", link("x", 1, number + 1)) for number in range(ENTRIES_IN_BATCH + 1)]
    )
    first = peer.index.sequence - ENTRIES_IN_BATCH - 1
    await peer.offers(knows=Cursor(peer.index.epoch, first))
    sending = asyncio.create_task(peer.exchange.run())
    async with asyncio.timeout(2):
        while True:
            if len(peer.session._bulk) == 2:
                break
            await asyncio.sleep(0)
    sending.cancel()
    batches = [message for message, _ in peer.session._bulk]
    spans = [(each.after, each.upto) for each in batches if isinstance(each, IndexBatch)]
    middle = first + ENTRIES_IN_BATCH
    assert spans == [(first, middle), (middle, peer.index.sequence)]


async def test_a_batch_of_another_epoch_is_passed_over(peer: Peer) -> None:
    await peer.offers(sequence=9)
    await peer.sends(3, (3, RelPath("a"), link("x", 2, 1)), epoch=BOBS + 1)
    assert await peer.wanted() == {}
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 0)


@pytest.mark.parametrize("numbers", [(2, 1), (1, 1), (1, 9)])
async def test_a_batch_out_of_order_breaks_the_protocol(
    peer: Peer, numbers: tuple[int, int]
) -> None:
    await peer.offers(sequence=5)
    entries = [(number, RelPath("a"), link("x", 2, 1)) for number in numbers]
    with pytest.raises(RemoteProtocolError):
        await peer.sends(5, *entries)


async def test_a_new_epoch_drops_what_was_offered_before(peer: Peer) -> None:
    await peer.offers(sequence=1)
    await peer.sends(1, (1, RelPath("a"), link("x", 2, 1)))
    await peer.offers(epoch=BOBS + 1, sequence=1)
    assert await peer.wanted() == {}
    assert await peer.index.cursor(BOB) == Cursor(BOBS + 1, 0)
    await peer.sends(1, (1, RelPath("b"), link("x", 2, 1)), epoch=BOBS + 1)
    assert await peer.wanted() == {"b": b"x"}


async def test_an_old_offer_that_is_handed_in_again_loses_nothing(peer: Peer) -> None:
    await peer.offers(sequence=1)
    await peer.sends(3, (3, RelPath("a"), link("x", 2, 1)))
    await peer.offers(sequence=1)
    assert await peer.wanted() == {"a": b"x"}
    assert peer.exchange.received == peer.exchange.theirs.sequence == 3


# --- acknowledgements and setbacks ----------------------------------------------------------------


async def test_a_peer_holds_ours_when_it_has_applied_all(peer: Peer) -> None:
    latest = await peer.index.record([row("a", link("x", 1, 1))])
    epoch = peer.index.epoch
    await peer.exchange.on_ack(IndexAck(FOLDER, epoch, latest, latest - 1))
    assert not peer.exchange.peer_holds_ours
    await peer.exchange.on_ack(IndexAck(FOLDER, epoch + 1, latest, latest))
    assert not peer.exchange.peer_holds_ours
    await peer.exchange.on_ack(IndexAck(FOLDER, epoch, latest, latest))
    assert peer.exchange.peer_holds_ours
    assert await peer.index.acknowledged(BOB) == Cursor(epoch, latest)
    with pytest.raises(RemoteProtocolError):
        await peer.exchange.on_ack(IndexAck(FOLDER, epoch, latest, latest + 1))


async def test_an_acknowledgement_does_not_overtake_the_one_before(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer would take this device for behind until something else is acknowledged."""
    await peer.offers(sequence=1)
    applied = peer.index.applied
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(device: DeviceID) -> int:
        found = await applied(device)
        if not asked.is_set():
            asked.set()
            await answer.wait()
        return found

    monkeypatch.setattr(peer.index, "applied", slowly)
    first = asyncio.create_task(peer.exchange.acknowledge())
    await asked.wait()
    receiving = asyncio.create_task(peer.sends(1))
    async with asyncio.timeout(2):
        while peer.exchange.received < 1:  # noqa: ASYNC110 - nobody tells when it changes
            await asyncio.sleep(0)
        for _ in range(1000):
            # As often as it takes to get past the one that waits.
            await asyncio.sleep(0)
        answer.set()
        await asyncio.gather(first, receiving)
    assert [message for message in peer.posted() if isinstance(message, IndexAck)][-1] == (
        IndexAck(FOLDER, BOBS, 1, 1)
    )


async def test_a_peer_that_knows_later_rows_than_there_are_shows_a_setback(peer: Peer) -> None:
    await peer.index.record([row("a", link("x", 1, 1))])
    epoch = peer.index.epoch
    await peer.offers(knows=Cursor(epoch, peer.index.sequence + 1))
    assert peer.rolled == 1
    assert peer.index.epoch != epoch
    again = Peer(peer.index)
    await again.offers(knows=Cursor(epoch, peer.index.sequence + 1))
    assert await again.batches() == [(peer.index.sequence, ["a"])]


async def test_a_peer_that_knows_a_row_that_never_was_shows_a_setback(peer: Peer) -> None:
    await peer.offers(knows=Cursor(peer.index.epoch, peer.index.sequence - 1))
    assert peer.rolled == 1


async def test_a_peer_that_missed_forgotten_deletions_is_sent_all_anew(peer: Peer) -> None:
    """It was away, and what it wants of then may be nowhere any more."""
    epoch = peer.index.epoch
    known = await peer.index.record([row("a", link("x", 1, 1)), row("b", link("x", 1, 2))])
    await peer.index.set_acknowledged(BOB, Cursor(epoch, known))
    gone = await peer.index.record([row("a", tombstone(1, 3)), row("c", link("x", 1, 4))])
    await peer.index.set_acknowledged(CYD, Cursor(epoch, gone))
    assert await peer.index.drop_tombstones([CYD]) == 1
    await peer.offers(knows=Cursor(epoch, known))
    assert peer.rolled == 1
    assert peer.index.epoch != epoch
    again = Peer(peer.index)
    await again.offers(knows=Cursor(epoch, known))
    assert await again.batches() == [(gone, ["b", "c"])]


async def written_and_deleted(index: SqliteFolderIndex) -> tuple[Cursor, Cursor]:
    """How far a peer is that heard of "a", and one that heard of its deletion too."""
    known = await index.record([row("a", link("x", 1, 1))])
    latest = await index.record([row("a", tombstone(1, 2))])
    return Cursor(index.epoch, known), Cursor(index.epoch, latest)


async def test_a_peer_that_was_left_out_goes_on_if_no_deletion_was_forgotten(peer: Peer) -> None:
    known, latest = await written_and_deleted(peer.index)
    await peer.index.set_acknowledged(BOB, known)
    await peer.index.forget_peer(BOB)
    await peer.offers(knows=known)
    assert peer.rolled == 0
    assert await peer.batches() == [(latest.sequence, ["a"])]


async def test_a_peer_that_was_put_back_behind_forgotten_deletions_is_sent_all_anew(
    peer: Peer,
) -> None:
    known, latest = await written_and_deleted(peer.index)
    await peer.index.set_acknowledged(BOB, latest)
    assert await peer.index.drop_tombstones([BOB]) == 1
    await peer.offers(knows=known)
    assert peer.rolled == 1


async def test_a_peer_whose_first_exchange_was_cut_short_goes_on_where_it_was(peer: Peer) -> None:
    """Though nothing that it acknowledged arrived, and deletions were forgotten before it came."""
    epoch = peer.index.epoch
    first = await peer.index.record([row("b", link("x", 1, 2))])
    latest = await peer.index.record([row("a", tombstone(1, 1)), row("c", link("x", 1, 3))])
    await peer.index.set_acknowledged(CYD, Cursor(epoch, latest))
    assert await peer.index.drop_tombstones([CYD]) == 1
    await peer.offers()
    again = Peer(peer.index)
    await again.offers(knows=Cursor(epoch, first))
    assert again.rolled == 0
    assert await again.batches() == [(latest, ["c"])]


async def test_a_peer_that_offers_again_in_one_session_may_be_behind_what_it_acknowledged(
    peer: Peer,
) -> None:
    known, latest = await written_and_deleted(peer.index)
    await peer.offers()
    await peer.exchange.on_ack(IndexAck(FOLDER, latest.epoch, latest.sequence, latest.sequence))
    assert await peer.index.drop_tombstones([BOB]) == 1
    await peer.offers(knows=known)
    assert peer.rolled == 0
    assert await peer.index.acknowledged(BOB) == latest


async def test_a_peer_that_begins_at_0_misses_nothing(peer: Peer) -> None:
    """It may have begun anew itself, and would not be the last."""
    latest = await peer.index.record([row("a", tombstone(1, 2))])
    await peer.index.set_acknowledged(BOB, Cursor(peer.index.epoch, latest))
    assert await peer.index.drop_tombstones([BOB]) == 1
    await peer.offers(knows=Cursor(peer.index.epoch, 0))
    assert peer.rolled == 0


async def test_what_is_forgotten_while_a_peer_that_was_put_back_comes_is_missed(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, latest = await written_and_deleted(peer.index)
    await peer.index.set_acknowledged(BOB, latest)
    follow = peer.index.follow
    forgetting: list[asyncio.Task[int]] = []

    async def meanwhile(device: DeviceID, theirs: int) -> Cursor:
        cursor = await follow(device, theirs)
        forgetting.append(asyncio.create_task(peer.index.drop_tombstones([BOB])))
        await asyncio.sleep(0)
        return cursor

    monkeypatch.setattr(peer.index, "follow", meanwhile)
    await peer.offers(knows=known)
    assert await asyncio.gather(*forgetting) == [1]
    assert peer.rolled == 1


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_late_offer_does_not_undo_what_a_later_session_acknowledged(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    epoch = peer.index.epoch
    first = await peer.index.record([row("a", link("x", 1, 1))])
    latest = await peer.index.record([row("b", link("x", 1, 2))])
    knows = Cursor(epoch, 0 if is_first else first)
    follow = peer.index.follow
    later = Peer(peer.index)

    async def held_up(device: DeviceID, theirs: int) -> Cursor:
        cursor = await follow(device, theirs)
        monkeypatch.setattr(peer.index, "follow", follow)
        peer.session.drop("Another session takes its place.")
        await later.offers(knows=knows)
        await later.exchange.on_ack(IndexAck(FOLDER, epoch, latest, latest))
        return cursor

    monkeypatch.setattr(peer.index, "follow", held_up)
    await peer.offers(knows=knows)
    assert await peer.index.acknowledged(BOB) == Cursor(epoch, latest)


async def test_a_peer_that_begins_anew_is_heard_when_it_acknowledges_the_same_again(
    peer: Peer,
) -> None:
    latest = await peer.index.record([row("a", link("x", 1, 1))])
    told = Cursor(peer.index.epoch, latest)
    for _ in range(2):
        await peer.offers()
        assert await peer.index.acknowledged(BOB) == told._replace(sequence=0)
        await peer.exchange.on_ack(IndexAck(FOLDER, told.epoch, latest, latest))
        assert await peer.index.acknowledged(BOB) == told


async def test_a_batch_that_the_own_index_overtook_by_beginning_anew_is_not_stored(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was received before it is gone, and the next session asks for all."""
    await peer.offers(sequence=20)
    await peer.sends(10, (5, RelPath("x"), link("t", 9, 1)))
    receive = peer.index.receive

    async def overtaken(*args: Any, **options: Any) -> bool:
        await peer.index.renew_replica()
        return await receive(*args, **options)

    monkeypatch.setattr(peer.index, "receive", overtaken)
    await peer.sends(20, (15, RelPath("y"), link("t", 9, 2)), after=10)
    assert await peer.index.cursor(BOB) == Cursor(BOBS, 0)
    assert await peer.wanted() == {}
    assert peer.session._dropped is not None


async def test_nothing_is_forgotten_of_what_a_peer_that_was_put_back_has_to_hear_again(
    peer: Peer,
) -> None:
    known, latest = await written_and_deleted(peer.index)
    await peer.index.set_acknowledged(BOB, latest)
    await peer.offers(knows=known)
    assert await peer.index.drop_tombstones([BOB]) == 0
    assert await peer.batches() == [(latest.sequence, ["a"])]


async def test_a_setback_is_acted_on_though_the_session_that_showed_it_ends(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = peer.index.renew_replica

    async def slow() -> None:
        await renew()
        showing.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(peer.index, "renew_replica", slow)
    epoch = peer.index.epoch
    known = Cursor(epoch, peer.index.sequence + 1)
    showing = asyncio.create_task(peer.offers(knows=known))
    with pytest.raises(asyncio.CancelledError):
        await showing
    assert peer.index.epoch != epoch


async def test_a_version_that_knows_more_of_us_than_we_do_shows_a_setback(peer: Peer) -> None:
    replica = peer.index.replica
    await peer.offers(sequence=1)
    entry = link("x", 2, 1)
    vector = tuple(sorted([(2, 1), (replica, peer.index.counter + 1)]))
    entry = msgspec.structs.replace(
        entry, version=msgspec.structs.replace(entry.version, vector=vector)
    )
    await peer.sends(1, (1, RelPath("a"), entry))
    assert peer.rolled == 1
    assert peer.index.replica != replica
    # It comes again, with all the rest.
    assert await peer.wanted() == {}
    assert (await peer.index.cursor(BOB)).sequence == 0
