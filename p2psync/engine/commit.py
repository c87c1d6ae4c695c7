"""Carries a group of decisions out: disk, then index rows, in one turn that nothing cuts short.

What was decided is only done where the index still holds what it was decided on, and the disk
itself refuses what is no longer as the index says. So an edit that nobody has seen yet is safe.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from p2psync.core.decide import Decision
from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.observe import Observation, successor
from p2psync.core.relpath import RelPath, ancestors
from p2psync.core.version import Dot
from p2psync.engine.content import FileWanted, Staged, is_small
from p2psync.engine.local import LocalChanges
from p2psync.engine.tasks import whole
from p2psync.ports import (
    Action,
    Clock,
    Disk,
    FolderIndex,
    Held,
    Offer,
    Outcome,
    Result,
    Row,
    Step,
    Wanted,
)


class Item(NamedTuple):
    """A decision about a path and what the disk needs for it."""

    decision: Decision
    wanted: Wanted
    step: Step | None
    """None when only the row changes."""
    origin: Wanted
    """The wanted path on whose behalf this is done: its own or, of a conflict copy, the one whose
    losing content it keeps."""
    keeps_directory: bool = False
    """Whether the held directory stays, as a new version that replaces the winner."""
    staged: Staged | None = None
    removal: "Item | None" = None
    """Of a rename: of the path whose file it takes, which goes by the same step."""

    @property
    def path(self) -> RelPath:
        return self.decision.path

    @property
    def paths(self) -> list[RelPath]:
        """All that it changes."""
        return [self.path] if self.removal is None else [self.path, self.removal.path]

    @property
    def is_placing(self) -> bool:
        """Whether the winner is to come to be on the disk."""
        return self.step is not None and self.decision.winner.is_live

    @property
    def needs_content(self) -> bool:
        return (
            self.step is not None
            and self.step.action is Action.PLACE
            and self.decision.winner.kind == Kind.FILE
        )

    @property
    def needs_large_content(self) -> bool:
        return self.needs_content and not is_small(self.decision.winner)

    @property
    def is_new_file(self) -> bool:
        """Whether its content is needed and nothing is at the path."""
        return self.needs_content and self.step is not None and self.step.expected is None

    @property
    def file(self) -> FileWanted:
        return FileWanted(self.path, self.decision.winner, frozenset(self.decision.sources))

    @property
    def settled(self) -> list[tuple[RelPath, Offer]]:
        return [(self.path, offer) for offer in self.wanted.offers]


@dataclass
class Committed:
    """What became of a group."""

    stale: list[Item] = field(default_factory=list)
    """The index held something else by then; to be decided anew."""
    done: list[Item] = field(default_factory=list)
    failed: list[tuple[Item, Result]] = field(default_factory=list)

    @property
    def not_done(self) -> list[Item]:
        return [*self.stale, *(item for item, _ in self.failed)]


def plan(decision: Decision, wanted: Wanted, origin: Wanted) -> Item:
    return Item(decision, wanted, _step(decision, wanted.held), origin)


def _step(decision: Decision, held: Held | None) -> Step | None:
    """What the disk needs for the decision; None when it shows the winner already."""
    winner = decision.winner
    live = held is not None and held.entry.is_live
    expected = held.fingerprint if held is not None and live else None
    # Of damaged bytes nothing is kept; they must not be given another time either.
    if decision.keeps_content and (held is None or held.damage is None):
        if decision.keeps_metadata or not live:
            return None
        return Step(Action.SET_METADATA, decision.path, winner, expected)
    if winner.kind == Kind.TOMBSTONE:
        return Step(Action.REMOVE, decision.path, winner, expected) if live else None
    if winner.kind == Kind.DIRECTORY:
        return Step(Action.MAKE_DIRECTORY, decision.path, winner, expected)
    return Step(Action.PLACE, decision.path, winner, expected)


def in_order(items: Iterable[Item]) -> list[Item]:
    """Removals before what may take their place, children before parents; then the rest, parents
    before children."""

    def key(item: Item) -> tuple[bool, int]:
        depth = item.path.count("/")
        live = item.decision.winner.is_live
        return live, depth if live else -depth

    return sorted(items, key=key)


class Committer:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        local: LocalChanges,
        turn: asyncio.Lock,
    ) -> None:
        self._index = index
        self._disk = disk
        self._clock = clock
        self._local = local
        self._turn = turn

    async def commit(self, items: Sequence[Item]) -> Committed:
        """`items` are in order."""
        return await whole(self._commit(items))

    async def _commit(self, items: Sequence[Item]) -> Committed:
        outcome = Committed()
        async with self._turn:
            both = [each for item in items for each in (item, item.removal) if each is not None]
            held = await self._index.held([each.path for each in both])
            stale = {each.path for each in both if held.get(each.path) != each.wanted.held}
            unjudged = await self._index.underway()
            current: list[Item] = []
            for item in items:
                if not stale.isdisjoint(item.paths):
                    outcome.stale.append(item)
                elif not unjudged.keys().isdisjoint(item.paths):
                    # The scan has to tell first what lies there.
                    outcome.failed.append((item, _refused(item)))
                else:
                    current.append(item)
            parents = await self._missing_parents(current)
            steps = parents + [_with_staging(item) for item in current if item.step is not None]
            placing = {item.path: item.decision.winner for item in current if item.is_placing}
            if placing:
                # What is put there is nobody's edit, whatever peers offer before it is recorded.
                await self._index.note_underway(placing)
            results = await asyncio.to_thread(self._disk.commit, steps) if steps else []
            done = {result.step.path: result for result in results}
            rows = [
                Row(step.path, step.entry, done[step.path].fingerprint)
                for step in parents
                if done[step.path].outcome is Outcome.DONE
            ]
            used = len(parents)
            settled = []
            for item in current:
                result = done.get(item.path)
                if result is not None and result.outcome is not Outcome.DONE:
                    outcome.failed.append((item, _with_reason(result, parents, done)))
                    continue
                if item.keeps_directory:
                    own = self._own_directory(item.decision.winner, used)
                    rows.append(Row(item.path, own, _mark_of(item.wanted.held)))
                    used += 1
                else:
                    rows.append(_row(item, result))
                settled += item.settled
                if item.removal is not None:
                    rows.append(_row(item.removal, None))
                    settled += item.removal.settled
                outcome.done.append(item)
            if rows:
                await self._index.record(rows, settled=settled)
            unplaced = [each for each in placing if done[each].fingerprint is None]
            if unplaced:
                await self._index.forget_underway(unplaced)
        unexpected = [p.path for p in parents if done[p.path].outcome is Outcome.CHANGED]
        if unexpected:
            self._local.mark(unexpected)
        return outcome

    async def _missing_parents(self, items: Sequence[Item]) -> list[Step]:
        """To make directories because a live path lies in them though they were deleted, as new
        versions of this device: whoever deleted them did not know of the child."""
        live = [item.decision for item in items if item.decision.winner.is_live]
        making = {each.path for each in live if each.winner.kind == Kind.DIRECTORY}
        above = {path for each in live for path in ancestors(each.path)} - making
        held = await self._index.held(list(above))
        steps: list[Step] = []
        for path in sorted(above, key=lambda path: path.count("/")):
            known = held.get(path)
            if known is None or not known.entry.is_live:
                entry = self._own_directory(known.entry if known else None, len(steps))
                steps.append(Step(Action.MAKE_DIRECTORY, path, entry, None))
        return steps

    def _own_directory(self, seen: Entry | None, already: int) -> Entry:
        dot = Dot(self._index.replica, self._index.counter + 1 + already)
        return successor(
            seen,
            Observation(Kind.DIRECTORY),
            dot,
            now_ns=self._clock.now_ns(),
            author=self._local.author,
        )


def _refused(item: Item) -> Result:
    step = item.step or Step(Action.SET_METADATA, item.path, item.decision.winner, None)
    return Result(step, Outcome.CHANGED)


def _with_staging(item: Item) -> Step:
    assert item.step is not None
    return item.step._replace(staged=item.staged.name) if item.staged else item.step


def _with_reason(result: Result, parents: Sequence[Step], done: dict[RelPath, Result]) -> Result:
    """Where there is no parent because it could not be made, the reason of that."""
    if result.outcome is Outcome.NO_PARENT:
        above = set(ancestors(result.step.path))
        for step in parents:
            if step.path in above and done[step.path].outcome is Outcome.FAILED:
                return done[step.path]
    return result


def _mark_of(held: Held | None) -> Fingerprint | None:
    return held.fingerprint if held is not None else None


def _row(item: Item, result: Result | None) -> Row:
    winner = item.decision.winner
    mark = _mark_of(item.wanted.held) if result is None else result.fingerprint
    manifest = item.staged.manifest if item.staged is not None else None
    return Row(item.path, winner, mark if winner.is_live else None, manifest)
