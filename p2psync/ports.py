"""The world as the engine sees it: the short list of interfaces that adapters satisfy.

Owned by the engine, their only user. `Disk` blocks and is called in worker threads; everything
that is `async` never blocks the event loop.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from p2psync.core.entry import Entry, Fingerprint, Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath
from p2psync.errors import P2psyncError

# --- clock and randomness ---------------------------------------------------------------------


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall-clock nanoseconds since 1970; may step either way."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Randomness(Protocol):
    def __call__(self, size: int, /) -> bytes:
        """`size` unpredictable bytes."""


# --- network ----------------------------------------------------------------------------------


class Link(Protocol):
    """An authenticated byte stream to one peer."""

    @property
    def peer(self) -> DeviceID: ...
    @property
    def remote_address(self) -> str:
        """ "HOST:PORT", for people and as a hint for later."""

    @property
    def bytes_received(self) -> int:
        """Off the network so far, encryption included."""

    @property
    def bytes_sent(self) -> int: ...
    async def receive(self) -> bytes | bytearray:
        """The next bytes; empty at a clean end. Raises P2psyncError or OSError when cut."""

    async def send(self, data: Sequence[bytes | memoryview]) -> None:
        """All of the buffers in order; waits while the peer is slow."""

    async def close(self) -> None: ...


Address = tuple[str, int]
"""Host (IP address or name; IPv6 without brackets) and TCP port."""


class DialRefusedError(P2psyncError):
    """One side does not accept the other; `str` says which and what to do."""


class Dialer(Protocol):
    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID,
        timeout: float,  # noqa: ASYNC109 - one bound for look-up, connection and handshake
    ) -> Link:
        """A link to that paired device, owned by the caller. Raises DialRefusedError when a side
        does not accept the other, another P2psyncError when no link came about."""


# --- what the device as a whole remembers -----------------------------------------------------


class RosterStore(Protocol):
    async def roster(self) -> bytes:
        """As last saved; empty when none ever was."""

    async def save_roster(self, body: bytes) -> None:
        """Durable on return."""


class AddressStore(Protocol):
    async def addresses(self) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
        """(host, port, when it last worked in ns) by device, the most promising first."""

    async def save_address(
        self, device: DeviceID, host: str, port: int, last_ok_ns: int | None
    ) -> None: ...


# --- index ------------------------------------------------------------------------------------


class Held(NamedTuple):
    """What is on this device's disk at a path, as of its last read or commit."""

    entry: Entry
    fingerprint: Fingerprint | None
    """None for tombstones."""
    sequence: int


class Row(NamedTuple):
    """A change of `held` to be recorded."""

    path: RelPath
    entry: Entry
    fingerprint: Fingerprint | None
    manifest: Manifest | None = None
    """Of a file of several chunks, where the store may not know it yet."""


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
    """Over wanted paths (tombstones count as files of no bytes)."""
    need_deletes: int
    conflicts: int
    """Live held entries with `copy_of`."""


