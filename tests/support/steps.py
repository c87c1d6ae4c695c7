"""Entries and steps for tests of a disk, in few words."""

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import blake3

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.relpath import RelPath, parse_relpath
from p2psync.core.version import Dot, first_version
from p2psync.ports import Action, Disk, Outcome, Result, Step, Walk, Whole

OLD_MTIME_NS = 1_600_000_000_123_456_789
"""Of what peers send: long ago, so that no clock's granularity matters."""

_VERSION = first_version(Dot(7, 1), stamp=1000, author="anna")


class Sent(NamedTuple):
    """A version from a peer, and its bytes if it is a file."""

    entry: Entry
    data: bytes = b""


def file(data: bytes, *, executable: bool = False, mtime_ns: int = OLD_MTIME_NS) -> Sent:
    content = blake3.blake3(data).digest()
    return Sent(Entry(Kind.FILE, _VERSION, content, len(data), mtime_ns, executable), data)


def link(target: str) -> Sent:
    return Sent(Entry(Kind.SYMLINK, _VERSION, target.encode()))


DIRECTORY = Sent(Entry(Kind.DIRECTORY, _VERSION))
TOMBSTONE = Sent(Entry(Kind.TOMBSTONE, _VERSION))


def rel(path: str) -> RelPath:
    return parse_relpath(path)


def step(
    disk: Disk, path: str, sent: Sent, *, expected: Fingerprint | None = None, name: str = "s-1"
) -> Step:
    """What brings `sent` to the path; a file's bytes are staged under `name`."""
    kind = sent.entry.kind
    if kind == Kind.FILE:
        stage(disk, name, sent.data)
        return Step(Action.PLACE, rel(path), sent.entry, expected, name)
    action = {
        Kind.SYMLINK: Action.PLACE,
        Kind.DIRECTORY: Action.MAKE_DIRECTORY,
        Kind.TOMBSTONE: Action.REMOVE,
    }[kind]
    return Step(action, rel(path), sent.entry, expected)


def stage(disk: Disk, name: str, data: bytes) -> None:
    """Just the bytes, as of a large file: the commit finds another mtime than is to be."""
    disk.stage_whole([Whole(name, data, file(data, mtime_ns=1).entry)])


def move(source: str, path: str, expected: Fingerprint | None) -> Step:
    return Step(Action.MOVE, rel(path), file(b"").entry, expected, source=rel(source))


def metadata(
    path: str, expected: Fingerprint | None, *, executable: bool, mtime_ns: int = OLD_MTIME_NS
) -> Step:
    entry = Entry(Kind.FILE, _VERSION, b"", 0, mtime_ns, executable)
    return Step(Action.SET_METADATA, rel(path), entry, expected)


def seen(disk: Disk, path: str) -> Fingerprint | None:
    found = disk.look([rel(path)])[rel(path)]
    return None if found is None else found.fingerprint


def apply(disk: Disk, path: str, sent: Sent) -> Result:
    """Bring `sent` to the path, whatever is there now being what is expected."""
    (result,) = disk.commit([step(disk, path, sent, expected=seen(disk, path))])
    return result


def place(disk: Disk, path: str, sent: Sent) -> Fingerprint:
    """Likewise, and it works."""
    result = apply(disk, path, sent)
    assert result.outcome is Outcome.DONE, result
    assert result.fingerprint is not None
    return result.fingerprint


def walked(disk: Disk, known: Mapping[RelPath, Fingerprint], under: RelPath | None = None) -> Walk:
    """What a whole walk finds."""
    with closing(disk.walk(under)) as walking:
        walk = walking.go_on(sorted(known.items()), last=True)
        assert not walking.is_behind
        return walk
