"""The watcher with a scripted tree, and the real one on a directory of the test."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from p2psync.core.relpath import RelPath
from p2psync.files import watcher
from p2psync.files.watcher import (
    ABSENT_S,
    POLL_S,
    RETRY_S,
    Changes,
    Watcher,
    is_on_network,
    watch_tree,
)


class Script:
    """Watches that yield, fail and end as told, and a clock that moves when told."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Changes | OSError | str] = asyncio.Queue()
        self.said: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
        self.sleeping: dict[float, asyncio.Event] = {}
        self.asleep = asyncio.Condition()
        self.remote = False

    async def watch(self, root: Path) -> AsyncGenerator[Changes, None]:
        while True:
            step = await self.steps.get()
            if isinstance(step, OSError):
                raise step
            if isinstance(step, str):
                return
            yield step

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        async with self.asleep:
            self.sleeping[seconds] = event
            self.asleep.notify_all()
        await event.wait()

    async def pass_by(self, seconds: float) -> None:
        """Wait until someone sleeps for so long, and wake them."""
        async with self.asleep:
            await self.asleep.wait_for(lambda: seconds in self.sleeping)
            self.sleeping.pop(seconds).set()

    async def next(self) -> tuple[str, object]:
        async with asyncio.timeout(5):
            return await self.said.get()


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    async with running(scripted(script)):
        yield script


def scripted(script: Script) -> Watcher:
    return Watcher(
        Path("/the/root"),
        on_change=lambda changes: script.said.put_nowait(("change", changes)),
        on_problem=lambda problem: script.said.put_nowait(("problem", problem)),
        watch=script.watch,
        is_remote=lambda root: script.remote,
        sleep=script.sleep,
    )


@asynccontextmanager
async def running(watched: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watched.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_changed_is_passed_on(script: Script) -> None:
    script.steps.put_nowait(None)
    script.steps.put_nowait({RelPath("a/b")})
    assert await script.next() == ("change", None)
    assert await script.next() == ("change", {"a/b"})


@pytest.mark.parametrize(
    "first", [None, FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ENOSPC, "full"), "end"]
)
async def test_it_has_begun_once_all_is_watched_or_cannot_be_and_told_so_before(
    first: Changes | OSError | str,
) -> None:
    script = Script()
    watched = scripted(script)
    async with running(watched):
        waiting = asyncio.create_task(watched.begun())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()

        script.steps.put_nowait(first)
        async with asyncio.timeout(5):
            await waiting

        if not isinstance(first, FileNotFoundError):
            assert ("change", None) in [
                script.said.get_nowait() for _ in range(script.said.qsize())
            ]


async def test_it_begins_anew_when_it_runs_again() -> None:
    script = Script()
    watched = scripted(script)
    script.steps.put_nowait(None)
    async with running(watched):
        await watched.begun()
    async with running(watched):
        await asyncio.sleep(0)
        waiting = asyncio.create_task(watched.begun())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        script.steps.put_nowait(None)
        await waiting


async def test_a_vanished_root_is_looked_at_once_and_watched_again_when_it_is_back(
    script: Script,
) -> None:
    script.steps.put_nowait(None)
    assert await script.next() == ("change", None)
    script.steps.put_nowait("end")
    assert await script.next() == ("change", None)
    for _ in range(3):
        script.steps.put_nowait(FileNotFoundError(errno.ENOENT, "gone"))
        await script.pass_by(ABSENT_S)
    await script.pass_by(ABSENT_S)
    assert script.said.empty()
    script.steps.put_nowait(None)
    assert await script.next() == ("change", None)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "sudo sysctl fs.inotify.max_user_watches="),
        (errno.EMFILE, "sudo sysctl fs.inotify.max_user_instances="),
        (errno.EIO, "It is tried again every minute."),
    ],
)
async def test_a_folder_that_cannot_be_watched_is_polled_until_it_can(
    script: Script, number: int, words: str
) -> None:
    script.steps.put_nowait(OSError(number, os.strerror(number)))
    kind, sentence = await script.next()
    assert kind == "problem"
    assert "“/the/root”" in str(sentence)
    assert words in str(sentence)
    assert await script.next() == ("change", None)
    await script.pass_by(POLL_S)
    assert await script.next() == ("change", None)

    script.steps.put_nowait(OSError(number, os.strerror(number)))
    await script.pass_by(RETRY_S)
    assert await script.next() == ("change", None)

    script.steps.put_nowait(None)
    await script.pass_by(RETRY_S)
    assert await script.next() == ("problem", None)
    assert await script.next() == ("change", None)
    await script.pass_by(POLL_S)
    script.steps.put_nowait({RelPath("x")})
    assert await script.next() == ("change", {"x"})


