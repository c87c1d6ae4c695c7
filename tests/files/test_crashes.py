"""Killed at any instant: each path holds the old or the new, whole, and nothing is lost."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psync.core.entry import Fingerprint
from p2psync.files.syscalls import System
from p2psync.ports import Disk, Place, Step
from tests.files.folder import Folder, make_folder
from tests.files.interposed import (
    CHANGES,
    InterposedSystem,
    KilledError,
    fails,
    killed_at,
    lacks,
    once,
)
from tests.support.contracts.disk import Node, bytes_of, manifest
from tests.support.steps import (
    DIRECTORY,
    TOMBSTONE,
    file,
    link,
    metadata,
    move,
    place,
    rel,
    seen,
    stage,
    step,
)

MOST_CALLS = 60
"""More than any commit here makes."""


def steps_of(disk: Disk) -> list[Step]:
    marks: dict[str, Fingerprint | None] = {
        path: seen(disk, path)
        for path in ("changed", "linked", "gone", "dir", "meta", "empty", "old")
    }
    return [
        step(disk, "made", DIRECTORY),
        step(disk, "made/new", file(b"brand new"), name="s-1"),
        step(disk, "changed", file(b"changed new"), expected=marks["changed"], name="s-2"),
        step(disk, "linked", link("new"), expected=marks["linked"]),
        step(disk, "gone", TOMBSTONE, expected=marks["gone"]),
        step(disk, "dir", DIRECTORY, expected=marks["dir"]),
        step(disk, "empty", file(b"was a directory"), expected=marks["empty"], name="s-3"),
        metadata("meta", marks["meta"], executable=True),
        move("old", "made/moved", marks["old"]),
    ]


OLD: dict[str, tuple[Node, ...]] = {
    "changed": (b"changed old",),
    "linked": ("old",),
    "gone": (b"gone old",),
    "dir": (b"dir old",),
    "meta": (b"meta old",),
    "empty": (None,),
    "old": (b"old old",),
}
NEW: dict[str, Node] = {
    "made": None,
    "made/new": b"brand new",
    "changed": b"changed new",
    "linked": "new",
    "dir": None,
    "meta": b"meta old",
    "empty": b"was a directory",
    "made/moved": b"old old",
}
UNMOVED = {path: node for path, node in NEW.items() if path != "made/moved"} | {"old": b"old old"}
ATOMIC = ("changed", "linked", "meta")
"""Swapped in one step: never absent."""


def prepared(path: Path) -> Folder:
    folder = make_folder(path)
    for name in ("changed", "gone", "dir", "meta", "old"):
        place(folder.disk, name, file(f"{name} old".encode()))
    place(folder.disk, "linked", link("old"))
    place(folder.disk, "empty", DIRECTORY)
    return folder


def kept(folder: Folder) -> list[Node]:
    return [*folder.tree().values(), *folder.trash()]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [True, False])
def test_each_path_is_wholly_old_or_new_wherever_a_commit_is_killed(
    tmp_path: Path, flags: bool
) -> None:
    for count in range(MOST_CALLS):
        folder = prepared(tmp_path / f"{count}")
        hook, was_killed = killed_at(count)
        disk = folder.reopen(InterposedSystem(None if flags else lacks("rename_flagged")))
        steps = steps_of(disk)
        system = InterposedSystem(_both(hook, None if flags else lacks("rename_flagged")))
        dying = folder.reopen(system)
        try:
            dying.commit(steps)
        except KilledError:
            pass
        else:
            assert not was_killed()
            assert folder.tree() == (NEW if flags else UNMOVED)
            assert count > len(steps)
            return

        folder.disk = folder.reopen()
        folder.disk.unstage(folder.disk.staged_names())

        tree = folder.tree()
        for path, node in tree.items():
            assert node == NEW.get(path, b"") or node in OLD.get(path, ()), (count, path)
        if flags:
            assert set(ATOMIC) <= set(tree), count
        for name in ("changed", "gone", "dir", "meta", "old"):
            assert f"{name} old".encode() in kept(folder), (count, name)
        assert folder.left_in_staging() == []
    pytest.fail("more calls than expected")


def _both(
    one: Callable[[str, tuple[object, ...]], None],
    other: Callable[[str, tuple[object, ...]], None] | None,
) -> Callable[[str, tuple[object, ...]], None]:
    def hook(name: str, args: tuple[object, ...]) -> None:
        one(name, args)
        if other is not None:
            other(name, args)

    return hook


def _told_to(names: list[str]) -> Callable[[str, tuple[object, ...]], None]:
    return lambda name, _: names.append(name)


def test_staging_that_is_killed_shows_nothing(tmp_path: Path) -> None:
    for count in range(12):
        folder = make_folder(tmp_path / f"{count}")
        hook, was_killed = killed_at(count)
        try:
            disk = folder.reopen(InterposedSystem(hook))
            stage(disk, "s-1", b"1234")
            disk.prepare("c-1", manifest(b"12", b"34"))
            disk.stage_pieces("c-1", [(0, b"12"), (2, b"34")])
        except KilledError:
            assert was_killed()
        assert folder.tree() == {}


@pytest.mark.parametrize("shares", [True, False])
def test_a_copy_that_is_killed_is_not_taken_for_more_than_it_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    def clone(source: int, target: int, count: int, offsets: tuple[int, int]) -> None:
        if not shares:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.pwrite(target, os.pread(source, count, offsets[0]), offsets[1])

    monkeypatch.setattr(System, "clone_range", staticmethod(clone))
    pieces = [bytes_of(seed, 5000) for seed in range(3)]
    chunks = manifest(*pieces)
    killed_before: list[str] = []
    brought: list[list[bool]] = []
    for count in range(10):
        folder = make_folder(tmp_path / f"{count}")
        folder.write("file", b"".join(pieces))
        folder.disk.prepare("c-1", chunks)
        hook, was_killed = killed_at(count)
        called: list[str] = []
        try:
            folder.reopen(InterposedSystem(_both(_told_to(called), hook))).stage_copy(
                "c-1", 0, chunks, Place(rel("file"), 0, 15_000)
            )
        except KilledError:
            killed_before.append([name for name in called if name in CHANGES][count])
        else:
            assert not was_killed()
            break
        brought.append(folder.reopen().prepare("c-1", chunks))
        staged = (folder.root / ".p2psync/tmp/c-1").read_bytes()
        at = range(0, 15_000, 5000)
        assert brought[-1] == [
            staged[i : i + 5000] == piece for i, piece in zip(at, pieces, strict=True)
        ]
        assert folder.tree() == {"file": b"".join(pieces)}

    assert "clone_range" in killed_before
    assert brought[0] == [False] * 3


def test_crashes_are_played_before_calls_that_there_are() -> None:
    assert {name for name in CHANGES if name not in vars(System)} == set()


def test_no_test_can_be_about_a_call_that_there_is_not() -> None:
    with pytest.raises(AssertionError, match="System has no"):
        lacks("sync_file_system", "copy_range")
    with pytest.raises(AssertionError, match="System has no"):
        fails("copy_range", errno.EIO)
    with pytest.raises(AssertionError, match="System has no"):
        once("copy_range", lambda: None)


def test_what_was_displaced_at_a_crash_is_in_the_trash_after_the_next_start(
    folder: Folder,
) -> None:
    folder.make_directory(".p2psync/tmp/displaced-20300317T174640-1")
    folder.make_directory(".p2psync/tmp/displaced-20300317T174640-1/d")
    folder.write(".p2psync/tmp/displaced-20300317T174640-1/d/it", b"old")

    disk = folder.reopen()

    assert disk.staged_names() == []
    assert folder.in_trash() == ["d/it"]
    assert (folder.root / ".p2psync/trash/2030-03-17/174640-1/d/it").read_bytes() == b"old"
    assert folder.left_in_staging() == []


def test_a_staging_file_that_is_also_a_users_is_not_written_to(folder: Folder) -> None:
    """A crash between the link that places and the unlink leaves both names."""
    stage(folder.disk, "s-1", b"old")
    (folder.root / "it").hardlink_to(folder.root / ".p2psync/tmp/s-1")

    stage(folder.disk, "s-1", b"new")

    assert folder.tree() == {"it": b"old"}
