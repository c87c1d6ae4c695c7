"""Compares a folder's tree with what is known of it: one stat for each entry, no contents.

Both are gone through in path order, side by side, so that of neither more is kept than the batch
that is being compared and the names in the directories above the place.
"""

import contextlib
import heapq
import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.relpath import (
    INTERNAL,
    RelPath,
    UnsafePathError,
    ancestors,
    parse_relpath,
)
from p2psync.files.fingerprint import UNSEEN, fingerprint_of
from p2psync.files.mounts import MOUNTS, Absent, absent_disk, remember, remembered
from p2psync.files.problems import kind_of_problem, readable
from p2psync.files.tree import ABSENT, Tree
from p2psync.ports import Known, Problem, Seen, Walk


def look(tree: Tree, paths: Sequence[RelPath], *, now_ns: int) -> dict[RelPath, Seen | None]:
    absent = Absent(tree)
    return {path: _look(tree, path, absent, now_ns) for path in paths}


def _look(tree: Tree, path: RelPath, absent: Absent, now_ns: int) -> Seen | None:
    try:
        if absent.mount_above(path):
            return Seen(path, UNSEEN)
        directory, name = tree.place(path)
        mark = fingerprint_of(tree.system.stat(directory, name), now_ns=now_ns)
        if mark is None:
            return None
        target = tree.system.readlink(directory, name) if mark.kind is Kind.SYMLINK else b""
        return Seen(path, mark, target)
    except OSError as error:
        return None if error.errno in ABSENT else Seen(path, UNSEEN)


_MOST_CHANGED = 10_000


class Walking:
    """`ports.Walking`."""

    def __init__(
        self,
        tree: Callable[[], AbstractContextManager[Tree]],
        under: RelPath | None,
        now_ns: Callable[[], int],
    ) -> None:
        self._open = tree
        self._under = under
        self._now_ns = now_ns
        self._walker: _Walker | None = None
        self._handles = contextlib.ExitStack()
        self._using = threading.Lock()
        self._closed = False
        self.is_behind = False

    def go_on(self, known: Known, *, last: bool) -> Walk:
        with self._using:
            if self._closed:
                # While it waited for a thread, so nobody waits for the answer.
                return Walk([], [], [])
            try:
                if self._walker is None:
                    tree = self._handles.enter_context(self._open())
                    self._walker = _Walker(tree, self._under)
                    self._handles.callback(self._walker.close)
                walk = self._walker.go_on(known, last=last, now_ns=self._now_ns())
                self.is_behind = self._walker.is_behind
            except BaseException:
                self._closed = True
                raise
            finally:
                if (last and not self.is_behind) or self._closed:
                    self._handles.close()
        if self._closed:
            self.close()
        return walk

    def close(self) -> None:
        self._closed = True
        # Else whoever is at it closes it.
        if self._using.acquire(blocking=False):
            try:
                self._handles.close()
            finally:
                self._using.release()


class _Directory:
    """One that is being gone through."""

    def __init__(
        self, handle: int, prefix: str, device: int, names: list[str], *, is_ours: bool
    ) -> None:
        self.handle = handle
        self.is_ours = is_ours
        """To be closed by us."""
        self.prefix = prefix
        self.device = device
        self.names = names
        """In order."""
        self.at = 0
        self.below: list[_Below] = []
        """Directories that were seen and are to be visited, a heap. What is in them does not
        follow them at once: "a", "a!", "a/b"."""


class _Below(NamedTuple):
    place: str
    """The name and a slash: where in the order its entries are."""
    found: os.stat_result


