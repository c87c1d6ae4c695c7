"""Joins the arrival of a file and the deletion of the same content elsewhere to one rename.

The file's bytes are not read for that: with the fingerprint under which they are known they are as
good at the new path as they were at the old one.
"""

from collections import defaultdict
from collections.abc import Container, Sequence

from p2psync.core.entry import Entry
from p2psync.core.relpath import RelPath
from p2psync.engine.commit import Item, plan
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import Action, FolderIndex, Step, Wanted


class Renames:
    def __init__(self, index: FolderIndex) -> None:
        self._index = index
        self._refused: set[RelPath] = set()

    def refused(self, path: RelPath) -> None:
        """The disk would not rename to this path: a copy is to be made."""
        self._refused.add(path)

    def forget(self) -> None:
        """What was refused may be tried again."""
        self._refused.clear()

    async def join(self, items: Sequence[Item], taken: Container[RelPath]) -> list[Item]:
        """The items, those as renames that can be. Paths that are `taken` are left alone."""
        wanting = [item for item in items if item.is_new_file and item.path not in self._refused]
        if not wanting or not (await self._index.counts()).need_deletes:
            return list(items)
        places = await self._index.find_contents([item.decision.winner.content for item in wanting])
        paths = {path for found in places.values() for path in found if path not in taken}
        going = await self._index.wanted_at(list(paths))
        removals: dict[bytes, list[Item]] = defaultdict(list)
        for wanted in going.values():
            if (removal := _removal(wanted)) is not None and removal.decision.held is not None:
                removals[removal.decision.held.content].append(removal)
        joined = {}
        for item in wanting:
            found = removals.get(item.decision.winner.content, [])
            match = next((each for each in found if _fits(each, item.decision.winner)), None)
            if match is not None:
                found.remove(match)
                joined[item.path] = _rename(item, match)
        return [joined.get(item.path, item) for item in items]


def _removal(wanted: Wanted) -> Item | None:
    """Of a file that is to go, as it is known."""
    item = plan(decide_wanted(wanted), wanted, wanted)
    held, step = wanted.held, item.step
    if held is None or held.damage is not None or item.decision.copies:
        return None
    if step is None or step.action is not Action.REMOVE:
        return None
    return item if step.expected is not None and not step.expected.racy else None


def _fits(removal: Item, winner: Entry) -> bool:
    held = removal.decision.held
    return held is not None and held.same_content(winner) and held.same_metadata(winner)


def _rename(item: Item, removal: Item) -> Item:
    assert removal.step is not None
    expected, source = removal.step.expected, removal.path
    step = Step(Action.MOVE, item.path, item.decision.winner, expected, source=source)
    return item._replace(step=step, removal=removal)
