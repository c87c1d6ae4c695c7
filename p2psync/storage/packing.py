"""How values look inside the tables: msgpack, whose integers go up to 2^64 where SQLite's stop at
2^63 (file times after the year 2262 and some inode numbers do not)."""

from collections.abc import Iterable

import msgspec

from p2psync.core.entry import MAX_FILE_SIZE, SINGLE_CHUNK_MAX, Entry, Fingerprint, Kind
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, Vector, Version
from p2psync.ports import Held


class _PackedEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An Entry without what its other fields tell: most are written once, by one replica."""

    kind: Kind
    dot: Dot
    origin: Dot | None
    """None: the dot."""
    stamp: int | None
    """None: `mtime_ns`."""
    vector: Vector | None
    """None: the dot alone."""
    author: str
    content: bytes
    size: int
    mtime_ns: int
    executable: bool
    copy_of: str
    kept: tuple[Dot, ...] = ()


pack = msgspec.msgpack.Encoder().encode
unpack_fingerprint = msgspec.msgpack.Decoder(Fingerprint).decode
_decode_entry = msgspec.msgpack.Decoder(_PackedEntry).decode


def pack_entry(entry: Entry) -> bytes:
    version = entry.version
    return pack(
        _PackedEntry(
            kind=entry.kind,
            dot=version.dot,
            origin=None if version.origin == version.dot else version.origin,
            stamp=None if version.stamp == entry.mtime_ns else version.stamp,
            vector=None if version.vector == (version.dot,) else version.vector,
            author=version.author,
            content=entry.content,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            executable=entry.executable,
            copy_of=entry.copy_of,
            kept=version.kept,
        )
    )


def unpack_entry(packed: bytes) -> Entry:
    """Raises msgspec.DecodeError when `packed` is no entry."""
    stored = _decode_entry(packed)
    dot = stored.dot
    version = Version(
        dot=dot,
        origin=dot if stored.origin is None else stored.origin,
        stamp=stored.mtime_ns if stored.stamp is None else stored.stamp,
        vector=((dot.replica, dot.counter),) if stored.vector is None else stored.vector,
        author=stored.author,
        kept=stored.kept,
    )
    return Entry(
        kind=stored.kind,
        version=version,
        content=stored.content,
        size=stored.size,
        mtime_ns=stored.mtime_ns,
        executable=stored.executable,
        copy_of=stored.copy_of,
    )


def unpack_held(
    sequence: int, entry: bytes, fingerprint: bytes | None, damage: bytes | None
) -> Held:
    return Held(
        unpack_entry(entry),
        None if fingerprint is None else unpack_fingerprint(fingerprint),
        sequence,
        damage,
    )


def content_key(content: bytes) -> int:
    """What contents are indexed by: short, so that whoever looks up must compare the whole."""
    return int.from_bytes(content[:6], "big")


def is_chunked(entry: Entry) -> bool:
    """Whether the entry's content is named by a manifest."""
    return entry.kind == Kind.FILE and entry.size > SINGLE_CHUNK_MAX


def column_size(entry: Entry) -> int:
    """The size to count and sort by; a peer's absurd one must not overflow the column."""
    return min(entry.size, MAX_FILE_SIZE)


def path_list(paths: Iterable[RelPath]) -> str:
    """The argument of `SELECT value FROM json_each(?)`."""
    return msgspec.json.encode(list(paths)).decode()
