"""A whole folder, its disk in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from p2psync.core.relpath import RelPath
from p2psync.engine import folder as module
from p2psync.engine.folder import Folder, FolderSpec, State
from p2psync.storage.folder_index import open_folder_index
from tests.support.devices import NO_BRAKES, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import MemoryDisk


class Blind:
    """`ports.Watcher`."""

    def __init__(self, _: Callable[[set[RelPath] | None], None]) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    clock = ManualClock()
    index = await open_folder_index(tmp_path / "index.db", randomness=lambda size: b"\1" * size)
    folder = Folder(
        FolderSpec("shared", "/shared", "send-receive", None),
        index,
        MemoryDisk(clock.now_ns),
        clock,
        own=device_id("ada"),
        author=lambda: "ada",
        members=list,
        brakes=NO_BRAKES,
        scan_interval_s=3600,
        watcher=Blind,
    )
    running = asyncio.create_task(folder.run())
    yield folder
    running.cancel()
    await asyncio.wait([running])
    await index.close()


async def until(folder: Folder, state: State) -> None:
    async with asyncio.timeout(5):
        while await folder.state() is not state:
            folder.changed.clear()
            await folder.changed.wait()


async def test_a_halted_folder_does_not_try_again_in_a_circle(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROOT_RETRY_S", 0.0)
    await until(folder, State.IDLE)
    asked = 0

    def due_at_once() -> float:
        nonlocal asked
        asked += 1
        return 0.0

    disk = folder.disk
    assert isinstance(disk, MemoryDisk)
    disk.lose_root()
    folder.rescan()
    await until(folder, State.HALTED)
    monkeypatch.setattr(folder._puller, "next_retry", due_at_once)
    folder.pull()
    for _ in range(500):
        await asyncio.sleep(0)
    assert not asked
