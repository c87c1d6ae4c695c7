"""The index of one folder."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from p2psync.core.entry import Entry, Fingerprint, Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath


class Held(NamedTuple):
    """What is on this device's disk at a path, as of its last read or commit."""

    entry: Entry
    fingerprint: Fingerprint | None
    """None for tombstones."""
    sequence: int
    damage: bytes | None = None
    """Where the bytes at the path are not the entry's though nobody wrote to it: the content id of
    what they are, empty where they cannot be read. None: all is well, as far as is known."""


class Row(NamedTuple):
    """A change of `held` to be recorded."""

    path: RelPath
    entry: Entry
    fingerprint: Fingerprint | None
    manifest: Manifest | None = None
    """Of a file of several chunks, where the store may not know it yet."""
    damage: bytes | None = None
    """As in `Held`."""


class Offer(NamedTuple):
    """A version that a peer holds and that this device has not settled yet."""

    peer: DeviceID
    sequence: int
    entry: Entry


class Wanted(NamedTuple):
    path: RelPath
    held: Held | None
    offers: tuple[Offer, ...]
    place: tuple[int, ...] = ()
    """Where the path stands in the order of `FolderIndex.wanted`."""
    stamp: int = 0
    """Another one whenever an offer was added to the path's or replaced among them."""


class Cursor(NamedTuple):
    """How far one device's index is known to another."""

    epoch: int
    sequence: int


class Place(NamedTuple):
    """Where some bytes lie on this disk, as the index believes."""

    path: RelPath
    offset: int
    size: int


class Counts(NamedTuple):
    files: int
    bytes: int
    """Over live files held."""
    need_files: int
    need_bytes: int
    """Over wanted paths (tombstones count as files of no bytes), and damaged ones."""
    need_deletes: int
    conflicts: int
    """Live held entries with `copy_of`."""
    damaged: int = 0
    """Held files whose bytes are lost here."""


class Damage(NamedTuple):
    """To be noted of a held file."""

    path: RelPath
    fingerprint: Fingerprint
    """Of the damaged file."""
    found: bytes
    """As `Held.damage`."""


class Finding(NamedTuple):
    """That a file was found damaged."""

    path: RelPath
    found_ns: int
    is_damaged: bool
    """Still."""


class Scrub(NamedTuple):
    """How far the reading of all held files has come, or what the last one came to."""

    begun_ns: int = 0
    """0: there was none yet."""
    finished_ns: int = 0
    """0: it is not finished."""
    position: str = ""
    """The last path that was read."""
    files: int = 0
    bytes: int = 0
    damaged: int = 0
    """How many were found so."""


