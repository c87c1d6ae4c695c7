"""The disk that other tests build on keeps the contract of every disk."""

import os
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Fingerprint
from p2psync.core.relpath import RelPath
from p2psync.files import walk as walk_module
from p2psync.ports import Disk
from tests.files.folder import Folder, make_folder
from tests.support import memory_disk
from tests.support.contracts.disk import DiskContract, settled
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import MemoryDisk
from tests.support.steps import rel, seen


class World(MemoryDisk):
    """A disk that is its own user, whose time goes on by itself."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        super().__init__(self._tick)

    def _tick(self) -> int:
        self._clock.advance(0.001)
        return self._clock.now_ns()

    @property
    def disk(self) -> Disk:
        return self


class TestMemoryDisk(DiskContract):
    @pytest.fixture
    def world(self) -> World:
        return World()


DIRECTORIES = ["d", "d/e", "f"]
FILES = ["a", "d!", "d/a", "d/e/a", "d/e/z", "d/z", "f/a", "z"]
"""Some sort between a directory and what is in it."""
PATHS = [*DIRECTORIES, *FILES, "d/b", "g"]
acts = st.tuples(
    st.sampled_from(["write", "make", "remove", "rename", "record"]),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
)


@dataclass
class Walked:
    """A walk in parts, between which the user acts and some of that is recorded."""

    world: Any
    known: dict[RelPath, Fingerprint] = field(default_factory=dict)
    written: int = 0
    kept_open: list[int] = field(default_factory=list)
    """Of directories that were removed, so that no other gets their inodes."""

    def act(self, act: str, path: str, other: str) -> None:
        tree = self.world.tree()
        above = path.rpartition("/")[0]
        if act == "record":
            now = seen(self.world.disk, path)
            self.known.pop(rel(path), None)
            if now is not None:
                self.known[rel(path)] = now._replace(racy=False)
        elif act == "remove" and path in tree:
            self._remove(path)
        elif act == "rename" and path in tree and tree[path] is None and other not in tree:
            beyond = other.rpartition("/")[0]
            if not f"{other}/".startswith(f"{path}/") and tree.get(beyond, b"") is None:
                self.world.rename(path, other)
        elif above and tree.get(above, b"") is not None:
            return
        elif act == "write" and tree.get(path, b"") is not None:
            self.written += 1
            # Each of another size, since clocks of disks are coarse.
            self.world.write(path, bytes(self.written))
        elif act == "make" and path not in tree:
            self.world.make_directory(path)

    def _remove(self, path: str) -> None:
        if isinstance(self.world, Folder):
            for directory, _, _ in os.walk(self.world.root / path):
                self.kept_open.append(os.open(directory, os.O_PATH))
        self.world.remove(path)

    def walk(self, size: int, between: list[list[tuple[str, str, str]]]) -> list[object]:
        told: list[object] = []
        turns = iter(between)
        after, last = "", False
        with closing(self.world.disk.walk()) as walking:
            while not last or walking.is_behind:
                if not walking.is_behind:
                    pairs = sorted(pair for pair in self.known.items() if pair[0] > after)[:size]
                    last = len(pairs) < size
                    after = pairs[-1][0] if pairs else after
                changed, missing, problems = walking.go_on(pairs, last=last)
                marks = [(item.path, item.fingerprint[:2]) for item in changed]
                told.append((marks, missing, problems, walking.is_behind))
                for each in next(turns, []):
                    self.act(*each)
        return told


@pytest.mark.slow
@given(
    between=st.lists(st.lists(acts, max_size=4), max_size=12),
    size=st.integers(1, 4),
    most=st.sampled_from([1, 3, 10_000]),
)
def test_a_walk_tells_what_a_real_one_tells_whatever_happens_between_its_parts(
    between: list[list[tuple[str, str, str]]],
    size: int,
    most: int,
) -> None:
    told: list[list[object]] = []
    with tempfile.TemporaryDirectory() as place:
        for world in (World(), make_folder(Path(place, "folder"))):
            for path in DIRECTORIES:
                world.make_directory(path)
            walked = Walked(world)
            for path in FILES:
                walked.act("write", path, "")
            walked.known = settled(world.disk)
            with (
                mock.patch.object(walk_module, "_MOST_CHANGED", most),
                mock.patch.object(memory_disk, "MOST_CHANGED", most),
            ):
                told.append(walked.walk(size, between))
            for handle in walked.kept_open:
                os.close(handle)
    assert told[0] == told[1]
