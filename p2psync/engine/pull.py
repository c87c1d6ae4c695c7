"""Turns offers into held entries: wanted → decide → stage → commit → row → announce.

Live versions first (parents before children, small files before large), deletions last and
deepest first: so a moved file finds its bytes still here. Contents for the next group are staged
while the one before is committed, and large files beside the small ones. What cannot be done now
is left wanted, with a reason.

Three orders are sacred. The bytes are durable before their row (`Disk.commit` returns after that).
The row is recorded before it is announced (exchanges read the index only). A losing content is
held at its conflict name before the winner's joined vector is recorded (`Plans.blocked`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from p2psync.core.decide import is_removal
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath, ancestors
from p2psync.engine.attempts import LATER_S, NEVER_S, SOON_S, Attempts
from p2psync.engine.commit import Committer, Item, in_order
from p2psync.engine.content import Contents, Staged
from p2psync.engine.local import Brakes, LocalChanges
from p2psync.engine.peer_deletions import PeerDeletions
from p2psync.engine.plan import GROUP_FILES, Planner, one_group
from p2psync.engine.problems import Problems
from p2psync.engine.renames import Renames
from p2psync.engine.session import Session
from p2psync.engine.tasks import together
from p2psync.ports import Clock, Disk, FolderIndex, Outcome, Problem, Result, Wanted

_MOST_WAYS = 10
"""So often deletions give way to offers: these may come without an end."""

_Groups = asyncio.Queue[list[Item]]


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
        suspect: Callable[[set[RelPath]], None],
    ) -> None:
        """`committed` is called after rows were recorded or offers settled; `suspect` is told of
        paths whose bytes are not what the index says."""
        self._index = index
        self._disk = disk
        self._clock = clock
        self._contents = contents
        self._local = local
        self._announce = committed
        self._suspect = suspect
        self._own = own
        self._planner = Planner(index, own)
        self._renames = Renames(index)
        self._committer = Committer(index, disk, clock, local, turn)
        self._attempts = Attempts(clock, problems)
        self._busy: set[RelPath] = set()
        """Paths on their way to a commit."""
        self._blocked: set[RelPath] = set()
        """Paths that wait for the commit of others."""
        self._large: dict[RelPath, None] = {}
        """Large files to be staged, in order."""
        self._uncommitted: set[bytes] = set()
        """Contents of large files that are staged."""
        self._progress = 0
        self._arrived = False
        """Whether offers came since the last sweep began."""
        self._gave_way = 0
        """How often deletions have in a row, to offers that came."""
        self._outvoted: set[RelPath] = set()
        """Paths that are to go though someone still offers a version that is not deleted."""
        self._wake = asyncio.Event()
        self._large_wake = asyncio.Event()
        self._swept = 0.0
        """When a sweep last began (monotonic clock)."""
        self._available: frozenset[tuple[Session, int]] = frozenset()
        self.deletions = PeerDeletions(index, clock, brakes)
        self.busy = False

    def try_again(self) -> None:
        """A damaged file is whole again, which others may have waited for."""
        self._attempts.forgive()

    def notice(self) -> None:
        """Offers arrived: small ones pass a large file that is being fetched."""
        self._arrived = True
        self._wake.set()

    def next_retry(self) -> float | None:
        """Seconds until `run_until_idle` is to be called again; None when nothing waits so."""
        nearest = min(
            # What was due before and is not done waits for something else.
            self._attempts.next_due(after=self._swept),
            self.deletions.due_in(),
        )
        return nearest if nearest < NEVER_S else None

    async def run_until_idle(self) -> None:
        """Carry out what can be. Raises RootUnavailableError and OSError of the whole disk."""
        self.busy = True
        try:
            while True:
                before = self._progress
                await self._pull_live()
                await self._pull_deletions()
                if self._progress == before and not self._large:
                    self._contents.committed()
                    return
        except BaseException:
            self._contents.abandon()
            raise
        finally:
            self.busy = False
            self._busy.clear()
            self._blocked.clear()
            self._large.clear()
            self._uncommitted.clear()
            self._renames.forget()

    async def _reconsider(self) -> None:
        self._swept = self._clock.monotonic()
        available = self._contents.available()
        if not available <= self._available:
            self._attempts.forgive()
        self._available = available
        if due := self._attempts.due():
            self._attempts.keep_only(await self._index.wanted_at(due), of=due)

    # --- live versions ---------------------------------------------------------------------

    async def _pull_live(self) -> None:
        groups: _Groups = asyncio.Queue(maxsize=1)
        async with together() as tasks:
            workers = [
                tasks.create_task(self._commit_groups(groups), name="commit"),
                tasks.create_task(self._stage_large_files(groups), name="large-files"),
            ]
            while True:
                before = self._progress
                self._wake.clear()
                self._arrived = False
                await self._sweep(groups)
                await groups.join()
                self._blocked.clear()
                if self._progress != before or self._busy - self._large.keys():
                    continue
                if not self._large:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._attempts.next_due(after=self._swept)):
                        await self._wake.wait()
            for worker in workers:
                worker.cancel()

    async def _sweep(self, groups: _Groups) -> None:
        """Look at every path with a live offer once."""
        await self._reconsider()
        self._outvoted.clear()
        skip = self._attempts.skipped()
        after: tuple[int, ...] = ()
        while wanted := await self._index.wanted(
            limit=GROUP_FILES, tombstones=False, after=after, skip=skip
        ):
            wanted = one_group(wanted)
            after = wanted[-1].place
            if group := await self._prepare(self._free(wanted)):
                await groups.put(group)

    def _free(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        return [
            each
            for each in wanted
            if each.path not in self._busy and each.path not in self._blocked
        ]

    async def _prepare(self, wanted: Sequence[Wanted], *, deletions: bool = False) -> list[Item]:
        """What can be committed of it, in order. Large files go their own way, and deletions where
        they may not be; every other path is settled, blocked or put off."""
        elsewhere = frozenset(self._busy)
        self._busy.update(each.path for each in wanted)
        plans = await self._planner.plan(wanted)
        possible: list[Item] = []
        for item in plans.items:
            if not deletions and item.step is not None and is_removal(item.decision):
                # These are counted first.
                self._outvoted.add(item.path)
                continue
            if item.path not in elsewhere and not self._is_unsure(item):
                possible.append(item)
        taken = self._busy.union(self._blocked, (each.path for each in plans.blocked))
        ready, small = list[Item](), list[Item]()
        for item in await self._renames.join(possible, taken):
            self._busy.update(item.paths)
            if item.needs_large_content:
                self._large[item.origin.path] = None
                self._large_wake.set()
            else:
                (small if item.needs_content else ready).append(item)
        self._blocked.update(each.path for each in plans.blocked)
        if plans.settled:
            await self._index.settle(plans.settled)
            for path, _ in plans.settled:
                self._attempts.succeeded(path)
            self._progress += 1
            self._announce()
        group = in_order(ready + await self._stage_small(small))
        planned = {each.path for each in wanted}.union(item.path for item in plans.items)
        going_on = {path for item in group for path in item.paths}.union(self._large, elsewhere)
        self._busy -= planned - going_on
        return group

    def _is_unsure(self, item: Item) -> bool:
        """Whether the file may have been edited in the very tick of its last read: then the disk
        could not tell, and it is read again first."""
        expected = item.step.expected if item.step is not None else None
        if expected is None or not expected.racy:
            return False
        self._look_at(item.path, item.origin)
        return True

    def _look_at(self, path: RelPath, origin: Wanted) -> None:
        self._local.mark([path])
        self._attempts.put_off(origin, SOON_S)

    async def _stage_small(self, items: Sequence[Item]) -> list[Item]:
        if not items:
            return []
        outcomes = await self._contents.stage_small([item.file for item in items])
        staged = []
        for item in items:
            outcome = outcomes.get(item.path)
            if isinstance(outcome, Staged):
                staged.append(item._replace(staged=outcome))
            else:
                self._not_staged(item, outcome)
        return staged

    def _not_staged(self, item: Item, error: OSError | None) -> None:
        origin = item.origin
        if error is not None:
            self._attempts.put_off(origin, LATER_S, self._disk.kind_of_problem(error, item.path))
        elif self._planner.can_do_without(item):
            self._progress += 1
        elif self._contents.is_connected(item.decision.sources):
            self._attempts.put_off(origin, LATER_S)
        elif self._own in item.decision.sources:
            # The losing content was here, and is not as it was.
            self._suspect({origin.path})
            self._look_at(origin.path, origin)
        else:
            self._attempts.put_off(origin, NEVER_S)

    async def _stage_large_files(self, groups: _Groups) -> None:
        """Until cancelled."""
        while True:
            await self._large_wake.wait()
            self._large_wake.clear()
            while self._large:
                path = next(iter(self._large))
                # Much may have happened since it was put in line.
                found = await self._index.wanted_at([path])
                plans = await self._planner.plan(list(found.values()))
                items = [
                    item
                    for item in plans.items
                    if item.needs_large_content and not self._is_unsure(item)
                ]
                staged = {item.path for item in items if await self._stage_large(item, groups)}
                if not items:
                    self._progress += 1
                del self._large[path]
                self._busy -= {path} - staged
                self._wake.set()

    async def _stage_large(self, item: Item, groups: _Groups) -> bool:
        content = item.decision.winner.content
        while content in self._uncommitted:
            # The staged file has that content's name and goes away with the commit; afterwards
            # it can be copied.
            await groups.join()
        try:
            staged = await self._contents.stage_large(item.file)
        except OSError as error:
            self._not_staged(item, error)
            return False
        if staged is None:
            self._not_staged(item, None)
            return False
        self._busy.add(item.path)
        self._uncommitted.add(content)
        await groups.put([item._replace(staged=staged)])
        return True

    # --- commits ---------------------------------------------------------------------------

    async def _commit_groups(self, groups: _Groups) -> None:
        """Until cancelled."""
        while True:
            await self._commit(await groups.get())
            groups.task_done()
            self._wake.set()

    async def _commit(self, group: Sequence[Item]) -> None:
        outcome = await self._committer.commit(group)
        await self._contents.drop(
            item.staged for item in outcome.not_done if item.staged is not None
        )
        for item in outcome.done:
            for path in item.paths:
                self._attempts.succeeded(path)
        for item, result in outcome.failed:
            await self._failed(item, result)
        if outcome.done or outcome.stale:
            self._progress += 1
        for item in group:
            self._busy.difference_update(item.paths)
            if item.staged is not None:
                self._uncommitted.discard(item.decision.winner.content)
        if outcome.done:
            self._announce()

    async def _failed(self, item: Item, result: Result) -> None:
        if item.removal is not None:
            self._renames.refused(item.path)
            self._local.mark(item.paths)
            self._progress += 1
        elif result.outcome is Outcome.CHANGED:
            self._look_at(item.path, item.origin)
        elif result.outcome is Outcome.NO_PARENT:
            self._look_at((ancestors(item.path) or [item.path])[-1], item.origin)
        elif result.outcome is Outcome.NOT_EMPTY:
            await self._not_empty(item)
        else:
            self._attempts.put_off(item.origin, LATER_S, result.problem)

    async def _not_empty(self, item: Item) -> None:
        """A directory that peers deleted or replaced still holds children here.

        Children that peers delete too go first, and the directory is tried again. Children that
        nobody deleted keep it: it becomes this device's new version, and a file that was to
        replace it keeps its content as a conflict copy.
        """
        children = [path for path, _ in await self._index.held_under(item.path)]
        wanted = await self._index.wanted_at(children)
        if any(path not in wanted or not self._planner.is_going(wanted[path]) for path in children):
            self._planner.keep_directory(item.wanted)
            self._progress += 1
        elif children:
            self._blocked.add(item.path)
        elif not self._attempts.count(item.origin):
            # Most likely something new, that a look makes a child like any other.
            self._look_at(item.path, item.origin)
        else:
            problem = Problem(
                item.path,
                "Peers deleted this directory, but it holds files that are not synchronized.",
                "Move them elsewhere or delete them; the directory goes by itself then.",
            )
            self._attempts.put_off(item.origin, LATER_S, problem)

    # --- deletions -------------------------------------------------------------------------

    async def _pull_deletions(self) -> None:
        outvoted = list((await self._index.wanted_at(list(self._outvoted))).values())
        if await self.deletions.hold(outvoted):
            return
        skip = self._attempts.skipped()
        after: tuple[int, ...] = ()
        while wanted := await self._index.wanted(
            limit=GROUP_FILES, tombstones=True, after=after, skip=skip
        ):
            if self._arrived and self._gave_way < _MOST_WAYS:
                # These may be moves, and what they moved to is to find the content still here.
                self._gave_way += 1
                self._progress += 1
                return
            after = wanted[-1].place
            await self._delete(wanted)
        outvoted.sort(key=lambda each: -each.path.count("/"))
        for at in range(0, len(outvoted), GROUP_FILES):
            await self._delete(outvoted[at : at + GROUP_FILES])
        self._gave_way = 0
        if self._arrived:
            self._progress += 1

    async def _delete(self, wanted: Sequence[Wanted]) -> None:
        counted = [each for each in self._free(wanted) if self.deletions.is_counted(each)]
        if group := await self._prepare(counted, deletions=True):
            await self._commit(group)
