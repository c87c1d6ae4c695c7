"""Replaces damaged files by what they should be: from this disk, or from whatever peer holds it.

Any connected peer may: nobody is known to hold it, and a peer that does not only says so. Until it
could be had, the damaged file stays where it is. What is replaced is kept, apart from the trash.
"""

import asyncio
import contextlib
import math
from collections.abc import Sequence

from p2psync.core.relpath import RelPath
from p2psync.engine.content import Contents, FileWanted, Staged, is_small
from p2psync.engine.integrity import Integrity
from p2psync.engine.local import LocalChanges
from p2psync.engine.problems import Problems
from p2psync.engine.session import Session
from p2psync.engine.tasks import whole
from p2psync.ports import (
    Action,
    Clock,
    Disk,
    FileChangedError,
    FolderIndex,
    Held,
    Outcome,
    Problem,
    Result,
    Row,
    Step,
)

SOURCE = "damage"
_MOST = 1000
"""Files to be mended at a time; of more, the next ones soon after."""
_GROUP_BYTES = 64 * 1024 * 1024
_LEAST_PAUSE_S = 5.0
"""However often a peer tells of damaged files: a try may read much."""
_JUDGING_S = 10.0
"""So long files are read once more; a bad disk may take long to say that it cannot."""
_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0

_REASON = "Its bytes on the disk changed although nobody wrote to it, and "
_MENDING = "the right ones have not been fetched yet."
_ALONE = "no device that holds the right ones is connected."
_NEXT_STEP = (
    "It is mended by itself as soon as a device has its bytes; or put it back from a backup. If it "
    "is right as it is, `touch` it. Check the disk."
)
_IN_USE = "It is damaged, and a program has it open for writing."
_CLOSE_IT = "Close it there; what that program wrote is kept."

_Damaged = tuple[RelPath, Held]


