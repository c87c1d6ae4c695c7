import errno
import os
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.relpath import RelPath, ancestors
from p2psync.files import walk as walk_module
from p2psync.files.fingerprint import UNSEEN
from p2psync.ports import Disk, Outcome, Walk
from tests.files.folder import Folder, make_folder
from tests.files.interposed import InterposedSystem, fails, once
from tests.support.contracts.disk import settled
from tests.support.steps import file, rel, step, walked


@pytest.fixture
def system() -> InterposedSystem:
    return InterposedSystem()


@pytest.fixture
def folder(tmp_path: Path, system: InterposedSystem) -> Folder:
    return make_folder(tmp_path / "folder", system)


def test_a_name_that_is_no_utf8_is_a_problem_and_hides_only_what_is_below(folder: Folder) -> None:
    bad = os.fsencode(folder.root) + b"/caf\xe9"
    os.mkdir(bad)
    Path(os.fsdecode(bad), "below").write_bytes(b"1")
    folder.write("good", b"1")

    walk = walked(folder.disk, {})

    assert [item.path for item in walk.changed] == ["good"]
    (problem,) = walk.problems
    assert problem.path == "caf\\xe9"
    assert problem.reason == "The name is not valid UTF-8."
    assert problem.next_step


def test_our_own_name_is_ignored_at_the_top_and_a_problem_below(folder: Folder) -> None:
    folder.make_directory("d")
    folder.make_directory("d/.p2psync")
    folder.write("d/.p2psync/file", b"1")

    walk = walked(folder.disk, {})

    assert [item.path for item in walk.changed] == ["d"]
    assert [problem.path for problem in walk.problems] == ["d/.p2psync"]


