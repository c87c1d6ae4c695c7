"""Finds again what a commit placed and did not record: the process ended before, or the index could
not be written.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back. What somebody moved here is one,
though: whoever replaces what peers offer has not seen that.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out, is_removal, shows
from p2psync.core.entry import Entry
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.engine.moved import Origin
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import FolderIndex, Offer, Result, Row, Step


class Underway:
    """What commits put on the disk and is not recorded yet, nor anything else at its path since.
    The index remembers it from before the disk is changed: so it is known after a crash as well."""

    def __init__(self, index: FolderIndex) -> None:
        self._index = index
        self._entries: dict[RelPath, Entry] = {}
        self._is_loaded = False

    async def load(self) -> Mapping[RelPath, Entry]:
        if not self._is_loaded:
            self._entries = {**await self._index.underway(), **self._entries}
            self._is_loaded = True
        return self._entries

    async def begin(self, steps: Iterable[Step]) -> None:
        await self.load()
        live = {step.path: step.entry for step in steps if step.entry.is_live}
        if live:
            self._entries |= live
            await self._index.note_underway(self._entries)

    async def end(self, results: Iterable[Result]) -> None:
        """Only what is there now is to be recorded, or to be found again."""
        not_there = [each.step.path for each in results if each.fingerprint is None]
        if not self._entries.keys().isdisjoint(not_there):
            for path in not_there:
                self._entries.pop(path, None)
            await self._index.note_underway(self._entries)

    def recorded(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._entries.pop(row.path, None)


class Placed(NamedTuple):
    entry: Entry
    settled: list[tuple[RelPath, Offer]]


async def placed_unrecorded(
    index: FolderIndex,
    seen: Mapping[RelPath, Observation],
    origins: Mapping[RelPath, Origin],
    underway: Mapping[RelPath, Entry],
) -> dict[RelPath, Placed]:
    """Where what is seen is just what peers' offers call for, or what was underway; of what was
    elsewhere before, if they call for its removal there."""
    found = {
        path: Placed(entry, [])
        for path, entry in underway.items()
        if path in seen and shows(seen[path], entry)
    }
    if not (await index.counts()).need_files:
        return found
    left = await index.wanted_at([origin.path for origin in origins.values()])
    to_go = {path for path, wanted in left.items() if is_removal(decide_wanted(wanted))}
    for path, wanted in (await index.wanted_at(list(seen))).items():
        decision = decide_wanted(wanted)
        is_moved_here = path in origins and origins[path].path not in to_go
        if is_carried_out(decision, seen[path]) and not is_moved_here:
            settled = [(path, offer) for offer in wanted.offers]
            found[path] = Placed(decision.winner, settled)
    return found
