"""Records local changes: dirty paths → what differs (`finding`) → hash → version → index row.

The scan is the truth and the watcher only says where to look. Nothing is recorded but under
`turn`, after another look: the puller commits under the same lock, so its own writes are never
taken for someone's edit.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from p2psync.core.brake import PassedDeletions, brake_holds
from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.observe import Observation, as_given, is_new, successor
from p2psync.core.relpath import RelPath
from p2psync.core.settle import quiet_at
from p2psync.core.version import Dot
from p2psync.engine.damaged import Lost, content_meant, identity, lost_contents
from p2psync.engine.finding import Finder
from p2psync.engine.moved import Moved, Origin, is_move, unread, without_copies
from p2psync.engine.placed import forget_unplaced, placed_unrecorded
from p2psync.engine.problems import Problems
from p2psync.engine.reading import Reader
from p2psync.ports import (
    Clock,
    Disk,
    FolderIndex,
    Hashed,
    Held,
    Offer,
    Row,
    Seen,
)

_FIRST_GROUP = 125
_GROUP_FILES = 1000
"""Each group of a scan is twice as large as the one before: peers begin early, and later ones cost
fewer syncs of the disk."""
_GROUP_BYTES = 256 * 1024 * 1024
_LARGE = 16 * 1024 * 1024
"""Files from this size are read after all others, which would wait for them."""
_RETRY_S = 0.2
_LONGEST_WAIT_S = 10.0
"""A file that is written to without a pause is read this often all the same."""
_LONGEST_ARRIVAL_S = 3.0
"""How long deletions wait for new files that they may turn out to be moves to."""
_MANY_DELETIONS = 20
"""From so many on, deletions wait until no more come: the brake counts them all."""


class Brakes(NamedTuple):
    """How many deletions may pass without a person's word."""

    files: int
    percent: int


