import errno
import os
import shutil

import pytest

from p2psync.files.adopt import adopt_root
from p2psync.ports import RootUnavailableError
from tests.files.folder import TOKEN, Folder
from tests.files.interposed import InterposedSystem, fails
from tests.support.steps import rel, walked


def refused(folder: Folder) -> str:
    with pytest.raises(RootUnavailableError) as caught:
        folder.disk.check_root()
    assert str(folder.root) in str(caught.value)
    return str(caught.value)


def test_a_missing_root_is_told_as_such(folder: Folder) -> None:
    folder.disk.check_root()
    folder.lose_root()
    assert "it is missing" in refused(folder)


def test_a_root_that_became_a_file_is_told_as_such(folder: Folder) -> None:
    folder.lose_root()
    folder.root.write_bytes(b"1")
    assert "not a directory any more" in refused(folder)


def test_an_empty_mount_point_is_not_the_root(folder: Folder) -> None:
    folder.write("file", b"1")
    folder.disk.check_root()
    folder.lose_root()
    folder.root.mkdir()
    assert "Perhaps a disk is not mounted" in refused(folder)
    with pytest.raises(RootUnavailableError):
        walked(folder.disk, {})


def test_the_directory_of_another_folder_is_not_the_root(folder: Folder) -> None:
    folder.disk.check_root()
    adopt_root(folder.root, "another token")
    assert "another folder" in refused(folder)


def test_a_marker_that_is_a_link_does_not_count(folder: Folder) -> None:
    marker = folder.root / ".p2psync/folder"
    shutil.move(marker, folder.root / "copy")
    marker.symlink_to(folder.root / "copy")
    refused(folder)


def test_an_unreadable_root_is_told_as_such(folder: Folder) -> None:
    system = InterposedSystem(fails("open_directory", errno.EACCES))
    folder.disk = folder.reopen(system)
    assert "permission denied" in refused(folder)


def test_a_root_that_came_back_is_used_again(folder: Folder) -> None:
    folder.write("file", b"1")
    folder.lose_root()
    refused(folder)
    os.rename(folder.root.with_name("elsewhere"), folder.root)
    assert folder.disk.look([rel("file")])[rel("file")] is not None


def test_no_handle_keeps_the_disk_from_being_unmounted(folder: Folder) -> None:
    before = len(os.listdir("/proc/self/fd"))
    walked(folder.disk, {})
    refused_folder = Folder(folder.root / "none", folder.reopen())
    refused_folder.disk.check_root()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_token_is_the_whole_first_line(folder: Folder) -> None:
    (folder.root / ".p2psync/folder").write_text(TOKEN + "0\n")
    refused(folder)
    (folder.root / ".p2psync/folder").write_text(TOKEN)
    folder.disk.check_root()
