from pathlib import Path

import pytest

from p2psync.ports import Disk
from tests.files.folder import Folder, disk_at
from tests.support.contracts.disk import DiskContract


def test_it_is_a_disk(tmp_path: Path) -> None:
    _: Disk = disk_at(tmp_path)


class TestLocalDisk(DiskContract):
    @pytest.fixture
    def world(self, folder: Folder) -> Folder:
        return folder