class FolderIndex(Protocol):
    """The index of one folder. Each method that writes is one durable transaction."""

    @property
    def replica(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def sequence(self) -> int:
        """The highest sequence recorded; 0 for an empty index."""

    @property
    def counter(self) -> int:
        """The highest dot counter that `replica` has used."""

    async def held(self, paths: Sequence[RelPath]) -> dict[RelPath, Held]: ...
    async def held_under(self, directory: RelPath) -> list[tuple[RelPath, Held]]:
        """Live entries below `directory`, itself not included, in path order."""

    async def fingerprints(self, under: RelPath | None = None) -> dict[RelPath, Fingerprint]:
        """Of live entries at and below `under` (None: all)."""

    async def record(
        self, rows: Sequence[Row], *, settled: Sequence[tuple[RelPath, Offer]] = ()
    ) -> int:
        """Store `rows` under new sequences (in the order given), drop the settled offers; the new
        `sequence`. Advances `counter` to the highest own dot in `rows`.

        Exactly the offers given are dropped: what replaced one meanwhile stays.
        """

    async def refresh(self, fingerprints: Sequence[tuple[RelPath, Fingerprint]]) -> None:
        """Replace fingerprints of held paths; no new sequences."""

    async def entries_after(self, sequence: int, limit: int) -> list[tuple[int, RelPath, Entry]]:
        """In order of sequence."""

    async def receive(
        self,
        peer: DeviceID,
        cursor: Cursor,
        offers: Sequence[tuple[int, RelPath, Entry]],
        *,
        seen: Sequence[RelPath] = (),
    ) -> None:
        """Store a peer's new offers (each replaces its earlier one for that path), drop its
        offers for the paths in `seen`, advance its cursor."""

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
    async def drop_tombstones(self, sequence: int) -> int:
        """Remove tombstones recorded at or before `sequence`, unless offers exist for the path."""

    async def find_contents(self, contents: Sequence[bytes]) -> dict[bytes, list[RelPath]]:
        """Live held files with these content ids (at most 4 paths for each)."""

    async def find_chunks(self, digests: Sequence[Digest]) -> dict[Digest, list[Place]]:
        """Where the chunks lie in live held files, small files' only chunks included."""

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
        """Draw a new replica id and epoch and set `counter` to 0: the index was rolled back."""

    async def close(self) -> None: ...


# --- disk -------------------------------------------------------------------------------------


class RootUnavailableError(P2psyncError):
    """The folder's directory is missing, replaced, or not the one that was added."""


class Seen(NamedTuple):
    """A path that a walk found to differ from its known fingerprint."""

    path: RelPath
    fingerprint: Fingerprint
    target: bytes = b""
    """Of a symlink."""


class Problem(NamedTuple):
    path: str
    """As people should see it; undecodable bytes are escaped."""
    reason: str
    next_step: str


class Walk(NamedTuple):
    changed: list[Seen]
    missing: list[RelPath]
    """Known paths that are surely gone (their parent was listed without error)."""
    problems: list[Problem]


class Hashed(NamedTuple):
    content: Digest
    manifest: Manifest | None
    fingerprint: Fingerprint
    """Of the very object that was read, unchanged from before to after."""


class FileChangedError(P2psyncError):
    """The file changed, vanished or was replaced while it was read; look again later."""


class Action(Enum):
    PLACE = "place"
    """Put a staged file or a symlink at the path."""
    MAKE_DIRECTORY = "make directory"
    REMOVE = "remove"
    SET_METADATA = "set metadata"


class Step(NamedTuple):
    """One change of the disk. `expected` is what must be there for it to happen (None: nothing)."""

    action: Action
    path: RelPath
    entry: Entry
    expected: Fingerprint | None
    staged: str = ""
    """Of PLACE for a file: the staging name."""


class Outcome(Enum):
    DONE = "done"
    CHANGED = "changed"
    """Something else was there: nothing was changed, scan the path."""
    NOT_EMPTY = "not empty"
    """A directory still holds children; nothing was changed."""
    NO_PARENT = "no parent"
    """A directory above is missing or is not a directory."""
    FAILED = "failed"


class Result(NamedTuple):
    step: Step
    outcome: Outcome
    fingerprint: Fingerprint | None = None
    """Of what is there now, when DONE and not removed."""
    problem: Problem | None = None
    """When FAILED."""


class Disk(Protocol):
    """One folder's directory tree. Blocking and thread-safe; never follows a symlink, never
    leaves the root. Methods but `open_root` raise RootUnavailableError when the root is gone."""

    def check_root(self) -> None:
        """Raise RootUnavailableError unless the root is the directory that was added."""

    def walk(self, known: Mapping[RelPath, Fingerprint], under: RelPath | None = None) -> Walk:
        """Compare the tree at and below `under` with what is known of it; reads no contents.
        `known` has exactly the known paths at and below `under`."""

    def look(self, paths: Sequence[RelPath]) -> dict[RelPath, Seen | None]:
        """One stat each; None for what is not there."""

    def hash_file(self, path: RelPath) -> Hashed:
        """Chunk and hash a file. Raises FileChangedError, OSError."""

    def read(self, place: Place) -> bytes:
        """Exactly `place.size` bytes, or FileChangedError."""

    def stage(self, files: Sequence[tuple[str, int, Sequence[tuple[int, bytes]]]]) -> None:
        """Write (offset, bytes) pieces into staging files (name, final size, pieces), made and
        sized on first use. Names match [0-9a-z-]{1,80}."""

    def stage_copy(self, name: str, size: int, offset: int, source: Place) -> bool:
        """Copy bytes of a local file into a staging file, sharing extents where the file system
        can; False when the source no longer has them all. Contents are not verified."""

    def staged_chunks(self, name: str, manifest: Manifest) -> list[bool]:
        """Which chunks of a staging file already have the right bytes (resume after a crash)."""

    def unstage(self, names: Iterable[str]) -> None:
        """Drop staging files; missing ones are no error."""

    def staged_names(self) -> list[str]: ...
    def commit(self, steps: Sequence[Step]) -> list[Result]:
        """Make all staged data durable, carry the steps out in order, make the directories
        durable; results in the same order. Displaced content goes to the trash."""

    def kind_of_problem(self, error: OSError, path: str) -> Problem:
        """The error as a sentence and a next step."""

    def prune_trash(self) -> None:
        """Bring the trash within its bounds, the oldest going first."""


class Watcher(Protocol):
    async def run(self) -> None:
        """Tell of paths that may have changed, until cancelled."""
