"""Removes conflict copies of what the path still shows.

They come about where one side of a conflict is deleted or replaced while others settle it: the
losing content is kept as a copy, and then wins after all. The device that wrote it takes the copy
away, once every device that may take part holds the path as it is here: whoever writes there after
that has seen the content, so no later conflict needs that copy.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from p2psync.core.entry import Entry
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath
from p2psync.engine.exchange import Exchange
from p2psync.ports import Action, Disk, FolderIndex, Held, Outcome, Step


class Others(Protocol):
    """What is to be known of those that hold the folder too."""

    def exchanges(self) -> Sequence[Exchange]: ...

    def sharers(self) -> Sequence[DeviceID]:
        """The members that may take part, connected or not."""


class Twins:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        turn: asyncio.Lock,
        others: Others,
        *,
        look_at: Callable[[Iterable[RelPath]], None],
    ) -> None:
        """`look_at` is told the paths where the scan is to look."""
        self._index = index
        self._disk = disk
        self._turn = turn
        self._others = others
        self._look_at = look_at
        self._looked_at = -1
        self.found: dict[RelPath, Held] = {}
        """As of the last look."""
        self._refused: dict[RelPath, Held] = {}
        """Copies that the disk would not let go of."""

    async def are_due(self) -> bool:
        """Whether there are any that can go as soon as everybody has caught up."""
        return bool(await self._find()) and self._are_all_connected()

    async def remove(self) -> None:
        """Those that are due, if all devices hold the same. Raises RootUnavailableError,
        OSError."""
        if not await self.are_due():
            return
        async with self._turn:
            found = await self._find()
            if (await self._index.counts()).need_files or not self._is_all_known():
                return
            # Of what may have been edited in the very tick of its last read the disk could not
            # tell: it is read again first.
            steps = [
                Step(Action.REMOVE, path, held.entry, mark)
                for path, held in found.items()
                if (mark := held.fingerprint) is not None and not mark.racy
            ]
            results = await asyncio.to_thread(self._disk.commit, steps)
        for result in results:
            if result.outcome is not Outcome.DONE:
                self._refused[result.step.path] = found[result.step.path]
                self._looked_at = -1
        # The scan records it as if by hand, and finds what kept any from being removed.
        self._look_at(found)

    def _are_all_connected(self) -> bool:
        connected = {exchange.peer for exchange in self._others.exchanges()}
        return connected.issuperset(self._others.sharers())

    def _is_all_known(self) -> bool:
        return self._are_all_connected() and all(
            exchange.peer_knew_all and not (exchange.status and exchange.status.need_files)
            for exchange in self._others.exchanges()
        )

    async def _find(self) -> dict[RelPath, Held]:
        sequence = self._index.sequence
        if self._looked_at != sequence:
            found = await self._look()
            self.found = {
                path: held for path, held in found.items() if self._refused.get(path) != held
            }
            self._looked_at = sequence
        return self.found

    async def _look(self) -> dict[RelPath, Held]:
        if not (await self._index.counts()).conflicts:
            return {}
        own = {
            path: held
            for path, held in await self._index.conflicts()
            if held.entry.version.origin.replica == self._index.replica
        }
        originals = await self._index.held([RelPath(held.entry.copy_of) for held in own.values()])
        return {
            path: held
            for path, held in own.items()
            if (original := originals.get(RelPath(held.entry.copy_of))) is not None
            and _are_twins(original, held)
        }


def _are_twins(original: Held, copy: Held) -> bool:
    return (
        original.damage is None
        and original.entry.is_live
        and original.entry.same_content(copy.entry)
        and original.entry.version.origin == copy.entry.version.origin
        and _is_untouched(copy.entry)
    )


def _is_untouched(copy: Entry) -> bool:
    """Whether nobody has had it in hand since it was made."""
    return copy.version.dot == copy.version.origin
