import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteFolderIndex]:
    index = await open_folder_index(tmp_path / "index.db", randomness=os.urandom)
    yield index
    await index.close()
