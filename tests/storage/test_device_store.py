import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2psync.errors import DamagedError
from p2psync.storage.device_store import (
    ADDRESSES_MAX,
    DeviceStore,
    FolderRecord,
    open_device_store,
)
from tests.storage.builders import ANNA, BERT

PHOTOS = FolderRecord(
    name="photos",
    path=Path("/home/anna/Photos"),
    mode="send-receive",
    paused=False,
    token="t1",
    index_file="1.db",
    shared_with=(ANNA, BERT),
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DeviceStore]:
    store = await open_device_store(tmp_path / "device.db")
    yield store
    await store.close()


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    store = await open_device_store(tmp_path / "device.db")
    await store.save_roster(b"signed")
    await store.save_folder(PHOTOS)
    await store.save_address(ANNA, "127.0.0.1", 4001, 5)
    await store.set_setting("port", "4000")
    await store.close()

    store = await open_device_store(tmp_path / "device.db")
    assert await store.roster() == b"signed"
    assert await store.folders() == [PHOTOS]
    assert await store.addresses() == {ANNA: [("127.0.0.1", 4001, 5)]}
    assert await store.setting("port") == "4000"
    await store.close()


async def test_a_new_store_is_empty(store: DeviceStore) -> None:
    assert await store.roster() == b""
    assert await store.folders() == []
    assert await store.addresses() == {}
    assert await store.setting("port") is None


async def test_the_last_roster_is_the_one_that_counts(store: DeviceStore) -> None:
    await store.save_roster(b"first")
    await store.save_roster(b"second")
    assert await store.roster() == b"second"


async def test_a_folder_is_replaced_by_name_and_listed_by_name(store: DeviceStore) -> None:
    music = replace(PHOTOS, name="music", shared_with=None)
    for record in (PHOTOS, music, replace(PHOTOS, paused=True)):
        await store.save_folder(record)
    assert await store.folders() == [music, replace(PHOTOS, paused=True)]


async def test_shared_with_all_and_shared_with_none_are_told_apart(store: DeviceStore) -> None:
    for shared_with in (None, (), (BERT,)):
        await store.save_folder(replace(PHOTOS, shared_with=shared_with))
        assert (await store.folders())[0].shared_with == shared_with


async def test_a_directory_whose_name_is_not_utf8_is_kept(store: DeviceStore) -> None:
    record = replace(PHOTOS, path=Path(os.fsdecode(b"/data/caf\xe9")))
    await store.save_folder(record)
    assert await store.folders() == [record]


async def test_a_folder_is_removed_and_a_missing_one_is_no_error(store: DeviceStore) -> None:
    await store.save_folder(PHOTOS)
    await store.remove_folder("music")
    assert await store.folders() == [PHOTOS]
    await store.remove_folder("photos")
    assert await store.folders() == []


async def test_addresses_that_worked_last_come_first(store: DeviceStore) -> None:
    await store.save_address(ANNA, "seen.first", 1, None)
    await store.save_address(ANNA, "worked.before", 2, 100)
    await store.save_address(ANNA, "worked.last", 3, 200)
    await store.save_address(ANNA, "seen.last", 4, None)
    await store.save_address(BERT, "bert", 5, None)
    assert await store.addresses() == {
        ANNA: [
            ("worked.last", 3, 200),
            ("worked.before", 2, 100),
            ("seen.last", 4, None),
            ("seen.first", 1, None),
        ],
        BERT: [("bert", 5, None)],
    }


async def test_a_sighting_does_not_undo_that_an_address_worked(store: DeviceStore) -> None:
    await store.save_address(ANNA, "host", 1, 100)
    await store.save_address(ANNA, "host", 1, None)
    assert await store.addresses() == {ANNA: [("host", 1, 100)]}
    await store.save_address(ANNA, "host", 1, 200)
    assert await store.addresses() == {ANNA: [("host", 1, 200)]}


async def test_rumours_do_not_push_out_an_address_that_works(store: DeviceStore) -> None:
    await store.save_address(ANNA, "works", 1, 100)
    await store.save_address(BERT, "bert", 1, None)
    for number in range(ADDRESSES_MAX + 5):
        await store.save_address(ANNA, "rumour", number, None)
    known = await store.addresses()
    assert len(known[ANNA]) == ADDRESSES_MAX
    assert known[ANNA][0] == ("works", 1, 100)
    assert known[ANNA][1] == ("rumour", ADDRESSES_MAX + 4, None)
    assert known[BERT] == [("bert", 1, None)]


async def test_a_new_address_is_kept_though_all_others_worked(store: DeviceStore) -> None:
    for number in range(ADDRESSES_MAX):
        await store.save_address(ANNA, "works", number, 100 + number)
    await store.save_address(ANNA, "typed", 1, None)
    known = (await store.addresses())[ANNA]
    assert len(known) == ADDRESSES_MAX
    assert ("typed", 1, None) in known
    assert ("works", 0, 100) not in known


async def test_a_forgotten_device_is_off_every_list(store: DeviceStore) -> None:
    music = replace(PHOTOS, name="music", shared_with=None)
    await store.save_folder(PHOTOS)
    await store.save_folder(music)
    await store.save_address(ANNA, "host", 1, 100)
    await store.save_address(BERT, "bert", 1, None)
    await store.forget_device(ANNA)
    assert await store.addresses() == {BERT: [("bert", 1, None)]}
    assert await store.folders() == [music, replace(PHOTOS, shared_with=(BERT,))]


async def test_a_setting_is_replaced(store: DeviceStore) -> None:
    await store.set_setting("port", "1")
    await store.set_setting("port", "2")
    assert await store.setting("port") == "2"


async def test_a_damaged_store_is_never_replaced_by_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "device.db"
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(DamagedError, match="lists your devices and folders, is damaged"):
        await open_device_store(path)
    assert path.read_bytes() == b"rubbish" * 1000
