"""What an index knows of one path, and what a disk showed of it."""

from enum import IntEnum
from typing import NamedTuple

import msgspec

from p2psync.core.ids import Digest
from p2psync.core.version import Version

SINGLE_CHUNK_MAX = 256 * 1024
"""Files up to this size (bytes) are one chunk, and their content id is that chunk's digest."""

MAX_FILE_SIZE = 1 << 50


class Kind(IntEnum):
    """What a path shows. The numbers go to disk and wire."""

    TOMBSTONE = 0
    SYMLINK = 1
    FILE = 2
    DIRECTORY = 3


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of one path.

    `content` is the content id of a file (32 bytes), the target of a symlink (as stored on disk),
    and empty otherwise. `size`, `mtime_ns` and `executable` are a file's and zero otherwise.
    """

    kind: Kind
    version: Version
    content: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    executable: bool = False
    copy_of: str = ""
    """Of a conflict copy: the path whose losing content this is. Empty otherwise."""

    def same_content(self, other: "Entry") -> bool:
        # The size follows from the content, except in what a liar says.
        return self.kind == other.kind and self.content == other.content and self.size == other.size

    def same_metadata(self, other: "Entry") -> bool:
        return self.mtime_ns == other.mtime_ns and self.executable == other.executable

    @property
    def is_live(self) -> bool:
        return self.kind != Kind.TOMBSTONE


class Fingerprint(NamedTuple):
    """What one stat told of a path when its content was last known. All times are nanoseconds."""

    kind: Kind
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool
    racy: bool
    """The path may have changed within the clock's granularity after it was read: read it again."""

    def unchanged(self, seen: "Fingerprint") -> bool:
        """Whether `seen`, a later stat, shows the same object in the same state."""
        return not self.racy and self[:6] == seen[:6]


class Chunk(NamedTuple):
    """A content-defined piece of a file."""

    digest: Digest
    size: int


Manifest = tuple[Chunk, ...]
"""A file's chunks in order; at least two (smaller files are named by their one chunk)."""
