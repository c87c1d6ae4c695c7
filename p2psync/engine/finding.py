"""Compares the disk with the index: a look at single paths, or a walk where there are many."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.relpath import RelPath, ancestors
from p2psync.engine.problems import Problems
from p2psync.ports import Disk, FolderIndex, Problem, Seen, Walk

_MANY_SUBTREES = 64
"""Beyond so many directories to walk, one walk of everything is cheaper."""

_BATCH = 4096
"""So many known paths are in memory at once."""
_MUCH = 10_000
_MUCH_MOVED = 125_000
"""From so many changed paths on they are recorded before the walk goes on. Where files are known,
new ones may be these, moved, and it is only known at the end of the walk what is missing."""

Early = Callable[[list[Seen], list[RelPath]], Awaitable[list[Seen]]]
"""Takes what has changed and what is missing so far; what of the changed is to come last."""


class Found(NamedTuple):
    changed: list[Seen]
    missing: list[RelPath]
    absent: list[RelPath]
    """Of the paths looked at, those at which there is nothing; known before or not."""


class Finder:
    def __init__(
        self, index: FolderIndex, disk: Disk, problems: Problems, turn: asyncio.Lock
    ) -> None:
        self._index = index
        self._disk = disk
        self._problems = problems
        self._turn = turn

    async def all(self, early: Early) -> Found:
        """What differs anywhere, but for what `early` took."""
        unread = set(self._problems.paths("read"))

        async def take(changed: list[Seen], missing: list[RelPath]) -> list[Seen]:
            # What could not be read is not known either, so it is seen as changed again.
            unread.difference_update(item.path for item in changed)
            return await early(changed, missing)

        walk = await self._walk(None, take)
        unread.difference_update(item.path for item in walk.changed)
        for path in unread:
            self._problems.clear("read", path)
        self._problems.replace_all("scan", walk.problems)
        return Found(walk.changed, walk.missing, [])

    async def _walk(self, under: RelPath | None, early: Early | None = None) -> Walk:
        # What the puller commits meanwhile may be told of as changed or missing, as with any walk:
        # nothing is recorded without another look.
        changed: list[Seen] = []
        missing: list[RelPath] = []
        problems: list[Problem] = []
        step = _MUCH_MOVED if (await self._index.counts()).files else _MUCH
        after, last, much = "", False, step
        with contextlib.closing(self._disk.walk(under)) as walking:
            while not last:
                if not walking.is_behind:
                    known = await self._index.fingerprints(under, after=after, limit=_BATCH)
                part = await asyncio.to_thread(walking.go_on, known, last=len(known) < _BATCH)
                changed += part.changed
                missing += part.missing
                problems += part.problems
                if not walking.is_behind:
                    last = len(known) < _BATCH
                    after = known[-1][0] if known else ""
                if early is not None and len(changed) >= much:
                    changed = await early(changed, missing)
                    much = len(changed) + step
        return Walk(changed, missing, problems)

    async def at(self, dirty: set[RelPath], early: Early) -> Found:
        """What differs at these paths, and below those that are directories; where they are many
        as `all`."""
        paths = dirty | {above for path in dirty for above in ancestors(path)}
        async with self._turn:
            # Or what is placed just now, and has no row yet, would be read as if it were news.
            seen = await asyncio.to_thread(self._disk.look, list(paths))
            held = await self._index.held(list(paths))
        changed: list[Seen] = []
        missing: list[RelPath] = []
        absent: list[RelPath] = []
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
                absent.append(path)
                if was != Kind.TOMBSTONE:
                    missing.append(path)
            elif known is None or not _unchanged(known.fingerprint, now.fingerprint):
                changed.append(now)
        tops = [path for path in subtrees if not subtrees.intersection(ancestors(path))]
        if len(tops) > _MANY_SUBTREES:
            return await self.all(early)
        for top in tops:
            walk = await self._walk(top)
            changed += walk.changed
            missing += walk.missing
            self._problems.replace_all("scan", walk.problems, under=top)
        once = {item.path: item for item in changed}
        return Found(list(once.values()), list(dict.fromkeys(missing)), absent)


def _unchanged(known: Fingerprint | None, now: Fingerprint) -> bool:
    return known is not None and known.unchanged(now)
