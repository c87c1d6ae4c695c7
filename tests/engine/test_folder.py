"""What a folder says of a disk or an index that cannot be used, and for how long."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from p2psync.core.relpath import RelPath
from p2psync.engine import guard as module
from p2psync.engine.finding import Early, Found
from p2psync.engine.folder import Folder, FolderSpec, State
from p2psync.engine.session import SessionClosedError
from p2psync.errors import P2psyncError
from p2psync.ports import Watcher
from p2psync.protocol.messages import FolderOffer, IndexAck, IndexBatch
from p2psync.protocol.wire import RemoteProtocolError
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.support.devices import NO_BRAKES, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import MemoryDisk

FULL = "The index could not be written: the disk is full."
SESSION: Any = object()
BATCH: Any = IndexBatch("shared", 1, 2, 0)


class _LateWatcher:
    """Sets up its watches until it is told that all is watched."""

    def __init__(self, on_change: Callable[[set[RelPath] | None], None]) -> None:
        self._on_change = on_change
        self._all = asyncio.Event()
        self.awaited = asyncio.Event()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def begun(self) -> None:
        self.awaited.set()
        await self._all.wait()

    def watch_all(self) -> None:
        self._on_change(None)
        self._all.set()


class _NoWatcher:
    async def run(self) -> None:
        await asyncio.Event().wait()

    async def begun(self) -> None:
        pass


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteFolderIndex]:
    opened = await open_folder_index(
        tmp_path / "index.db", randomness=random.Random(1).randbytes, now_ns=1
    )
    yield opened
    await opened.close()


@pytest.fixture
def folder(index: SqliteFolderIndex) -> Folder:
    return _folder(index, lambda on_change: _NoWatcher())


def _folder(
    index: SqliteFolderIndex,
    watcher: Callable[[Callable[[set[RelPath] | None], None]], Watcher],
) -> Folder:
    clock = ManualClock()
    return Folder(
        FolderSpec("shared", "/shared", "send-receive", None),
        index,
        MemoryDisk(clock.now_ns),
        clock,
        own=device_id("ada"),
        author=lambda: "ada",
        members=list,
        brakes=NO_BRAKES,
        scan_interval_s=3600,
        watcher=watcher,
    )


@pytest.fixture
async def running(folder: Folder) -> AsyncIterator[Folder]:
    work = asyncio.create_task(folder.run())
    yield folder
    work.cancel()
    await asyncio.wait([work])


def _reasons(folder: Folder) -> list[str]:
    return [problem.reason for problem in folder.all_problems()]


async def _until(probe: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not probe():  # noqa: ASYNC110 - what it asks tells nobody when it changes
            await asyncio.sleep(0.001)


def _fail_with(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


async def test_trouble_of_the_scan_is_not_hidden_by_a_pull_that_goes_well(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls = 0

    async def pull() -> None:
        nonlocal pulls
        pulls += 1

    monkeypatch.setattr(folder._puller, "run_until_idle", pull)
    work = asyncio.create_task(folder.run())
    try:
        await _until(lambda: pulls)
        monkeypatch.setattr(folder.local, "scan", _fail_with(P2psyncError(FULL)))
        folder.rescan()
        await _until(lambda: _reasons(folder))
        before = pulls
        folder.pull()
        await _until(lambda: pulls > before and not folder._pull_wake.is_set())
        await asyncio.sleep(0)
        assert _reasons(folder) == [FULL]
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_an_index_that_takes_no_offers_is_told_until_it_takes_some(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder._exchanges, "handle", _fail_with(P2psyncError(FULL)))
    with pytest.raises(P2psyncError, match="full"):
        await folder.handle(SESSION, BATCH, b"")
    assert _reasons(folder) == [FULL]

    monkeypatch.undo()
    await folder.handle(SESSION, BATCH, b"")
    assert _reasons(folder) == []


async def test_or_until_it_takes_what_it_did_not_take(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: Any = IndexAck("shared", 1, 2, 2)
    monkeypatch.setattr(folder._exchanges, "handle", _fail_with(P2psyncError(FULL)))
    with pytest.raises(P2psyncError, match="full"):
        await folder.handle(SESSION, acknowledged, b"")
    monkeypatch.undo()
    await folder.handle(SESSION, BATCH, b"")
    assert _reasons(folder) == [FULL]
    await folder.handle(SESSION, acknowledged, b"")
    assert _reasons(folder) == []


@pytest.mark.parametrize("has_all", [False, True])
async def test_or_until_there_is_nothing_more_to_take(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, has_all: bool
) -> None:
    """Another peer, or another session, may have brought it meanwhile."""
    with monkeypatch.context() as patch:
        patch.setattr(folder._exchanges, "handle", _fail_with(P2psyncError(FULL)))
        with pytest.raises(P2psyncError, match="full"):
            await folder.handle(SESSION, BATCH, b"")
    monkeypatch.setattr(folder._exchanges, "has_all_of", lambda _: has_all)
    await folder.handle(SESSION, FolderOffer("shared", 1, 2, 0, 0), b"")
    assert _reasons(folder) == ([] if has_all else [FULL])


async def test_or_until_it_takes_what_was_found_here(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder._exchanges, "handle", _fail_with(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        await folder.handle(SESSION, BATCH, b"")
    assert len(_reasons(folder)) == 1
    folder.local.recorded()
    assert _reasons(folder) == []


class Beginning:
    """A session."""

    dropped = False

    def drop(self, reason: str) -> None:
        self.dropped = "anew" in reason


async def test_a_session_that_begins_while_the_index_begins_anew_offers_the_old_one_and_ends(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meanwhile = Beginning(), Beginning()
    sessions: dict[Any, Any] = folder._exchanges._exchanges
    sessions[before] = None
    renew = folder.index.renew_replica

    async def slow_renew() -> None:
        assert before.dropped
        sessions[meanwhile] = None
        await renew()
        assert not meanwhile.dropped

    monkeypatch.setattr(folder.index, "renew_replica", slow_renew)
    await folder.begin_anew(folder.index.epoch, "it is a test")
    assert meanwhile.dropped


async def test_what_two_peers_show_makes_the_index_begin_anew_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = folder.index.renew_replica
    epochs = []

    async def counted() -> None:
        epochs.append(folder.index.epoch)
        await renew()

    monkeypatch.setattr(folder.index, "renew_replica", counted)
    shown = folder.index.epoch
    await asyncio.gather(*(folder.begin_anew(shown, "it is a test") for _ in range(2)))
    assert epochs == [shown]


async def test_a_session_of_the_index_that_was_begun_anew_does_not_end_for_the_one_before(
    folder: Folder,
) -> None:
    session = Beginning()
    sessions: dict[Any, Any] = folder._exchanges._exchanges
    sessions[session] = None
    await folder.begin_anew(folder.index.epoch + 1, "it is a test")
    assert not session.dropped


@pytest.mark.parametrize(
    "error", [RemoteProtocolError("The peer sent nonsense."), SessionClosedError("It ended.")]
)
async def test_what_a_peer_did_is_no_trouble_of_the_disk(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: P2psyncError
) -> None:
    monkeypatch.setattr(folder._exchanges, "handle", _fail_with(error))
    with pytest.raises(type(error)):
        await folder.handle(SESSION, BATCH, b"")
    assert _reasons(folder) == []


async def until(folder: Folder, state: State) -> None:
    async with asyncio.timeout(5):
        while await folder.state() is not state:
            folder.changed.clear()
            await folder.changed.wait()


async def test_a_halted_folder_does_not_try_again_in_a_circle(
    running: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    await until(running, State.IDLE)
    asked = 0

    def due_at_once() -> float:
        nonlocal asked
        asked += 1
        return 0.0

    disk = running.disk
    assert isinstance(disk, MemoryDisk)
    disk.lose_root()
    running.rescan()
    await until(running, State.HALTED)
    monkeypatch.setattr(running._puller, "next_retry", due_at_once)
    running.pull()
    for _ in range(500):
        await asyncio.sleep(0)
    assert not asked


async def test_everything_is_looked_at_once_at_a_start_when_all_is_watched(
    index: SqliteFolderIndex,
) -> None:
    watchers: list[_LateWatcher] = []

    def watcher(on_change: Callable[[set[RelPath] | None], None]) -> _LateWatcher:
        watchers.append(_LateWatcher(on_change))
        return watchers[0]

    folder = _folder(index, watcher)
    disk = folder.disk
    assert isinstance(disk, MemoryDisk)
    disk.make_directory("a")
    work = asyncio.create_task(folder.run())
    try:
        async with asyncio.timeout(5):
            await watchers[0].awaited.wait()
        assert "walk" not in disk.calls
        assert await folder.state() is State.SCANNING

        watchers[0].watch_all()
        await _until(lambda: index.sequence and not folder.local.pending)
        assert disk.calls.count("walk") == 1
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_a_full_scan_longer_than_its_interval_does_not_follow_upon_itself(
    running: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Any = running._clock
    finder = running.local._finder
    find_all = finder.all
    began: list[float] = []

    async def slowly(early: Early) -> Found:
        began.append(clock.monotonic())
        clock.advance(2 * 3600)
        return await find_all(early)

    await _until(lambda: running._scanned)
    monkeypatch.setattr(finder, "all", slowly)
    for _ in range(2):
        scans = len(began)
        clock.advance(3599)
        running.local.mark([RelPath("anything")])
        await _until(lambda: not running.local.pending)
        assert len(began) == scans
        clock.advance(1)
        running.local.wake.set()
        await _until(lambda: len(began) > scans and not running.local.pending)  # noqa: B023
    assert began[1] - began[0] == 3 * 3600
