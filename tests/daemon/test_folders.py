import os
from pathlib import Path
from typing import Any, cast

import pytest

from p2psync.config import Config
from p2psync.daemon import folders as module
from p2psync.daemon.clock import SystemClock
from p2psync.daemon.folders import SEND_RECEIVE, Folders
from p2psync.errors import P2psyncError
from p2psync.storage.device_store import open_device_store


async def test_a_folder_that_could_not_be_added_is_not_there_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise P2psyncError("The disk is full.")

    monkeypatch.setattr(module, "open_folder_index", fail)
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    root.mkdir()
    store = await open_device_store(home / "device.db")
    nobody = cast(Any, None)
    folders = Folders(home, Config(), store, nobody, nobody, SystemClock(), os.urandom)

    with pytest.raises(P2psyncError, match="full"):
        await folders.add(root, name=None, mode=SEND_RECEIVE, shared_with=None, dry_run=False)

    assert await store.folders() == []
    assert list(root.iterdir()) == []
    await store.close()


async def test_an_index_that_a_power_cut_left_behind_its_folder_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    indexes = tmp_path / "indexes"
    indexes.mkdir()
    for name in ("orphan.db", "orphan.db-wal", "kept.db.damaged-1"):
        (indexes / name).write_bytes(b"")
    store = await open_device_store(tmp_path / "device.db")
    nobody = cast(Any, None)

    await Folders(tmp_path, Config(), store, nobody, nobody, SystemClock(), os.urandom).open_all()

    assert [path.name for path in indexes.iterdir()] == ["kept.db.damaged-1"]
    await store.close()
