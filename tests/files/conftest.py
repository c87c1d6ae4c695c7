from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.support.contracts.disk")

from tests.files.folder import Folder, make_folder  # noqa: E402 (after the rewrite is set up)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "folder")
