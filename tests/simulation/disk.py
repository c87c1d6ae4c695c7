"""A disk in memory that loses what was not synced, fills up, fails, and has a quick user."""

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from p2psync.core.entry import Chunk, Fingerprint, Kind, Manifest
from p2psync.core.relpath import RelPath
from p2psync.ports import Action, Hashed, Outcome, Place, Result, Seen, Step, Whole
from tests.simulation.loop import CrashError
from tests.support.memory_disk import MemoryDisk, _Node

_NEEDS_ROOM = (Action.PLACE, Action.MAKE_DIRECTORY)
_AHEAD_NS = 2_000_000_000

Nodes = dict[RelPath, _Node]


class SimulatedDisk(MemoryDisk):
    is_lazy = False
    """A fault that mutations make: commits return before they are durable."""

    def __init__(
        self, now_ns: Callable[[], int], source: random.Random, *, granularity_ns: int
    ) -> None:
        super().__init__(now_ns, granularity_ns=granularity_ns)
        self._source = source
        self.on_call: Callable[[str], None] = lambda _: None
        """May raise CrashError."""
        self.before_step: Callable[[Step], None] = lambda _: None
        """The user's moment, between the system calls of a commit."""
        self.before_part: Callable[[], None] = lambda: None
        """Likewise, between the parts of a walk."""
        self.on_placed: Callable[[RelPath, bytes], None] = lambda _path, _data: None
        self.on_own_change: Callable[[set[RelPath]], None] = lambda _: None
        self.is_full = False
        self.fails_in: int | None = None
        """After so many calls one fails."""
        self.edits = 0
        """Changes by the user."""
        self._unsynced: tuple[dict[RelPath, _Node], int] | None = None

    # --- what goes wrong ---------------------------------------------------------------------

    def _may_fail(self, method: str, path: str = "") -> None:
        self.on_call(method)
        if self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in <= 0:
                self.fails_in = None
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _room(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rots(self, path: RelPath, damaged: bytes) -> None:
        """Nothing but the bytes tells."""
        self._nodes[path] = replace(self._nodes[path], data=damaged)

    def nodes(self) -> Nodes:
        return dict(self._nodes)

    def set_back(self, nodes: Nodes) -> None:
        """To what it was at an earlier time."""
        self._nodes = dict(nodes)
        self._unsynced = None

    def power_cut(self) -> None:
        """What was not synced is as the file system happens to have it."""
        for name in list(self._staged):
            data = self._staged[name]
            chance = self._source.random()
            if chance < 0.25:
                del self._staged[name]
            elif chance < 0.75:
                start = self._source.randrange(len(data) + 1)
                data[start:] = bytes(len(data) - start)
        if self._unsynced is not None:
            nodes, edits = self._unsynced
            if edits == self.edits:
                self._nodes = dict(nodes)
        self._unsynced = None

    # --- Disk --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _part(self, *, begins: bool) -> Iterator[None]:
        self._may_fail("walk")
        if not begins:
            self.before_part()
        with super()._part(begins=begins):
            yield

    def look(self, paths: Sequence[RelPath]) -> dict[RelPath, Seen | None]:
        self.on_call("look")
        return super().look(paths)

    def hash_file(self, path: RelPath, *, known: Manifest = (), fresh: bool = False) -> Hashed:
        self._may_fail("hash_file", path)
        return super().hash_file(path, known=known, fresh=fresh)

    def read(self, place: Place, *, fresh: bool = False) -> bytes:
        self._may_fail("read", place.path)
        return super().read(place, fresh=fresh)

    def stage_whole(self, files: Sequence[Whole]) -> None:
        self._may_fail("stage_whole")
        self._room()
        super().stage_whole(files)

    def prepare(self, name: str, manifest: Manifest) -> list[bool]:
        self._may_fail("prepare")
        self._room()
        return super().prepare(name, manifest)

    def stage_pieces(self, name: str, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        self._may_fail("stage_pieces")
        self._room()
        super().stage_pieces(name, pieces)

    def stage_copy(
        self, name: str, offset: int, chunks: Sequence[Chunk], source: Place
    ) -> list[bool]:
        self._may_fail("stage_copy")
        self._room()
        return super().stage_copy(name, offset, chunks, source)

    def unstage(self, names: Iterable[str]) -> None:
        self._may_fail("unstage")
        super().unstage(names)

    def commit(self, steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        self._may_fail("commit")
        before, edits = dict(self._nodes), self.edits
        try:
            results = super().commit(steps, damaged=damaged)
        except CrashError:
            # The directories were not synced.
            self._unsynced = (before, edits)
            raise
        self._unsynced = (before, edits) if self.is_lazy else None
        done = [result.step for result in results if result.outcome is Outcome.DONE]
        if done:
            sources = {step.source for step in done if step.source is not None}
            self.on_own_change({step.path for step in done} | sources)
        return results

    def make_durable(self, paths: Sequence[RelPath]) -> None:
        self._may_fail("make_durable")
        super().make_durable(paths)
        self._unsynced = None

    def _carry_out(self, step: Step) -> Result:
        self.on_call(f"commit of {step.path}")
        self.before_step(step)
        try:
            if step.action in _NEEDS_ROOM:
                self._room()
            if self.fails_in is not None:
                self._may_fail("commit", step.path)
        except OSError as error:
            return Result(step, Outcome.FAILED, problem=self.kind_of_problem(error, step.path))
        return super()._carry_out(step)

    def _replace(self, step: Step, found: _Node | None) -> Result:
        result = super()._replace(step, found)
        if result.fingerprint is None or result.outcome is not Outcome.DONE:
            return result
        if result.fingerprint.kind == Kind.FILE:
            self.on_placed(step.path, self._nodes[step.path].data)
        return self._as_a_clock_tells(result)

    def _move(self, step: Step, found: _Node | None) -> Result:
        return self._as_a_clock_tells(super()._move(step, found))

    def _as_a_clock_tells(self, result: Result) -> Result:
        mark = result.fingerprint
        if mark is not None and mark.kind != Kind.DIRECTORY and self._granularity_ns > 1:
            racy = self.is_recent(mark.mtime_ns)
            result = result._replace(fingerprint=mark._replace(racy=racy))
        return result

    def is_recent(self, stamp_ns: int) -> bool:
        now = self._now_ns()
        return now - self._granularity_ns <= stamp_ns <= now + _AHEAD_NS

    def _mark(self, node: _Node) -> Fingerprint:
        mark = super()._mark(node)
        if node.kind == Kind.DIRECTORY or self._granularity_ns <= 1:
            return mark
        racy = self.is_recent(node.mtime_ns) or self.is_recent(node.ctime_ns)
        return mark._replace(racy=racy)

    # --- the user ----------------------------------------------------------------------------

    def shown(self, path: str) -> bytes | str | None:
        """None for a directory too. Raises KeyError where nothing is."""
        return self.tree()[path]

    def data_at_and_below(self, path: str) -> list[tuple[RelPath, bytes]]:
        """Of the files there; of all for no path."""
        return [
            (each, self._nodes[each].data)
            for each in (self._at_and_below(RelPath(path)) if path else self._nodes)
            if self._nodes[each].kind == Kind.FILE
        ]

    def mark_at(self, path: RelPath) -> Fingerprint:
        return self._mark(self._nodes[path])

    def replace_file(self, path: str, data: bytes) -> None:
        """As an editor saves: a new file takes the name."""
        with contextlib.suppress(KeyError):
            del self._nodes[RelPath(path)]
        self.write(path, data)

    def touch(self, path: str) -> None:
        node = self._nodes[RelPath(path)]
        self.write(path, node.data)
