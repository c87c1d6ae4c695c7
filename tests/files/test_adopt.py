import errno
import os
from pathlib import Path

import pytest

from p2psync.errors import UsageError
from p2psync.files import adopt
from p2psync.files.adopt import adopt_root, release_root
from p2psync.files.syscalls import System
from p2psync.ports import RootUnavailableError
from tests.files.folder import TOKEN, Folder, disk_at, tree_of
from tests.files.interposed import CHANGES, InterposedSystem, fails
from tests.support.steps import TOMBSTONE, apply, file, place, stage


def test_a_directory_is_marked_and_gets_what_a_folder_needs(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"1")
    adopt_root(tmp_path, TOKEN)
    assert set(tree_of(tmp_path)) == {
        "mine",
        ".p2psync",
        ".p2psync/folder",
        ".p2psync/tmp",
        ".p2psync/trash",
    }
    assert (tmp_path / ".p2psync").stat().st_mode & 0o777 == 0o700
    disk_at(tmp_path).check_root()


def test_the_marker_of_an_earlier_folder_is_replaced(tmp_path: Path) -> None:
    adopt_root(tmp_path, "an earlier one")
    adopt_root(tmp_path, TOKEN)
    disk_at(tmp_path).check_root()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for path, said in ((tmp_path / "none", "no directory"), (tmp_path / "file", "not a directory")):
        with pytest.raises(UsageError, match=said) as caught:
            adopt_root(path, TOKEN)
        assert str(path) in str(caught.value)
    assert tree_of(tmp_path) == {"file": b"1"}


def test_a_pseudo_file_system_is_refused() -> None:
    with pytest.raises(UsageError, match="/proc/self"):
        adopt_root(Path("/proc/self"), TOKEN)


class FoldingSystem(System):
    """Looks names up as FAT does."""

    def stat(self, directory: int, name: str) -> os.stat_result:
        folded = {each.casefold(): each for each in os.listdir(directory)}
        return super().stat(directory, folded.get(name.casefold(), name))


def test_a_file_system_that_does_not_tell_case_apart_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_bytes(b"1")
    monkeypatch.setattr(adopt, "System", FoldingSystem)
    with pytest.raises(UsageError, match="upper from lower case") as caught:
        adopt_root(tmp_path, TOKEN)
    assert str(tmp_path) in str(caught.value)
    assert tree_of(tmp_path) == {"mine": b"1"}


def test_a_directory_of_a_person_that_is_named_nearly_like_ours_is_no_obstacle(
    tmp_path: Path,
) -> None:
    (tmp_path / ".P2PSYNC").mkdir()
    adopt_root(tmp_path, TOKEN)
    disk_at(tmp_path).check_root()


@pytest.mark.parametrize("thing", ["file", "link"])
def test_something_in_the_way_is_refused_and_left(tmp_path: Path, thing: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    if thing == "file":
        (root / ".p2psync").write_bytes(b"1")
    else:
        (root / ".p2psync").symlink_to(outside)
    before = tree_of(tmp_path)
    with pytest.raises(UsageError, match=r"\.p2psync"):
        adopt_root(root, TOKEN)
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("call", sorted(CHANGES))
@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_nothing_is_left_behind_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(adopt, "System", lambda: InterposedSystem(fails(call, number)))
    try:
        adopt_root(tmp_path, TOKEN)
    except UsageError as error:
        assert str(tmp_path) in str(error)
        if call not in ("unlink", "remove_directory"):
            assert tree_of(tmp_path) == {}
    else:
        assert call not in ("make_directory", "open_staging", "write", "rename")


def test_a_removed_folder_keeps_its_files_and_its_trash(folder: Folder) -> None:
    place(folder.disk, "kept", file(b"1"))
    place(folder.disk, "it", file(b"old"))
    apply(folder.disk, "it", TOMBSTONE)

    release_root(folder.root, TOKEN)

    assert folder.tree() == {"kept": b"1"}
    assert folder.trash() == [b"old"]
    assert os.listdir(folder.root / ".p2psync") == ["trash"]
    with pytest.raises(RootUnavailableError):
        folder.disk.check_root()


def test_a_removed_folder_leaves_nothing_of_ours_if_its_trash_is_empty(folder: Folder) -> None:
    stage(folder.disk, "s-1", b"1")
    release_root(folder.root, TOKEN)
    assert os.listdir(folder.root) == []


def test_what_a_crash_left_displaced_is_in_the_trash_of_a_removed_folder(folder: Folder) -> None:
    folder.make_directory(".p2psync/tmp/displaced-20300317T174640-1")
    folder.write(".p2psync/tmp/displaced-20300317T174640-1/it", b"old")
    release_root(folder.root, TOKEN)
    assert folder.in_trash() == ["it"]


def test_another_folders_directory_is_not_released(folder: Folder) -> None:
    release_root(folder.root, "another token")
    release_root(folder.root / "none", TOKEN)
    folder.disk.check_root()
