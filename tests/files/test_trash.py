import errno
import os
from pathlib import Path

import pytest

from p2psync.files.adopt import release_root
from p2psync.ports import Outcome
from tests.files.folder import LATER_NS, TOKEN, Folder, disk_at, make_folder
from tests.files.interposed import InterposedSystem
from tests.support.steps import TOMBSTONE, apply, file, link, place, seen, step

DAY_NS = 86_400 * 10**9


class Clock:
    def __init__(self) -> None:
        self.now = LATER_NS

    def __call__(self) -> int:
        return self.now


def discard(folder: Folder, path: str, data: bytes = b"old") -> None:
    place(folder.disk, path, file(data))
    assert apply(folder.disk, path, TOMBSTONE).outcome is Outcome.DONE


def test_what_is_displaced_keeps_its_path_under_the_day_and_time(folder: Folder) -> None:
    folder.make_directory("d")
    discard(folder, "d/it.txt")
    place(folder.disk, "to", link("target"))
    place(folder.disk, "to", link("other"))

    trash = folder.root / ".p2psync/trash/2030-03-17"
    assert (trash / "174640-1/d/it.txt").read_bytes() == b"old"
    assert os.readlink(trash / "174640-2/to") == "target"
    assert folder.left_in_staging() == []


def test_one_group_may_displace_a_file_and_what_was_below_its_name(folder: Folder) -> None:
    place(folder.disk, "it", file(b"file"))
    first = step(folder.disk, "it", TOMBSTONE, expected=seen(folder.disk, "it"))
    again = step(folder.disk, "it", file(b"again"))
    (_, placed) = folder.disk.commit([first, again])
    assert placed.outcome is Outcome.DONE
    assert folder.trash() == [b"file"]


def test_without_a_trash_nothing_is_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other", max_bytes=0)
    discard(folder, "it")
    assert folder.trash() == []
    assert folder.left_in_staging() == []


@pytest.mark.parametrize("max_bytes", [0, 10**9])
def test_what_was_damaged_has_a_place_of_its_own_and_stays_there(
    tmp_path: Path, max_bytes: int
) -> None:
    folder = make_folder(tmp_path / "other", max_bytes=max_bytes)
    place(folder.disk, "it", file(b"rot"))
    mending = step(folder.disk, "it", file(b"new"), expected=seen(folder.disk, "it"))

    (result,) = folder.disk.commit([mending], damaged=True)

    assert result.outcome is Outcome.DONE
    disk_at(folder.root, max_age_days=0, max_bytes=0).prune_trash()
    damaged = folder.root / ".p2psync/damaged/2030-03-17/174640-1/it"
    assert damaged.read_bytes() == b"rot"
    assert (folder.root / "it").read_bytes() == b"new"
    assert (folder.trash(), folder.left_in_staging()) == ([], [])
    release_root(folder.root, TOKEN)
    assert damaged.exists()


def test_what_was_damaged_is_kept_after_a_crash_too(tmp_path: Path) -> None:
    system = InterposedSystem()
    folder = make_folder(tmp_path / "other", system, max_bytes=0)
    place(folder.disk, "it", file(b"rot"))
    mending = step(folder.disk, "it", file(b"new"), expected=seen(folder.disk, "it"))

    def full(name: str, args: tuple[object, ...]) -> None:
        if name == "make_directory" and args[1] == "damaged":
            raise OSError(errno.ENOSPC, "full")

    system.before = full
    folder.disk.commit([mending], damaged=True)
    (left,) = folder.left_in_staging()
    assert left.startswith("damaged-")
    system.before = lambda *_: None
    folder.reopen(max_bytes=0).prune_trash()

    damaged = folder.root / ".p2psync/damaged/2030-03-17/174640-1/it"
    assert damaged.read_bytes() == b"rot"
    assert folder.left_in_staging() == []


def test_the_oldest_goes_first_until_the_rest_fits(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other", max_bytes=10)
    clock = Clock()
    folder.disk = disk_at(folder.root, max_bytes=10, now_ns=clock)
    for name in ("one", "two", "six"):
        discard(folder, name, name.encode() + b"..")
        clock.now += DAY_NS
    for disk in (folder.disk, folder.reopen(max_bytes=10)):
        disk.prune_trash()
        assert sorted(folder.in_trash()) == ["six", "two"]
    assert len(os.listdir(folder.root / ".p2psync/trash")) == 2


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other")
    clock = Clock()
    folder.disk = disk_at(folder.root, max_age_days=2, now_ns=clock)
    discard(folder, "old")
    clock.now += DAY_NS
    discard(folder, "young")
    clock.now += DAY_NS + 10**9
    folder.disk.prune_trash()
    assert folder.in_trash() == ["young"]


def test_a_trash_that_someone_emptied_is_counted_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other")
    folder.disk = disk_at(folder.root, max_bytes=6)
    folder.disk.prune_trash()
    discard(folder, "one", b"12345")
    folder.remove(".p2psync/trash")
    discard(folder, "two", b"12345")
    folder.disk.prune_trash()
    assert folder.in_trash() == ["two"]


def test_pruning_follows_no_link_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other", max_bytes=1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    place(folder.disk, "to", link(str(outside)))
    apply(folder.disk, "to", TOMBSTONE)
    folder.link(".p2psync/trash/2001-01-01", str(outside))
    folder.write(".p2psync/trash/note", b"of a person")

    folder.disk.prune_trash()

    assert (outside / "precious").read_bytes() == b"1"
    assert folder.in_trash_top() == ["2001-01-01", "note"]


def test_pruning_is_cheap_when_nothing_is_to_do(tmp_path: Path) -> None:
    system = InterposedSystem()
    folder = make_folder(tmp_path / "other", system)
    for number in range(5):
        discard(folder, f"{number}")
    folder.disk.prune_trash()
    calls: list[str] = []
    system.before = lambda name, _args: calls.append(name)
    folder.disk.prune_trash()
    assert "scan" not in calls
    assert len(calls) < 10
