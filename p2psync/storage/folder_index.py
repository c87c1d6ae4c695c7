"""The index of one folder in one SQLite file: what is held, what is wanted and from whom."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from p2psync import failpoints
from p2psync.core.entry import Entry, Fingerprint, Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath
from p2psync.errors import DamagedError
from p2psync.ports import (
    Counts,
    Cursor,
    Damage,
    Finding,
    Held,
    Offer,
    Place,
    Row,
    Scrub,
    Wanted,
)
from p2psync.storage import contents as places
from p2psync.storage import damage, tombstones
from p2psync.storage import held as table
from p2psync.storage import offers as peers
from p2psync.storage.database import (
    Database,
    is_marked,
    open_database,
    set_aside,
    shrink,
    transaction,
)
from p2psync.storage.index_base import IndexBase, State
from p2psync.storage.schema import FOLDER_MIGRATIONS
from p2psync.storage.totals import measure, shifted


class SqliteFolderIndex(IndexBase):
    """`ports.FolderIndex`; `open_folder_index` makes it."""

    # --- what is held -------------------------------------------------------------------------

    async def held(self, paths: Sequence[RelPath]) -> dict[RelPath, Held]:
        return await self._database.run(lambda connection: table.held_at(connection, paths))

    async def held_under(self, directory: RelPath) -> list[tuple[RelPath, Held]]:
        return await self._database.run(lambda connection: table.held_under(connection, directory))

    async def conflicts(self) -> list[tuple[RelPath, Held]]:
        return await self._database.run(table.held_copies)

    async def fingerprints(
        self, under: RelPath | None = None, *, after: str = "", limit: int
    ) -> list[tuple[RelPath, Fingerprint]]:
        return await self._database.run(
            lambda connection: table.load_fingerprints(connection, under, after, limit)
        )

    async def files_after(self, path: str, limit: int) -> list[tuple[RelPath, Held]]:
        return await self._database.run(
            lambda connection: table.files_after(connection, path, limit)
        )

    async def entries_after(self, sequence: int, limit: int) -> list[tuple[int, RelPath, Entry]]:
        return await self._database.run(
            lambda connection: table.entries_after(connection, sequence, limit)
        )

    async def counts(self) -> Counts:
        return self._state.counts

    async def recorded_after(self, sequence: int) -> tuple[int, int]:
        return await self._database.run(
            lambda connection: table.recorded_after(connection, sequence)
        )

    async def participants(self) -> list[DeviceID]:
        return await self._database.run(peers.load_participants)

    async def digest(self) -> bytes:
        return await self._database.run(table.digest_of_live)

    async def record(
        self, rows: Sequence[Row], *, settled: Sequence[tuple[RelPath, Offer]] = ()
    ) -> int:
        recorded = {row.path for row in rows}
        offered = {path for path, _ in settled}

        def change(connection: sqlite3.Connection) -> State:
            state = self._state
            before = measure(connection, held=recorded, wanted=offered)
            table.store_rows(connection, rows, start=state.sequence + 1)
            table.drop_underway(connection, recorded)
            damage.store_moved(connection, [row.path for row in rows if row.damage is not None])
            for row in rows:
                self._unreferenced.discard(row.entry.content)
                if row.manifest is not None:
                    places.store_manifest(connection, row.entry.content, row.manifest)
            peers.drop_offers(connection, settled)
            after = measure(connection, held=recorded, wanted=offered)
            sequence = state.sequence + len(rows)
            counter = max([state.counter, *table.counters_of(state.replica, rows)])
            _store_meta(connection, sequence=sequence, counter=counter)
            failpoints.reach("index.before-recording")
            counts = shifted(state.counts, before=before, after=after)
            return state._replace(sequence=sequence, counter=counter, counts=counts)

        sequence = (await self._change(change)).sequence
        failpoints.reach("index.after-recording")
        return sequence

    async def note_underway(self, entries: Mapping[RelPath, Entry]) -> None:
        await self._write(lambda connection: table.store_underway(connection, entries))

    async def forget_underway(self, paths: Iterable[RelPath]) -> None:
        await self._write(lambda connection: table.drop_underway(connection, paths))

    async def underway(self) -> dict[RelPath, Entry]:
        return await self._database.run(table.load_underway)

    async def refresh(self, fingerprints: Sequence[tuple[RelPath, Fingerprint]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            table.store_fingerprints(connection, fingerprints)
            table.drop_underway(connection, (path for path, _ in fingerprints))

        await self._write(write)

    async def mark_damaged(self, damages: Sequence[Damage], *, now_ns: int) -> None:
        paths = {each.path for each in damages}

        def change(connection: sqlite3.Connection) -> State:
            before = measure(connection, held=paths, wanted=())
            damage.store_damages(connection, damages, now_ns=now_ns)
            after = measure(connection, held=paths, wanted=())
            counts = shifted(self._state.counts, before=before, after=after)
            return self._state._replace(counts=counts)

        await self._change(change)

    async def damaged(self, limit: int, *, after: str = "") -> list[tuple[RelPath, Held]]:
        return await self._database.run(
            lambda connection: damage.load_damaged(connection, limit, after)
        )

    async def findings(self) -> list[Finding]:
        return await self._database.run(damage.load_findings)

    async def scrub(self) -> Scrub:
        return await self._database.run(damage.load_scrub)

    async def save_scrub(self, scrub: Scrub) -> None:
        await self._write(lambda connection: damage.store_scrub(connection, scrub))

    async def drop_tombstones(self, members: Collection[DeviceID]) -> int:
        dropped: list[int] = []

        def change(connection: sqlite3.Connection) -> State:
            nonlocal dropped
            dropped = tombstones.drop(connection, members, self._state.epoch)
            if not dropped:
                return self._state
            forgotten = max(self._state.forgotten, *dropped)
            _store_meta(connection, forgotten=forgotten)
            return self._state._replace(forgotten=forgotten)

        await self._change(change)
        return len(dropped)

    async def renew_replica(self) -> None:
        def change(connection: sqlite3.Connection) -> State:
            state = self._state._replace(
                replica=_draw(self._randomness), epoch=_draw(self._randomness), counter=0, gaps=()
            )
            connection.execute("DELETE FROM gaps")
            connection.execute("DELETE FROM underway")
            _store_meta(connection, replica=state.replica, epoch=state.epoch, counter=0)
            # A peer may have offered something since that this device held and acknowledged, and
            # have forgotten its deletion: such an offer would never be replaced or settled.
            peers.begin_anew(connection)
            failpoints.reach("index.before-renewing")
            return state._replace(counts=measure(connection, held=None, wanted=None))

        await self._change(change)
        failpoints.reach("index.after-renewing")

    # --- peers and what they offer ------------------------------------------------------------

    async def receive(
        self,
        peer: DeviceID,
        cursor: Cursor,
        offers: Sequence[tuple[int, RelPath, Entry]],
        *,
        after: int,
        seen: Sequence[RelPath] = (),
    ) -> bool:
        joined = False

        def change(connection: sqlite3.Connection) -> None:
            nonlocal joined
            joined = peers.receive(connection, peer, cursor, offers, seen=seen, after=after)
            failpoints.reach("index.before-receiving")

        await self._change_offers([*seen, *(path for _, path, _ in offers)], change)
        failpoints.reach("index.after-receiving")
        return joined

    async def settle(self, settled: Sequence[tuple[RelPath, Offer]]) -> None:
        await self._change_offers(
            (path for path, _ in settled),
            lambda connection: peers.drop_offers(connection, settled),
        )

    async def wanted(
        self,
        *,
        limit: int,
        tombstones: bool,
        after: tuple[int, ...] = (),
        skip: Mapping[RelPath, int] = MappingProxyType({}),
    ) -> list[Wanted]:
        skipped = dict(skip)
        return await self._database.run(
            lambda connection: peers.choose_wanted(
                connection, limit=limit, tombstones=tombstones, after=after, skip=skipped
            )
        )

    async def wanted_at(self, paths: Sequence[RelPath]) -> dict[RelPath, Wanted]:
        return await self._database.run(lambda connection: peers.wanted_at(connection, paths))

    async def follow(self, peer: DeviceID, epoch: int) -> Cursor:
        cursor = Cursor(epoch, 0)

        def change(connection: sqlite3.Connection) -> State:
            nonlocal cursor
            known = peers.load_cursor(connection, peer)
            if known.epoch != epoch:
                return self._begin_with(connection, peer, cursor)
            cursor = known
            return self._state

        await self._change(change)
        return cursor

    async def reset_peer(self, peer: DeviceID) -> None:
        await self._change(lambda connection: self._begin_with(connection, peer, Cursor(0, 0)))

    def _begin_with(self, connection: sqlite3.Connection, peer: DeviceID, cursor: Cursor) -> State:
        peers.drop_all_offers(connection, peer)
        peers.store_cursor(connection, peer, cursor)
        return self._state._replace(counts=measure(connection, held=None, wanted=None))

    async def forget_peer(self, peer: DeviceID) -> None:
        def change(connection: sqlite3.Connection) -> State:
            peers.drop_peer(connection, peer)
            return self._state._replace(counts=measure(connection, held=None, wanted=None))

        await self._change(change)

    async def cursor(self, peer: DeviceID) -> Cursor:
        return await self._database.run(lambda connection: peers.load_cursor(connection, peer))

    async def applied(self, peer: DeviceID) -> int:
        return await self._database.run(lambda connection: peers.applied_sequence(connection, peer))

    async def acknowledged(self, peer: DeviceID) -> Cursor:
        return await self._database.run(
            lambda connection: peers.load_acknowledged(connection, peer)
        )

    async def set_acknowledged(self, peer: DeviceID, cursor: Cursor) -> None:
        await self._write(lambda connection: peers.store_acknowledged(connection, peer, cursor))

    async def resume(self, peer: DeviceID, known: Cursor) -> bool:
        return await self._write(
            lambda connection: tombstones.resume(connection, peer, known, self.forgotten)
        )

    # --- contents -------------------------------------------------------------------------------

    async def find_contents(self, contents: Sequence[bytes]) -> dict[bytes, list[RelPath]]:
        return await self._database.run(
            lambda connection: places.find_contents(connection, contents)
        )

    async def find_chunks(self, digests: Sequence[Digest]) -> dict[Digest, list[Place]]:
        return await self._database.run(lambda connection: places.find_chunks(connection, digests))

    async def manifest(self, content: bytes) -> Manifest | None:
        def read(connection: sqlite3.Connection) -> Manifest | None:
            self._unreferenced.discard(content)
            return places.load_manifest(connection, content)

        return await self._database.run(read)

    async def save_manifest(self, content: bytes, manifest: Manifest) -> None:
        def write(connection: sqlite3.Connection) -> None:
            self._unreferenced.discard(content)
            places.store_manifest(connection, content, manifest)

        await self._write(write)

    async def collect_garbage(self) -> int:
        """Drop the manifests that no live held file and no offer named, neither now nor at the
        call before; how many. To be called now and then, minutes apart or more.

        The grace is for those who have just looked a manifest up and are about to record a file
        under it, as after a rename, when for a moment nothing names it.
        """

        def write(connection: sqlite3.Connection) -> int:
            if connection.total_changes == self._changes_when_clean:
                return 0
            unreferenced = places.unreferenced_manifests(connection)
            doomed = unreferenced & self._unreferenced
            for content in doomed:
                places.drop_manifest(connection, content)
            self._unreferenced = unreferenced - doomed
            self._changes_when_clean = -1 if unreferenced else connection.total_changes
            return len(doomed)

        dropped = await self._write(write)
        await self._database.run(shrink)
        return dropped


async def open_folder_index(
    path: Path, *, randomness: Callable[[int], bytes], now_ns: int = 0
) -> SqliteFolderIndex:
    """Open or create the index in the file `path`.

    Its replica is a new one. Sequences and counters go on from at least `now_ns` in microseconds. A
    file that was put back from a backup knows nothing of the numbers given out since, and its peers
    do: to use one again would hide from them whatever it now stands for.
    A damaged file is renamed aside and a new index begun; `recovered` then says so. Raises
    ConfigError when a newer p2psync wrote the file, StorageError.
    """
    recovered = None
    try:
        database, state = await _open(path, randomness, now_ns)
    except DamagedError:
        aside = await asyncio.to_thread(set_aside, path)
        recovered = (
            f"The index {path} was damaged and is being rebuilt from the files; none of them was "
            f"touched. The damaged index is kept as {aside.name}; check the disk it was on."
        )
        database, state = await _open(path, randomness, now_ns)
    return SqliteFolderIndex(database, state, randomness=randomness, recovered=recovered)


async def _open(
    path: Path, randomness: Callable[[int], bytes], now_ns: int
) -> tuple[Database, State]:
    def load(connection: sqlite3.Connection) -> State:
        with transaction(connection):
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            if not meta:
                meta = {"epoch": _draw(randomness), "sequence": 0, "counter": 0, "forgotten": 0}
            meta = _in_new_life(meta, randomness)
            least = now_ns // 1000
            if least > meta["sequence"]:
                connection.execute("INSERT INTO gaps VALUES (?, ?)", (meta["sequence"], least))
                meta["sequence"] = least
            meta["counter"] = max(meta["counter"], least)
            _store_meta(connection, **meta)
        gaps = tuple(connection.execute("SELECT low, high FROM gaps"))
        counts = measure(connection, held=None, wanted=None)
        return State(**meta, counts=counts, gaps=gaps)

    if await asyncio.to_thread(is_marked, path):
        raise DamagedError(f"{path} was found damaged when it was last used.")
    database = await open_database(path, FOLDER_MIGRATIONS)
    try:
        return database, await database.run(load)
    except BaseException:
        await database.close()
        raise


def _in_new_life(meta: dict[str, int], randomness: Callable[[int], bytes]) -> dict[str, int]:
    """With another replica. The file, and the folder with it, may be from an earlier time: then
    what is written from now on has not seen what was written since under the old one."""
    return {**meta, "replica": _draw(randomness)}


def _draw(randomness: Callable[[int], bytes]) -> int:
    """A random number that is not zero and fits SQLite's signed 64 bits."""
    return int.from_bytes(randomness(8), "big") >> 1 or 1


def _store_meta(connection: sqlite3.Connection, **values: int) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
