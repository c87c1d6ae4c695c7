"""Two versions of one path become one: the decision every device takes alike, without talking.

*Covering* is the only judge where one version has seen the other. Where neither has, the election
is total and symmetric: a version whose content the other side has already replaced loses; then
directory > file or symlink > tombstone; then the higher stamp; then the higher dot. So an edit wins
over a deletion and over a chmod, and a chmod over a deletion of the same content. (A directory
wins because of what lies in it.)

The joined vector says of every dot it covers: this content was replaced by someone who saw it, or
is preserved as a conflict copy, and is among the *kept* then. So a loser's copy must be held before
the joined version is recorded. Of two versions that cover each other the one wins whose content the
other keeps. If neither is kept, each was replaced, so the path shows neither: it is deleted, by
nobody. (Of a tombstone and another the one wins that knows all the other knows and more, or else
the tombstone.) All devices join the same dots, so their vectors grow to one and the same. Of those
with equal vectors what all keep is kept, and the order is total: that is why every exchange ends in
one and the same entry.

Versions that are concurrent, each made by someone who saw all of what was there before, are elected
alike in every order. Where someone replaces or deletes one side of a conflict that others are just
settling, its old content may stay as a conflict copy, and which of the others shows, if any, may
depend on who heard what first: nothing is lost, and all devices agree. Equal contents that were
written apart are one from when they meet: who deletes one of them may delete both, if others had
joined them by then.
"""

import datetime
from typing import Any, NamedTuple

import blake3
import msgspec

from p2psync.core.entry import Entry, Kind
from p2psync.core.relpath import MAX_COMPONENT_BYTES, MAX_PATH_BYTES, RelPath
from p2psync.core.version import Dot, Vector, Version, first_version, join

_MAX_AUTHOR_BYTES = 64


class Merged(NamedTuple):
    winner: Entry
    """One of the two, or the tombstone of one, with the joined vector."""
    loser: Entry | None
    """The other, where its content is to be preserved under a conflict name first."""


def rank(entry: Entry) -> tuple[Any, ...]:
    """Orders versions that do not know of each other. No two entries have the same, not even those
    that a hostile peer gives one dot."""
    version = entry.version
    return (
        entry.is_live,
        entry.kind == Kind.DIRECTORY,
        version.stamp,
        version.origin,
        version.dot,
        entry.mtime_ns,
        entry.executable,
        entry.kind,
        entry.content,
        entry.size,
        entry.copy_of,
        version.author,
        version.vector,
        version.kept,
    )


def _first_wins(one: Entry, other: Entry) -> bool:
    one_saw = _has_seen(one.version, other.version)
    other_saw = _has_seen(other.version, one.version)
    if one_saw != other_saw:
        return one_saw
    if one_saw:
        one_stays, other_stays = _stays(one, other), _stays(other, one)
        if one_stays != other_stays:
            return one_stays
        one_knows = _knows(one.version, other.version.vector)
        other_knows = _knows(other.version, one.version.vector)
        if one_knows != other_knows:
            return one_knows
        return rank(one) <= rank(other)
    if one.version.origin != other.version.origin:
        one_replaced = one.version.covers(other.version.origin)
        other_replaced = other.version.covers(one.version.origin)
        if one_replaced != other_replaced:
            return one_replaced
    return rank(one) >= rank(other)


def _has_seen(one: Version, other: Version) -> bool:
    return one.covers(other.dot) and one.covers(other.origin)


def _stays(entry: Entry, other: Entry) -> bool:
    """Whether `other` knows the content, and that it was kept."""
    origin = entry.version.origin
    return entry.is_live and origin != other.version.origin and origin in other.version.kept


def _knows(version: Version, vector: Vector) -> bool:
    return join(version.vector, vector) == version.vector


