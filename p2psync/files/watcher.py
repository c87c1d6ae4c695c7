"""Tells which paths of a folder may have changed. A hint only: the scan is the truth.

This talks to inotify itself. `watchfiles` follows symbolic links (one to “/” would watch the whole
machine), stops at the first name that is not UTF-8, hides that the kernel's queue overflowed, and
holds the interpreter's lock while it walks the tree.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from p2psync.core.relpath import INTERNAL, RelPath, UnsafePathError, parse_relpath

Changes = set[RelPath] | None
"""Paths to look at; None: everything."""

MOST_PATHS = 1000
"""Beyond so many paths at once, looking at everything is simpler and hardly slower."""

ABSENT_S = 2.0
POLL_S = 10.0
RETRY_S = 60.0

MOUNTS = Path("/proc/self/mountinfo")

_GROUP_MS = 20
"""How long events gather before they are reported."""
_CHECK_MS = 2000
"""How often a quiet folder is checked to be the directory that is being watched."""
_BUFFER = 1024 * 1024

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_DIRECTORY, _DO_NOT_FOLLOW, _IS_DIRECTORY = 0x0100_0000, 0x0200_0000, 0x4000_0000
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_WATCHED = _MODIFY | _ATTRIB | _CLOSE_WRITE | _NAMES | _ONLY_DIRECTORY
_HEADER = struct.Struct("@iIII")
_INTERNAL = os.fsencode(INTERNAL)

_EXHAUSTED = {errno.ENOSPC, errno.ENOMEM}
"""What ends all watching. With one directory that is gone, closed to us or broken the rest goes on,
and the scan says what is to be said about it."""

_REMOTE = frozenset(
    """
    9p afs beegfs ceph cifs coda davfs drvfs fuse.ceph fuse.curlftpfs fuse.davfs2 fuse.glusterfs
    fuse.gvfsd-fuse fuse.rclone fuse.s3fs fuse.sshfs fuse.vmhgfs-fuse gfs2 gpfs lustre ncpfs nfs
    nfs4 ocfs2 prl_fs smb3 smbfs vboxsf virtiofs
    """.split()  # noqa: SIM905
)


class Watcher:
    """Calls `on_change` from the event loop, some 20 ms after a change. `on_problem` gets a
    sentence when the folder cannot be watched and is polled instead, None when it is again."""

    def __init__(
        self,
        root: Path,
        *,
        on_change: Callable[[Changes], None],
        on_problem: Callable[[str | None], None],
        watch: Callable[[Path], AsyncGenerator[Changes, None]] | None = None,
        is_remote: Callable[[Path], bool] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._root = root
        self._on_change = on_change
        self._on_problem = on_problem
        self._watch = watch or watch_tree
        self._is_remote = is_remote or is_on_network
        self._sleep = sleep
        self._problem: str | None = None
        self._begun = asyncio.Event()

    async def begun(self) -> None:
        """Until all is watched, or a first try has failed."""
        await self._begun.wait()

    async def run(self) -> None:
        """Until cancelled; leaves no thread behind."""
        self._begun.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll_while_blind())
            while True:
                await self._sleep(await self._watch_once())

    async def _watch_once(self) -> float:
        """Until it ends; how long to wait before the next try."""
        pause = ABSENT_S
        try:
            async with aclosing(self._watch(self._root)) as batches:
                async for changes in batches:
                    self._tell(None)
                    self._on_change(changes)
                    self._begun.set()
        except (FileNotFoundError, NotADirectoryError):
            self._begun.set()
            return pause
        except OSError as error:
            self._tell(_sentence(self._root, error))
            pause = RETRY_S
        self._on_change(None)
        self._begun.set()
        return pause

    def _tell(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_problem(problem)

    async def _poll_while_blind(self) -> None:
        while True:
            await self._sleep(POLL_S)
            if self._problem is not None or await asyncio.to_thread(self._is_remote, self._root):
                self._on_change(None)


def _sentence(root: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC:
            limit = "fs.inotify.max_user_watches"
        case errno.EMFILE:
            limit = "fs.inotify.max_user_instances"
        case _:
            return (
                f"Changes in “{root}” are found only every {POLL_S:.0f} seconds, because watching "
                f"it fails: {error.strerror or error}. It is tried again every minute."
            )
    return (
        f"Changes in “{root}” are found only every {POLL_S:.0f} seconds, because the system's "
        f"limit {limit} is reached. Raise it, for example: "
        f"sudo sysctl {limit}=1048576"
    )


def is_on_network(root: Path) -> bool:
    """Whether others may change `root` without this kernel knowing."""
    try:
        device = os.stat(root).st_dev
        mounts = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split(" ", 3)[2] == wanted:
            return source.split(" ", 1)[0] in _REMOTE
    return False


async def watch_tree(root: Path) -> AsyncGenerator[Changes, None]:
    """None as soon as everything below `root` is watched, then what changes. Ends when `root` is
    no longer that directory; raises OSError when it cannot be watched."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    ended: asyncio.Future[None] = loop.create_future()
    stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    pending: list[Changes] = []
    """At most one."""

    def take(changes: Changes) -> None:
        pending[:] = [_both(pending[0], changes) if pending else changes]
        arrived.set()

    def end(error: BaseException | None) -> None:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)
        arrived.set()

    def work() -> None:
        failure = None
        try:
            with contextlib.closing(_Tree(root, stop)) as tree:
                tree.follow(lambda changes: loop.call_soon_threadsafe(take, changes))
        except Exception as error:
            failure = error
        loop.call_soon_threadsafe(end, failure)

    thread = threading.Thread(target=work, name=f"watch {root}")
    thread.start()
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            if pending:
                yield pending.pop()
            if ended.done():
                ended.result()
                return
    finally:
        os.eventfd_write(stop, 1)
        try:
            await asyncio.wait([ended])
            ended.exception()
        finally:
            thread.join()
            os.close(stop)


