"""Finds again what a commit placed and did not record: the process ended before, the index could
not be written, or the disk did not make it durable.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back. What somebody moved here is one,
though: whoever replaces what peers offer has not seen that.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out, is_removal, shows
from p2psync.core.entry import Entry
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.engine.moved import Origin
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import Disk, FolderIndex, Held, Offer, Seen


class Placed(NamedTuple):
    entry: Entry
    settled: list[tuple[RelPath, Offer]]


async def forget_unplaced(index: FolderIndex, disk: Disk) -> None:
    """Where the disk is as the index says, what was underway was not placed."""
    underway = list(await index.underway())
    if not underway:
        return
    seen = await asyncio.to_thread(disk.look, underway)
    held = await index.held(underway)
    unplaced = [path for path in underway if _is_as_known(seen[path], held.get(path))]
    await index.forget_underway(unplaced)


def _is_as_known(seen: Seen | None, held: Held | None) -> bool:
    if held is None or held.fingerprint is None:
        return seen is None
    return seen is not None and held.fingerprint.unchanged(seen.fingerprint)


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
