from collections import Counter
from pathlib import Path

import pytest

from p2psync.ports import Action, Disk, FileChangedError, Place, Step, Whole
from tests.files.folder import Folder, disk_at
from tests.files.interposed import InterposedSystem
from tests.support.contracts.disk import DiskContract
from tests.support.steps import file, rel


def test_it_is_a_disk(tmp_path: Path) -> None:
    _: Disk = disk_at(tmp_path)


class TestLocalDisk(DiskContract):
    @pytest.fixture
    def world(self, folder: Folder) -> Folder:
        return folder


@pytest.fixture
def calls(folder: Folder) -> Counter[str]:
    """How often the folder's disk makes each system call from now on."""
    made: Counter[str] = Counter()
    folder.disk = folder.reopen(InterposedSystem(lambda name, _: made.update([name])))
    folder.disk.check_root()
    made.clear()
    return made


def test_reading_many_at_once_opens_each_directory_once(
    folder: Folder, calls: Counter[str]
) -> None:
    folder.make_directory("a")
    for name in ("a/one", "a/two", "a/three"):
        folder.write(name, b"123")
    with folder.disk.at_once():
        for name in ("a/one", "a/two", "a/three"):
            folder.disk.read(Place(rel(name), 0, 3))
    assert calls["open_directory"] == 2, "the root and the one below"
    assert calls["close"] == 5
    with pytest.raises(FileChangedError):
        folder.disk.read(Place(rel("a/four"), 0, 3))
    assert calls["open_directory"] == 4, "beyond the block nothing is kept"


def test_a_whole_small_file_is_opened_once_on_its_way_to_its_place(
    folder: Folder, calls: Counter[str]
) -> None:
    sent = file(b"1234")
    steps = [Step(Action.PLACE, rel(str(n)), sent.entry, None, f"s-{n}") for n in range(10)]
    folder.disk.stage_whole([Whole(step.staged, sent.data, sent.entry) for step in steps])
    folder.disk.commit(steps)
    assert folder.tree() == {str(number): b"1234" for number in range(10)}
    assert calls["create_staging"] == 10
    assert calls["open_staging"] == calls["truncate"] == calls["set_mode"] == 0
    assert calls["sync_file_system"] == 1


def test_what_was_staged_with_other_metadata_is_given_the_right_ones(folder: Folder) -> None:
    other = file(b"1", executable=True).entry
    right = file(b"1").entry
    steps = [Step(Action.PLACE, rel(str(n)), right, None, f"s-{n}") for n in range(9)]
    folder.disk.stage_whole([Whole(step.staged, b"1", other) for step in steps])
    marks = [result.fingerprint for result in folder.disk.commit(steps)]
    assert [mark and mark.executable for mark in marks] == [False] * 9
