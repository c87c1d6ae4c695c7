import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from p2psync.config import Config
from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, first_version
from p2psync.daemon import folders as module
from p2psync.daemon.clock import SystemClock
from p2psync.daemon.folders import SEND_RECEIVE, Folders
from p2psync.engine.membership import Membership
from p2psync.errors import P2psyncError
from p2psync.files.adopt import adopt_root
from p2psync.ports import Cursor
from p2psync.storage.device_store import DeviceStore, FolderRecord, open_device_store
from p2psync.storage.folder_index import open_folder_index
from tests.support.devices import device_id
from tests.support.played_keys import own_device


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


BOB = device_id("bob")


class Members:
    """As much of the membership as is asked for."""

    def __init__(self, *devices: DeviceID) -> None:
        self.members = dict.fromkeys(devices)
        self.own = own_device("ada")
        self.own_name = "ada"


async def with_an_offer_of_bob(home: Path, members: Members) -> tuple[Folders, DeviceStore]:
    """A folder, paused, whose index has something that bob offers."""
    root = home / "root"
    root.mkdir()
    adopt_root(root, "token")
    (home / "indexes").mkdir()
    index = await open_folder_index(home / "indexes" / "one.db", randomness=os.urandom)
    version = first_version(Dot(7, 1), stamp=1, author="bob")
    offered = [(1, RelPath("it"), Entry(Kind.SYMLINK, version, b"there"))]
    await index.receive(BOB, Cursor(7, 1), offered, after=0)
    await index.close()
    store = await open_device_store(home / "device.db")
    record = FolderRecord("shared", root, SEND_RECEIVE, True, "token", "one.db", (BOB,))
    await store.save_folder(record)
    nobody = cast(Any, None)
    membership = cast(Membership, members)
    return Folders(home, Config(), store, nobody, membership, SystemClock(), os.urandom), store


async def test_a_removal_that_could_not_be_stored_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(BOB)
    folders, store = await with_an_offer_of_bob(tmp_path, members)
    await folders.open_all()
    index = folders.get("shared").index
    assert await index.participants() == [BOB]
    members.members.clear()
    forget, tries = index.forget_peer, 0

    async def fail_at_first(device: DeviceID) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise P2psyncError("The disk is full.")
        await forget(device)

    monkeypatch.setattr(index, "forget_peer", fail_at_first)
    monkeypatch.setattr(module, "_RESTART_S", 0.0)
    await folders.forget_device(BOB)
    assert tries == 2
    assert await index.participants() == []
    assert not folders.get("shared").is_shared_with(BOB)
    await folders.close_all()
    await store.close()


async def test_who_could_not_be_forgotten_is_left_to_the_next_start_when_all_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(BOB)
    folders, store = await with_an_offer_of_bob(tmp_path, members)
    await folders.open_all()
    members.members.clear()
    failed = asyncio.Event()

    async def fail(_: DeviceID) -> None:
        failed.set()
        raise P2psyncError("The index is closed.")

    monkeypatch.setattr(folders.get("shared").index, "forget_peer", fail)
    forgetting = asyncio.create_task(folders.forget_device(BOB))
    await failed.wait()
    await folders.close_all()
    await asyncio.wait_for(forgetting, 5)
    await store.close()


async def test_who_is_back_meanwhile_is_not_forgotten(tmp_path: Path) -> None:
    folders, store = await with_an_offer_of_bob(tmp_path, Members(BOB))
    await folders.open_all()
    await folders.forget_device(BOB)
    assert await folders.get("shared").index.participants() == [BOB]
    await folders.close_all()
    await store.close()


async def test_who_comes_back_while_something_else_changes_is_not_forgotten(tmp_path: Path) -> None:
    """What it was told since would be forgotten with the rest."""
    members = Members(BOB)
    folders, store = await with_an_offer_of_bob(tmp_path, members)
    await folders.open_all()
    before = dict(members.members)
    members.members.clear()
    async with folders._changing:
        forgetting = asyncio.create_task(folders.forget_device(BOB))
        await asyncio.sleep(0)
        members.members.update(before)
    await forgetting
    assert await folders.get("shared").index.participants() == [BOB]
    await folders.close_all()
    await store.close()


async def test_who_was_removed_before_a_power_cut_is_forgotten_at_the_next_start(
    tmp_path: Path,
) -> None:
    folders, store = await with_an_offer_of_bob(tmp_path, Members())
    await folders.open_all()
    assert await folders.get("shared").index.participants() == []
    await folders.close_all()
    await store.close()
