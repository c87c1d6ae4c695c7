"""Finds again what a commit placed when the process ended before its record.

Taken for an edit made here it would be a version of its own, which a deletion made meanwhile by
someone who has the file has not seen: the file would come back.
"""

from collections.abc import Mapping
from typing import NamedTuple

from p2psync.core.decide import is_carried_out
from p2psync.core.entry import Entry
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import FolderIndex, Offer


class Placed(NamedTuple):
    entry: Entry
    settled: list[tuple[RelPath, Offer]]


async def placed_unrecorded(
    index: FolderIndex, seen: Mapping[RelPath, Observation]
) -> dict[RelPath, Placed]:
    """Where what is seen is just what peers' offers call for."""
    if not (await index.counts()).need_files:
        return {}
    found = {}
    for path, wanted in (await index.wanted_at(list(seen))).items():
        decision = decide_wanted(wanted)
        if is_carried_out(decision, seen[path]):
            settled = [(path, offer) for offer in wanted.offers]
            found[path] = Placed(decision.winner, settled)
    return found
