"""Dotted version vectors with a hybrid logical stamp.

A *dot* names one write: the replica that made it and that replica's running counter. A version's
*vector* covers every dot it has seen (Almeida et al., "Scalable and Accurate Causality Tracking
for Eventually Consistent Stores", 2014). Its *origin* is the dot of the write that made the
content, so a later chmod or touch is a new version of the same content; a deletion's is that of the
content that was deleted. Its *stamp* (Kulkarni et al., "Logical Physical Clocks", 2014) grows along
every chain of content writes, up to the end of time that fits the wire.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import msgspec

Vector = tuple[tuple[int, int], ...]
"""(replica, counter) pairs, ordered by replica, each replica once, counters from 1."""


MAX_STAMP = (1 << 63) - 1
"""The last stamp. Beyond it vectors and dots still tell versions apart, so that a peer's absurd
stamp costs the order by time, for that path, and nothing else."""


MAX_VECTOR = 1024
"""Pairs in a vector: far more than a group has had replicas, and few enough to be sent."""


MAX_KEPT = 32
"""Conflict copies that a version tells from what was replaced."""


class Dot(NamedTuple):
    replica: int
    counter: int


class Version(msgspec.Struct, frozen=True, array_like=True, gc=False):
    dot: Dot
    origin: Dot
    stamp: int
    """Nanoseconds since 1970 or, where causality asks for it, later."""
    vector: Vector
    author: str
    """Name of the device that wrote the content, as it was called then; for people only."""
    kept: tuple[Dot, ...] = ()
    """Of the origins that the vector covers those that nobody replaced: they are preserved as
    conflict copies. Sorted. The own origin is among them where the content won after all, with a
    conflict copy of it made already."""

    def covers(self, dot: Dot) -> bool:
        """Whether this version has seen the write `dot`."""
        wanted, least = dot
        # A plain loop: this is asked for every entry that comes or goes, several times.
        for replica, counter in self.vector:  # noqa: SIM110
            if replica == wanted and counter >= least:
                return True
        return False

    def has_replaced(self, origin: Dot) -> bool:
        """Whether this version has seen the content that `origin` wrote, and it was not kept."""
        return self.covers(origin) and origin not in self.kept

    @property
    def tells_all_kept(self) -> bool:
        """Otherwise more may be kept than fits."""
        return len(self.kept) < MAX_KEPT

    def joined(self, vector: Vector, kept: Sequence[Dot]) -> Self:
        """This version, having seen all that `vector` covers; `kept` are the origins, at most, that
        nobody replaced.

        Of more than fit, the greatest stay. Of the others is told that they were seen, and no more.
        """
        vector = capped(vector, self.dot, self.origin)
        told: tuple[Dot, ...] = ()
        if kept:
            seen = msgspec.structs.replace(self, vector=vector)
            fit = sorted({dot for dot in kept if seen.covers(dot)})
            told = tuple(fit[-MAX_KEPT:])
        if vector == self.vector and told == self.kept:
            return self
        return msgspec.structs.replace(self, vector=vector, kept=told)


def is_kept(version: Version) -> bool:
    """Whether what `version` tells of kept origins is in its one form."""
    kept = version.kept
    return not kept or (
        len(kept) <= MAX_KEPT
        and list(kept) == sorted(set(kept))
        and all(dot.counter > 0 and version.covers(dot) for dot in kept)
    )


def join(one: Vector, other: Vector) -> Vector:
    """The least vector that covers all that either covers."""
    if one == other:
        return one
    merged = dict(one)
    for replica, counter in other:
        if merged.get(replica, 0) < counter:
            merged[replica] = counter
    return tuple(sorted(merged.items()))


def capped(vector: Vector, *needed: Dot) -> Vector:
    """At most MAX_VECTOR pairs of `vector`: those of the one or two `needed` dots, and the least
    replicas. A function of the pairs alone, so that devices agree whatever the order of joining.

    What is left out is forgotten: at worst a content that was settled is kept as a copy once more.
    Without this, a member that invents replicas could make honest entries too large to be sent.
    """
    if len(vector) <= MAX_VECTOR:
        return vector
    own = {dot.replica for dot in needed}
    others = [pair for pair in vector if pair[0] not in own][: MAX_VECTOR - 2]
    return tuple(sorted([*others, *(pair for pair in vector if pair[0] in own)]))


def is_vector(vector: Vector) -> bool:
    """Whether `vector` is in the one form that two equal vectors share."""
    if len(vector) == 1:
        ((replica, counter),) = vector
        return 0 < replica < 1 << 63 and 0 < counter < 1 << 63
    replicas = [replica for replica, _ in vector]
    return (
        replicas == sorted(set(replicas))
        and all(0 < replica < 1 << 63 for replica in replicas)
        and all(0 < counter < 1 << 63 for _, counter in vector)
    )


def _pair(dot: Dot) -> tuple[int, int]:
    return (dot.replica, dot.counter)


def first_version(dot: Dot, *, stamp: int, author: str) -> Version:
    """The version of a write that replaced nothing."""
    return Version(dot=dot, origin=dot, stamp=stamp, vector=(_pair(dot),), author=author)


def content_successor(seen: Version | None, dot: Dot, *, now_ns: int, author: str) -> Version:
    """The version of new content written by someone who saw `seen`, and what was kept beside it.

    `now_ns` is the time of the write as well as it is known; the stamp passes that of `seen`.
    """
    if seen is None:
        return first_version(dot, stamp=min(now_ns, MAX_STAMP), author=author)
    stamp = min(max(now_ns, seen.stamp + 1), MAX_STAMP)
    vector = capped(join(seen.vector, (_pair(dot),)), dot, seen.origin)
    return Version(dot=dot, origin=dot, stamp=stamp, vector=vector, author=author)


def metadata_successor(seen: Version, dot: Dot) -> Version:
    """The version of a chmod or touch: the same content, so the same origin and stamp."""
    touched = msgspec.structs.replace(seen, dot=dot)
    return touched.joined(join(seen.vector, (_pair(dot),)), seen.kept)


def deletion_successor(seen: Version, dot: Dot, *, now_ns: int, author: str) -> Version:
    """The version of a deletion: it keeps the origin of what was deleted.

    So a chmod of that content, concurrent with its deletion, can be told from one of a content
    that was replaced before the deletion.
    """
    version = content_successor(seen, dot, now_ns=now_ns, author=author)
    return msgspec.structs.replace(version, origin=seen.origin)
