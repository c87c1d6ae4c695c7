"""Devices × folders: one session with each connected member, its messages handed to whom they
concern, and what every session begins with: rosters, addresses, offers of folders."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.roster import View, decode_statements
from p2psync.engine.addresses import AddressBook, is_believable
from p2psync.engine.dialing import Dialing
from p2psync.engine.exchanges import FolderMessage
from p2psync.engine.membership import Membership
from p2psync.engine.session import Session
from p2psync.engine.supplier import lacking
from p2psync.errors import P2psyncError, RefusedError
from p2psync.ports import Address, AddressStore, Clock, Dialer, Link, Randomness
from p2psync.protocol.messages import (
    MAX_ADDRESSES,
    PROTOCOL_VERSION,
    SWARM,
    ZSTD,
    Addresses,
    AnyMessage,
    ChunkRequest,
    FolderOffer,
    FolderWithdrawn,
    Hello,
    ManifestRequest,
    Roster,
)
from p2psync.protocol.wire import RemoteProtocolError

_ADDRESSES_TOLD = 3
"""Of each other member, at the start of a session."""
_MAX_OFFERED = 256
_SKEW_NS = 60 * 10**9
_LAST_WORDS_S = 1.5
_MEETING_S = 10.0
"""A device that has joined is connected within a second, if it can be at all."""
_LINKS_OF_PEER = 8
"""One is of use. Others are there for a moment, where both sides dial or a network came back."""

_log = logging.getLogger(__name__)


class FolderPeer(Protocol):
    """What the cluster asks of a folder."""

    @property
    def name(self) -> str: ...
    def is_shared_with(self, device: DeviceID) -> bool: ...
    async def attach(self, session: Session) -> None:
        """Begin with a session of a device it is shared with."""

    def detach(self, session: Session) -> None: ...
    async def handle(self, session: Session, message: FolderMessage, payload: bytes) -> None: ...


class Cluster:
    def __init__(
        self,
        membership: Membership,
        dialer: Dialer,
        store: AddressStore,
        book: AddressBook,
        clock: Clock,
        randomness: Randomness,
        *,
        software: str,
        listen_port: Callable[[], int],
    ) -> None:
        self._membership = membership
        self._store = store
        self._book = book
        self._clock = clock
        self._software = software
        self._listen_port = listen_port
        self._own = membership.own.device
        self.sessions: dict[DeviceID, Session] = {}
        self._dialled: set[Session] = set()
        self._serving: set[Session] = set()
        self._located: set[Session] = set()
        """Sessions whose peer has told where it listens."""
        self._overflowed: set[Session] = set()
        """Sessions whose peer tells of more devices than a group has."""
        self._stopping = False
        self._folders: dict[str, FolderPeer] = {}
        self._offers: dict[DeviceID, dict[str, FolderOffer]] = {}
        """The last offer of each folder that a connected peer made, shared here or not."""
        self._joined: dict[DeviceID, float] = {}
        """When devices became members, while this one runs (monotonic clock)."""
        self._past_received = 0
        self._past_sent = 0
        self.skews_ns: dict[DeviceID, int] = {}
        """How far the clocks of connected peers are ahead of ours."""
        self._dialing = Dialing(
            self._own,
            dialer,
            book,
            clock,
            randomness,
            is_connected=lambda device: device in self.sessions,
            serve=lambda link: self.serve(link, dialled=True),
            reached=self._reached,
        )
        self.on_members: Callable[[View], None] = lambda _before: None
        """Called with the view before, after the cluster has acted on a change of members."""
        membership.on_change = self._members_changed
        self._dialing.set_members(set(membership.members))

    async def run(self) -> None:
        """Until cancelled."""
        await self._dialing.run()

    async def stop(self) -> None:
        """Say goodbye to all peers, and take no further links."""
        self._stopping = True
        for session in list(self._serving):
            session.drop("This device is stopping.")
        waits = [asyncio.ensure_future(session.closed.wait()) for session in self._serving]
        if waits:
            _, late = await asyncio.wait(waits, timeout=_LAST_WORDS_S)
            for wait in late:
                wait.cancel()

    # --- what people see -------------------------------------------------------------------

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes on the wire since the start: received, sent."""
        links = [session.link for session in self._serving]
        return (
            self._past_received + sum(link.bytes_received for link in links),
            self._past_sent + sum(link.bytes_sent for link in links),
        )

    @property
    def refused(self) -> dict[DeviceID, str]:
        return dict(self._dialing.refused)

    def offered(self) -> dict[str, list[DeviceID]]:
        """Folders that connected peers offer and that are not shared here."""
        found: dict[str, list[DeviceID]] = {}
        for device, offers in self._offers.items():
            for name in offers:
                if name not in self._folders:
                    found.setdefault(name, []).append(device)
        return found

    def not_met(self) -> list[DeviceID]:
        """Members since a moment ago that have offered no folder yet, as most do."""
        newest = self._clock.monotonic() - _MEETING_S
        return [
            device
            for device, since in self._joined.items()
            if since > newest and not self._offers.get(device)
        ]

    def address_of(self, device: DeviceID) -> Address | None:
        """Where the device was last reached."""
        known = self._book.last_worked(device, 1) or self._book.candidates(device)
        return known[0] if known else None

    # --- folders ---------------------------------------------------------------------------

    async def add_folder(self, folder: FolderPeer) -> None:
        self._folders[folder.name] = folder
        for session in list(self.sessions.values()):
            try:
                await self._attach(folder, session)
            except P2psyncError as error:
                # Such as a full disk, which is no fault of the folder's work: the next session
                # begins with it again.
                session.drop(str(error))

    def remove_folder(self, name: str) -> None:
        if (folder := self._folders.pop(name, None)) is None:
            return
        for session in self.sessions.values():
            if folder.is_shared_with(session.peer):
                folder.detach(session)
                session.post(FolderWithdrawn(name))
                # The peer answers with what it knows by now.
                self._offers[session.peer].pop(name, None)

    async def _attach(self, folder: FolderPeer, session: Session) -> None:
        # While others were attached, another session may have taken its place: nobody would detach
        # this one any more, and the folder would ask it for contents for ever.
        is_current = self.sessions.get(session.peer) is session
        if not is_current or not folder.is_shared_with(session.peer):
            return
        await folder.attach(session)
        offer = self._offers.get(session.peer, {}).get(folder.name)
        if offer is not None:
            await folder.handle(session, offer, b"")

    # --- members ---------------------------------------------------------------------------

    def hint(self, device: DeviceID, addresses: Iterable[Address]) -> None:
        """The device may be there."""
        if device in self._membership.members and self._book.hint(device, addresses):
            self._dialing.wake(device)

    def _members_changed(self, before: View) -> None:
        now = self._membership.members
        for device in before.members.keys() - now.keys():
            self._book.forget(device)
            self._joined.pop(device, None)
        joined = now.keys() - before.members.keys()
        self._joined.update(dict.fromkeys(joined, self._clock.monotonic()))
        # Those too that did not get as far as an introduction.
        for session in self._serving:
            if session.peer not in now:
                session.drop("This device was removed from the group.")
        self._dialing.set_members(set(now))
        roster = self._membership.encoded()
        for session in self.sessions.values():
            session.post(Roster(), roster)
        # Last, because it may raise: the others have to hear of it all the same.
        self.on_members(before)

    async def _reached(self, device: DeviceID, address: Address) -> None:
        self._book.worked(device, address)
        await self._save_address(device, address, self._clock.now_ns())
        known = Addresses(((device, *address),))
        for session in self.sessions.values():
            if session.peer != device:
                session.post(known)

    async def _save_address(
        self, device: DeviceID, address: Address, last_ok_ns: int | None
    ) -> None:
        try:
            await self._store.save_address(device, *address, last_ok_ns)
        except P2psyncError as error:
            # A hint for the next start, worth no link: a full disk must not part devices.
            _log.warning("address not kept device=%s reason=%s", short_device_id(device), error)

    # --- sessions --------------------------------------------------------------------------

    async def serve(self, link: Link, *, dialled: bool) -> None:
        """Own a link until it ends."""
        links = sum(session.peer == link.peer for session in self._serving)
        if self._stopping or links >= _LINKS_OF_PEER:
            await link.close()
            return
        hello = Hello(
            PROTOCOL_VERSION,
            (SWARM, ZSTD),
            self._software,
            self._membership.digest(),
            self._clock.now_ns(),
        )
        session = Session(link, hello, self._clock)
        if dialled:
            self._dialled.add(session)
        self._serving.add(session)
        reason = "This device is stopping."
        try:
            reason = await session.run(self._handle)
        except Exception:
            # Whatever a peer may have done, it is to cost its own link and not the daemon.
            _log.exception("session failed device=%s", short_device_id(session.peer))
            reason = "This device failed at what the peer sent."
        finally:
            self._forget(session, reason)

    def _forget(self, session: Session, reason: str) -> None:
        self._serving.discard(session)
        for kept in (self._dialled, self._located, self._overflowed):
            kept.discard(session)
        self._past_received += session.link.bytes_received
        self._past_sent += session.link.bytes_sent
        if self.sessions.get(session.peer) is not session:
            if not session.ready:
                device = short_device_id(session.peer)
                _log.info("not introduced device=%s reason=%s", device, reason)
            return
        del self.sessions[session.peer]
        self._offers.pop(session.peer, None)
        self.skews_ns.pop(session.peer, None)
        for folder in self._folders.values():
            folder.detach(session)
        self._dialing.ended(session.peer)
        _log.info("disconnected device=%s reason=%s", short_device_id(session.peer), reason)

    async def _handle(self, session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, Hello):
            await self._introduce(session, message)
        elif self.sessions.get(session.peer) is not session:
            # It is on its way out: another session took its place.
            return
        elif isinstance(message, Roster):
            await self._learn_roster(session, payload)
        elif isinstance(message, Addresses):
            await self._learn_addresses(session, message)
        elif isinstance(message, FolderWithdrawn):
            self._offers.get(session.peer, {}).pop(message.folder, None)
            if (folder := self._folders.get(message.folder)) is not None:
                folder.detach(session)
                await self._attach(folder, session)
        elif isinstance(message, FolderMessage):
            await self._handle_for_folder(session, message, payload)

    async def _handle_for_folder(
        self, session: Session, message: FolderMessage, payload: bytes
    ) -> None:
        if isinstance(message, FolderOffer):
            offers = self._offers.setdefault(session.peer, {})
            offers[message.folder] = message
            if len(offers) > _MAX_OFFERED:
                raise RemoteProtocolError("The peer offers more folders than anyone has.")
        folder = self._folders.get(message.folder)
        if folder is not None and folder.is_shared_with(session.peer):
            await folder.handle(session, message, payload)
        elif isinstance(message, ChunkRequest | ManifestRequest):
            session.post(lacking(message))

    async def _introduce(self, session: Session, hello: Hello) -> None:
        peer = session.peer
        if peer not in self._membership.members:
            session.drop("This device was removed from the group.")
            return
        existing = self.sessions.get(peer)
        if existing is not None and not existing.closed.is_set():
            if self._is_preferred(existing) and not self._is_preferred(session):
                session.drop("There is another connection already.")
                return
            existing.drop("A newer connection took its place.")
            for folder in self._folders.values():
                folder.detach(existing)
        self.sessions[peer] = session
        self._offers[peer] = {}
        _log.info(
            "connected device=%s address=%s", short_device_id(peer), session.link.remote_address
        )
        skew = hello.time_ns - self._clock.now_ns()
        if abs(skew) > _SKEW_NS:
            self.skews_ns[peer] = skew
        if hello.roster != self._membership.digest():
            session.post(Roster(), self._membership.encoded())
        session.post(Addresses(tuple(islice(self._addresses_to_tell(peer), MAX_ADDRESSES))))
        for folder in list(self._folders.values()):
            await self._attach(folder, session)

    def _is_preferred(self, session: Session) -> bool:
        """Of two links at once both sides keep the one that the lesser ID dialled."""
        return (session in self._dialled) == (self._own < session.peer)

    async def _learn_roster(self, session: Session, payload: bytes) -> None:
        try:
            statements = decode_statements(payload)
        except ValueError as error:
            raise RemoteProtocolError(f"The peer sent a malformed roster: {error}.") from error
        try:
            await self._membership.learn(statements)
        except RefusedError as error:
            # Some member filled it. Those who are in the group already go on with each other.
            if session not in self._overflowed:
                self._overflowed.add(session)
                _log.warning("roster device=%s problem=%s", short_device_id(session.peer), error)

    def _addresses_to_tell(self, peer: DeviceID) -> Iterable[tuple[DeviceID, str, int]]:
        """The best one of every member before the next of any, for a large group has more than a
        message takes."""
        # No host: the one at which the peer sees this device.
        if port := self._listen_port():
            yield self._own, "", port
        others = [device for device in self._membership.members if device != peer]
        worked = [self._book.last_worked(device, _ADDRESSES_TOLD) for device in others]
        for at in range(_ADDRESSES_TOLD):
            for device, known in zip(others, worked, strict=True):
                if at < len(known):
                    yield device, *known[at]

    async def _learn_addresses(self, session: Session, message: Addresses) -> None:
        own_host = session.link.remote_address.rpartition(":")[0].strip("[]")
        for device, host, port in message.known:
            told = DeviceID(device)
            if told == session.peer and not host:
                # Once: it is written to the disk and told to everyone.
                if session not in self._located:
                    self._located.add(session)
                    await self._learn_own_address(session, (own_host, port))
            elif told != self._own and is_believable(host, teller=own_host):
                self.hint(told, [(host, port)])

    async def _learn_own_address(self, session: Session, address: Address) -> None:
        """Where a peer that dialled us listens itself; the others may not know."""
        self.hint(session.peer, [address])
        await self._save_address(session.peer, address, None)
        known = Addresses(((session.peer, *address),))
        for other in self.sessions.values():
            if other is not session:
                other.post(known)
