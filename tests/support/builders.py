"""Versions and entries in few letters: "a2" is the second write of replica a."""

from p2psync.core.entry import Entry, Kind
from p2psync.core.version import Dot, Version, join


def dot(text: str) -> Dot:
    return Dot("abcdefgh".index(text[0]) + 1, int(text[1:]))


def pair(write: Dot) -> tuple[int, int]:
    return (write.replica, write.counter)


def vector(text: str) -> tuple[tuple[int, int], ...]:
    """From "a2 b1"."""
    joined: tuple[tuple[int, int], ...] = ()
    for each in text.split():
        joined = join(joined, (pair(dot(each)),))
    return joined


def version(
    write: str,
    *,
    saw: str = "",
    kept: str = "",
    origin: str = "",
    stamp: int = 0,
    author: str = "anna",
) -> Version:
    """The write, which saw others, and keeps some."""
    return Version(
        dot=dot(write),
        origin=dot(origin or write),
        stamp=stamp,
        vector=vector(f"{saw} {kept} {origin} {write}"),
        author=author,
        kept=tuple(sorted(dot(each) for each in kept.split())),
    )


def file(
    write: str,
    content: str = "",
    *,
    saw: str = "",
    kept: str = "",
    origin: str = "",
    stamp: int = 0,
    mtime_ns: int = 0,
    executable: bool = False,
    copy_of: str = "",
) -> Entry:
    """Its content is named by the write where it is not said."""
    return Entry(
        Kind.FILE,
        version(write, saw=saw, kept=kept, origin=origin, stamp=stamp),
        (content or origin or write).encode().ljust(32, b"."),
        size=1,
        mtime_ns=mtime_ns,
        executable=executable,
        copy_of=copy_of,
    )


def tombstone(
    write: str, *, saw: str = "", kept: str = "", origin: str = "", stamp: int = 0
) -> Entry:
    """Of the content that `origin` wrote."""
    return Entry(Kind.TOMBSTONE, version(write, saw=saw, kept=kept, origin=origin, stamp=stamp))


def directory(write: str, *, saw: str = "", kept: str = "", stamp: int = 0) -> Entry:
    return Entry(Kind.DIRECTORY, version(write, saw=saw, kept=kept, stamp=stamp))


def symlink(write: str, target: str = "", *, saw: str = "", stamp: int = 0) -> Entry:
    return Entry(Kind.SYMLINK, version(write, saw=saw, stamp=stamp), (target or write).encode())
