"""One device among peers that misbehave, over links in memory."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from p2psync.core.ids import DeviceID
from p2psync.core.roster import OwnDevice, View
from p2psync.core.statements import Add, Signed, encode_statements
from p2psync.engine import cluster as module
from p2psync.engine.addresses import AddressBook
from p2psync.engine.cluster import Cluster
from p2psync.engine.membership import MAX_MEMBERS_LEARNED, Membership, load_membership
from p2psync.engine.session import Session
from p2psync.errors import ConfigError, P2psyncError
from p2psync.ports import Link
from p2psync.protocol.messages import (
    MAX_ADDRESSES,
    MISSING,
    PROTOCOL_VERSION,
    SWARM,
    ZSTD,
    Addresses,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    FolderOffer,
    FolderWithdrawn,
    Goodbye,
    Hello,
    ManifestReply,
    ManifestRequest,
    Ping,
    Pong,
    Roster,
)
from p2psync.protocol.wire import FrameReader, encode_frame
from tests.support.manual_clock import ManualClock
from tests.support.memory_link import MemoryLink, linked
from tests.support.played_keys import own_device, signed_by

ADA, BOB, EVE = map(own_device, ("ada", "bob", "eve"))


class Store:
    """`ports.RosterStore` and `ports.AddressStore`."""

    def __init__(self) -> None:
        self.body = b""
        self.saved: list[tuple[DeviceID, str, int]] = []

    async def roster(self) -> bytes:
        return self.body

    async def save_roster(self, body: bytes) -> None:
        self.body = body

    async def addresses(self) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
        return {}

    async def save_address(
        self, device: DeviceID, host: str, port: int, last_ok_ns: int | None
    ) -> None:
        self.saved.append((device, host, port))


class Nobody:
    """`ports.Dialer`: no device answers."""

    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID,
        timeout: float,  # noqa: ASYNC109 - as in the port
    ) -> Link:
        raise P2psyncError("No device answers.")


class Folder:
    """Keeps what it is given; fails where it is told to."""

    name = "folder"

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.attached: list[Session] = []
        self.hold: asyncio.Event | None = None
        self.stored: list[AnyMessage] = []
        self.error: Exception | None = None
        self.strangers: set[DeviceID] = set()

    def is_shared_with(self, device: DeviceID) -> bool:
        return device not in self.strangers

    async def attach(self, session: Session) -> None:
        self.attached.append(session)
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            await self.hold.wait()

    def detach(self, session: Session) -> None:
        if session in self.attached:
            self.attached.remove(session)

    async def handle(self, session: Session, message: AnyMessage, payload: bytes) -> None:
        self.began.set()
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            await self.hold.wait()
        self.stored.append(message)


class Peer:
    """The other end of a link, which says whatever the test says."""

    def __init__(self, link: MemoryLink, owner: DeviceID) -> None:
        self.link = link
        self.owner = owner
        self._reader = FrameReader()
        self.heard: list[AnyMessage] = []
        self.ended = False

    async def say(self, *messages: AnyMessage, payload: bytes = b"") -> None:
        for message in messages:
            await self.link.send([encode_frame(message, payload), payload])

    async def introduce(self, *, time_ns: int = 0) -> None:
        await self.say(Hello(PROTOCOL_VERSION, (), "test", b"\0" * 32, time_ns))

    async def listen(self, kind: type[AnyMessage]) -> list[AnyMessage]:
        """All that came up to the first message of the kind, or the end."""
        async with asyncio.timeout(2):
            while not any(isinstance(one, kind) for one in self.heard):
                data = await self.link.receive()
                if not data:
                    self.ended = True
                    break
                self._reader.feed(data)
                while (frame := self._reader.next_frame()) is not None:
                    self.heard.append(frame[0])
        return self.heard

    async def is_up_to_date(self) -> list[AnyMessage]:
        """All that came in answer to what was said until now."""
        self.heard = [one for one in self.heard if not isinstance(one, Pong)]
        await self.say(Ping())
        return await self.listen(Pong)


class Site:
    """Ada, with her cluster."""

    def __init__(self, membership: Membership, store: Store) -> None:
        self.membership = membership
        self.store = store
        self.clock = ManualClock()
        self.folder = Folder()
        self.book = AddressBook({})
        self.cluster = Cluster(
            membership,
            Nobody(),
            store,
            self.book,
            self.clock,
            lambda size: b"\xff" * size,
            software="test",
            listen_port=lambda: 1,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def link(self, own: OwnDevice) -> Peer:
        here, there = linked(ADA.device, own.device)
        here.remote_address = "192.0.2.9:4000"
        self.tasks.append(asyncio.create_task(self.cluster.serve(here, dialled=False)))
        return Peer(there, own.device)

    async def meet(self, own: OwnDevice) -> Peer:
        peer = self.link(own)
        await peer.introduce()
        await peer.is_up_to_date()
        return peer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    store = Store()
    membership = await load_membership(store, ADA, name="ada")
    for own in (BOB, EVE):
        await membership.admit(own.certificate, "name", [])
    site = Site(membership, store)
    await site.cluster.add_folder(site.folder)
    yield site
    for task in site.tasks:
        task.cancel()
    await asyncio.gather(*site.tasks, return_exceptions=True)


def offer(number: int) -> FolderOffer:
    return FolderOffer("folder", 1, number, 0, 0)


async def test_nothing_that_a_removed_device_still_says_is_acted_on(site: Site) -> None:
    eve = await site.meet(EVE)
    await eve.say(offer(1))
    await eve.is_up_to_date()
    assert site.folder.stored == [offer(1)]

    await site.membership.remove(EVE.device)
    await eve.say(offer(2), ChunkRequest(1, "folder", (b"x" * 32,)))

    heard = await eve.listen(Goodbye)
    assert any(isinstance(one, Goodbye) and "removed" in one.reason for one in heard)
    assert site.folder.stored == [offer(1)]


async def test_what_is_half_worked_on_when_its_device_is_removed_is_given_up(site: Site) -> None:
    eve = await site.meet(EVE)
    site.folder.hold = asyncio.Event()
    await eve.say(offer(1))
    async with asyncio.timeout(2):
        await site.folder.began.wait()

    await site.membership.remove(EVE.device)
    site.folder.hold.set()

    await eve.listen(Goodbye)
    assert site.folder.stored == []


async def test_a_member_is_answered_about_folders_shared_with_it_and_about_no_others(
    site: Site,
) -> None:
    site.folder.strangers = {EVE.device}
    bob, eve = await site.meet(BOB), await site.meet(EVE)
    asked = ChunkRequest(1, "folder", (b"x" * 32,))
    await eve.say(asked, offer(1), FolderWithdrawn("folder"), asked)
    await eve.is_up_to_date()
    assert site.folder.stored == []
    assert [session.peer for session in site.folder.attached] == [BOB.device]
    await bob.say(asked)
    await bob.is_up_to_date()
    assert site.folder.stored == [asked]
    site.cluster.remove_folder("folder")
    await bob.say(asked)
    await bob.is_up_to_date()
    assert site.folder.stored == [asked]


async def test_a_folder_that_comes_back_is_not_given_the_offer_of_before(site: Site) -> None:
    """What it says the peer knows has been overtaken; the peer answers with a new one."""
    bob = await site.meet(BOB)
    await bob.say(offer(1))
    await bob.is_up_to_date()
    assert site.folder.stored == [offer(1)]
    site.cluster.remove_folder("folder")
    await site.cluster.add_folder(site.folder)
    assert site.folder.stored == [offer(1)]
    await bob.say(offer(2))
    await bob.is_up_to_date()
    assert site.folder.stored == [offer(1), offer(2)]


async def test_peers_are_told_what_is_understood(site: Site) -> None:
    bob = site.link(BOB)
    (hello,) = await bob.listen(Hello)
    assert isinstance(hello, Hello)
    assert set(hello.features) == {SWARM, ZSTD}


async def test_who_joins_is_waited_for_until_it_has_offered_a_folder_but_not_for_long(
    site: Site,
) -> None:
    assert site.cluster.not_met() == [], "those that were members before may be away for years"
    cyd, dan = own_device("cyd"), own_device("dan")
    for own in (cyd, dan):
        await site.membership.admit(own.certificate, "name", [])
    assert site.cluster.not_met() == [cyd.device, dan.device]
    peer = await site.meet(cyd)
    assert site.cluster.not_met() == [cyd.device, dan.device]
    await peer.say(offer(1))
    await peer.is_up_to_date()
    assert site.cluster.not_met() == [dan.device]
    site.clock.advance(10.0)
    assert site.cluster.not_met() == []


async def test_who_asks_about_a_folder_that_is_not_here_need_not_wait(site: Site) -> None:
    bob = await site.meet(BOB)
    site.cluster.remove_folder("folder")
    await bob.say(
        ChunkRequest(1, "folder", (b"x" * 32,) * 2), ManifestRequest(2, "folder", b"x" * 32)
    )
    heard = await bob.is_up_to_date()
    assert ChunkReply(1, (MISSING, MISSING)) in heard
    assert ManifestReply(2) in heard


async def test_an_address_that_cannot_be_kept_parts_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise P2psyncError("The disk is full.")

    async def dial(*_: object, **__: object) -> Link:
        return here

    monkeypatch.setattr(site.store, "save_address", fail)
    bob = await site.meet(BOB)
    await bob.say(Addresses(((BOB.device, "", 7),)))
    await bob.is_up_to_date()
    assert not bob.ended

    here, there = linked(ADA.device, EVE.device)
    monkeypatch.setattr(Nobody, "dial", dial)
    site.tasks.append(asyncio.create_task(site.cluster.run()))
    site.cluster.hint(EVE.device, [("192.0.2.7", 7)])
    await Peer(there, EVE.device).listen(Hello)
    assert not site.tasks[-1].done()


async def test_a_device_removed_before_it_introduced_itself_is_dropped_too(site: Site) -> None:
    eve = site.link(EVE)
    await eve.listen(Hello)
    await site.membership.remove(EVE.device)
    assert any(isinstance(one, Goodbye) for one in await eve.listen(Goodbye))
    assert EVE.device not in site.cluster.sessions


async def test_others_hear_of_a_removal_even_if_this_device_fails_at_it(site: Site) -> None:
    def fail(before: View) -> None:
        raise ConfigError("The identity cannot be loaded.")

    bob = await site.meet(BOB)
    bob.heard.clear()
    site.cluster.on_members = fail
    with pytest.raises(ConfigError):
        await site.membership.remove(EVE.device)
    assert Roster() in await bob.is_up_to_date()


async def test_a_session_that_ended_while_others_were_attached_is_not_attached(site: Site) -> None:
    peers = [await site.meet(own) for own in (BOB, EVE)]
    site.folder = Folder()
    site.folder.hold = asyncio.Event()
    adding = asyncio.create_task(site.cluster.add_folder(site.folder))
    await asyncio.sleep(0)
    (first,) = site.folder.attached
    late = next(peer for peer in peers if peer.owner != first.peer)
    ended = site.cluster.sessions[late.owner].closed
    await late.link.close()
    async with asyncio.timeout(2):
        await ended.wait()
    site.folder.hold.set()
    await adding
    assert site.folder.attached == [first]


async def test_a_folder_whose_index_is_on_a_full_disk_costs_sessions_and_no_more(
    site: Site,
) -> None:
    peer = await site.meet(BOB)
    site.folder = Folder()
    site.folder.error = P2psyncError("The disk is full.")
    await site.cluster.add_folder(site.folder)
    assert await peer.listen(Goodbye)


async def test_a_member_cannot_hold_any_number_of_links(site: Site) -> None:
    links = [site.link(EVE) for _ in range(3 * module._LINKS_OF_PEER)]
    for peer in links:
        await peer.listen(Hello)
    assert sum(not peer.ended for peer in links) == module._LINKS_OF_PEER
    assert not (await site.meet(BOB)).ended


async def test_a_fault_of_ours_at_what_a_peer_sent_ends_its_session_only(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bob, eve = await site.meet(BOB), await site.meet(EVE)
    site.folder.error = ZeroDivisionError()
    with caplog.at_level(logging.ERROR):
        await eve.say(offer(1))
        await eve.listen(Goodbye)
    assert eve.ended
    assert "session failed" in caplog.text
    assert site.tasks[1].done()
    assert site.tasks[1].exception() is None
    assert not bob.ended


async def test_a_flood_of_addresses_is_not_passed_on_nor_written_down(site: Site) -> None:
    bob, eve = await site.meet(BOB), await site.meet(EVE)
    bob.heard.clear()
    for start in range(1, 2001, 500):
        known = tuple((EVE.device, "", port) for port in range(start, start + 500))
        await eve.say(Addresses(known))
    await eve.is_up_to_date()
    told = [one for one in await bob.is_up_to_date() if isinstance(one, Addresses)]
    assert told == [Addresses(((EVE.device, "192.0.2.9", 1),))]
    assert site.store.saved == [(EVE.device, "192.0.2.9", 1)]


async def test_in_a_large_group_a_peer_is_told_of_every_member_and_no_more_than_it_takes(
    site: Site,
) -> None:
    members = [own_device(f"nobody {number}").device for number in range(MAX_MEMBERS_LEARNED - 2)]
    statements = map(invented, range(len(members)))
    await site.membership.learn(statements)
    assert len(site.membership.members) == MAX_MEMBERS_LEARNED
    for number, device in enumerate(members):
        for network in (1, 2, 3):
            site.book.worked(device, (f"10.{network}.{number // 250}.{number % 250}", 1))

    bob = site.link(BOB)
    await bob.introduce()

    (told,) = [one for one in await bob.is_up_to_date() if isinstance(one, Addresses)]
    assert len(told.known) == MAX_ADDRESSES
    assert {device for device, *_ in told.known} == {ADA.device, *members}
    assert sum(host.startswith("10.3.") for _, host, _ in told.known) == len(members)


async def test_members_cannot_send_this_device_to_its_own_services(site: Site) -> None:
    eve = await site.meet(EVE)
    hosts = ("127.1", "0.0.0.0", "::ffff:127.0.0.1", "localhost.", "name.example", "192.0.2.3")
    await eve.say(Addresses(tuple((BOB.device, host, 22) for host in hosts)))
    await eve.is_up_to_date()
    assert site.book.candidates(BOB.device) == [("192.0.2.3", 22)]


async def test_a_roster_that_is_too_large_parts_nobody(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    eve = await site.meet(EVE)
    payload = encode_statements(frozenset(map(invented, range(MAX_MEMBERS_LEARNED))))
    await eve.say(Roster(), Roster(), payload=payload)
    await eve.say(offer(1))
    await eve.is_up_to_date()
    assert site.folder.stored == [offer(1)]
    assert len(site.membership.members) == 2
    assert caplog.text.count("device remove") == 1


def invented(number: int) -> Signed:
    own = own_device(f"nobody {number}")
    return signed_by(EVE, Add(EVE.device, own.device, own.certificate, "nobody"))


@pytest.mark.parametrize(("seconds", "told"), [(-3600, True), (0, False), (1, False), (3600, True)])
async def test_a_clock_that_is_off_is_told_while_its_device_is_connected(
    site: Site, seconds: int, *, told: bool
) -> None:
    bob = site.link(BOB)
    await bob.introduce(time_ns=site.clock.now_ns() + seconds * 10**9)
    await bob.is_up_to_date()
    assert site.cluster.skews_ns == ({BOB.device: seconds * 10**9} if told else {})
    await bob.link.cut()
    await asyncio.gather(*site.tasks)
    assert site.cluster.skews_ns == {}
