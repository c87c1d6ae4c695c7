"""Decides wanted paths together with what their decisions call for: conflict copies first.

Copies are never kept as offers: they follow anew from what is offered at the path itself, for as
long as that is offered. So none outlives the conflict that it belongs to, over restarts too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from p2psync.core.decide import Copy, Decision
from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy, merge
from p2psync.core.relpath import RelPath
from p2psync.engine.commit import Item, plan
from p2psync.engine.content import is_small
from p2psync.engine.wanted import decide_wanted
from p2psync.ports import FolderIndex, Held, Offer, Wanted

GROUP_FILES = 1000
GROUP_BYTES = 64 * 1024 * 1024
"""Of small files. A group costs a few syncs of the disk, whatever is in it."""


class Plans(NamedTuple):
    items: list[Item]
    settled: list[tuple[RelPath, Offer]]
    """Offers that change nothing."""
    blocked: list[Wanted]
    """Not to be carried out before copies are held, which are among `items`."""


_Content = tuple[bytes, int]
"""With its size: a liar may tell another, and what has that can never be had."""


class _Task(NamedTuple):
    wanted: Wanted
    origin: Wanted


class Planner:
    def __init__(self, index: FolderIndex, own: DeviceID) -> None:
        self._index = index
        self._own = own
        self._kept: dict[RelPath, int] = {}
        """Directories to keep though peers deleted or replaced them, and the stamps of their
        offers: children are in them that nobody deleted."""
        self._absent: dict[RelPath, tuple[int, frozenset[_Content]]] = {}
        """By path: losing contents that cannot be had now, and the stamp of the offers."""

    def keep_directory(self, wanted: Wanted) -> None:
        self._kept[wanted.path] = wanted.stamp

    def can_do_without(self, item: Item) -> bool:
        """Have the next plan of the path pass over offers of this losing content, as if they had
        not come yet: it cannot be had now, and is not to hold up what can. False for the winner
        itself, and where nothing live would be left to decide on; all is tried again then."""
        origin, content = item.origin, _content_of(item.decision.winner)
        stamp, known = self._absent.pop(origin.path, (origin.stamp, frozenset()))
        if item.path == origin.path:
            return False
        absent = (known if stamp == origin.stamp else frozenset()) | {content}
        live = {_content_of(offer.entry) for offer in origin.offers if offer.entry.is_live}
        if content not in live or live <= absent:
            return False
        self._absent[origin.path] = (origin.stamp, absent)
        return True

    def _without_absent(self, wanted: Wanted) -> Wanted:
        if wanted.path not in self._absent:
            return wanted
        stamp, absent = self._absent[wanted.path]
        offers = tuple(each for each in wanted.offers if _content_of(each.entry) not in absent)
        # What they were to hold up no longer may be settled or withdrawn by now.
        if stamp != wanted.stamp or not any(each.entry.is_live for each in offers):
            del self._absent[wanted.path]
            return wanted
        return wanted._replace(offers=offers)

    def is_going(self, wanted: Wanted) -> bool:
        """Whether the path is to be deleted."""
        kept = self._kept.get(wanted.path) == wanted.stamp
        return not kept and not decide_wanted(wanted).winner.is_live

    async def plan(self, wanted: Sequence[Wanted]) -> Plans:
        present = [self._without_absent(item) for item in wanted]
        tasks = {item.path: _Task(item, item) for item in present}
        plans: dict[RelPath, Item] = {}
        settled: dict[RelPath, list[tuple[RelPath, Offer]]] = {}
        blocked: dict[RelPath, Wanted] = {}
        while tasks:
            path = next(iter(tasks))
            task = tasks.pop(path)
            decision = decide_wanted(task.wanted)
            keeps = self._keeps(task.wanted, decision)
            if keeps:
                decision = self._with_winners_copy(decision)
            missing = await self._missing(decision.copies)
            if missing:
                blocked[path] = task.origin
                for found in await self._copies(missing):
                    tasks[found.path] = _Task(found, task.origin)
                    # It may have been planned without the losing content.
                    plans.pop(found.path, None)
                    settled.pop(found.path, None)
            elif keeps:
                plans[path] = Item(decision, task.wanted, None, task.origin, keeps_directory=True)
            elif decision.winner == decision.held and not (
                _is_damaged(task.wanted.held) and path != task.origin.path
            ):
                settled[path] = [(path, offer) for offer in task.wanted.offers]
            else:
                plans[path] = plan(decision, task.wanted, task.origin)
        return Plans(
            list(plans.values()),
            [offer for offers in settled.values() for offer in offers],
            list(blocked.values()),
        )

    def _keeps(self, wanted: Wanted, decision: Decision) -> bool:
        held = wanted.held
        return (
            self._kept.get(wanted.path) == wanted.stamp
            and held is not None
            and held.entry.kind == Kind.DIRECTORY
            and decision.winner.kind != Kind.DIRECTORY
        )

    def _with_winners_copy(self, decision: Decision) -> Decision:
        """The directory stays, so what was to replace it is kept as a loser would be."""
        if decision.winner.kind not in (Kind.FILE, Kind.SYMLINK):
            return decision
        name, entry = conflict_copy(decision.path, decision.winner)
        return decision._replace(copies=(*decision.copies, Copy(name, entry, decision.sources)))

    async def _missing(self, copies: Sequence[Copy]) -> list[tuple[Copy, Held | None]]:
        """Those losing contents that are not held at their conflict names yet, or damaged there."""
        if not copies:
            return []
        held = await self._index.held([copy.path for copy in copies])
        found = [(copy, held.get(copy.path)) for copy in copies]
        return [(copy, at) for copy, at in found if await self._is_missing(copy, at)]

    async def _is_missing(self, copy: Copy, at: Held | None) -> bool:
        if at is None or _is_damaged(at):
            return True
        winner, loser = merge(at.entry, copy.entry)
        if loser is None or winner != at.entry:
            return winner != at.entry
        # It lost there too, to another version of the copy, and is kept under a name of its own.
        name, entry = conflict_copy(copy.path, loser)
        deeper = (await self._index.held([name])).get(name)
        return await self._is_missing(Copy(name, entry, copy.sources), deeper)

    async def _copies(self, missing: Sequence[tuple[Copy, Held | None]]) -> list[Wanted]:
        """As wanted paths, together with what peers offer there themselves. Where only this device
        has the content, at the path itself, it is its own source."""
        offered = await self._index.wanted_at([copy.path for copy, _ in missing])
        found = []
        for copy, held in missing:
            known = offered.get(copy.path)
            offers = known.offers if known is not None else ()
            # Sequence 0 is of no offer that is stored.
            own = tuple(Offer(peer, 0, copy.entry) for peer in copy.sources or (self._own,))
            found.append(Wanted(copy.path, held, (*offers, *own)))
        return found


def _is_damaged(held: Held | None) -> bool:
    return held is not None and held.damage is not None


def _content_of(entry: Entry) -> _Content:
    return entry.content, entry.size


def one_group(wanted: list[Wanted]) -> list[Wanted]:
    """As many of the first as one group holds."""
    size = 0
    for number, each in enumerate(wanted):
        small = [offer.entry.size for offer in each.offers if is_small(offer.entry)]
        size += max(small, default=0)
        if size > GROUP_BYTES and number:
            return wanted[:number]
    return wanted
