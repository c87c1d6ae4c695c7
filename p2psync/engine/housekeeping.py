"""What a folder does now and then: forget what nobody needs, and notice drift between peers."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.engine.exchange import Exchange
from p2psync.errors import P2psyncError
from p2psync.ports import Disk, FolderIndex
from p2psync.protocol.messages import FolderDigest

_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class Housekeeping:
    def __init__(
        self,
        folder: str,
        index: FolderIndex,
        disk: Disk,
        turn: asyncio.Lock,
        *,
        is_at_rest: Callable[[], bool],
        exchanges: Callable[[], Iterable[Exchange]],
    ) -> None:
        self._folder = folder
        self._index = index
        self._disk = disk
        self._turn = turn
        self._is_at_rest = is_at_rest
        self._exchanges = exchanges
        self._told: tuple[int, ...] = ()
        """Sequences at which a digest was last sent."""
        self._made: tuple[int, bytes] | None = None
        """The last digest and its sequence. To make one reads the whole index, and every peer
        tells its own for a change that came to all."""
        self._making = asyncio.Lock()

    async def run(self, members: Callable[[], Iterable[DeviceID]]) -> None:
        """Until cancelled. `members` are all who may hold the folder, connected or not."""
        while True:
            try:
                await asyncio.to_thread(self._disk.prune_trash)
                await self._drop_tombstones(members)
                await self._index.collect_garbage()
                if self._is_at_rest():
                    await self._clean_staging()
                    await self._tell_digest()
            except (P2psyncError, OSError) as error:
                # The scan tells people.
                _log.debug("housekeeping put off reason=%s", error)
            await asyncio.sleep(_EVERY_S)

    async def _drop_tombstones(self, members: Callable[[], Iterable[DeviceID]]) -> None:
        """Those that all acknowledged: whoever did not would bring the deleted file back. While
        something is wanted here none: of a conflict that is not settled yet, the copy that somebody
        deleted would be made again."""
        if (await self._index.counts()).need_files == 0:
            # Nothing may come between: a device that is let in now may go on from what it knew.
            await self._index.drop_tombstones(list(members()))

    async def _clean_staging(self) -> None:
        async with self._turn:
            if self._is_at_rest() and not (await self._index.counts()).need_files:
                names = await asyncio.to_thread(self._disk.staged_names)
                await asyncio.to_thread(self._disk.unstage, names)

    async def _tell_digest(self) -> None:
        # Of this moment: what comes while the digest is made is not in it.
        received = [(each, each.received) for each in self._exchanges()]
        now = (self._index.sequence, *(sequence for _, sequence in received))
        # It takes reading the whole index.
        if not received or now == self._told:
            return
        digest = await self._digest()
        if digest is None or now[0] != self._index.sequence:
            return
        self._told = now
        for exchange, sequence in received:
            exchange.session.post(FolderDigest(self._folder, now[0], sequence, digest))

    async def compare(self, exchange: Exchange, told: FolderDigest) -> None:
        """Two devices at rest that know each other's whole index hold the same; if not, the whole
        index is exchanged anew."""
        if not self._is_of_now(told, exchange):
            return
        digest = await self._digest()
        if digest is None or digest == told.digest or not self._is_of_now(told, exchange):
            return
        _log.warning(
            "drift found folder=%s device=%s", self._folder, short_device_id(exchange.peer)
        )
        await self._index.reset_peer(exchange.peer)
        # The next session begins with all of the peer's index.
        exchange.session.drop("The indexes have drifted apart and are exchanged anew.")

    def _is_of_now(self, told: FolderDigest, exchange: Exchange) -> bool:
        return (told.sequence, told.received) == (exchange.received, self._index.sequence)

    async def _digest(self) -> bytes | None:
        """Of all that is held here at the present sequence; None while that is not all that is
        wanted."""
        async with self._making:
            if not self._is_at_rest() or (await self._index.counts()).need_files:
                return None
            sequence = self._index.sequence
            if self._made is None or self._made[0] != sequence:
                self._made = (sequence, await self._index.digest())
            return self._made[1] if sequence == self._index.sequence else None
