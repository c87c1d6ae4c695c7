"""Finds again what a commit placed and did not record: the process ended before, the index could
not be written, or the disk did not make it durable.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back. What somebody moved here is one,
though: whoever replaces what peers offer has not seen that.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out, is_removal, shows, was_placed
from p2psync.core.entry import UNSEEN, Entry, Fingerprint
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.engine.moved import Origin
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import Disk, FolderIndex, Offer, Row, Seen


class Placed(NamedTuple):
    entry: Entry
    settled: list[tuple[RelPath, Offer]]


async def judge_underway(index: FolderIndex, disk: Disk) -> None:
    """Before the disk is looked at in earnest. Where it is as the index says, what was underway was
    not placed. Where that is not there and surely was, it is recorded first: then what a person did
    to it since is seen as that."""
    underway = await index.underway()
    if not underway:
        return
    paths = list(underway)
    seen = await asyncio.to_thread(disk.look, paths)
    held = await index.held(paths)
    displaced = await asyncio.to_thread(disk.displaced, paths)
    unplaced: list[RelPath] = []
    rows: list[Row] = []
    for path, entry in underway.items():
        now = seen.get(path)
        known = held[path].fingerprint if path in held else None
        if _is_as_known(now, known):
            unplaced.append(path)
        elif known is None or _may_show(now, entry):
            continue
        elif was_placed(entry, known, displaced.get(path, [])):
            rows.append(Row(path, entry, UNSEEN))
    if unplaced:
        await index.forget_underway(unplaced)
    if rows:
        await asyncio.to_thread(disk.make_durable, [row.path for row in rows])
        await index.record(rows)


def _is_as_known(seen: Seen | None, known: Fingerprint | None) -> bool:
    if known is None:
        return seen is None
    return seen is not None and known.unchanged(seen.fingerprint)


def _may_show(seen: Seen | None, entry: Entry) -> bool:
    """Only its bytes would tell."""
    if seen is None:
        return False
    mark = seen.fingerprint
    return (mark.size, mark.mtime_ns) == (entry.size, entry.mtime_ns)


async def placed_unrecorded(
    index: FolderIndex, seen: Mapping[RelPath, Observation], origins: Mapping[RelPath, Origin]
) -> dict[RelPath, Placed]:
    """Where what is seen is just what was underway, or what peers' offers call for; of what was
    elsewhere before, if they call for its removal there."""
    left = await index.wanted_at([origin.path for origin in origins.values()])
    to_go = {path for path, wanted in left.items() if is_removal(decide_wanted(wanted))}
    moved = {path for path, origin in origins.items() if origin.path not in to_go}
    found = {
        path: Placed(entry, [])
        for path, entry in (await index.underway()).items()
        if path in seen and path not in moved and shows(seen[path], entry)
    }
    if not (await index.counts()).need_files:
        return found
    offered = await index.wanted_at([path for path in seen if path not in moved])
    for path, wanted in offered.items():
        decision = decide_wanted(wanted)
        if is_carried_out(decision, seen[path]):
            settled = [(path, offer) for offer in wanted.offers]
            found[path] = Placed(decision.winner, settled)
    return found
