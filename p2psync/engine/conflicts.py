"""Conflicts as people see them: which copies there are, and keeping one version for good.

A decision is carried out on this disk as if by hand, with what is displaced going to the trash, and
is found by the scan like any other edit: so it resolves everywhere.
"""

import asyncio
from typing import NamedTuple

from p2psync.core.entry import Chunk, Entry, Kind, Manifest
from p2psync.core.ids import Digest
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.engine.content import is_small
from p2psync.engine.folder import Folder
from p2psync.errors import NotFoundError, RefusedError
from p2psync.ports import Action, FolderIndex, Held, Outcome, Place, Result, Step

_STAGED = "k-kept"


class ConflictRow(NamedTuple):
    path: RelPath
    """Of the conflict copy."""
    original: RelPath
    author: str
    size: int
    is_needless: bool
    """The original shows the same content, as the other side went while this one was being kept. A
    copy would get another name if it were needed again, so that this one can be deleted."""


async def find_conflicts(index: FolderIndex) -> list[ConflictRow]:
    copies = await index.conflicts()
    originals = await index.held([RelPath(held.entry.copy_of) for _, held in copies])
    return [
        _row(path, held.entry, originals.get(RelPath(held.entry.copy_of))) for path, held in copies
    ]


def _row(path: RelPath, copy: Entry, original: Held | None) -> ConflictRow:
    of = RelPath(copy.copy_of)
    is_needless = (
        original is not None
        and original.damage is None
        and original.entry.same_content(copy)
        and conflict_copy(of, original.entry)[0] != path
    )
    return ConflictRow(path, of, copy.version.author, copy.size, is_needless)


async def keep_version(folder: Folder, chosen: str) -> list[RelPath]:
    """Make `chosen`, a conflict copy or an original, the one version; the paths that went.

    Raises NotFoundError where it takes part in no conflict, RefusedError where the disk is no
    longer as the last scan saw it.
    """
    rows = await find_conflicts(folder.index)
    original = next((row.original for row in rows if chosen == row.path), RelPath(chosen))
    copies = [row.path for row in rows if row.original == original]
    if not copies:
        raise NotFoundError(
            f"“{chosen}” takes part in no conflict; `p2psync conflicts list` shows those that do."
        )
    held = await folder.index.held([original, *copies])
    async with folder.turn:
        if chosen != original:
            step = await _replacement(folder, held, original, RelPath(chosen))
            _check(await asyncio.to_thread(folder.disk.commit, [step]))
        going = [
            Step(Action.REMOVE, path, held[path].entry, held[path].fingerprint)
            for path in copies
            if path in held
        ]
        _check(await asyncio.to_thread(folder.disk.commit, going))
    folder.local.mark([original, *copies])
    return [path for path in [original, *copies] if path != chosen]


async def _replacement(
    folder: Folder, held: dict[RelPath, Held], original: RelPath, chosen: RelPath
) -> Step:
    """The step that puts the content of `chosen` at the original's name."""
    entry = held[chosen].entry
    there = held.get(original)
    expected = there.fingerprint if there is not None and there.entry.is_live else None
    if entry.kind != Kind.FILE:
        return Step(Action.PLACE, original, entry, expected)
    if not await _stage(folder, entry, Place(chosen, 0, entry.size)):
        raise RefusedError(f"“{chosen}” is changing just now; try again in a moment.")
    return Step(Action.PLACE, original, entry, expected, _STAGED)


async def _stage(folder: Folder, entry: Entry, place: Place) -> bool:
    """Whether the file has the content that the index tells of."""
    chunks: Manifest | None = (Chunk(Digest(entry.content), entry.size),)
    if not is_small(entry):
        chunks = await folder.index.manifest(entry.content)

    if chunks is None:
        return False

    def copy() -> bool:
        folder.disk.unstage([_STAGED])
        done = folder.disk.prepare(_STAGED, chunks)
        return all(done) or all(folder.disk.stage_copy(_STAGED, 0, chunks, place))

    return await asyncio.to_thread(copy)


def _check(results: list[Result]) -> None:
    for result in results:
        if result.outcome is not Outcome.DONE:
            told = result.problem.reason if result.problem else "It changed since the last scan."
            raise RefusedError(f"“{result.step.path}” was left as it is. {told} Try again.")
