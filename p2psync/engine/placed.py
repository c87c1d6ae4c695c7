"""Finds again what a commit placed and did not record: the process ended before, or the index could
not be written.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back. What somebody moved here is one,
though: whoever replaces what peers offer has not seen that.
"""

from collections.abc import Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out, is_removal, shows
from p2psync.core.entry import Entry
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.engine.moved import Origin
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import FolderIndex, Offer


class Placed(NamedTuple):
    entry: Entry
    settled: list[tuple[RelPath, Offer]]


async def placed_unrecorded(
    index: FolderIndex,
    seen: Mapping[RelPath, Observation],
    origins: Mapping[RelPath, Origin],
    known: Mapping[RelPath, Entry],
) -> dict[RelPath, Placed]:
    """Where what is seen is just what peers' offers call for, or what is known to have been placed
    since the process began; of what was elsewhere before, if they call for its removal there."""
    found = {
        path: Placed(entry, [])
        for path, entry in known.items()
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
