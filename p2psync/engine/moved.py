"""Files that a scan finds gone from one path and come to another.

A rename leaves a file's inode, size and mtime as they are. One of a directory above leaves its
ctime too, and such a file need not be read again: it is as unchanged as at its old path.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.engine.damaged import Identity, identity
from p2psync.ports import FolderIndex, Hashed, Held, Row, Seen

_AT_A_TIME = 10_000


class Origin(NamedTuple):
    """Where a file was."""

    path: RelPath
    held: Held


class Moved:
    """For one scan."""

    def __init__(self, index: FolderIndex) -> None:
        self._index = index
        self._origins: dict[Identity, RelPath] = {}
        self.recorded: set[RelPath] = set()
        """Origins whose deletion was recorded together with the file at its new path."""

    async def went(self, paths: Sequence[RelPath]) -> None:
        """What the index has there is not there any more, or perhaps not."""
        for at in range(0, len(paths), _AT_A_TIME):
            for path, held in (await self._index.held(paths[at : at + _AT_A_TIME])).items():
                if held.fingerprint is not None and held.entry.kind == Kind.FILE:
                    self._origins[identity(held.fingerprint)] = path

    def is_known(self, file: Seen) -> bool:
        """Whether it was elsewhere before."""
        return identity(file.fingerprint) in self._origins

    async def came(self, files: Iterable[Seen]) -> dict[RelPath, Origin]:
        """Where those of them were that were elsewhere before, and not here as well."""
        known = [(file, self._origins.get(identity(file.fingerprint))) for file in files]
        found = [(file, path) for file, path in known if path is not None]
        held = await self._index.held([each for file, path in found for each in (file.path, path)])
        return {
            file.path: Origin(path, held[path])
            for file, path in found
            if path in held
            and _is_of(file, held[path])
            and not (file.path in held and _is_of(file, held[file.path]))
        }


def _is_of(file: Seen, held: Held) -> bool:
    return held.fingerprint is not None and identity(held.fingerprint) == identity(file.fingerprint)


def unread(files: Iterable[Seen], origins: Mapping[RelPath, Origin]) -> dict[RelPath, Hashed]:
    """What is known of those that came without any change."""
    known = {}
    for file in files:
        held = origins[file.path].held if file.path in origins else None
        mark = held.fingerprint if held is not None and held.damage is None else None
        if held is not None and mark is not None and mark.unchanged(file.fingerprint):
            known[file.path] = Hashed(Digest(held.entry.content), None, file.fingerprint)
    return known


def is_move(row: Row, origin: Origin) -> bool:
    """Whether the row to be recorded is of what was at the origin."""
    held = origin.held
    return row.damage is None and held.damage is None and row.entry.same_content(held.entry)


async def without_copies(index: FolderIndex, going: Mapping[RelPath, bytes]) -> set[RelPath]:
    """Those of the files that go, with their contents, whose content lives on nowhere in the
    folder: not moved, deleted."""
    where = await index.find_contents(list(set(going.values())))
    return {path for path, content in going.items() if going.keys() >= set(where.get(content, ()))}
