"""The directory tree of one folder, and who tells of changes in it."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple, Protocol

from p2psync.core.entry import Chunk, Entry, Fingerprint, Manifest
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.errors import P2psyncError
from p2psync.ports.index import Place


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


Known = Sequence[tuple[RelPath, Fingerprint]]
"""Paths in order, with the fingerprints under which they are known."""


class Walk(NamedTuple):
    """What a walk, or a part of one, found; in path order."""

    changed: list[Seen]
    missing: list[RelPath]
    """Known paths that are surely gone (their parent was listed without error)."""
    problems: list[Problem]


class Walking(Protocol):
    """A walk under way. Blocking; to be closed when it is not walked to its end."""

    is_behind: bool
    """Whether `go_on` stopped early because much had changed: then it is to be called again with
    the same arguments."""

    def go_on(self, known: Known, *, last: bool) -> Walk:
        """Walk to where the last of `known` is, or with `last` to the end: `known` has exactly the
        known paths from where the walk was up to there. Missing ones that cannot be judged yet are
        told with the last part."""

    def close(self) -> None:
        """Let go of what it holds, at once or as soon as `go_on` returns in another thread."""


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
    MOVE = "move"
    """Rename the file at `source` to the path, where nothing is; it may fail where PLACE would not,
    as between two file systems."""
    MAKE_DIRECTORY = "make directory"
    REMOVE = "remove"
    SET_METADATA = "set metadata"


class Step(NamedTuple):
    """One change of the disk. `expected` is what must be there for it to happen (None: nothing); of
    MOVE what must be at the source."""

    action: Action
    path: RelPath
    entry: Entry
    expected: Fingerprint | None
    staged: str = ""
    """Of PLACE for a file: the staging name."""
    source: RelPath | None = None
    """Of MOVE."""


class Whole(NamedTuple):
    """A file of which all bytes are at hand, to be staged under a name."""

    name: str
    data: bytes | memoryview
    entry: Entry


class StagedPlace(NamedTuple):
    """Where bytes lie in a staging file."""

    name: str
    offset: int
    size: int


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
    """Of what is there now, when DONE and not removed, or when it is not durable."""
    problem: Problem | None = None
    """When FAILED."""


class Disk(Protocol):
    """One folder's directory tree. Blocking and thread-safe; never follows a symlink, never
    leaves the root. All that touch the disk raise RootUnavailableError when the root is gone."""

    def check_root(self) -> None:
        """Raise RootUnavailableError unless the root is the directory that was added."""

    def walk(self, under: RelPath | None = None) -> Walking:
        """To compare the tree at and below `under` with what is known of it; reads no contents,
        each directory once, and makes one stat for each entry. Touches nothing before `go_on`."""

    def look(self, paths: Sequence[RelPath]) -> dict[RelPath, Seen | None]:
        """One stat each; None for what is surely not there. What cannot be looked at (no rights,
        a disk not mounted) is Seen with a racy fingerprint that equals no other."""

    def at_once(self) -> AbstractContextManager[None]:
        """A block in which this thread may read many files for the price of looking at the root
        and at their directories once. Not for changes."""

    def hash_file(self, path: RelPath, *, known: Manifest = (), fresh: bool = False) -> Hashed:
        """Chunk and hash a file; `known`: how it was cut before, which makes this faster; `fresh`:
        as it lies on the disk, whatever the system remembers of it. Raises FileChangedError,
        OSError."""

    def read(self, place: Place, *, fresh: bool = False) -> bytes:
        """Exactly `place.size` bytes, or FileChangedError."""

    def is_being_written(self, path: RelPath) -> bool | None:
        """Whether a program has the file open for writing: then its bytes may change before its
        times do. None where the system does not tell. Raises FileChangedError, OSError."""

    def stage_whole(self, files: Sequence[Whole]) -> None:
        """Write staging files at once, with the metadata that they are to be placed with. Names of
        staging files match [0-9a-z-]{1,80}."""

    def prepare(self, name: str, manifest: Manifest) -> list[bool]:
        """Make the staging file of these chunks if there is none of their size, with room for all
        but holes; which of them it has already (resume after a crash)."""

    def stage_pieces(self, name: str, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        """Write (offset, bytes) pieces into a staging file that was prepared; FileNotFoundError
        where it has gone since."""

    def stage_copy(
        self, name: str, offset: int, chunks: Sequence[Chunk], source: Place
    ) -> list[bool]:
        """Copy chunks that lie one after another at `source` to `offset` of a staging file that
        was prepared, sharing extents where the file system can. Which of them were right there:
        those are verified, and of the others nothing is to be thought of as staged. Raises
        FileNotFoundError as `stage_pieces` does."""

    def read_staged(self, place: StagedPlace) -> bytes:
        """Exactly `place.size` bytes. Raises OSError, as where the file has been placed since."""

    def unstage(self, names: Iterable[str]) -> None:
        """Drop staging files; missing ones are no error."""

    def staged_names(self) -> list[str]: ...
    def commit(self, steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        """Make all staged data durable, carry the steps out in order, make the directories
        durable; results in the same order. Displaced content goes to the trash, someone's edit
        stays in the tree. SET_METADATA gives a racy fingerprint: its mtime could hide an edit.
        `damaged`: what is displaced is kept in a place of its own, for people to look at."""

    def make_durable(self, paths: Sequence[RelPath]) -> None:
        """What is at these paths, and that it is there. Raises OSError when it may not be; of one
        path alone, only for its own sake."""

    def kind_of_problem(self, error: OSError, path: str) -> Problem:
        """The error as a sentence and a next step."""

    def prune_trash(self) -> None:
        """Bring the trash within its bounds, the oldest going first."""


class Watcher(Protocol):
    async def run(self) -> None:
        """Tell of paths that may have changed, until cancelled."""

    async def begun(self) -> None:
        """Wait until `run` tells of all that changes from now on, or cannot yet: who looks at
        everything then need not do so twice."""
