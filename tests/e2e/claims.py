"""What the index of a daemon that is not running says to be on its disk, against the disk."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import blake3

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk, Entry, Kind
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest
from p2psync.core.relpath import RelPath
from p2psync.files.chunker import cut
from p2psync.storage.held import entries_after
from tests.e2e.changes import DIRECTORY, NOTHING, Changes, shape, shape_of_link


def false_claims(index: Path, changes: Changes, root: Path) -> list[str]:
    """Paths at which the index knows a later shape than the disk of `root` has. The disk may be
    ahead: with what its user did meanwhile, and with what was not recorded any more."""
    contents = {_content_id(content): known for known, content in changes.contents.items()}
    on_disk = changes.tree(root / changes.where)
    found = []
    for path, entry in _rows(index):
        below = path.removeprefix(f"{changes.where}/")
        if below == path:
            continue
        known, seen = _shape(entry, contents), shape(on_disk.get(os.fsencode(below)))
        later = changes.history.get(below, [])
        while known in later[1:]:
            later = later[later.index(known, 1) :]
        if seen not in (known, *(later if known in later else ())):
            found.append(f"{path}: the index has {known}, the disk {seen}")
    return found


def _rows(index: Path) -> list[tuple[RelPath, Entry]]:
    with tempfile.TemporaryDirectory() as place:
        for suffix in ("", "-wal"):
            source = index.with_name(index.name + suffix)
            if source.exists():
                shutil.copy(source, Path(place) / f"index{suffix}")
        with closing(sqlite3.connect(Path(place) / "index")) as connection:
            return [(path, entry) for _, path, entry in entries_after(connection, 0, 1_000_000)]


def _shape(entry: Entry, contents: dict[bytes, str]) -> str:
    match entry.kind:
        case Kind.DIRECTORY:
            return DIRECTORY
        case Kind.SYMLINK:
            return shape_of_link(os.fsdecode(entry.content))
        case Kind.TOMBSTONE:
            return NOTHING
        case Kind.FILE:
            return contents.get(entry.content, f"unknown content {entry.content.hex()}")


def _content_id(content: bytes) -> bytes:
    if len(content) <= SINGLE_CHUNK_MAX:
        return blake3.blake3(content).digest()

    def read_into(view: memoryview, offset: int) -> None:
        view[:] = content[offset : offset + len(view)]

    return content_id_of_manifest(
        tuple(
            Chunk(Digest(blake3.blake3(chunk).digest()), len(chunk))
            for chunk in cut(read_into, len(content))
        )
    )