def test_what_is_neither_file_nor_directory_nor_link_is_skipped_in_silence(folder: Folder) -> None:
    os.mkfifo(folder.root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(folder.root)
        try:
            unix.bind("socket")
        finally:
            os.chdir(here)

        assert walked(folder.disk, {}) == ([], [], [])
        assert folder.disk.look([rel("pipe")]) == {"pipe": None}


def test_a_file_that_became_a_pipe_is_missing(folder: Folder) -> None:
    folder.write("it", b"1")
    known = settled(folder.disk)
    folder.remove("it")
    os.mkfifo(folder.root / "it")
    assert walked(folder.disk, known).missing == ["it"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_an_unreadable_directory_hides_what_is_below_and_nothing_else(
    folder: Folder, system: InterposedSystem, number: int
) -> None:
    for path in ("a", "a/b", "c"):
        folder.make_directory(path)
        folder.write(f"{path}/file", b"1")
    known = settled(folder.disk)
    folder.remove("a/b/file")
    folder.remove("c/file")
    for call in ("open_directory", "fstat"):
        handle_of_b = os.stat(folder.root / "a/b").st_ino

        def is_b(args: tuple[object, ...], inode: int = handle_of_b) -> bool:
            if isinstance(args[0], int) and len(args) == 1:
                return os.fstat(args[0]).st_ino == inode
            return args[-1] == "b"

        system.before = fails(call, number, only=is_b)
        walk = walked(folder.disk, known)
        assert walk.missing == ["c/file"]
        assert [problem.path for problem in walk.problems] == ["a/b"]


def test_a_top_that_cannot_be_listed_makes_nothing_missing(
    folder: Folder, system: InterposedSystem
) -> None:
    folder.write("it", b"1")
    known = settled(folder.disk)
    system.before = fails("names", errno.EIO)
    walk = walked(folder.disk, known)
    assert walk.missing == []
    assert len(walk.problems) == 1


def test_what_cannot_be_looked_at_is_not_taken_for_gone(
    folder: Folder, system: InterposedSystem
) -> None:
    folder.make_directory("d")
    folder.write("d/it", b"1")
    system.before = fails("open_directory", errno.EACCES, only=lambda args: args[1] == "d")
    seen = folder.disk.look([rel("d/it")])[rel("d/it")]
    assert seen is not None and seen.fingerprint == UNSEEN


def test_a_directory_swapped_for_a_link_during_the_walk_is_not_entered(
    tmp_path: Path, folder: Folder, system: InterposedSystem
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    folder.make_directory("d")
    folder.write("d/it", b"1")
    known = settled(folder.disk)

    def swap() -> None:
        os.rename(folder.root / "d", tmp_path / "moved")
        folder.link("d", str(outside))

    system.before = once("open_directory", swap, skip=2)
    walk = walked(folder.disk, known)

    assert walk.missing == []
    assert not any("secret" in item.path for item in walk.changed)


def test_links_are_not_followed(tmp_path: Path, folder: Folder) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    folder.link("to", str(outside))
    folder.link("loop", ".")

    walk = walked(folder.disk, {})

    assert [(item.path, item.fingerprint.kind) for item in walk.changed] == [
        ("loop", Kind.SYMLINK),
        ("to", Kind.SYMLINK),
    ]
    assert folder.disk.look([rel("to/secret")]) == {"to/secret": None}


def test_another_content_of_equal_size_time_and_inode_is_found(folder: Folder) -> None:
    """As programs leave it that put a file's time back; the kernel does not let them put ctime."""
    folder.write("it", b"one")
    before = (folder.root / "it").stat()
    known = settled(folder.disk)

    while (folder.root / "it").stat().st_ctime_ns == before.st_ctime_ns:
        folder.write("it", b"two")
        os.utime(folder.root / "it", ns=(before.st_atime_ns, before.st_mtime_ns))

    after = (folder.root / "it").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert [item.path for item in walked(folder.disk, known).changed] == ["it"]


def test_each_name_of_a_hard_linked_file_is_a_file(folder: Folder) -> None:
    folder.write("one", b"1")
    (folder.root / "two").hardlink_to(folder.root / "one")
    known = settled(folder.disk)
    assert set(known) == {"one", "two"}

    folder.write("one", b"edited")
    assert [item.path for item in walked(folder.disk, known).changed] == ["one", "two"]


def test_a_path_nested_too_deep_is_a_problem(folder: Folder) -> None:
    handle = os.open(folder.root, os.O_RDONLY)
    for _ in range(205):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)

    walk = walked(folder.disk, {})

    assert len(walk.changed) == 200
    assert len(walk.problems) == 1


class Mount:
    """Another file system in the folder, as the kernel's device numbers tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_mounted = True
        self.inode = path.stat().st_ino

    def seen(self, found: os.stat_result) -> os.stat_result:
        if not self.is_mounted or found.st_ino != self.inode:
            return found
        fields = list(found)
        fields[2] += 1
        return os.stat_result(fields, {"st_mtime_ns": 0, "st_ctime_ns": 0})


class MountSystem(InterposedSystem):
    mount: Mount | None = None

    def __getattribute__(self, name: str) -> object:
        attribute = super().__getattribute__(name)
        mount = object.__getattribute__(self, "mount")
        if mount is None or name not in ("stat", "fstat"):
            return attribute
        return lambda *args: mount.seen(attribute(*args))


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Folder, Mount]:
    system = MountSystem()
    folder = make_folder(tmp_path / "mounted", system)
    folder.make_directory("disk")
    mount = Mount(folder.root / "disk")
    system.mount = mount
    return folder, mount


def test_a_mount_point_is_remembered_before_anything_on_the_disk_is_told(
    mounted: tuple[Folder, Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is recorded long before the walk ends, if there is much. Should the daemon end
    meanwhile and the disk be taken away, its files must not be missing."""
    monkeypatch.setattr(walk_module, "_MOST_CHANGED", 3)
    folder, mount = mounted
    for number in range(5):
        folder.write(f"disk/{number}", b"1")
    with closing(folder.disk.walk()) as walk:
        first = walk.go_on([], last=True)
        assert walk.is_behind
    known = {one.path: one.fingerprint for one in first.changed}
    assert known
    for number in range(5):
        folder.remove(f"disk/{number}")
    mount.is_mounted = False

    after = walked(folder.reopen(folder.disk._system), known)
    assert after.missing == []
    assert [problem.path for problem in after.problems] == ["disk"]


def test_what_lies_on_a_disk_is_not_told_while_its_mount_point_cannot_be_remembered(
    mounted: tuple[Folder, Mount],
) -> None:
    folder, _ = mounted
    folder.write("disk/file", b"1")
    folder.write("other", b"1")
    system = folder.disk._system
    assert isinstance(system, MountSystem)
    system.before = fails("open_staging", errno.EROFS)
    walk = walked(folder.disk, {})
    assert [one.path for one in walk.changed] == ["other"]
    assert [problem.path for problem in walk.problems] == [".p2psync/mounts"]


def test_a_disk_that_is_not_mounted_any_more_is_a_problem_and_no_deletion(
    mounted: tuple[Folder, Mount],
) -> None:
    folder, mount = mounted
    folder.write("disk/file", b"1")
    folder.write("other", b"1")
    known = settled(folder.disk)
    assert set(known) == {"disk", "disk/file", "other"}
    folder.remove("disk/file")
    folder.remove("other")
    mount.is_mounted = False
    disk = folder.reopen(folder.disk._system)

    for _ in range(2):
        walk = walked(disk, known)
        assert walk.missing == ["other"]
        assert [problem.path for problem in walk.problems] == ["disk"]
        assert "not mounted" in walk.problems[0].reason
    part = walked(disk, {rel("disk/file"): known[rel("disk/file")]}, rel("disk/file"))
    assert (part.missing, part.changed) == ([], [])
    assert len(part.problems) == 1
    looked = disk.look([rel("disk/file")])[rel("disk/file")]
    assert looked is not None and looked.fingerprint == UNSEEN

    mount.is_mounted = True
    walk = walked(disk, known)
    assert walk.missing == ["disk/file", "other"]
    assert walk.problems == []


def test_nothing_is_put_where_a_disk_is_not_mounted(mounted: tuple[Folder, Mount]) -> None:
    folder, mount = mounted
    walked(folder.disk, {})
    mount.is_mounted = False

    (result,) = folder.disk.commit([step(folder.disk, "disk/new", file(b"1"))])

    assert result.outcome is Outcome.FAILED
    assert result.problem is not None and result.problem.path == "disk"
    assert folder.tree() == {"disk": None}


def test_a_mount_point_without_anything_known_is_forgotten(mounted: tuple[Folder, Mount]) -> None:
    folder, mount = mounted
    walked(folder.disk, {})
    assert "disk" in (folder.root / ".p2psync/mounts").read_text()
    mount.is_mounted = False
    assert walked(folder.disk, {}).problems == []
    assert (folder.root / ".p2psync/mounts").read_text() == "[]"


NAMES = ("a", "a!", "a0", "b", "ä", "€", "😀", "z")
"""Some sort between a directory and what is in it."""
trees = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
    st.booleans(),
    max_size=12,
)


@pytest.mark.slow
@given(there=trees, known=trees, size=st.integers(1, 4), most=st.sampled_from([1, 3, 10_000]))
def test_a_walk_in_parts_finds_in_path_order_what_a_comparison_of_everything_finds(
    there: dict[str, bool], known: dict[str, bool], size: int, most: int
) -> None:
    """True stands for a file; what is known of the rest is another fingerprint."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place, "folder"))
        for path, is_file in there.items():
            lower = [str(each) for each in ancestors(rel(path))]
            if not any((folder.root / each).is_file() for each in lower):
                (folder.root / path).parent.mkdir(parents=True, exist_ok=True)
                if not (folder.root / path).exists():
                    folder.write(path, b"1") if is_file else folder.make_directory(path)
        seen = settled(folder.disk)
        index = {
            rel(path): seen.get(rel(path), UNSEEN) if same else UNSEEN
            for path, same in known.items()
        }

        with mock.patch.object(walk_module, "_MOST_CHANGED", most):
            found = walked_in_parts(folder.disk, index, size)

    assert [item.path for item in found.changed] == sorted(
        path for path, mark in seen.items() if index.get(path) != mark
    )
    assert found.missing == sorted(index.keys() - seen.keys())
    assert found.problems == []


def walked_in_parts(disk: Disk, known: dict[RelPath, Fingerprint], size: int) -> Walk:
    pairs = sorted(known.items())
    whole = Walk([], [], [])
    with closing(disk.walk()) as walking:
        for at in range(0, len(pairs) + 1, size):
            is_behind = True
            while is_behind:
                part = walking.go_on(pairs[at : at + size], last=at + size > len(pairs))
                is_behind = walking.is_behind
                assert len(part.changed) <= walk_module._MOST_CHANGED
                whole = Walk(
                    whole.changed + part.changed,
                    whole.missing + part.missing,
                    whole.problems + part.problems,
                )
    return whole


def test_a_walk_of_what_is_known_makes_one_stat_each_and_reads_each_directory_once(
    folder: Folder, system: InterposedSystem
) -> None:
    for directory in ("a", "a/b", "c"):
        folder.make_directory(directory)
        for number in range(20):
            folder.write(f"{directory}/{number}", b"1")
    known = settled(folder.disk)
    calls: list[str] = []
    system.before = lambda name, _args: calls.append(name)

    assert walked_in_parts(folder.disk, known, 7) == ([], [], [])

    of_the_marker = 1
    assert calls.count("stat") == len(known) + of_the_marker
    assert calls.count("names") == len(["", "a", "a/b", "c"])
    assert calls.count("scan") == calls.count("readlink") == 0
    of_the_root_and_its_mounts = 2
    assert calls.count("open_directory") == len(["a", "a/b", "c"]) + of_the_root_and_its_mounts


@pytest.mark.parametrize("is_last", [False, True])
def test_a_walk_leaves_no_handle_behind(folder: Folder, is_last: bool) -> None:
    for directory in ("a", "a/b"):
        folder.make_directory(directory)
    folder.write("a/b/one", b"1")
    folder.write("a/b/two", b"1")
    known = settled(folder.disk)
    before = os.listdir("/proc/self/fd")

    walking = folder.disk.walk()
    walking.go_on(sorted(known.items())[: None if is_last else -1], last=is_last)
    if not is_last:
        assert len(os.listdir("/proc/self/fd")) == len(before) + len(["", "a", "a/b"])
        walking.close()

    assert os.listdir("/proc/self/fd") == before


def test_a_walk_that_is_closed_in_the_middle_of_a_part_lets_go_at_its_end(
    folder: Folder, system: InterposedSystem
) -> None:
    folder.make_directory("a")
    folder.write("a/file", b"1")
    before = os.listdir("/proc/self/fd")
    walking = folder.disk.walk()
    system.before = once("stat", walking.close, skip=2)

    walking.go_on([], last=False)
    walking.go_on([(rel("a/file"), UNSEEN)], last=False)

    assert os.listdir("/proc/self/fd") == before
    assert walking.go_on([(rel("b"), UNSEEN)], last=True) == ([], [], [])
