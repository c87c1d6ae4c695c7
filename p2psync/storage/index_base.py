"""What the parts of an index share: its state in memory, and transactions that keep it true."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from p2psync.core.relpath import RelPath
from p2psync.ports import Counts
from p2psync.storage.database import Database, transaction
from p2psync.storage.totals import measure, shifted

T = TypeVar("T")


class State(NamedTuple):
    """What of the committed index is kept in memory; replaced as a whole after each commit."""

    replica: int
    epoch: int
    sequence: int
    counter: int
    forgotten: int
    counts: Counts
    gaps: tuple[tuple[int, int], ...]
    """Between the two numbers of each, `sequence` leapt at a start."""


class IndexBase:
    """Who an index is, and one transaction for each change of it."""

    def __init__(
        self,
        database: Database,
        state: State,
        *,
        randomness: Callable[[int], bytes],
        recovered: str | None,
    ) -> None:
        self._database = database
        self._state = state
        self._randomness = randomness
        self._unreferenced: set[bytes] = set()
        self._changes_when_clean = -1
        """The connection's count of changes when all manifests were last seen to be named."""
        self.recovered = recovered
        """A sentence for people when the index was found damaged and begun anew."""

    @property
    def replica(self) -> int:
        return self._state.replica

    @property
    def epoch(self) -> int:
        return self._state.epoch

    @property
    def sequence(self) -> int:
        return self._state.sequence

    @property
    def counter(self) -> int:
        return self._state.counter

    @property
    def forgotten(self) -> int:
        """The highest sequence of a tombstone that was dropped; 0 if none was."""
        return self._state.forgotten

    def has_reached(self, sequence: int) -> bool:
        return sequence <= self.sequence and not any(
            low < sequence < high for low, high in self._state.gaps
        )

    async def close(self) -> None:
        await self._database.close()

    async def _change(self, change: Callable[[sqlite3.Connection], State]) -> State:
        """Run `change` as one transaction; its result is the index's state once it is stored."""

        def work(connection: sqlite3.Connection) -> State:
            with transaction(connection):
                state = change(connection)
            # Here and not after the await: a caller who is cancelled must not leave the old
            # sequence and counter to be used again.
            self._state = state
            return state

        return await self._database.run(work)

    async def _change_offers(
        self, paths: Iterable[RelPath], change: Callable[[sqlite3.Connection], None]
    ) -> None:
        """As `_change`, for what leaves the state alone but for the counts of offers at `paths`."""
        touched = set(paths)

        def counted(connection: sqlite3.Connection) -> State:
            before = measure(connection, held=(), wanted=touched)
            change(connection)
            after = measure(connection, held=(), wanted=touched)
            counts = shifted(self._state.counts, before=before, after=after)
            return self._state._replace(counts=counts)

        await self._change(counted)

    async def _write(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Run `write` as one transaction that leaves the state alone."""

        def work(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return write(connection)

        return await self._database.run(work)
