"""Finds again what a commit placed when the process ended before its record.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back. What somebody moved here is one,
though: whoever replaces what peers offer has not seen that.
"""

from collections.abc import Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out, is_removal
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
) -> dict[RelPath, Placed]:
    """Where what is seen is just what peers' offers call for; of what was elsewhere before, if they
    call for its removal there."""
    if not (await index.counts()).need_files:
        return {}
    left = await index.wanted_at([origin.path for origin in origins.values()])
    to_go = {path for path, wanted in left.items() if is_removal(decide_wanted(wanted))}
    found = {}
    for path, wanted in (await index.wanted_at(list(seen))).items():
        decision = decide_wanted(wanted)
        is_moved_here = path in origins and origins[path].path not in to_go
        if is_carried_out(decision, seen[path]) and not is_moved_here:
            settled = [(path, offer) for offer in wanted.offers]
            found[path] = Placed(decision.winner, settled)
    return found
