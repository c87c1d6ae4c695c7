"""Where contents and chunks lie on this disk, as far as the index of one folder knows.

Functions over a connection, for use in the database's thread.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Protocol

from p2psync.core.entry import SINGLE_CHUNK_MAX, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import ManifestError, decode_manifest, encode_manifest
from p2psync.core.relpath import RelPath
from p2psync.errors import DamagedError
from p2psync.ports import Place
from p2psync.storage.database import reading
from p2psync.storage.packing import content_key, unpack_entry

PLACES_MAX = 4
"""Places told for one content or chunk: a second one helps when the first has just changed."""


class _FilesWith(Protocol):
    def __call__(self, content: bytes, *, damaged: bool) -> list[tuple[RelPath, int]]: ...


def find_contents(
    connection: sqlite3.Connection, contents: Sequence[bytes]
) -> dict[bytes, list[RelPath]]:
    found = {}
    with reading(connection):
        for content in contents:
            files = _files_with(connection, content, damaged=False)
            paths = [path for (path, _), _ in zip(files, range(PLACES_MAX), strict=False)]
            if paths:
                found[content] = paths
    return found


def find_chunks(
    connection: sqlite3.Connection, digests: Sequence[Digest]
) -> dict[Digest, list[Place]]:
    found = {}

    @cache
    def files_with(content: bytes, *, damaged: bool) -> list[tuple[RelPath, int]]:
        # The chunks asked for together are mostly of the same few files.
        return list(islice(_files_with(connection, content, damaged=damaged), PLACES_MAX))

    with reading(connection):
        for digest in digests:
            places = _places(connection, digest, files_with)
            listed = [place for place, _ in zip(places, range(PLACES_MAX), strict=False)]
            if listed:
                found[digest] = listed
    return found


def load_manifest(connection: sqlite3.Connection, content: bytes) -> Manifest | None:
    """Raises DamagedError when the stored list is cut."""
    row = connection.execute(
        "SELECT packed FROM manifests WHERE content = ?", (content,)
    ).fetchone()
    return None if row is None else _decode(row[0])


def store_manifest(connection: sqlite3.Connection, content: bytes, manifest: Manifest) -> None:
    """Keep a manifest and the places of its chunks; nothing changes if it is known already."""
    row = connection.execute(
        "INSERT INTO manifests (content, packed) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id",
        (content, encode_manifest(manifest)),
    ).fetchone()
    if row is None:
        return
    rows = []
    offset = 0
    for digest, size in manifest:
        rows.append((digest, row[0], offset, size))
        offset += size
    connection.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)", rows)


def unreferenced_manifests(connection: sqlite3.Connection) -> set[bytes]:
    """Content ids of manifests that no live held file and no offer names."""
    contents = [content for (content,) in connection.execute("SELECT content FROM manifests")]
    return {content for content in contents if not _is_referenced(connection, content)}


def drop_manifest(connection: sqlite3.Connection, content: bytes) -> None:
    row = connection.execute(
        "DELETE FROM manifests WHERE content = ? RETURNING id, packed", (content,)
    ).fetchone()
    if row is None:
        return
    number, packed = row
    connection.executemany(
        "DELETE FROM chunks WHERE digest = ? AND manifest = ?",
        [(digest, number) for digest, _ in _decode(packed)],
    )


def _files_with(
    connection: sqlite3.Connection, content: bytes, *, damaged: bool
) -> Iterator[tuple[RelPath, int]]:
    """Live held files of that content, with their sizes: those that are damaged, or the others."""
    rows = connection.execute(
        f"SELECT path, size, entry FROM held WHERE content_key = ? "
        f"AND damage IS {'NOT ' if damaged else ''}NULL",
        (content_key(content),),
    )
    for path, size, entry in rows:
        if unpack_entry(entry).content == content:
            yield RelPath(path), size


def _places(
    connection: sqlite3.Connection, digest: Digest, files_with: _FilesWith
) -> Iterator[Place]:
    for path, size in _files_with(connection, digest, damaged=False):
        # A content id that names a manifest is no chunk: whoever asks for it as one would
        # be given a file of any size.
        if size <= SINGLE_CHUNK_MAX:
            yield Place(path, 0, size)
    rows = connection.execute(
        "SELECT manifests.content, chunks.offset, chunks.size FROM chunks "
        "JOIN manifests ON manifests.id = chunks.manifest WHERE chunks.digest = ?",
        (digest,),
    ).fetchall()
    for damaged in (False, True):
        for content, offset, size in rows:
            for path, _ in files_with(content, damaged=damaged):
                yield Place(path, offset, size)


def _is_referenced(connection: sqlite3.Connection, content: bytes) -> bool:
    for damaged in (False, True):
        if next(_files_with(connection, content, damaged=damaged), None) is not None:
            return True
    offers = connection.execute(
        "SELECT entry FROM wanted WHERE content_key = ?", (content_key(content),)
    )
    return any(unpack_entry(entry).content == content for (entry,) in offers)


def _decode(packed: bytes) -> Manifest:
    try:
        return decode_manifest(packed)
    except ManifestError as error:
        raise DamagedError(
            "A stored list of chunks is damaged. Check the disk, then restart the daemon."
        ) from error
