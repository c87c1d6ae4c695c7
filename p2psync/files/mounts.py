"""Remembers which directories of a folder were mount points, so that a disk that is not mounted
does not look like deleted files. `.p2psync/mounts` is a JSON list of their paths; what was deleted
on a disk that is gone for good counts as deleted once that file is removed."""

import json
from collections.abc import Iterable

from p2psync.core.relpath import INTERNAL, RelPath, ancestors
from p2psync.files.tree import ABSENT, Tree
from p2psync.files.writing import write_durably
from p2psync.ports import Problem

MOUNTS = "mounts"

_LONGEST = 16 * 1024 * 1024


def remembered(tree: Tree) -> frozenset[RelPath]:
    system = tree.system
    internal = system.open_directory(tree.top, INTERNAL)
    try:
        file = system.open_file(internal, MOUNTS)
    except FileNotFoundError:
        return frozenset()
    finally:
        system.close(internal)
    try:
        return frozenset(json.loads(system.read(file, _LONGEST, 0)))
    except ValueError:
        return frozenset()
    finally:
        system.close(file)


def remember(tree: Tree, mounts: Iterable[RelPath]) -> None:
    internal = tree.system.open_directory(tree.top, INTERNAL)
    try:
        write_durably(tree.system, internal, MOUNTS, json.dumps(sorted(mounts)).encode())
    finally:
        tree.system.close(internal)


class Absent:
    """Which paths lie where a disk was mounted that is not mounted now. For one short time."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._mounts = remembered(tree)
        self._known: dict[RelPath, bool] = {}

    def mount_above(self, path: RelPath) -> RelPath | None:
        """The mount point, at `path` or above, that is none now."""
        if not self._mounts:
            return None
        for place in (*ancestors(path), path):
            if place in self._mounts and not self._is_mounted(place):
                return place
        return None

    def _is_mounted(self, place: RelPath) -> bool:
        if place not in self._known:
            self._known[place] = is_mount_point(self._tree, place)
        return self._known[place]


def is_mount_point(tree: Tree, path: RelPath) -> bool:
    try:
        above, name = tree.place(path)
        return tree.system.stat(above, name).st_dev != tree.system.fstat(above).st_dev
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise


def absent_disk(mount: RelPath) -> Problem:
    return Problem(
        mount,
        "A disk was mounted here and is not mounted now.",
        f"Mount it again. If it is gone for good, delete the file {INTERNAL}/{MOUNTS} in the "
        "folder: what was on the disk then counts as deleted.",
    )
