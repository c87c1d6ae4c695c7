"""The index exchanges of one folder: one with each connected peer that it is shared with."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from p2psync.core.ids import DeviceID
from p2psync.engine.exchange import Exchange, ExchangeOwner
from p2psync.engine.session import Session
from p2psync.engine.supplier import Supplier, lacking
from p2psync.engine.swarm import Swarm
from p2psync.ports import FolderIndex
from p2psync.protocol.messages import (
    ChunkRequest,
    FolderDigest,
    FolderOffer,
    Holding,
    IndexAck,
    IndexBatch,
    ManifestRequest,
    Status,
)

IndexMessage = FolderOffer | IndexBatch | IndexAck | FolderDigest | Status
FolderMessage = IndexMessage | ManifestRequest | ChunkRequest | Holding

Compare = Callable[[Exchange, FolderDigest], Coroutine[Any, Any, None]]


class PeerNeed(NamedTuple):
    files: int
    bytes: int


class Exchanges:
    """Of use between `begin` and `end`; without effect otherwise."""

    def __init__(
        self,
        folder: str,
        index: FolderIndex,
        supplier: Supplier,
        swarm: Swarm,
        owner: ExchangeOwner,
        compare: Compare,
    ) -> None:
        self._folder = folder
        self._index = index
        self._supplier = supplier
        self._swarm = swarm
        self._owner = owner
        self._compare = compare
        self._group: asyncio.TaskGroup | None = None
        self._exchanges: dict[Session, Exchange] = {}
        self._sending: dict[Session, asyncio.Task[None]] = {}

    def begin(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def end(self) -> None:
        self._group = None
        for session in list(self._exchanges):
            self.detach(session)

    def all(self) -> list[Exchange]:
        return list(self._exchanges.values())

    def sessions(self) -> dict[DeviceID, Session]:
        return {session.peer: session for session in self._exchanges}

    @property
    def pending(self) -> bool:
        return any(exchange.pending for exchange in self._exchanges.values())

    def has_all_of(self, session: Session) -> bool:
        """Whether nothing of the peer's index is still to come, as far as it told."""
        exchange = self._exchanges.get(session)
        return exchange is not None and exchange.received >= exchange.theirs.sequence

    def recorded(self) -> None:
        """The index has new rows, or offers were settled: tell all peers."""
        for exchange in self._exchanges.values():
            exchange.recorded()

    def drop_sessions(self, reason: str) -> None:
        """All is to be exchanged anew; nothing that peers say in these sessions counts any more."""
        for session in self._exchanges:
            session.drop(reason)

    # --- sessions --------------------------------------------------------------------------

    async def attach(self, session: Session) -> None:
        """Begin with a session of a device that the folder is shared with."""
        if self._group is None or session in self._exchanges:
            return
        exchange = Exchange(self._folder, session, self._index, self._owner)
        work = self._send(exchange)
        try:
            # Ends when the session does or is detached, or with the folder's work.
            self._sending[session] = self._group.create_task(work)
        except RuntimeError:
            # That work is just ending, which is no fault of the session.
            work.close()
            return
        self._exchanges[session] = exchange
        # What the peer offers can be had again.
        session.caught_up.add(self._owner.offers_arrived)
        await exchange.offer()

    async def _send(self, exchange: Exchange) -> None:
        try:
            await exchange.run()
        except Exception as error:
            exchange.session.drop(str(error))

    def detach(self, session: Session) -> None:
        if self._exchanges.pop(session, None) is not None:
            self._swarm.forget(session.peer)
        session.caught_up.discard(self._owner.offers_arrived)
        if (task := self._sending.pop(session, None)) is not None:
            task.cancel()

    async def handle(self, session: Session, message: FolderMessage, payload: bytes) -> None:
        exchange = self._exchanges.get(session)
        if exchange is None:
            if isinstance(message, ChunkRequest | ManifestRequest):
                session.post(lacking(message))
            return
        match message:
            case ManifestRequest():
                session.answer(self._supplier.manifest(message))
            case ChunkRequest():
                session.answer(self._supplier.chunks(message, session.packing))
            case Holding():
                self._swarm.heard(session.peer, message, payload)
            case _:
                # An offer that came before the folder was added is handled beside the reader.
                async with exchange.turn:
                    if self._exchanges.get(session) is exchange:
                        await self._exchanged(exchange, message, payload)

    async def _exchanged(self, exchange: Exchange, message: IndexMessage, payload: bytes) -> None:
        match message:
            case FolderOffer():
                await exchange.on_offer(message)
            case IndexBatch():
                await exchange.on_batch(message, payload)
            case IndexAck():
                await exchange.on_ack(message)
            case FolderDigest():
                await self._compare(exchange, message)
            case Status():
                exchange.status = message

    # --- what peers hold -------------------------------------------------------------------

    async def participants(self, sharers: Iterable[DeviceID]) -> list[DeviceID]:
        """Those of `sharers` that take part, connected or not."""
        known = {exchange.peer for exchange in self._exchanges.values() if exchange.theirs.epoch}
        known.update(await self._index.participants())
        return [device for device in sharers if device in known]

    async def need_of(self, device: DeviceID) -> PeerNeed:
        """What the device has not yet said to hold of what is held here."""
        acknowledged = await self._index.acknowledged(device)
        after = acknowledged.sequence if acknowledged.epoch == self._index.epoch else 0
        if after >= self._index.sequence:
            return PeerNeed(0, 0)
        for exchange in self._exchanges.values():
            told = exchange.status
            if exchange.peer == device and told is not None and told.need_files:
                return PeerNeed(told.need_files, told.need_bytes)
        return PeerNeed(*await self._index.recorded_after(after))
