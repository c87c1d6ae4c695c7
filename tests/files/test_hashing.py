import errno
import mmap
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from p2psync.core.entry import SINGLE_CHUNK_MAX
from p2psync.ports import FileChangedError, Place
from tests.files.folder import Folder, disk_at, make_folder
from tests.files.interposed import InterposedSystem, fails, once
from tests.support.contracts.disk import bytes_of
from tests.support.steps import rel, walked

BIG = 3 * SINGLE_CHUNK_MAX


@pytest.fixture
def system() -> InterposedSystem:
    return InterposedSystem()


@pytest.fixture
def folder(tmp_path: Path, system: InterposedSystem) -> Folder:
    return make_folder(tmp_path / "folder", system)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def rewrite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[::-1])


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    os.replace(path.with_name("other"), path)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("edit", [append, truncate, rewrite, touch, replace, delete])
@pytest.mark.parametrize("size", [20, BIG])
def test_a_file_that_changes_while_it_is_read_has_no_hash(
    folder: Folder, system: InterposedSystem, size: int, edit: Callable[[Path], None]
) -> None:
    folder.write("file", bytes_of(1, size))
    call = "read" if size == 20 else "read_into"
    system.after = once(call, lambda: edit(folder.root / "file"), skip=1 if call == "read" else 0)
    with pytest.raises(FileChangedError):
        folder.disk.hash_file(rel("file"))


def test_a_pipe_is_no_file_and_is_not_waited_for(folder: Folder) -> None:
    os.mkfifo(folder.root / "pipe")
    with pytest.raises(FileChangedError):
        folder.disk.hash_file(rel("pipe"))
    with pytest.raises(FileChangedError):
        folder.disk.read(Place(rel("pipe"), 0, 1))


def test_an_unreadable_file_is_an_error_of_the_system(
    folder: Folder, system: InterposedSystem
) -> None:
    folder.write("file", b"1")
    folder.disk.check_root()
    system.before = fails("open_file", errno.EACCES)
    with pytest.raises(PermissionError):
        folder.disk.hash_file(rel("file"))


def test_a_file_changed_just_before_the_read_is_racy(folder: Folder) -> None:
    folder.write("file", b"1")
    stamp = (folder.root / "file").stat().st_ctime_ns
    for begun_ns, racy in ((stamp + 10_000_000, True), (stamp + 30_000_000, False)):
        disk = disk_at(folder.root, now_ns=partial(int, begun_ns))
        assert disk.hash_file(rel("file")).fingerprint.racy is racy


def test_no_descriptor_is_left_open(folder: Folder, system: InterposedSystem) -> None:
    folder.write("file", bytes_of(1, BIG))
    folder.make_directory("d")
    open_before = len(os.listdir("/proc/self/fd"))
    folder.disk.hash_file(rel("file"))
    walked(folder.disk, {})
    for path in ("d", "none", "file/x"):
        with pytest.raises(FileChangedError):
            folder.disk.hash_file(rel(path))
    system.before = fails("read_into", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        folder.disk.hash_file(rel("file"))
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("size", [20, BIG])
def test_a_fresh_read_asks_the_disk_and_leaves_nothing_remembered(
    folder: Folder, system: InterposedSystem, size: int
) -> None:
    folder.write("it", bytes_of(1, size))
    calls: list[str] = []
    system.before = lambda name, _: calls.append(name)

    assert folder.disk.read(Place(rel("it"), 5, 10), fresh=True) == bytes_of(1, size)[5:15]
    about = [call for call in calls if call in ("read", "forget_cached")]
    assert about[-3:] == ["forget_cached", "read", "forget_cached"]
    assert folder.disk.hash_file(rel("it"), fresh=True) == folder.disk.hash_file(rel("it"))


def test_whole_pages_are_forgotten_since_the_system_leaves_parts_of_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("it", bytes_of(1, 5 * mmap.PAGESIZE))
    asked: set[tuple[int, int]] = set()
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, offset, size, advice: asked.add((offset, size))
    )

    folder.disk.read(Place(rel("it"), mmap.PAGESIZE + 1, mmap.PAGESIZE), fresh=True)
    assert asked == {(mmap.PAGESIZE, 2 * mmap.PAGESIZE)}


def test_a_fresh_read_is_a_read_where_the_system_cannot_forget(
    folder: Folder, system: InterposedSystem
) -> None:
    folder.write("it", b"123")
    system.before = fails("forget_cached", errno.EINVAL)

    assert folder.disk.read(Place(rel("it"), 0, 3), fresh=True) == b"123"


def test_a_file_that_is_open_or_mapped_for_writing_is_told(folder: Folder) -> None:
    folder.write("it", b"123")
    path = folder.root / "it"
    with path.open("rb"):
        assert not folder.disk.is_being_written(rel("it"))
    with path.open("r+b") as file:
        assert folder.disk.is_being_written(rel("it"))
        mapped = mmap.mmap(file.fileno(), 0)
    assert folder.disk.is_being_written(rel("it"))
    mapped.close()
    assert folder.disk.is_being_written(rel("it")) is False


def test_where_the_system_does_not_tell_it_is_not_known_whether_anybody_writes(
    folder: Folder, system: InterposedSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("it", b"123")

    def refuse(*_: object) -> int:
        raise OSError(errno.EACCES, "not yours")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    assert folder.disk.is_being_written(rel("it")) is None


def test_a_file_that_is_gone_is_written_by_nobody(folder: Folder) -> None:
    with pytest.raises(FileChangedError):
        folder.disk.is_being_written(rel("it"))