class LocalChanges:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        problems: Problems,
        turn: asyncio.Lock,
        *,
        author: str,
        brakes: Brakes,
    ) -> None:
        self._index = index
        self._disk = disk
        self._clock = clock
        self._problems = problems
        self._turn = turn
        self._brakes = brakes
        self._finder = Finder(index, disk, problems, turn)
        self._reader = Reader(index, disk, problems)
        self.author = author
        self._dirty: set[RelPath] = set()
        self._everything = True
        self._later: dict[RelPath, float] = {}
        """Paths not to be judged yet, and when to look again (monotonic clock)."""
        self._since: dict[RelPath, float] = {}
        """Since when a file is put off because it is being written."""
        self._gone_since: dict[RelPath, float] = {}
        self._approved: set[RelPath] = set()
        self._passed = PassedDeletions()
        self.braked: set[RelPath] = set()
        """Vanished files whose deletion waits for `approve`."""
        self.wake = asyncio.Event()
        self.wake.set()
        self.busy = False
        self.looked_at_all = clock.monotonic()
        """When everything was looked at last."""
        self.recorded: Callable[[], None] = lambda: None
        """Called after each group of changes, so that peers hear of the first ones at once."""

    # --- what to look at -------------------------------------------------------------------

    def mark(self, paths: Iterable[RelPath] | None) -> None:
        """Look at these paths soon (None: at everything)."""
        if paths is None:
            self._everything = True
        else:
            self._dirty.update(paths)
        self.wake.set()

    def approve(self) -> int:
        """Let the waiting deletions pass; how many."""
        waiting = len(self.braked)
        self._approved = set(self.braked)
        self.mark(self.braked)
        return waiting

    @property
    def pending(self) -> bool:
        return bool(self.busy or self._everything or self._dirty or self._later)

    async def wait(self, longest: float) -> None:
        """Until something is to be looked at, or `longest` seconds."""
        if self._later:
            due = min(self._later.values()) - self._clock.monotonic()
            longest = max(0.0, min(longest, due))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self.wake.wait()
        now = self._clock.monotonic()
        for path in [path for path, due in self._later.items() if due <= now]:
            del self._later[path]
            self._dirty.add(path)

    # --- one pass --------------------------------------------------------------------------

    async def scan(self) -> bool:
        """Look at what is marked and record what changed; whether anything was recorded.

        Raises RootUnavailableError, with everything still marked.
        """
        self.wake.clear()
        everything, dirty = self._everything, self._dirty
        if not everything and not dirty:
            return False
        self._everything, self._dirty = False, set()
        self.busy = True
        before = self._index.sequence
        try:
            arriving, judged = 0.0, 0
            async with self._turn:
                await forget_unplaced(self._index, self._disk)
            moved = Moved(self._index)
            await moved.went(list(self._gone_since))

            async def record(changed: list[Seen], missing: list[RelPath]) -> None:
                nonlocal arriving, judged
                await moved.went([*missing[judged:], *(item.path for item in changed)])
                judged = len(missing)
                arriving = max(arriving, await self._record_changed(changed, moved))

            async def early(changed: list[Seen], missing: list[RelPath]) -> list[Seen]:
                await record([item for item in changed if not _is_large(item)], missing)
                return [item for item in changed if _is_large(item)]

            finder = self._finder
            found = await (
                finder.all(early) if everything else finder.at(dirty | self.braked, early)
            )
            for path in found.absent:
                self._problems.clear("read", path)
                self._since.pop(path, None)
            await record(found.changed, found.missing)
            gone = [path for path in found.missing if path not in moved.recorded]
            await self._record_missing(gone, arriving)
            if everything:
                self.looked_at_all = self._clock.monotonic()
        except BaseException:
            self._everything |= everything
            self._dirty |= dirty
            raise
        finally:
            self.busy = False
        return self._index.sequence != before

    # --- new and changed -------------------------------------------------------------------

    async def _record_changed(self, changed: list[Seen], moved: Moved) -> float:
        """When to look again at new files that are still being written; 0 if there are none."""
        changed.sort(key=lambda item: (_is_large(item), item.path.count("/"), item.path))
        unsettled: list[RelPath] = []
        group: list[Seen] = []
        size, most = 0, _FIRST_GROUP
        for item in changed:
            mark = item.fingerprint
            if mark.kind == Kind.FILE and not moved.is_known(item) and await self._put_off(item):
                unsettled.append(item.path)
                continue
            self._since.pop(item.path, None)
            group.append(item)
            size += mark.size
            if len(group) >= most or size >= _GROUP_BYTES:
                await self._record_group(group, moved)
                group, size, most = [], 0, min(2 * most, _GROUP_FILES)
        if group:
            await self._record_group(group, moved)
        held = await self._index.held(unsettled)
        new = [path for path in unsettled if path not in held or not held[path].entry.is_live]
        return max((self._later[path] for path in new), default=0.0)

    async def _put_off(self, item: Seen) -> bool:
        """Whether the file is to be looked at later, because it is being written."""
        mark = item.fingerprint
        wall, now = self._clock.now_ns(), self._clock.monotonic()
        quiet = quiet_at(mark.size, mark.ctime_ns, wall)
        closed = quiet_at(mark.size, mark.ctime_ns, wall, is_closed=True)
        if closed < quiet and wall < quiet and await self._reader.is_closed(item.path):
            quiet = closed
        wait = (quiet - wall) / 1e9
        since = self._since.setdefault(item.path, now)
        if wait <= 0 or now - since >= _LONGEST_WAIT_S:
            return False
        self._later[item.path] = now + wait
        return True

    async def _record_group(self, group: Sequence[Seen], moved: Moved) -> None:
        files = [item for item in group if item.fingerprint.kind == Kind.FILE]
        origins = await moved.came(files)
        as_it_was = unread(files, origins)
        hashed, unsteady = await self._reader.read(
            [item for item in files if item.path not in as_it_was]
        )
        hashed |= as_it_was
        for path in unsteady:
            self._look_again(path)
        paths = [item.path for item in group] + [origin.path for origin in origins.values()]
        async with self._turn:
            seen_now = await asyncio.to_thread(self._disk.look, paths)
            held = await self._index.held(paths)
            lost = await lost_contents(self._index, {identity(item.fingerprint) for item in group})
            rows: list[Row] = []
            settled: list[tuple[RelPath, Offer]] = []
            refreshed: list[tuple[RelPath, Fingerprint]] = []
            observed = {item.path: _observed(item, hashed.get(item.path)) for item in group}
            placed = await placed_unrecorded(self._index, observed, origins)
            not_durable = await self._reader.make_durable(list(placed))
            for item in group:
                content = hashed.get(item.path)
                if item.fingerprint.kind == Kind.FILE and content is None:
                    continue
                now = seen_now.get(item.path)
                read = content.fingerprint if content is not None else item.fingerprint
                origin = origins.get(item.path)
                is_here = now is not None and _same(now.fingerprint, read)
                was_there = origin is not None and held.get(origin.path) == origin.held
                unsafe = item.path in not_durable
                if not is_here or unsafe or (item.path in as_it_was and not was_there):
                    self._look_again(item.path)
                    continue
                self._problems.clear("read", item.path)
                if (found := placed.get(item.path)) is not None:
                    manifest = content.manifest if content is not None else None
                    rows.append(Row(item.path, found.entry, read, manifest))
                    settled += found.settled
                    continue
                was = held.get(item.path)
                row = self._judge(item, content, read, was, lost, len(rows), moved=origin)
                if row is None:
                    refreshed.append((item.path, read))
                    continue
                rows.append(row)
                if origin is None or not was_there or seen_now.get(origin.path) is not None:
                    continue
                if origin.path not in moved.recorded and is_move(row, origin):
                    # Told together, peers rename it too.
                    rows.append(self._deletion(origin.path, origin.held.entry, len(rows)))
                    moved.recorded.add(origin.path)
            if rows:
                await self._index.record(rows, settled=settled)
                self.recorded()
            if refreshed:
                await self._index.refresh(refreshed)

    def _judge(
        self,
        item: Seen,
        content: Hashed | None,
        read: Fingerprint,
        held: Held | None,
        lost: Lost,
        already: int,
        *,
        moved: Origin | None,
    ) -> Row | None:
        """None where only the fingerprint is news. `already`: rows to be recorded before it."""
        seen = _observed(item, content)
        entry = held.entry if held is not None else None
        seen = as_given(entry, held.fingerprint if held is not None else None, seen)
        manifest = content.manifest if content is not None else None
        damage, meant = None, content_meant(held, read, seen.content, lost)
        if meant is not None:
            damage, seen, manifest = seen.content, seen._replace(content=meant), None
        # What was moved here is news even if the same was here: others may have deleted that.
        if moved is None and not is_new(entry, seen):
            if held is not None and held.damage is not None and damage is None:
                # Somebody put the right bytes back: peers may be told of it again.
                return Row(item.path, held.entry, read, manifest)
            return None
        dot = Dot(self._index.replica, self._index.counter + 1 + already)
        new = successor(entry, seen, dot, now_ns=self._clock.now_ns(), author=self.author)
        return Row(item.path, new, read, manifest, damage)

    def _look_again(self, path: RelPath) -> None:
        self._later[path] = self._clock.monotonic() + _RETRY_S

    # --- gone ------------------------------------------------------------------------------

    async def _record_missing(self, missing: list[RelPath], arriving: float) -> None:
        """`arriving`: when to look again at new files that the missing ones may have moved to."""
        missing = self._not_put_off(missing, arriving)
        if not missing:
            self.braked, self._approved = set(), set()
            return
        async with self._turn:
            seen = await asyncio.to_thread(self._disk.look, missing)
            held = await self._index.held(missing)
            gone = [
                path
                for path in missing
                if seen.get(path) is None and path in held and held[path].entry.is_live
            ]
            entries = [(path, held[path].entry) for path in gone]
            files = {path: each.content for path, each in entries if each.kind == Kind.FILE}
            deletions = await without_copies(self._index, files) - self._approved
            braked = await self._brake(deletions, waiting=self.braked.intersection(gone))
            going = [path for path in gone if not braked or path in self._approved]
            self.braked = set(gone) - set(going)
            self._approved.clear()
            rows = [self._deletion(path, held[path].entry, at) for at, path in enumerate(going)]
            if rows:
                await self._index.record(rows)
                self.recorded()

    def _deletion(self, path: RelPath, was: Entry, already: int) -> Row:
        """`already`: rows to be recorded before it."""
        self._problems.clear("read", path)
        dot = Dot(self._index.replica, self._index.counter + 1 + already)
        now_ns = self._clock.now_ns()
        nothing = Observation(Kind.TOMBSTONE)
        return Row(path, successor(was, nothing, dot, now_ns=now_ns, author=self.author), None)

    async def _brake(self, deletions: set[RelPath], *, waiting: set[RelPath]) -> bool:
        """Whether deletions that nobody approved are to wait; those that do go on waiting."""
        now = self._clock.monotonic()
        holds = brake_holds(
            len(deletions) + self._passed.count(now),
            (await self._index.counts()).files,
            least=self._brakes.files,
            percent=self._brakes.percent,
        )
        if deletions and (holds or waiting - self._approved):
            return True
        self._passed.add(len(deletions), now)
        return False

    def _not_put_off(self, missing: list[RelPath], arriving: float) -> list[RelPath]:
        """The missing paths that are to be judged now: the others are looked at again later, while
        new files arrive or while more and more go missing."""
        now = self._clock.monotonic()
        known = self._gone_since
        fresh = [path for path in missing if path not in self.braked]
        self._gone_since = {path: since for path, since in known.items() if path in self._later}
        oldest = min((known.get(path, now) for path in fresh), default=now)
        if arriving and now - oldest < _LONGEST_ARRIVAL_S:
            due = arriving
        elif len(fresh) >= _MANY_DELETIONS and not known.keys() >= set(fresh):
            due = now + _RETRY_S
        else:
            return missing
        self._gone_since.update((path, known.get(path, now)) for path in fresh)
        self._later.update(dict.fromkeys(fresh, due))
        return [path for path in missing if path in self.braked]


def _observed(item: Seen, content: Hashed | None) -> Observation:
    if content is None:
        return Observation(item.fingerprint.kind, item.target)
    read = content.fingerprint
    return Observation(Kind.FILE, content.content, read.size, read.mtime_ns, read.executable)


def _is_large(item: Seen) -> bool:
    return item.fingerprint.size >= _LARGE


def _same(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether both show the same object; a directory is like any other."""
    return one[:6] == other[:6] or one.kind == other.kind == Kind.DIRECTORY
