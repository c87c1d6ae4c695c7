"""What a scan's observation means: a new version of the path, or nothing new."""

from typing import NamedTuple

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.version import (
    Dot,
    Version,
    content_successor,
    deletion_successor,
    metadata_successor,
)

_LATEST = (1 << 63) - 1


class Observation(NamedTuple):
    """What is on disk at a path; TOMBSTONE when nothing is."""

    kind: Kind
    content: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    executable: bool = False


def is_new(held: Entry | None, seen: Observation) -> bool:
    if held is None:
        return seen.kind != Kind.TOMBSTONE
    return _entry(held.version, seen, held.copy_of) != held


def as_given(held: Entry | None, known: Fingerprint | None, seen: Observation) -> Observation:
    """`seen`, but with the metadata that `held` was given where the disk still shows what it made
    of that: not every file system has such exact or distant times, or an execute bit. Else all that
    is received there would come back to the others as touched.

    `known`: how the disk showed `held`.
    """
    if held is None or known is None or not held.kind == known.kind == seen.kind == Kind.FILE:
        return seen
    if seen.mtime_ns == known.mtime_ns:
        seen = seen._replace(mtime_ns=held.mtime_ns)
    if seen.executable == known.executable:
        seen = seen._replace(executable=held.executable)
    return seen


def successor(
    held: Entry | None, seen: Observation, dot: Dot, *, now_ns: int, author: str
) -> Entry:
    """The entry of a local change: `dot` is new, `now_ns` the time of the scan.

    The stamp is the file's mtime where it has one that has passed, so that of two concurrent
    edits the later one wins, even if it was found first.
    """
    seen_version = held.version if held is not None else None
    if held is not None and held.kind == seen.kind and held.content == seen.content:
        version = metadata_successor(held.version, dot)
    elif held is not None and seen.kind == Kind.TOMBSTONE:
        version = deletion_successor(held.version, dot, now_ns=max(now_ns, 0), author=author)
    else:
        written = min(seen.mtime_ns, now_ns) if seen.kind == Kind.FILE else now_ns
        version = content_successor(seen_version, dot, now_ns=max(written, 0), author=author)
    copy_of = held.copy_of if held is not None and seen.kind != Kind.TOMBSTONE else ""
    return _entry(version, seen, copy_of)


def _entry(version: Version, seen: Observation, copy_of: str) -> Entry:
    if seen.kind != Kind.FILE:
        return Entry(seen.kind, version, seen.content, copy_of=copy_of)
    # Some file systems have times that no peer would take.
    mtime_ns = min(max(seen.mtime_ns, -_LATEST), _LATEST)
    return Entry(seen.kind, version, seen.content, seen.size, mtime_ns, seen.executable, copy_of)
