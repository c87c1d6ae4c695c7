"""Displaced content: aside while its group is being committed, then in the trash for a while.

What a group displaces lies in `.p2psync/tmp/displaced-YYYYMMDDTHHMMSS-N/` under its own path, and
when the group is done that directory becomes `.p2psync/trash/YYYY-MM-DD/HHMMSS-N/` (UTC) in one
rename. So a crash leaves nothing nameless: `recover` does what was left to do.

Files that were found damaged and replaced go by `.p2psync/tmp/damaged-…` to `.p2psync/damaged` in
the same way, and nothing is ever removed from there: they may be an edit that no fingerprint could
show.
"""

import contextlib
import datetime
import os
import re
import shutil
from collections.abc import Callable, Mapping

from p2psync import failpoints
from p2psync.config import TrashConfig
from p2psync.core.relpath import INTERNAL, RelPath, ancestors
from p2psync.files.moves import Mover, Spot
from p2psync.files.root import DAMAGED, TRASH
from p2psync.files.staging import staging_area
from p2psync.files.tree import ABSENT, Tree

TRASH_AREA = RelPath(f"{INTERNAL}/{TRASH}")
DAMAGED_AREA = RelPath(f"{INTERNAL}/{DAMAGED}")

_DISPLACED = re.compile(r"(displaced|damaged)-(\d{4})(\d\d)(\d\d)T(\d{6})-(\d+)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_NS = 86_400 * 10**9
_Kept = tuple[str, str]
"""The names of a day and of a group's directory in it."""


class Aside:
    """Holds what one group displaces, in a directory of its own, or several where paths collide."""

    def __init__(self, tree: Tree, now_ns: Callable[[], int], *, damaged: bool = False) -> None:
        self._tree = tree
        self._prefix = "damaged" if damaged else "displaced"
        self._now_ns = now_ns
        self._slots: dict[str, Tree] = {}
        self._taken: set[RelPath] = set()
        self.current = ""
        """The name of the directory used last."""

    def place(self, path: RelPath) -> tuple[str, Spot]:
        """A free spot for what is at `path`, and the name of the directory where it is."""
        if not self.current or path in self._taken or not self._taken.isdisjoint(ancestors(path)):
            self._begin()
        self._taken.add(path)
        return self.current, self._slots[self.current].place(path, make=True)

    def _begin(self) -> None:
        area = staging_area(self._tree)
        moment = _moment(self._now_ns())
        number = 1
        while True:
            name = f"{self._prefix}-{moment:%Y%m%dT%H%M%S}-{number}"
            try:
                self._tree.system.make_directory(area, name, 0o700)
                break
            except FileExistsError:
                number += 1
        self._slots[name] = Tree(self._tree.system, self._tree.system.open_directory(area, name))
        self._taken.clear()
        self.current = name

    def spot(self, slot: str, path: RelPath) -> Spot:
        return self._slots[slot].place(path)

    def close(self) -> list[str]:
        """The names of the directories, which are left where they are."""
        names = list(self._slots)
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()
        self.current = ""
        return names


class Trash:
    """The trash of one folder. Not thread-safe."""

    def __init__(self, config: TrashConfig, now_ns: Callable[[], int], mover: Mover) -> None:
        self._config = config
        self._now_ns = now_ns
        self._mover = mover
        self._sizes: dict[_Kept, int] | None = None
        """Of what is kept, in bytes; None until it was counted."""

    @property
    def keeps(self) -> bool:
        return self._config.max_bytes > 0

    def take(self, tree: Tree, slot: str) -> None:
        """Keep what was displaced under the directory of that name."""
        match = _DISPLACED.fullmatch(slot)
        assert match is not None
        what, year, month, day, time, number = match.groups()
        damaged = what == "damaged"
        kept_day = f"{year}-{month}-{day}"
        size = _size_of(staging_area(tree), slot)
        if size is None:
            discard_tree(staging_area(tree), slot)
            return
        area = DAMAGED_AREA if damaged else TRASH_AREA
        target = tree.directory(RelPath(f"{area}/{kept_day}"), make=True)
        count = int(number)
        while True:
            name = f"{time}-{count}"
            try:
                failpoints.reach("trash.before-keeping")
                self._mover.put((staging_area(tree), slot), (target, name))
                failpoints.reach("trash.after-keeping")
                break
            except FileExistsError:
                count += 1
        if self._sizes is not None and not damaged:
            self._sizes[kept_day, name] = size

    def recover(self, tree: Tree) -> None:
        """Keep what a crash left displaced."""
        area = staging_area(tree)
        for name in sorted(entry.name for entry in tree.system.scan(area)):
            if _DISPLACED.fullmatch(name):
                failpoints.reach("trash.before-recovering")
                self.take(tree, name)

    def prune(self, tree: Tree) -> None:
        """Drop what is too old, then the oldest until the rest is small enough."""
        try:
            trash = tree.directory(TRASH_AREA)
        except OSError as error:
            if error.errno in ABSENT:
                return
            raise
        if self._sizes is None:
            self._sizes = _sizes(tree, trash)
        elif self._excess(self._sizes):
            # A person may have emptied it meanwhile.
            self._sizes = _sizes(tree, trash)
        for day, name in self._excess(self._sizes):
            discard_tree(tree.directory(_of_day(day)), name)
            del self._sizes[day, name]
            if not any(kept == day for kept, _ in self._sizes):
                tree.forget(_of_day(day))
                with contextlib.suppress(OSError):
                    tree.system.remove_directory(tree.directory(TRASH_AREA), day)

    def _excess(self, sizes: Mapping[_Kept, int]) -> list[_Kept]:
        """What has to go, the oldest first."""
        if not self.keeps:
            return sorted(sizes)
        oldest = _moment(max(0, self._now_ns() - self._config.max_age_days * _DAY_NS))
        limit = f"{oldest:%Y-%m-%d}", f"{oldest:%H%M%S}"
        total = sum(sizes.values())
        excess = []
        for kept in sorted(sizes):
            if total <= self._config.max_bytes and kept >= limit:
                break
            excess.append(kept)
            total -= sizes[kept]
        return excess


def _of_day(day: str) -> RelPath:
    return RelPath(f"{TRASH_AREA}/{day}")


def _sizes(tree: Tree, trash: int) -> dict[_Kept, int]:
    return {
        (day, name): _size_of(tree.directory(_of_day(day)), name) or 0
        for day in _directories(tree, trash)
        if _DAY.fullmatch(day)
        for name in _directories(tree, tree.directory(_of_day(day)))
    }


def _directories(tree: Tree, directory: int) -> list[str]:
    entries = tree.system.scan(directory)
    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _moment(now_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now_ns // 10**9, datetime.UTC)


def _size_of(directory: int, name: str) -> int | None:
    """Of all files below, in bytes; None when there is nothing but directories."""
    total: int | None = None
    for _, _, files, handle in os.fwalk(name, dir_fd=directory, follow_symlinks=False):
        for file in files:
            with contextlib.suppress(OSError):
                found = os.stat(file, dir_fd=handle, follow_symlinks=False)
                total = (total or 0) + found.st_size
    return total


def discard_tree(directory: int, name: str) -> None:
    """Remove a directory of ours with all it holds; links in it are not followed. What cannot be
    removed stays."""
    shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