class FolderIndex(Protocol):
    """The index of one folder. Each method that writes is one durable transaction."""

    @property
    def replica(self) -> int:
        """Another one each time that the index is opened, or renewed."""

    @property
    def epoch(self) -> int: ...
    @property
    def sequence(self) -> int:
        """The highest sequence recorded; 0 for an empty index."""

    def has_reached(self, sequence: int) -> bool:
        """Whether `sequence` ever stood there in this epoch. If not, and a peer says it did, then
        the index was put back to an earlier state since."""

    @property
    def counter(self) -> int:
        """The highest dot counter that `replica` has used."""

    async def held(self, paths: Sequence[RelPath]) -> dict[RelPath, Held]: ...
    async def held_under(self, directory: RelPath) -> list[tuple[RelPath, Held]]:
        """Live entries below `directory`, itself not included, in path order."""

    async def fingerprints(
        self, under: RelPath | None = None, *, after: str = "", limit: int
    ) -> list[tuple[RelPath, Fingerprint]]:
        """Of live entries at and below `under` (None: all), those that come after the path `after`,
        in path order."""

    async def files_after(self, path: str, limit: int) -> list[tuple[RelPath, Held]]:
        """Held files that come after `path` in path order."""

    async def record(
        self, rows: Sequence[Row], *, settled: Sequence[tuple[RelPath, Offer]] = ()
    ) -> int:
        """Store `rows` under new sequences (in the order given), drop the settled offers; the new
        `sequence`. Advances `counter` to the highest own dot in `rows`.

        Exactly the offers given are dropped: what replaced one meanwhile stays. Damage that was
        noted at a row's path is gone, unless the row says so itself.
        """

    async def note_underway(self, entries: Mapping[RelPath, Entry]) -> None:
        """Remember what is about to be put at these paths, until `record` or `refresh` tells what
        is there, or it is forgotten."""

    async def underway(self) -> dict[RelPath, Entry]:
        """What is remembered so."""

    async def forget_underway(self, paths: Iterable[RelPath]) -> None: ...
    async def refresh(self, fingerprints: Sequence[tuple[RelPath, Fingerprint]]) -> None:
        """Replace fingerprints of held paths; no new sequences, and damage stays."""

    async def mark_damaged(self, damages: Sequence[Damage], *, now_ns: int) -> None:
        """Note that held files are damaged; no new sequences."""

    async def damaged(self, limit: int, *, after: str = "") -> list[tuple[RelPath, Held]]:
        """The damaged files that come after that path, in path order."""

    async def findings(self) -> list[Finding]:
        """What was found damaged: what still is, then the rest, the newest first; bounded."""

    async def scrub(self) -> Scrub: ...
    async def save_scrub(self, scrub: Scrub) -> None: ...

    async def entries_after(self, sequence: int, limit: int) -> list[tuple[int, RelPath, Entry]]:
        """In order of sequence, damaged ones too: a deletion or joined vector that is told may rest
        on them."""

    async def receive(
        self,
        peer: DeviceID,
        cursor: Cursor,
        offers: Sequence[tuple[int, RelPath, Entry]],
        *,
        after: int,
        seen: Sequence[RelPath] = (),
    ) -> bool:
        """Store a peer's new offers (each replaces its earlier one for that path), drop its
        offers for the paths in `seen`, advance its cursor. Nothing of it, and False, where the
        cursor is of another epoch by now, does not reach `after`, or is beyond already; a peer of
        which nothing is known is at 0 of every epoch."""

    async def follow(self, peer: DeviceID, epoch: int) -> Cursor:
        """Where to go on with the peer's index of that epoch. What was received of another epoch,
        or all of it on a first meeting, is dropped and begun anew."""

    async def reset_peer(self, peer: DeviceID) -> None:
        """Drop the peer's offers and cursor, before a full exchange."""

    async def forget_peer(self, peer: DeviceID) -> None:
        """Drop all that is kept of a peer that left."""

    async def wanted(
        self,
        *,
        limit: int,
        tombstones: bool,
        after: tuple[int, ...] = (),
        skip: Mapping[RelPath, int] = MappingProxyType({}),
    ) -> list[Wanted]:
        """Unsettled paths, the shortest first: with `tombstones` False those with any live
        offer; True those with only tombstones offered, deepest first.

        Only those that stand in line after the place `after`, and not those in `skip` whose
        stamp is still the one given there.
        """

    async def wanted_at(self, paths: Sequence[RelPath]) -> dict[RelPath, Wanted]:
        """Those of the paths that have offers."""

    async def settle(self, settled: Sequence[tuple[RelPath, Offer]]) -> None:
        """Drop exactly these offers, that changed nothing."""

    async def cursor(self, peer: DeviceID) -> Cursor:
        """What has been received of the peer's index; (0, 0) for none."""

    async def applied(self, peer: DeviceID) -> int:
        """The peer's sequence up to which no offer of it is unsettled."""

    async def acknowledged(self, peer: DeviceID) -> Cursor:
        """The own epoch and sequence up to which the peer has applied our index."""

    async def set_acknowledged(self, peer: DeviceID, cursor: Cursor) -> None: ...
    async def resume(self, peer: DeviceID, known: Cursor) -> bool:
        """Whether the peer can go on from `known`, of the own epoch; what it acknowledged beyond,
        or before it began at 0, counts no more. False, and nothing, where tombstones were dropped
        since that it may not have heard of."""

    async def drop_tombstones(self, members: Collection[DeviceID]) -> int:
        """Remove the tombstones that all of `members` acknowledged, unless offers exist for the
        path; how many. A peer that has not acknowledged that much, being none of them, counts as
        having acknowledged nothing from then on."""

    async def find_contents(self, contents: Sequence[bytes]) -> dict[bytes, list[RelPath]]:
        """Live held files with these content ids (at most 4 paths for each), not damaged ones."""

    async def find_chunks(self, digests: Sequence[Digest]) -> dict[Digest, list[Place]]:
        """Where the chunks lie in live held files, small files' only chunks included. Of a
        damaged file of several most are still right, so it is told too, last."""

    async def manifest(self, content: bytes) -> Manifest | None: ...
    async def save_manifest(self, content: bytes, manifest: Manifest) -> None: ...
    async def counts(self) -> Counts: ...
    async def recorded_after(self, sequence: int) -> tuple[int, int]:
        """How many paths have a row after `sequence`, and the bytes of their files."""

    async def participants(self) -> list[DeviceID]:
        """Peers whose index was ever received, as far as they were not forgotten."""

    async def collect_garbage(self) -> int:
        """Drop what nothing names any more; how many. To be called minutes apart or more."""

    async def conflicts(self) -> list[tuple[RelPath, Held]]: ...
    async def digest(self) -> bytes:
        """32 bytes equal on two devices that hold equal live entries (path, kind, content,
        executable)."""

    async def renew_replica(self) -> None:
        """Draw a new replica id and epoch, set `counter` to 0, drop all offers and begin anew with
        every peer's index: this one was rolled back, so what it knows of them was too."""

    async def close(self) -> None: ...
