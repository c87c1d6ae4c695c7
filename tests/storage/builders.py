"""Small values for the tests of this package, and strategies for arbitrary ones."""

from collections.abc import Callable, Sequence

import blake3
from hypothesis import strategies as st

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk, Entry, Fingerprint, Kind, Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, Version, first_version
from p2psync.ports import Row
from p2psync.storage.folder_index import SqliteFolderIndex

ANNA = DeviceID(b"A" * 32)
BERT = DeviceID(b"B" * 32)


def content(name: str) -> Digest:
    return Digest(blake3.blake3(name.encode()).digest())


def file(
    name: str, *, size: int = 10, replica: int = 7, counter: int = 1, copy_of: str = ""
) -> Entry:
    """A file whose content is told by `name`."""
    version = first_version(Dot(replica, counter), stamp=1000, author="anna")
    return Entry(Kind.FILE, version, content(name), size, mtime_ns=1000, copy_of=copy_of)


def directory(*, replica: int = 7, counter: int = 1) -> Entry:
    return Entry(Kind.DIRECTORY, first_version(Dot(replica, counter), stamp=1000, author="anna"))


def tombstone(*, replica: int = 7, counter: int = 2) -> Entry:
    return Entry(Kind.TOMBSTONE, first_version(Dot(replica, counter), stamp=2000, author="anna"))


def fingerprint_of(entry: Entry, *, inode: int = 1) -> Fingerprint | None:
    if not entry.is_live:
        return None
    return Fingerprint(
        kind=entry.kind,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.mtime_ns + 5,
        inode=inode,
        executable=entry.executable,
        racy=False,
    )


def row(path: str, entry: Entry, *, manifest: Manifest | None = None) -> Row:
    return Row(RelPath(path), entry, fingerprint_of(entry), manifest)


def big_file(*chunks: str) -> tuple[Entry, Manifest]:
    """A file of these chunks, each named by its content and of `SINGLE_CHUNK_MAX` bytes."""
    manifest = tuple(Chunk(content(chunk), SINGLE_CHUNK_MAX) for chunk in chunks)
    return file("manifest of " + " ".join(chunks), size=SINGLE_CHUNK_MAX * len(chunks)), manifest


def paths(entries: Sequence[tuple[RelPath, object]]) -> list[str]:
    return [path for path, _ in entries]


async def trace(index: SqliteFolderIndex, told: Callable[[str], None]) -> None:
    """From now on `told` gets each statement that the index runs."""
    await index._database.run(lambda connection: connection.set_trace_callback(told))


_UINT64 = st.integers(0, (1 << 64) - 1)
_TIMES = st.integers(-(1 << 63), (1 << 64) - 1)
_DOTS = st.builds(Dot, _UINT64, st.integers(1, (1 << 63) - 1))
_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..", ".p2psync"))
relpaths = st.lists(_NAMES, min_size=1, max_size=4).map(lambda names: RelPath("/".join(names)))
versions = st.builds(
    Version,
    dot=_DOTS,
    origin=_DOTS,
    stamp=_TIMES,
    vector=st.dictionaries(_UINT64, st.integers(1, (1 << 63) - 1), max_size=4).map(
        lambda counters: tuple(sorted(counters.items()))
    ),
    author=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    kept=st.lists(_DOTS, max_size=2).map(tuple),
) | st.builds(first_version, _DOTS, stamp=_TIMES, author=st.text("abc", max_size=3))
entries = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    version=versions,
    content=st.binary(max_size=40),
    size=_UINT64,
    mtime_ns=_TIMES,
    executable=st.booleans(),
    copy_of=st.just("") | relpaths,
)
fingerprints = st.builds(
    Fingerprint,
    kind=st.sampled_from(Kind),
    size=_UINT64,
    mtime_ns=_TIMES,
    ctime_ns=_TIMES,
    inode=_UINT64,
    executable=st.booleans(),
    racy=st.booleans(),
)
