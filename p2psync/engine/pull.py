"""Turns offers into held entries: wanted → decide → stage → commit → row → announce.

Live versions first (parents before children, small files before large), deletions last and
deepest first: so a moved file finds its bytes still here. Contents for the next group are staged
while the one before is committed. What cannot be done now is left wanted, with a reason.

Three orders are sacred. The bytes are durable before their row (`Disk.commit` returns after that).
The row is recorded before it is announced (exchanges read the index only). A losing content is
held at its conflict name before the winner's joined vector is recorded (`_Group.deferred`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from p2psync.core.decide import Decision, brake_holds, decide, is_news
from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy
from p2psync.core.observe import Observation, successor
from p2psync.core.relpath import RelPath, ancestors
from p2psync.core.version import Dot
from p2psync.engine.content import Contents, FileWanted, Staged, is_small
from p2psync.engine.local import Brakes, LocalChanges
from p2psync.engine.problems import Problems
from p2psync.ports import (
    Action,
    Clock,
    Disk,
    FolderIndex,
    Held,
    Outcome,
    Problem,
    Result,
    Row,
    Step,
    Wanted,
)

_GROUP_FILES = 500
_RETRY_FIRST = 2.0
_RETRY_LONGEST = 300.0


class _Item(NamedTuple):
    decision: Decision
    wanted: Wanted
    step: Step | None
    """None when only the row changes."""
    staged: Staged | None = None


@dataclass
class _Group:
    """What is committed together."""

    items: list[_Item] = field(default_factory=list)
    paths: set[RelPath] = field(default_factory=set)


class Puller:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        contents: Contents,
        local: LocalChanges,
        problems: Problems,
        turn: asyncio.Lock,
        *,
        own: DeviceID,
        brakes: Brakes,
        committed: Callable[[], None],
    ) -> None:
        """`committed` is called after rows were recorded or offers settled."""
        self._index = index
        self._disk = disk
        self._clock = clock
        self._contents = contents
        self._local = local
        self._problems = problems
        self._turn = turn
        self._own = own
        self._brakes = brakes
        self._committed = committed
        self._busy_paths: set[RelPath] = set()
        self._deferred: set[RelPath] = set()
        """Not to be tried again before something else changed."""
        self._failed: dict[RelPath, tuple[float, float]] = {}
        """Path → (when to try again, pause after that), in seconds of the monotonic clock."""
        self._approved = False
        self.braked = 0
        """Deletions that wait for `approve`."""
        self.busy = False

    def approve(self) -> int:
        waiting = self.braked
        self._approved = waiting > 0
        return waiting

    def next_retry(self) -> float | None:
        """Seconds until a failed path is due again; None when none failed."""
        if not self._failed:
            return None
        return max(0.0, min(due for due, _ in self._failed.values()) - self._clock.monotonic())

    async def run_until_idle(self) -> None:
        """Carry out what can be. Raises RootUnavailableError."""
        self._deferred.clear()
        self.busy = True
        try:
            while True:
                before = self._index.sequence
                await self._pull_live()
                await self._pull_deletions()
                if self._index.sequence == before:
                    return
                self._deferred.clear()
        finally:
            self.busy = False
            self._busy_paths.clear()

    def _skipped(self) -> set[RelPath]:
        now = self._clock.monotonic()
        waiting = {path for path, (due, _) in self._failed.items() if due > now}
        return self._busy_paths | self._deferred | waiting

    # --- live versions ---------------------------------------------------------------------

    async def _pull_live(self) -> None:
        groups: asyncio.Queue[_Group | None] = asyncio.Queue(maxsize=1)

        async def commit_groups() -> None:
            while (group := await groups.get()) is not None:
                await self._commit(group)

        async with asyncio.TaskGroup() as tasks:
            # Ends at the None that follows the last group.
            tasks.create_task(commit_groups(), name="commit")
            while wanted := await self._index.wanted(
                limit=_GROUP_FILES, tombstones=False, skip=self._skipped()
            ):
                self._busy_paths.update(item.path for item in wanted)
                for group in await self._stage(wanted):
                    await groups.put(group)
            await groups.put(None)

    async def _stage(self, wanted: Sequence[Wanted]) -> list[_Group]:
        """Decide, and stage what can be had; each path ends in a group or deferred."""
        ready: list[_Item] = []
        small: list[_Item] = []
        large: list[_Item] = []
        settled: list[tuple[RelPath, DeviceID]] = []
        for item in wanted:
            decision = _decide(item)
            if decision.changes_nothing:
                settled += [(item.path, offer.peer) for offer in item.offers]
            elif item.held is not None and item.held.fingerprint and item.held.fingerprint.racy:
                # It may have been edited in the very tick of its last read: read again first.
                self._local.mark([item.path])
                self._deferred.add(item.path)
            elif decision.copies and not await self._copies_held(decision, item):
                self._deferred.add(item.path)
            else:
                planned = _Item(decision, item, _step(decision, item.held))
                if not _needs_content(planned):
                    ready.append(planned)
                elif is_small(decision.winner):
                    small.append(planned)
                else:
                    large.append(planned)
        if settled:
            await self._index.settle(settled)
        groups = [await self._group_of_small(ready, small)]
        for planned in large:
            groups.append(await self._group_of_large(planned))
        for item in wanted:
            if not any(item.path in group.paths for group in groups):
                self._busy_paths.discard(item.path)
                self._deferred.add(item.path)
        return [group for group in groups if group.items]

    async def _group_of_small(self, ready: list[_Item], small: list[_Item]) -> _Group:
        files = [_file(item) for item in small]
        staged = await self._contents.stage_small(files) if files else {}
        items = ready + [
            item._replace(staged=staged[item.decision.path])
            for item in small
            if item.decision.path in staged
        ]
        items.sort(key=lambda item: item.decision.path.count("/"))
        return _Group(items, {item.decision.path for item in items})

    async def _group_of_large(self, item: _Item) -> _Group:
        try:
            staged = await self._contents.stage_large(_file(item))
        except OSError as error:
            self._fail(item.decision.path, self._disk.kind_of_problem(error, item.decision.path))
            return _Group()
        if staged is None:
            return _Group()
        return _Group([item._replace(staged=staged)], {item.decision.path})

    async def _copies_held(self, decision: Decision, wanted: Wanted) -> bool:
        """Whether every losing content is held at its conflict name; if not, they are wanted now,
        offered by the peers that offer them here, or by this device where it holds them."""
        held = await self._index.held([copy.path for copy in decision.copies])
        missing = [
            copy
            for copy in decision.copies
            if is_news(held[copy.path].entry if copy.path in held else None, copy.entry)
        ]
        for copy in missing:
            for peer in copy.sources or (self._own,):
                cursor = await self._index.cursor(peer)
                sequence = max(
                    (offer.sequence for offer in wanted.offers if offer.peer == peer), default=0
                )
                await self._index.receive(peer, cursor, [(sequence, copy.path, copy.entry)])
        return not missing

    # --- commit ----------------------------------------------------------------------------

    async def _commit(self, group: _Group) -> None:
        async with self._turn:
            held = await self._index.held([item.decision.path for item in group.items])
            current = [
                item for item in group.items if held.get(item.wanted.path) == item.wanted.held
            ]
            parents = await self._missing_parents(current)
            steps = [row_step for _, row_step in parents]
            steps += [_with_staging(item) for item in current if item.step is not None]
            results = await asyncio.to_thread(self._disk.commit, steps) if steps else []
            done = {result.step.path: result for result in results}
            rows = [
                Row(path, step.entry, done[path].fingerprint)
                for path, step in parents
                if done[path].outcome is Outcome.DONE
            ]
            settled: list[tuple[RelPath, DeviceID]] = []
            for item in current:
                result = done.get(item.decision.path)
                row = _row(item, result)
                if row is not None:
                    rows.append(row)
                    settled += [(item.wanted.path, offer.peer) for offer in item.wanted.offers]
                    self._succeeded(item.wanted.path)
            if rows or settled:
                await self._index.record(rows, settled=settled)
        staged = [item.staged.name for item in group.items if item.staged is not None]
        gone = [name for name in staged if name.startswith("s-")]
        if gone and len(rows) < len(group.items):
            await asyncio.to_thread(self._disk.unstage, gone)
        self._busy_paths -= group.paths
        for item in group.items:
            await self._after(item, done.get(item.decision.path))
        self._committed()

    async def _missing_parents(self, items: Sequence[_Item]) -> list[tuple[RelPath, Step]]:
        """Directories to be made because a live path lies in them though they were deleted, as
        new versions of this device: whoever deleted them did not know of the child."""
        making = {
            item.decision.path for item in items if item.decision.winner.kind == Kind.DIRECTORY
        }
        above = {
            path
            for item in items
            if item.decision.winner.is_live
            for path in ancestors(item.decision.path)
        } - making
        held = await self._index.held(list(above))
        parents: list[tuple[RelPath, Step]] = []
        for path in sorted(above, key=lambda path: path.count("/")):
            known = held.get(path)
            if known is not None and known.entry.is_live:
                continue
            entry = self._own_directory(known.entry if known else None, len(parents))
            parents.append((path, Step(Action.MAKE_DIRECTORY, path, entry, None)))
        return parents

    def _own_directory(self, seen: Entry | None, already: int) -> Entry:
        dot = Dot(self._index.replica, self._index.counter + 1 + already)
        return successor(
            seen,
            Observation(Kind.DIRECTORY),
            dot,
            now_ns=self._clock.now_ns(),
            author=self._local.author,
        )

    async def _after(self, item: _Item, result: Result | None) -> None:
        """What follows for a path whose step did not simply succeed."""
        path = item.decision.path
        if result is None or result.outcome is Outcome.DONE:
            return
        self._deferred.add(path)
        if result.outcome is Outcome.CHANGED:
            self._local.mark([path])
        elif result.outcome is Outcome.NO_PARENT:
            self._local.mark(ancestors(path)[-1:])
        elif result.outcome is Outcome.NOT_EMPTY:
            self._local.mark([path])
            await self._keep_directory(item)
        elif result.problem is not None:
            self._fail(path, result.problem)

    async def _keep_directory(self, item: _Item) -> None:
        """A directory that peers deleted or replaced still holds children here.

        Children that peers delete too go first, and the directory is tried again. Children that
        nobody deleted keep it: it becomes this device's new version, and a file that was to
        replace it keeps its content as a conflict copy.
        """
        path = item.decision.path
        children = await self._index.held_under(path)
        doomed = await self._index.wanted(limit=1_000_000, tombstones=True)
        deleted = {wanted.path for wanted in doomed if not _decide(wanted).winner.is_live}
        if not children:
            self._fail(
                path,
                Problem(
                    path,
                    "Peers deleted this directory, but it holds files that are not synchronized.",
                    "Move them elsewhere or delete them; the directory goes by itself then.",
                ),
            )
            return
        if all(child in deleted or held.entry.kind == Kind.DIRECTORY for child, held in children):
            return
        winner = item.decision.winner
        if winner.kind in (Kind.FILE, Kind.SYMLINK):
            name, entry = conflict_copy(path, winner)
            known = (await self._index.held([name])).get(name)
            if is_news(known.entry if known else None, entry):
                for peer in item.decision.sources:
                    cursor = await self._index.cursor(peer)
                    await self._index.receive(peer, cursor, [(0, name, entry)])
                return
        async with self._turn:
            held_now = (await self._index.held([path])).get(path)
            if held_now is None or held_now != item.wanted.held:
                return
            row = Row(path, self._own_directory(winner, 0), held_now.fingerprint)
            await self._index.record(
                [row], settled=[(path, offer.peer) for offer in item.wanted.offers]
            )

    def _fail(self, path: RelPath, problem: Problem) -> None:
        _, pause = self._failed.get(path, (0.0, _RETRY_FIRST))
        due = self._clock.monotonic() + pause
        self._failed[path] = (due, min(2 * pause, _RETRY_LONGEST))
        self._problems.set("pull", problem._replace(path=path))

    def _succeeded(self, path: RelPath) -> None:
        if self._failed.pop(path, None) is not None:
            self._problems.clear("pull", path)

    # --- deletions -------------------------------------------------------------------------

    async def _pull_deletions(self) -> None:
        """Only when nothing live is still to come that these could be moves of."""
        while wanted := await self._index.wanted(
            limit=100_000, tombstones=True, skip=self._skipped()
        ):
            if await self._brake(wanted):
                return
            for at in range(0, len(wanted), _GROUP_FILES):
                part = wanted[at : at + _GROUP_FILES]
                self._busy_paths.update(item.path for item in part)
                for group in await self._stage(part):
                    await self._commit(group)

    async def _brake(self, wanted: Sequence[Wanted]) -> bool:
        files = [
            (item.path, item.held.entry.content)
            for item in wanted
            if item.held is not None and item.held.entry.kind == Kind.FILE
        ]
        going = {path for path, _ in files}
        where = await self._index.find_contents(list({content for _, content in files}))
        deletions = sum(going.issuperset(where.get(content, ())) for _, content in files)
        held = (await self._index.counts()).files
        if not self._approved and brake_holds(
            deletions, held, least=self._brakes.files, percent=self._brakes.percent
        ):
            self.braked = deletions
            return True
        self._approved = False
        self.braked = 0
        return False


def _decide(wanted: Wanted) -> Decision:
    held = wanted.held.entry if wanted.held is not None else None
    return decide(wanted.path, held, [(offer.peer, offer.entry) for offer in wanted.offers])


def _step(decision: Decision, held: Held | None) -> Step | None:
    """What the disk needs for the decision; None when it shows the winner already."""
    winner = decision.winner
    live = held is not None and held.entry.is_live
    expected = held.fingerprint if held is not None and live else None
    if decision.keeps_content:
        if decision.keeps_metadata or not live:
            return None
        return Step(Action.SET_METADATA, decision.path, winner, expected)
    if winner.kind == Kind.TOMBSTONE:
        return Step(Action.REMOVE, decision.path, winner, expected) if live else None
    if winner.kind == Kind.DIRECTORY:
        return Step(Action.MAKE_DIRECTORY, decision.path, winner, expected)
    return Step(Action.PLACE, decision.path, winner, expected)


def _needs_content(item: _Item) -> bool:
    return (
        item.step is not None
        and item.step.action is Action.PLACE
        and item.decision.winner.kind == Kind.FILE
    )


def _file(item: _Item) -> FileWanted:
    decision = item.decision
    return FileWanted(decision.path, decision.winner, frozenset(decision.sources))


def _with_staging(item: _Item) -> Step:
    assert item.step is not None
    return item.step._replace(staged=item.staged.name) if item.staged else item.step


def _row(item: _Item, result: Result | None) -> Row | None:
    """The row to record, unless the step failed."""
    path, winner = item.decision.path, item.decision.winner
    if item.step is None:
        mark = item.wanted.held.fingerprint if item.wanted.held is not None else None
        return Row(path, winner, mark if winner.is_live else None)
    if result is None or result.outcome is not Outcome.DONE:
        return None
    manifest = item.staged.manifest if item.staged is not None else None
    return Row(path, winner, result.fingerprint if winner.is_live else None, manifest)