class _Walker:
    def __init__(self, tree: Tree, under: RelPath | None) -> None:
        self._tree = tree
        self._system = tree.system
        self._under = under
        self._now_ns = 0
        self.is_behind = False
        self._at = 0
        """How much of what is known is used up, when behind."""
        self._open: list[_Directory] = []
        """From the top to where the walk is."""
        self._mounts_before = remembered(tree)
        self._mounts_told = self._mounts_before
        """As they are written down."""
        self._mounts: set[RelPath] = set()
        self._mounts_known: set[RelPath] = set()
        """Of `_mounts_before` those with something known at or below."""
        self._unsure: list[RelPath] = []
        """Known at or below a mount point and not seen: judged when it is told whether it is one
        still."""
        self._blind: set[RelPath] = set()
        """What could not be looked at: nothing known at or below is missing."""
        self._is_blind_everywhere = False
        self._changed: list[Seen] = []
        self._missing: list[RelPath] = []
        self._problems: list[Problem] = []
        self._begin()

    def close(self) -> None:
        while self._open:
            self._leave()

    def _begin(self) -> None:
        under, tree = self._under, self._tree
        try:
            if under is None:
                names = sorted(name for name in self._system.names(tree.top) if name != INTERNAL)
                self._enter(tree.top, "", names)
            elif mount := Absent(tree).mount_above(under):
                self._is_blind_everywhere = True
                self._problems.append(absent_disk(mount))
            else:
                above, name = tree.place(under)
                # What is not there is missing, and no listing lost it.
                self._system.stat(above, name)
                self._enter(above, under.removesuffix(name), [name])
        except OSError as error:
            if under is None or error.errno not in ABSENT:
                self._is_blind_everywhere = True
                self._problems.append(kind_of_problem(error, under or "."))

    def _enter(self, handle: int, prefix: str, names: list[str]) -> None:
        device = self._system.fstat(handle).st_dev
        self._open.append(_Directory(handle, prefix, device, names, is_ours=False))

    # --- side by side ----------------------------------------------------------------------

    def go_on(self, known: Known, *, last: bool, now_ns: int) -> Walk:
        self._now_ns = now_ns
        if self._mounts_before:
            for path, _ in known:
                self._mounts_known.update(self._mounts_before.intersection(_at_and_above(path)))
        at = self._at
        while self._open and (at < len(known) or last) and len(self._changed) < _MOST_CHANGED:
            at = self._go_through(self._open[-1], known, at, last=last)
        self.is_behind = bool(self._open) and (at < len(known) or last)
        self._at = at if self.is_behind else 0
        if not self._open:
            for path, _ in known[at:]:
                self._gone(path)
        # Before anything is told that may be recorded: else what lies on a disk could be known and
        # that it is a disk not, and without the disk it would be missing.
        self._remember(self._mounts_told | self._mounts)
        if last and not self.is_behind:
            self._finish()
        walk = Walk(self._changed, self._missing, sorted(set(self._problems)))
        self._changed, self._missing, self._problems = [], [], []
        return walk

    def _go_through(self, here: _Directory, known: Known, at: int, *, last: bool) -> int:
        """On to where another directory begins, this one ends, more is to be known, or much was
        found; how much of `known` that is."""
        names, prefix, handle, below = here.names, here.prefix, here.handle, here.below
        look, end, count = self._system.stat, len(known), len(here.names)
        while True:
            is_below = bool(below) and (here.at == count or below[0].place < names[here.at])
            if here.at == count and not is_below:
                self._leave()
                return at
            name = below[0].place if is_below else names[here.at]
            path = RelPath(prefix + name)
            while at < end and known[at][0] < path:
                self._gone(known[at][0])
                at += 1
            if at == end and not last:
                return at
            if is_below:
                self._descend(here, heapq.heappop(below))
                return at
            here.at += 1
            mark = None
            if at < end and known[at][0] == path:
                mark = known[at][1]
                at += 1
            try:
                found = look(handle, name)
            except OSError as error:
                self._fail(path, error)
                continue
            if mark is None or not _is_unchanged_file(mark, found):
                self._entry(here, name, found, mark)
                if len(self._changed) >= _MOST_CHANGED:
                    return at

    def _entry(
        self, here: _Directory, name: str, found: os.stat_result, known: Fingerprint | None
    ) -> None:
        path = RelPath(here.prefix + name)
        mark = fingerprint_of(found, now_ns=self._now_ns)
        if mark is None:
            if known is not None:
                self._gone(path)
            return
        if known is None:
            try:
                parse_relpath(path)
            except UnsafePathError as error:
                self._problems.append(
                    Problem(readable(path), str(error), "Rename it to have it synchronized.")
                )
                return
        if mark.kind is Kind.DIRECTORY:
            if found.st_dev != here.device:
                self._mounts.add(path)
            elif path in self._mounts_before:
                if known is not None:
                    self._gone(path)
                return
        target = b""
        if mark.kind is Kind.SYMLINK:
            try:
                target = self._system.readlink(here.handle, name)
            except OSError:
                self._blind.add(path)
                return
        if known is None or not known.unchanged(mark):
            self._changed.append(Seen(path, mark, target))
        if mark.kind is Kind.DIRECTORY:
            heapq.heappush(here.below, _Below(name + "/", found))

    def _descend(self, above: _Directory, below: _Below) -> None:
        path = RelPath((above.prefix + below.place)[:-1])
        system, found = self._system, below.found
        entered = None
        try:
            handle = system.open_directory(above.handle, below.place[:-1])
            try:
                opened = system.fstat(handle)
                if (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino):
                    prefix, names = f"{path}/", sorted(system.names(handle))
                    entered = _Directory(handle, prefix, opened.st_dev, names, is_ours=True)
                    self._open.append(entered)
                else:
                    self._blind.add(path)
            finally:
                if entered is None:
                    system.close(handle)
        except OSError as error:
            self._fail(path, error)

    def _leave(self) -> None:
        left = self._open.pop()
        if left.is_ours:
            self._system.close(left.handle)

    # --- what is not there -----------------------------------------------------------------

    def _gone(self, path: RelPath) -> None:
        """It is known and was not seen."""
        if self._mounts_before and not self._mounts_before.isdisjoint(_at_and_above(path)):
            self._unsure.append(path)
        elif not self._is_blind(path):
            self._missing.append(path)

    def _is_blind(self, path: RelPath) -> bool:
        return self._is_blind_everywhere or (
            bool(self._blind) and not self._blind.isdisjoint(_at_and_above(path))
        )

    def _fail(self, path: RelPath, error: OSError) -> None:
        """What vanished since it was listed is left to the next walk."""
        self._blind.add(path)
        if error.errno not in ABSENT:
            self._problems.append(kind_of_problem(error, path))

    def _finish(self) -> None:
        before, under = self._mounts_before, self._under
        gone = {
            mount
            for mount in before - self._mounts
            if under is None or mount == under or mount.startswith(under + "/")
        }
        for mount in sorted(gone & self._mounts_known):
            self._blind.add(mount)
            self._problems.append(absent_disk(mount))
        self._missing += [path for path in self._unsure if not self._is_blind(path)]
        self._missing.sort()
        self._remember(self._mounts | (before - (gone - self._blind)))

    def _remember(self, mounts: frozenset[RelPath] | set[RelPath]) -> None:
        if mounts == self._mounts_told:
            return
        try:
            remember(self._tree, mounts)
        except OSError as error:
            self._problems.append(kind_of_problem(error, f"{INTERNAL}/{MOUNTS}"))
            # What was found cannot be told yet, as long as nothing can be written here.
            self._changed = [one for one in self._changed if not self._is_on_a_disk(one.path)]
        else:
            self._mounts_told = frozenset(mounts)

    def _is_on_a_disk(self, path: RelPath) -> bool:
        return not self._mounts.isdisjoint(_at_and_above(path))


def _at_and_above(path: RelPath) -> list[RelPath]:
    return [*ancestors(path), path]


def _is_unchanged_file(mark: Fingerprint, found: os.stat_result) -> bool:
    """`mark.unchanged(fingerprint_of(found))` for the usual case, five times faster."""
    return (
        not mark.racy
        and mark.inode == found.st_ino
        and mark.ctime_ns == found.st_ctime_ns
        and mark.mtime_ns == found.st_mtime_ns
        and mark.size == found.st_size
        and mark.kind == Kind.FILE
        and stat.S_ISREG(found.st_mode)
        and mark.executable == bool(found.st_mode & stat.S_IXUSR)
    )
