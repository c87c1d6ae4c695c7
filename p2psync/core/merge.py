"""Two versions of one path become one: the decision every device takes alike, without talking.

*Covering* is the only judge where one version has seen the other. Where neither has, the election
is total and symmetric: a version whose content the other side has already replaced loses; then
directory > file > symlink > tombstone; then the higher stamp; then the higher dot.

The joined vector says of every dot it covers: this content was replaced by someone who saw it, or
is preserved as a conflict copy. So a loser's copy must be held before the joined version is
recorded, and vectors that cover each other need no further copies. All devices join the same
dots, so their vectors grow to one and the same, and among mutually covering versions the election
is by a total order: that is why every order of exchange ends in the same entry.
"""

import datetime
from typing import NamedTuple

import blake3
import msgspec

from p2psync.core.entry import Entry, Kind
from p2psync.core.relpath import MAX_COMPONENT_BYTES, RelPath
from p2psync.core.version import first_version, join


class Merged(NamedTuple):
    winner: Entry
    """One of the two, with the joined vector."""
    loser: Entry | None
    """The other, where its content is to be preserved under a conflict name first."""


def _rank(entry: Entry) -> tuple[int, int, object, object, int, bool, bytes]:
    version = entry.version
    return (
        entry.kind,
        version.stamp,
        version.origin,
        version.dot,
        entry.mtime_ns,
        entry.executable,
        entry.content,
    )


def _first_wins(one: Entry, other: Entry) -> bool:
    one_saw = one.version.covers(other.version.dot)
    other_saw = other.version.covers(one.version.dot)
    if one_saw != other_saw:
        return one_saw
    if not one.same_content(other):
        one_replaced = one.version.covers(other.version.origin)
        other_replaced = other.version.covers(one.version.origin)
        if one_replaced != other_replaced:
            return one_replaced
    return _rank(one) >= _rank(other)


def merge(one: Entry, other: Entry) -> Merged:
    """Elect the version that the path shows; symmetric in its arguments."""
    winner, loser = (one, other) if _first_wins(one, other) else (other, one)
    needs_copy = (
        loser.kind in (Kind.FILE, Kind.SYMLINK)
        and not loser.same_content(winner)
        and not winner.version.covers(loser.version.origin)
    )
    vector = join(winner.version.vector, loser.version.vector)
    if vector != winner.version.vector:
        version = msgspec.structs.replace(winner.version, vector=vector)
        winner = msgspec.structs.replace(winner, version=version)
    return Merged(winner, loser if needs_copy else None)


def conflict_copy(path: RelPath, loser: Entry) -> tuple[RelPath, Entry]:
    """Where a losing content is kept, and its entry there.

    Both derive from the write that made the content, so every device that preserves it makes
    the same entry, and making it again after someone deleted it changes nothing.
    """
    origin = loser.version.origin
    mark = blake3.blake3(f"{path}\0{origin.replica}.{origin.counter}".encode()).hexdigest()[:6]
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
        seconds=min(max(loser.version.stamp, 0) // 10**9, 253402300799)
    )
    directory, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 16:
        stem, dot, suffix = name, "", ""
    tail = f" (conflict {loser.version.author} {moment:%Y-%m-%d} {mark}){dot}{suffix}"
    room = MAX_COMPONENT_BYTES - len(tail.encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    version = first_version(origin, stamp=loser.version.stamp, author=loser.version.author)
    copy = msgspec.structs.replace(loser, version=version, copy_of=path)
    return RelPath(f"{directory}{slash}{stem}{tail}"), copy