def _both(one: Changes, other: Changes) -> Changes:
    if one is None or other is None or len(one) + len(other) > MOST_PATHS:
        return None
    return one | other


class _Tree:
    """The kernel's watches on all directories below `root`. Blocking, for one thread; an event in
    `stop` ends it soon."""

    def __init__(self, root: Path, stop: int) -> None:
        self._root = os.fsencode(root)
        self._identity = self._look()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._paths: dict[int, bytes] = {}
        """Watched directories relative to the root, by watch descriptor; the root is empty."""
        self._descriptors: dict[bytes, int] = {}
        self._stop = select.poll()
        self._stop.register(stop, select.POLLIN)
        self._any = select.poll()
        self._any.register(stop, select.POLLIN)
        self._any.register(self._fd, select.POLLIN)

    def close(self) -> None:
        os.close(self._fd)

    def follow(self, report: Callable[[Changes], object]) -> None:
        self._add(b"")
        report(None)
        while self._is_same():
            if not self._any.poll(_CHECK_MS):
                continue
            if self._stop.poll(_GROUP_MS):
                return
            self._handle(report)

    # --- watches ---------------------------------------------------------------------------

    def _look(self) -> tuple[int, int]:
        facts = os.stat(self._root)
        return facts.st_dev, facts.st_ino

    def _is_same(self) -> bool:
        try:
            return self._look() == self._identity
        except OSError:
            return False

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def _add(self, top: bytes) -> None:
        """Watch `top` and every directory below that could be shared."""
        waiting = [top]
        while waiting and not self._stop.poll(0):
            directory = waiting.pop()
            try:
                self._watch(directory)
                # Listed after it is watched: what comes later is an event.
                waiting += self._list(directory)
            except OSError as error:
                if not directory or error.errno in _EXHAUSTED:
                    raise

    def _watch(self, directory: bytes) -> None:
        mask = _WATCHED | (_DO_NOT_FOLLOW if directory else 0)
        place = os.path.join(self._root, directory)
        descriptor = self._checked(self._libc.inotify_add_watch(self._fd, place, mask))
        # The kernel knows it already if its move was lost in an overflow.
        self._forget(descriptor)
        self._paths[descriptor] = directory
        self._descriptors[directory] = descriptor

    def _list(self, directory: bytes) -> Iterator[bytes]:
        with os.scandir(os.path.join(self._root, directory)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below = directory + b"/" + entry.name if directory else entry.name
                    if _relpath(below) is not None:
                        yield below

    def _forget(self, descriptor: int) -> None:
        directory = self._paths.pop(descriptor, None)
        if directory is not None and self._descriptors.get(directory) == descriptor:
            del self._descriptors[directory]

    def _drop(self, tops: set[bytes]) -> None:
        """Forget the watches at and below directories that moved away."""
        for directory, descriptor in list(self._descriptors.items()):
            if directory in tops or not tops.isdisjoint(_above(directory)):
                self._forget(descriptor)
                self._libc.inotify_rm_watch(self._fd, descriptor)

    # --- events ----------------------------------------------------------------------------

    def _handle(self, report: Callable[[Changes], object]) -> None:
        touched: dict[bytes, RelPath | None] = {}
        moved: set[bytes] = set()
        new: set[bytes] = set()
        overflow = False
        for descriptor, mask, name in self._events():
            directory = self._paths.get(descriptor)
            if mask & _OVERFLOW:
                overflow = True
            elif mask & _IGNORED:
                self._forget(descriptor)
            elif directory is None or name == _INTERNAL:
                continue
            elif not name:
                # Of the directory itself, which for all but the root its parent reports too.
                if not directory or mask & _UNMOUNT:
                    touched[directory] = _relpath(directory)
            else:
                path = directory + b"/" + name if directory else name
                known = touched.get(path) or _relpath(path)
                if known is None:
                    # Nothing to look at, but the list of what cannot be shared changes.
                    if mask & _NAMES:
                        touched[directory] = _relpath(directory)
                    continue
                touched[path] = known
                if not mask & _IS_DIRECTORY:
                    continue
                if mask & _MOVED_FROM:
                    moved.add(path)
                elif mask & (_CREATE | _MOVED_TO) or path not in self._descriptors:
                    new.add(path)
        if moved:
            self._drop(moved)
        # A new directory is reported once it is watched, so that looking there misses nothing, and
        # together with one that moved away: it may be that one.
        late = new | moved if new else new
        _report({touched[path] for path in touched.keys() - late}, report)
        for path in new:
            self._add(path)
        if overflow:
            self._add(b"")
            report(None)
        else:
            _report({touched[path] for path in late}, report)

    def _events(self) -> Iterator[tuple[int, int, bytes]]:
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            descriptor, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            yield descriptor, mask, data[at : at + length].rstrip(b"\0")
            at += length


def _relpath(path: bytes) -> RelPath | None:
    try:
        return parse_relpath(os.fsdecode(path))
    except UnsafePathError:
        return None


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _report(changes: set[RelPath | None], report: Callable[[Changes], object]) -> None:
    if None in changes or len(changes) > MOST_PATHS:
        report(None)
    elif changes:
        report({path for path in changes if path is not None})
