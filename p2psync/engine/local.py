"""Finds local changes and records them: dirty paths → look or walk → hash → version → index row.

The scan is the truth and the watcher only says where to look. Nothing is recorded but under
`turn`, after another look: the puller commits under the same lock, so its own writes are never
taken for someone's edit.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from p2psync.core.decide import brake_holds
from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.observe import Observation, is_new, successor
from p2psync.core.relpath import RelPath, ancestors
from p2psync.core.settle import quiet_at
from p2psync.core.version import Dot
from p2psync.engine.problems import Problems
from p2psync.ports import (
    Clock,
    Disk,
    FileChangedError,
    FolderIndex,
    Hashed,
    Held,
    Problem,
    Row,
    Seen,
)

_GROUP_FILES = 500
_GROUP_BYTES = 256 * 1024 * 1024
_MANY_SUBTREES = 64
"""Beyond so many directories to walk, one walk of everything is cheaper."""
_RETRY_NS = 200_000_000


class Brakes(NamedTuple):
    """How many deletions may pass without a person's word."""

    files: int
    percent: int


class _Found(NamedTuple):
    changed: list[Seen]
    missing: list[RelPath]


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
        self.author = author
        self._dirty: set[RelPath] = set()
        self._everything = True
        self._later: dict[RelPath, int] = {}
        """Paths still being written, and when to look again (wall clock, ns)."""
        self._approved = False
        self.braked: set[RelPath] = set()
        """Vanished files whose deletion waits for `approve`."""
        self.wake = asyncio.Event()
        self.wake.set()
        self.busy = False

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
        self._approved = waiting > 0
        self.mark(self.braked)
        return waiting

    @property
    def pending(self) -> bool:
        return bool(self.busy or self._everything or self._dirty or self._later)

    async def wait(self, longest: float) -> None:
        """Until something is to be looked at, or `longest` seconds."""
        if self._later:
            due = (min(self._later.values()) - self._clock.now_ns()) / 1e9
            longest = max(0.0, min(longest, due))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self.wake.wait()
        now = self._clock.now_ns()
        for path in [path for path, due_ns in self._later.items() if due_ns <= now]:
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
            found = await (self._find_all() if everything else self._find(dirty | self.braked))
            await self._record_changed(found.changed)
            await self._record_missing(found.missing)
        except BaseException:
            self._everything |= everything
            self._dirty |= dirty
            raise
        finally:
            self.busy = False
        return self._index.sequence != before

    async def _find_all(self) -> _Found:
        known = await self._index.fingerprints()
        walk = await asyncio.to_thread(self._disk.walk, known)
        self._problems.replace_all("scan", walk.problems)
        return _Found(walk.changed, walk.missing)

    async def _find(self, dirty: set[RelPath]) -> _Found:
        paths = dirty | {above for path in dirty for above in ancestors(path)}
        seen = await asyncio.to_thread(self._disk.look, list(paths))
        held = await self._index.held(list(paths))
        changed: list[Seen] = []
        missing: list[RelPath] = []
        subtrees: set[RelPath] = set()
        for path in paths:
            now, known = seen.get(path), held.get(path)
            was = known.entry.kind if known is not None else Kind.TOMBSTONE
            if now is not None and now.fingerprint.kind == Kind.DIRECTORY:
                if was != Kind.DIRECTORY:
                    changed.append(now)
                if path in dirty or was != Kind.DIRECTORY:
                    subtrees.add(path)
            elif was == Kind.DIRECTORY:
                subtrees.add(path)
            elif now is None:
                if was != Kind.TOMBSTONE:
                    missing.append(path)
            elif known is None or not _unchanged(known.fingerprint, now.fingerprint):
                changed.append(now)
        tops = [path for path in subtrees if not subtrees.intersection(ancestors(path))]
        if len(tops) > _MANY_SUBTREES:
            return await self._find_all()
        for top in tops:
            known_below = await self._index.fingerprints(top)
            walk = await asyncio.to_thread(self._disk.walk, known_below, top)
            changed += walk.changed
            missing += walk.missing
            for problem in walk.problems:
                self._problems.set("scan", problem)
        return _Found(
            list({item.path: item for item in changed}.values()), list(dict.fromkeys(missing))
        )

    # --- new and changed -------------------------------------------------------------------

    async def _record_changed(self, changed: list[Seen]) -> None:
        changed.sort(key=lambda item: (item.path.count("/"), item.path))
        now = self._clock.now_ns()
        group: list[Seen] = []
        size = 0
        for item in changed:
            mark = item.fingerprint
            if mark.kind == Kind.FILE:
                quiet = quiet_at(mark.size, mark.ctime_ns, now)
                if quiet > now:
                    self._later[item.path] = quiet
                    continue
            group.append(item)
            size += mark.size
            if len(group) >= _GROUP_FILES or size >= _GROUP_BYTES:
                await self._record_group(group)
                group, size = [], 0
        if group:
            await self._record_group(group)

    async def _record_group(self, group: Sequence[Seen]) -> None:
        files = [item.path for item in group if item.fingerprint.kind == Kind.FILE]
        hashed = await self._hash(files)
        async with self._turn:
            seen_now = await asyncio.to_thread(self._disk.look, [item.path for item in group])
            held = await self._index.held([item.path for item in group])
            rows: list[Row] = []
            refreshed: list[tuple[RelPath, Fingerprint]] = []
            for item in group:
                content = hashed.get(item.path)
                if item.fingerprint.kind == Kind.FILE and content is None:
                    continue
                now = seen_now.get(item.path)
                read = content.fingerprint if content is not None else item.fingerprint
                if now is None or now.fingerprint[:6] != read[:6]:
                    if item.fingerprint.kind != Kind.DIRECTORY:
                        self._look_again(item.path)
                        continue
                self._judge(item, content, read, held.get(item.path), rows, refreshed)
            if rows:
                await self._index.record(rows)
            if refreshed:
                await self._index.refresh(refreshed)

    def _judge(
        self,
        item: Seen,
        content: Hashed | None,
        read: Fingerprint,
        held: Held | None,
        rows: list[Row],
        refreshed: list[tuple[RelPath, Fingerprint]],
    ) -> None:
        if content is not None:
            seen = Observation(
                Kind.FILE, content.content, read.size, read.mtime_ns, read.executable
            )
        else:
            seen = Observation(read.kind, item.target)
        entry = held.entry if held is not None else None
        if not is_new(entry, seen):
            refreshed.append((item.path, read))
            return
        dot = Dot(self._index.replica, self._index.counter + 1 + len(rows))
        new = successor(entry, seen, dot, now_ns=self._clock.now_ns(), author=self.author)
        rows.append(Row(item.path, new, read, content.manifest if content else None))

    def _look_again(self, path: RelPath) -> None:
        self._later[path] = self._clock.now_ns() + _RETRY_NS

    async def _hash(self, paths: list[RelPath]) -> dict[RelPath, Hashed]:
        """In two worker threads; files that cannot be read become problems."""
        halves = [half for half in (paths[::2], paths[1::2]) if half]
        done = await asyncio.gather(*(asyncio.to_thread(self._hash_each, half) for half in halves))
        results: dict[RelPath, Hashed] = {}
        for part in done:
            for path, outcome in part:
                if isinstance(outcome, Hashed):
                    results[path] = outcome
                    self._problems.clear("read", path)
                elif isinstance(outcome, Problem):
                    self._problems.set("read", outcome)
                else:
                    self._look_again(path)
        return results

    def _hash_each(self, paths: Sequence[RelPath]) -> list[tuple[RelPath, Hashed | Problem | None]]:
        """Runs in a worker thread; None for files that changed meanwhile."""
        results: list[tuple[RelPath, Hashed | Problem | None]] = []
        for path in paths:
            try:
                results.append((path, self._disk.hash_file(path)))
            except FileChangedError:
                results.append((path, None))
            except OSError as error:
                results.append((path, self._disk.kind_of_problem(error, path)))
        return results

    # --- gone ------------------------------------------------------------------------------

    async def _record_missing(self, missing: list[RelPath]) -> None:
        if not missing:
            self.braked = set()
            return
        async with self._turn:
            seen = await asyncio.to_thread(self._disk.look, missing)
            held = await self._index.held(missing)
            gone = [
                path
                for path in missing
                if seen.get(path) is None and path in held and held[path].entry.is_live
            ]
            deletions = await self._deletions(gone, held)
            files = (await self._index.counts()).files
            if not self._approved and brake_holds(
                len(deletions), files, least=self._brakes.files, percent=self._brakes.percent
            ):
                self.braked = set(gone)
                return
            self._approved = False
            self.braked = set()
            rows: list[Row] = []
            nothing = Observation(Kind.TOMBSTONE)
            for path in gone:
                dot = Dot(self._index.replica, self._index.counter + 1 + len(rows))
                new = successor(
                    held[path].entry, nothing, dot, now_ns=self._clock.now_ns(), author=self.author
                )
                rows.append(Row(path, new, None))
                self._problems.clear("read", path)
            if rows:
                await self._index.record(rows)

    async def _deletions(self, gone: list[RelPath], held: dict[RelPath, Held]) -> list[RelPath]:
        """The gone files whose content lives on nowhere in the folder: not moved, deleted."""
        files = [path for path in gone if held[path].entry.kind == Kind.FILE]
        contents = list({held[path].entry.content for path in files})
        where = await self._index.find_contents(contents)
        vanished = set(gone)
        return [
            path for path in files if vanished.issuperset(where.get(held[path].entry.content, ()))
        ]


def _unchanged(known: Fingerprint | None, now: Fingerprint) -> bool:
    return known is not None and known.unchanged(now)