async def test_a_network_file_system_is_polled_as_well(script: Script) -> None:
    script.remote = True
    script.steps.put_nowait(None)
    assert await script.next() == ("change", None)
    await script.pass_by(POLL_S)
    assert await script.next() == ("change", None)


async def test_a_local_one_is_not(script: Script) -> None:
    script.steps.put_nowait(None)
    assert await script.next() == ("change", None)
    await script.pass_by(POLL_S)
    await script.pass_by(POLL_S)
    assert script.said.empty()


@pytest.mark.parametrize(
    ("kind", "remote"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_the_kind_of_file_system_is_read_from_the_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, remote: bool
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:999 / /proc rw shared:5 - proc proc rw\n"
        f"22 1 {os.major(device)}:{os.minor(device)} / /a\\040b rw shared:1 - {kind} x:/y rw\n"
    )
    monkeypatch.setattr(watcher, "MOUNTS", mounts)
    assert is_on_network(tmp_path) is remote
    assert not is_on_network(tmp_path / "missing")


# --- the real thing ----------------------------------------------------------------------------


class Live:
    """What the real watch of `root` tells."""

    def __init__(self, root: Path, batches: AsyncGenerator[Changes, None]) -> None:
        self.root = root
        self.batches = batches

    async def batch(self) -> Changes:
        async with asyncio.timeout(5):
            return await anext(self.batches)

    async def until(self, *wanted: str) -> set[str]:
        """All that is told until `wanted` was; fails at “everything”."""
        told: set[str] = set()
        while not told.issuperset(wanted):
            batch = await self.batch()
            assert batch is not None
            told |= batch
        return told


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    root = tmp_path / "root"
    (root / "old" / "deep").mkdir(parents=True)
    (root / "old" / "f").touch()
    async with aclosing(watch_tree(root)) as batches:
        live = Live(root, batches)
        assert await live.batch() is None
        yield live


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: (root / "new").write_bytes(b"1"), {"new"}),
        (lambda root: append(root / "old" / "f"), {"old/f"}),
        (lambda root: (root / "old" / "f").chmod(0o700), {"old/f"}),
        (lambda root: (root / "old" / "f").rename(root / "g"), {"old/f", "g"}),
        (lambda root: (root / "old" / "f").unlink(), {"old/f"}),
        (lambda root: (root / "old" / "link").symlink_to("nowhere"), {"old/link"}),
        (lambda root: (root / "old" / "deep").rmdir(), {"old/deep"}),
        (lambda root: (root / "old" / "deep").chmod(0o700), {"old/deep"}),
        (lambda root: (root / "old" / "more").mkdir(), {"old/more"}),
    ],
)
async def test_every_kind_of_change_is_told(
    live: Live, change: Callable[[Path], object], told: set[str]
) -> None:
    change(live.root)
    assert await live.until(*told) == told


async def test_a_change_is_told_at_once(live: Live) -> None:
    clock = asyncio.get_running_loop().time
    took = []
    for number in range(3):
        (live.root / str(number)).touch()
        before = clock()
        await live.until(str(number))
        took.append(clock() - before)
    assert min(took) < 0.06


async def test_new_directories_are_watched_by_the_time_they_are_told(
    live: Live, tmp_path: Path
) -> None:
    (tmp_path / "made" / "b").mkdir(parents=True)
    (tmp_path / "made").rename(live.root / "a")
    await live.until("a")
    (live.root / "a" / "b" / "f").touch()
    await live.until("a/b/f")


async def test_a_moved_directory_is_known_by_its_new_name(live: Live) -> None:
    (live.root / "old").rename(live.root / "new")
    assert await live.until("old", "new") == {"old", "new"}
    (live.root / "new" / "deep" / "f").touch()
    assert await live.until("new/deep/f") == {"new/deep/f"}


