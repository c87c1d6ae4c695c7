"""Conflict copies that somebody here deleted or edited are kept no more.

Else a device that has the content at its first path still, and has not heard of the conflict, could
bring it back there.
"""

from collections.abc import Mapping, Sequence

from p2psync.core.entry import Entry
from p2psync.core.merge import without_kept
from p2psync.core.relpath import RelPath
from p2psync.ports import FolderIndex, Held, Row


async def kept_no_more(
    index: FolderIndex, rows: Sequence[Row], held: Mapping[RelPath, Held]
) -> list[Row]:
    """The rows of originals that kept what these rows replace. `held` is what was at their paths
    before them."""
    gone: dict[RelPath, list[Entry]] = {}
    for row in rows:
        was = held.get(row.path)
        if was is not None and was.entry.copy_of and not was.entry.same_content(row.entry):
            gone.setdefault(RelPath(was.entry.copy_of), []).append(was.entry)
    for row in rows:
        gone.pop(row.path, None)
    found = []
    for path, original in (await index.held(list(gone))).items() if gone else ():
        entry = original.entry
        for copy in gone[path]:
            entry = without_kept(entry, copy)
        if entry != original.entry:
            found.append(Row(path, entry, original.fingerprint, damage=original.damage))
    return found