class Mender:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        contents: Contents,
        local: LocalChanges,
        integrity: Integrity,
        problems: Problems,
        turn: asyncio.Lock,
    ) -> None:
        self._index = index
        self._disk = disk
        self._clock = clock
        self._contents = contents
        self._local = local
        self._problems = problems
        self._turn = turn
        self._after = ""
        """Where the next try goes on; empty where it begins anew."""
        self._tried: frozenset[RelPath] = frozenset()
        self._available: frozenset[tuple[Session, int]] = frozenset()
        self._trouble: dict[RelPath, Problem] = {}
        """What else kept a file from being mended at the last try, such as a full disk."""
        self._integrity = integrity
        self._pause_s = _FIRST_PAUSE_S
        self._tried_at = -math.inf
        self._due = math.inf
        """When all is tried again (monotonic clock)."""
        self._large: list[RelPath] = []
        """Large files that are still to be tried, the next one last."""

    def next_retry(self) -> float | None:
        """Seconds until `mend` is to be called again; None when nothing waits so."""
        if self._large:
            return 0.0
        return None if self._due == math.inf else max(0.0, self._due - self._clock.monotonic())

    def hurry(self) -> None:
        """Something happened by which more may be had: all is tried again soon."""
        self._pause_s = _FIRST_PAUSE_S
        self._due = min(self._due, self._tried_at + _LEAST_PAUSE_S)

    async def mend(self) -> bool:
        """Mend what can be, but of large files one at a time, so that pulls go on in between;
        whether anything was. Not beside a pull: both stage contents. Raises RootUnavailableError,
        OSError."""
        if not (await self._index.counts()).damaged:
            self._rest()
            return False
        mended = 0
        if not self._large and self._is_time(damaged := await self._next()):
            self._trouble.clear()
            self._tell(await self._index.damaged(_MOST))
            damaged = await self._still_damaged(damaged)
            mended = await self._mend_small([each for each in damaged if is_small(each[1].entry)])
            self._large = [path for path, held in damaged if not is_small(held.entry)][::-1]
        mended += await self._mend_next()
        left = await self._index.damaged(_MOST)
        self._tell(left)
        if not left:
            self._rest()
        return mended > 0

    async def _next(self) -> list[_Damaged]:
        damaged = await self._index.damaged(_MOST, after=self._after)
        if not damaged:
            self._after = ""
            damaged = await self._index.damaged(_MOST)
        return damaged

    async def _still_damaged(self, damaged: list[_Damaged]) -> list[_Damaged]:
        """Without what could not be read and can be again, as after a cable came loose."""
        unread = [path for path, held in damaged if not held.damage]
        if not unread:
            return damaged
        until = self._clock.monotonic() + _JUDGING_S
        for path in unread:
            if self._clock.monotonic() >= until:
                break
            await self._integrity.judge(path, again=True)
        now = await self._index.held([path for path, _ in damaged])
        return [(path, held) for path, held in now.items() if held.damage is not None]

    def _rest(self) -> None:
        self._problems.replace_all(SOURCE, [])
        self._tried, self._pause_s, self._due = frozenset(), _FIRST_PAUSE_S, math.inf
        self._after = ""
        self._large.clear()

    def _is_time(self, damaged: Sequence[_Damaged]) -> bool:
        now, available = self._clock.monotonic(), self._contents.available()
        paths = frozenset(path for path, _ in damaged)
        if not paths <= self._tried or not available <= self._available:
            self._pause_s = _FIRST_PAUSE_S
        elif now < self._due:
            return False
        elif not self._after:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._after = damaged[-1][0] if len(damaged) == _MOST else ""
        self._tried, self._available, self._tried_at = self._tried | paths, available, now
        self._due = now + (_LEAST_PAUSE_S if self._after else self._pause_s)
        return True

    def _tell(self, damaged: Sequence[_Damaged]) -> None:
        why = _REASON + (_MENDING if self._available else _ALONE)
        problems = [self._trouble.get(path, Problem(path, why, _NEXT_STEP)) for path, _ in damaged]
        self._problems.replace_all(SOURCE, problems)

    # --- contents --------------------------------------------------------------------------

    def _file(self, path: RelPath, held: Held) -> FileWanted:
        peers = frozenset(session.peer for session, _ in self._available)
        return FileWanted(path, held.entry, peers)

    async def _mend_small(self, damaged: Sequence[_Damaged]) -> int:
        mended, group, size = 0, list[_Damaged](), 0
        for each in damaged:
            group.append(each)
            size += each[1].entry.size
            if size >= _GROUP_BYTES:
                mended += await self._mend_group(group)
                group, size = [], 0
        return mended + await self._mend_group(group)

    async def _mend_group(self, group: Sequence[_Damaged]) -> int:
        if not group:
            return 0
        outcomes = await self._contents.stage_small([self._file(*each) for each in group])
        ready = []
        for path, held in group:
            outcome = outcomes.get(path)
            if isinstance(outcome, Staged):
                ready.append((path, held, outcome))
            elif outcome is not None:
                self._trouble[path] = self._disk.kind_of_problem(outcome, path)
        return await whole(self._place(ready))

    async def _mend_next(self) -> int:
        while self._large:
            path = self._large.pop()
            held = (await self._index.held([path])).get(path)
            if held is not None and held.damage is not None and not is_small(held.entry):
                return await self._mend_large((path, held))
        return 0

    async def _mend_large(self, damaged: _Damaged) -> int:
        path, held = damaged
        content = held.entry.content
        if not self._available and not await self._index.find_contents([content]):
            # It would be copied, to wait for a chunk that nobody has.
            return 0
        try:
            staged = await self._contents.stage_large(self._file(path, held))
        except OSError as error:
            self._trouble[path] = self._disk.kind_of_problem(error, path)
            return 0
        return 0 if staged is None else await whole(self._place([(path, held, staged)]))

    # --- commits ---------------------------------------------------------------------------

    async def _place(self, ready: Sequence[tuple[RelPath, Held, Staged]]) -> int:
        async with self._turn:
            now = await self._index.held([path for path, _, _ in ready])
            current = [each for each in ready if now.get(each[0]) == each[1]]
            used = await asyncio.to_thread(self._being_written, [path for path, _, _ in current])
            current = [each for each in current if each[0] not in used and not _is_racy(each[1])]
            steps = [
                Step(Action.PLACE, path, held.entry, held.fingerprint, staged.name)
                for path, held, staged in current
            ]
            results: list[Result] = []
            if steps:
                results = await asyncio.to_thread(self._disk.commit, steps, damaged=True)
            done = [result for result in results if result.outcome is Outcome.DONE]
            if done:
                # As it was, under a new number: peers may be told of it again.
                rows = [Row(each.step.path, each.step.entry, each.fingerprint) for each in done]
                await self._index.record(rows)
        placed = {result.step.path for result in done}
        await self._contents.drop(staged for path, _, staged in ready if path not in placed)
        for result in results:
            if result.problem is not None:
                self._trouble[result.step.path] = result.problem
        for path in used:
            self._trouble[path] = Problem(path, _IN_USE, _CLOSE_IT)
        if len(placed) < len(ready):
            self._local.mark(path for path, _, _ in ready if path not in placed)
        return len(done)

    def _being_written(self, paths: Sequence[RelPath]) -> set[RelPath]:
        """Runs in a worker thread. What is written to a file after it was replaced would be lost to
        sight."""
        used = set()
        for path in paths:
            # What is gone, or cannot be opened, the commit sees.
            with contextlib.suppress(FileChangedError, OSError):
                if self._disk.is_being_written(path):
                    used.add(path)
        return used


def _is_racy(held: Held) -> bool:
    """Whether the file may have been edited in the very tick of its last read: the scan reads it
    again first."""
    return held.fingerprint is None or held.fingerprint.racy