def merge(one: Entry, other: Entry) -> Merged:
    """Elect the version that the path shows; symmetric in its arguments."""
    winner, loser = (one, other) if _first_wins(one, other) else (other, one)
    needs_copy = (
        loser.kind in (Kind.FILE, Kind.SYMLINK)
        and not loser.same_content(winner)
        and (not winner.version.has_replaced(loser.version.origin) or _is_forked(winner, loser))
    )
    if _have_replaced_each_other(winner, loser):
        winner = _deleted(winner)
    kept = [loser.version.origin] if needs_copy else []
    if winner.version.kept or loser.version.kept:
        kept += [*_still_kept(winner, loser), *_still_kept(loser, winner)]
        shown = winner.version.origin
        if winner.is_live and shown in (*winner.version.kept, *loser.version.kept):
            kept.append(shown)
    version = winner.version.joined(join(winner.version.vector, loser.version.vector), kept)
    if version is not winner.version:
        winner = msgspec.structs.replace(winner, version=version)
    return Merged(winner, loser if needs_copy else None)


def _still_kept(entry: Entry, other: Entry) -> list[Dot]:
    """What `entry` keeps and `other` does not know to be replaced."""
    shown = other.version.origin if other.is_live else None
    return [
        dot for dot in entry.version.kept if dot == shown or not other.version.has_replaced(dot)
    ]


def _have_replaced_each_other(one: Entry, other: Entry) -> bool:
    """Whether of two contents each was replaced, as the other's version knows."""
    return (
        one.is_live
        and other.is_live
        and one.version.origin != other.version.origin
        and not one.same_content(other)
        and _has_seen(one.version, other.version)
        and _has_seen(other.version, one.version)
        and not (_stays(one, other) or _stays(other, one))
        and one.version.tells_all_kept
        and other.version.tells_all_kept
    )


def _deleted(entry: Entry) -> Entry:
    """The tombstone of a content that nobody deleted. It has no dot of its own, so that all devices
    make the same one."""
    version = msgspec.structs.replace(entry.version, dot=entry.version.origin)
    return Entry(Kind.TOMBSTONE, version)


def _is_forked(winner: Entry, loser: Entry) -> bool:
    """Whether one dot names two writes: a device was copied, or its disk set back, and both went
    on. Covering tells nothing then."""
    return winner.is_live and winner.version.origin == loser.version.origin


def conflict_copy(path: RelPath, loser: Entry) -> tuple[RelPath, Entry]:
    """Where a losing content is kept, and its entry there.

    Both derive from the write that made the content, so every device that preserves it makes
    the same entry, and making it again after someone deleted it changes nothing. If the content
    won after a copy of it was made, and now loses, the name is another one: who deleted the first
    copy had the content at its path. Where the name has no room beside the original it is in a
    directory further up.
    """
    origin = loser.version.origin
    write = f"{path}\0{origin.replica}.{origin.counter}"
    if origin in loser.version.kept:
        write += "\0again"
    mark = blake3.blake3(write.encode()).hexdigest()[:6]
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
        seconds=min(max(loser.version.stamp, 0) // 10**9, 253402300799)
    )
    directory, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 16:
        stem, dot, suffix = name, "", ""
    author = _shortened(loser.version.author, _MAX_AUTHOR_BYTES)
    tail = f" (conflict {author} {moment:%Y-%m-%d} {mark}){dot}{suffix}"
    stem = _shortened(stem, MAX_COMPONENT_BYTES - len(tail.encode()))
    while directory and len(f"{directory}/{stem}{tail}".encode()) > MAX_PATH_BYTES:
        directory, slash, _ = directory.rpartition("/")
    version = first_version(origin, stamp=loser.version.stamp, author=loser.version.author)
    copy = msgspec.structs.replace(loser, version=version, copy_of=path)
    return RelPath(f"{directory}{slash}{stem}{tail}"), copy


def _shortened(text: str, size: int) -> str:
    """As many of the first characters as fit in `size` bytes."""
    return text.encode()[:size].decode(errors="ignore")