def test_a_directory_that_moved_is_told_of_together_with_its_new_name(tmp_path: Path) -> None:
    """Or its files would be taken for new ones, and then for deleted ones."""
    (tmp_path / "old" / "deep").mkdir(parents=True)
    stop = os.eventfd(0)
    told: list[Changes] = []
    try:
        with closing(watcher._Tree(tmp_path, stop)) as tree:
            tree._add(b"")
            (tmp_path / "other").touch()
            (tmp_path / "old").rename(tmp_path / "new")
            tree._handle(told.append)
    finally:
        os.close(stop)
    assert told == [{"other"}, {"old", "new"}]


async def test_what_moved_out_of_the_folder_is_not_watched_any_more(
    live: Live, tmp_path: Path
) -> None:
    (live.root / "old").rename(tmp_path / "out")
    assert await live.until("old") == {"old"}
    (tmp_path / "out" / "deep" / "f").touch()
    (tmp_path / "out").rename(live.root / "back")
    assert await live.until("back") == {"back"}
    (live.root / "back" / "deep" / "f").unlink()
    assert await live.until("back/deep/f") == {"back/deep/f"}


async def test_our_own_directory_and_what_links_lead_to_are_not_watched(
    tmp_path: Path,
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / ".p2psync" / "staging").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    async with aclosing(watch_tree(root)) as batches:
        live = Live(root, batches)
        assert await live.batch() is None
        (root / ".p2psync" / "staging" / "s").touch()
        (root / ".p2psync" / "new").touch()
        (outside / "deep" / "f").touch()
        (root / "last").touch()
        assert await live.until("last") == {"last"}


async def test_a_name_that_cannot_be_shared_points_to_the_directory_above(live: Live) -> None:
    bad = os.fsencode(live.root) + b"/old/\xff"
    os.mknod(bad)
    assert await live.until("old") == {"old"}
    os.truncate(bad, 1)
    (live.root / "last").touch()
    assert await live.until("last") == {"last"}
    os.rename(bad, os.fsencode(live.root) + b"/\xfe")
    assert await live.batch() is None


async def test_many_changes_at_once_are_everything(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "MOST_PATHS", 3)
    for number in range(50):
        os.mknod(live.root / "old" / str(number))
    while await live.batch() is not None:
        pass


async def test_an_overflow_of_the_kernels_queue_is_everything_and_loses_no_directory(
    live: Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    events = watcher._Tree._events
    losses = [True]

    def lossy(tree: watcher._Tree) -> list[tuple[int, int, bytes]]:
        got = list(events(tree))
        return [(-1, watcher._OVERFLOW, b"")] if losses and losses.pop() else got

    monkeypatch.setattr(watcher._Tree, "_events", lossy)
    (tmp_path / "made").rename(live.root / "lost")
    assert await live.batch() is None
    (live.root / "lost" / "deep" / "f").touch()
    await live.until("lost/deep/f")


@pytest.mark.parametrize("replaced", [False, True])
async def test_the_watch_ends_when_the_root_is_another(live: Live, replaced: bool) -> None:
    elsewhere = live.root.with_name("elsewhere")
    live.root.rename(elsewhere)
    if replaced:
        live.root.mkdir()
    (elsewhere / "f").touch()
    with pytest.raises(StopAsyncIteration):
        while True:
            await live.batch()


async def test_a_root_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await anext(watch_tree(tmp_path / "missing"))


async def test_the_watch_limit_reached_later_is_an_error(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tree: watcher._Tree, directory: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(watcher._Tree, "_watch", full)
    (live.root / "new").mkdir()
    with pytest.raises(OSError, match="No space"):
        while True:
            await live.batch()


async def test_a_cancelled_watcher_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    started = asyncio.Event()
    before = set(os.listdir("/proc/self/fd"))
    watched = Watcher(
        tmp_path, on_change=lambda changes: started.set(), on_problem=lambda problem: None
    )
    async with running(watched):
        async with asyncio.timeout(5):
            await started.wait()
        assert any(thread.name == f"watch {tmp_path}" for thread in threading.enumerate())
    assert not any(thread.name == f"watch {tmp_path}" for thread in threading.enumerate())
    assert set(os.listdir("/proc/self/fd")) == before
