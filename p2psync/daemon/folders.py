"""The folders of this device: what is remembered of them, and the parts that work on each."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from p2psync import failpoints
from p2psync.config import Config
from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.names import name_fault
from p2psync.core.relpath import INTERNAL, RelPath
from p2psync.engine.cluster import Cluster
from p2psync.engine.folder import Folder, FolderSpec
from p2psync.engine.local import Brakes
from p2psync.engine.membership import Membership
from p2psync.engine.tasks import together
from p2psync.engine.verify import Schedule
from p2psync.errors import NotFoundError, P2psyncError, UsageError
from p2psync.files.adopt import adopt_root, release_root
from p2psync.files.local_disk import LocalDisk
from p2psync.files.watcher import Watcher
from p2psync.ports import Clock, Problem, Randomness
from p2psync.storage.device_store import DeviceStore, FolderRecord
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index

SEND_RECEIVE = "send-receive"

_INDEXES = "indexes"
_RESTART_S = 10.0
_log = logging.getLogger(__name__)


class _Open:
    """A folder that is open, and the task that works on it unless it is paused."""

    def __init__(self, record: FolderRecord, folder: Folder, index: SqliteFolderIndex) -> None:
        self.record = record
        self.folder = folder
        self.index = index
        self.task: asyncio.Task[None] | None = None
        self.watch_problem: str | None = None


class Folders:
    def __init__(
        self,
        home: Path,
        config: Config,
        store: DeviceStore,
        cluster: Cluster,
        membership: Membership,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._home = home
        self._config = config
        self._store = store
        self._cluster = cluster
        self._membership = membership
        self._clock = clock
        self._randomness = randomness
        self._open: dict[str, _Open] = {}
        self._changing = asyncio.Lock()
        self._ended = asyncio.Event()
        self._verifying = asyncio.Lock()

    # --- what there is -----------------------------------------------------------------------

    def records(self) -> list[FolderRecord]:
        return [each.record for _, each in sorted(self._open.items())]

    def folders(self) -> list[Folder]:
        return [each.folder for _, each in sorted(self._open.items())]

    def get(self, name: str) -> Folder:
        return self._find(name).folder

    def record_of(self, name: str) -> FolderRecord:
        return self._find(name).record

    def _find(self, name: str) -> _Open:
        """Raises NotFoundError."""
        if (found := self._open.get(name)) is None:
            raise NotFoundError(
                f"No folder “{name}” is shared here; `p2psync folder list` shows those that are."
            )
        return found

    def problems(self, name: str) -> list[Problem]:
        """What is wrong with the work on the folder, beside what the folder itself tells."""
        each = self._find(name)
        found = []
        if each.watch_problem is not None:
            found.append(Problem("", each.watch_problem, ""))
        if each.index.recovered is not None:
            found.append(Problem("", each.index.recovered, ""))
        return found

    # --- opening and closing -----------------------------------------------------------------

    async def open_all(self) -> None:
        """Raises P2psyncError when an index cannot be opened."""
        records = await self._store.folders()
        await asyncio.to_thread(_remove_orphans, self._home / _INDEXES, records)
        for record in records:
            await self._open_one(record)

    async def close_all(self) -> None:
        self._ended.set()
        for each in self._open.values():
            await self._stop(each)
            await each.index.close()
        self._open.clear()

    async def _open_one(self, record: FolderRecord) -> None:
        indexes = self._home / _INDEXES
        await asyncio.to_thread(indexes.mkdir, mode=0o700, exist_ok=True)
        index = await open_folder_index(
            indexes / record.index_file,
            randomness=self._randomness,
            now_ns=self._clock.now_ns(),
        )
        for device in await index.participants():
            if device not in self._membership.members:
                # The power may have failed between its removal and this.
                await index.forget_peer(device)
        disk = LocalDisk(
            record.path,
            token=record.token,
            trash=self._config.trash,
            now_ns=self._clock.now_ns,
        )
        each: _Open

        def watcher(on_change: Callable[[set[RelPath] | None], None]) -> Watcher:
            return Watcher(
                record.path,
                on_change=on_change,
                on_problem=lambda sentence: setattr(each, "watch_problem", sentence),
            )

        shared_with = None if record.shared_with is None else frozenset(record.shared_with)
        folder = Folder(
            FolderSpec(record.name, str(record.path), record.mode, shared_with),
            index,
            disk,
            self._clock,
            own=self._membership.own.device,
            author=lambda: self._membership.own_name,
            members=lambda: self._membership.members,
            brakes=Brakes(self._config.brakes.delete_files, self._config.brakes.delete_percent),
            scan_interval_s=self._config.scan_interval_s,
            watcher=watcher,
            verify=Schedule(
                self._config.verify.interval_days * 86_400.0, self._config.verify.rate_mb_s * 1e6
            ),
            verifying=self._verifying,
        )
        each = _Open(record, folder, index)
        self._open[record.name] = each
        if not record.paused:
            await self._start(each)

    async def _start(self, each: _Open) -> None:
        begun = asyncio.Event()
        each.task = asyncio.create_task(self._work(each, begun), name=f"folder {each.record.name}")
        await begun.wait()

    async def _work(self, each: _Open, begun: asyncio.Event) -> None:
        """Until cancelled. A fault of ours halts one folder, for a while, and not the daemon."""
        folder = each.folder
        while True:
            try:
                async with together() as tasks:
                    tasks.create_task(folder.run())
                    # Its tasks take those of peers under them, so it has to have begun.
                    await asyncio.sleep(0)
                    folder.failed = False
                    await self._cluster.add_folder(folder)
                    begun.set()
            except Exception:
                _log.exception("work failed folder=%s", folder.name)
                folder.failed = True
            finally:
                self._cluster.remove_folder(folder.name)
                begun.set()
            await asyncio.sleep(_RESTART_S)

    async def _stop(self, each: _Open) -> None:
        if each.task is None:
            return
        each.task.cancel()
        await asyncio.wait([each.task])
        each.task = None
        each.folder.failed = False

    # --- changes -----------------------------------------------------------------------------

    async def add(
        self,
        path: Path,
        *,
        name: str | None,
        mode: str,
        shared_with: Iterable[DeviceID] | None,
        dry_run: bool,
    ) -> FolderRecord:
        """Share the directory `path`. Raises UsageError and other P2psyncErrors, with nothing
        changed."""
        async with self._changing:
            root = await asyncio.to_thread(_resolved, path)
            called = name if name is not None else root.name
            if fault := name_fault(called):
                raise UsageError(
                    f"“{called}” cannot be the name of a folder: {fault}. Give one with --name."
                )
            if mode != SEND_RECEIVE:
                raise UsageError(f"The mode “{mode}” is not known; it is {SEND_RECEIVE}.")
            self._check_place(root, called)
            record = FolderRecord(
                name=called,
                path=root,
                mode=mode,
                paused=False,
                token=self._randomness(16).hex(),
                index_file=f"{self._randomness(8).hex()}.db",
                shared_with=None if shared_with is None else tuple(shared_with),
            )
            if dry_run:
                return record
            await asyncio.to_thread(adopt_root, root, record.token)
            failpoints.reach("folder.marked")
            try:
                await self._store.save_folder(record)
                failpoints.reach("folder.saved")
                await self._open_one(record)
            except BaseException:
                # Else the next start would find a folder that nobody shares.
                with contextlib.suppress(P2psyncError):
                    await self._store.remove_folder(called)
                await asyncio.to_thread(release_root, root, record.token)
                await asyncio.to_thread(_remove_index, self._home / _INDEXES / record.index_file)
                raise
            _log.info("folder added name=%s path=%s", called, root)
            return record

    def _check_place(self, root: Path, name: str) -> None:
        if name in self._open:
            raise UsageError(
                f"A folder “{name}” is shared here already ({self._open[name].record.path}); "
                "give another name with --name."
            )
        home = Path(os.path.realpath(self._home))
        if root == home or home in root.parents or root in home.parents:
            raise UsageError(
                f"{root} and the home of p2psync, {home}, lie one inside the other; the home "
                "holds this device's keys and cannot be shared. Choose another directory."
            )
        if INTERNAL in root.parts:
            raise UsageError(f"{root} is p2psync's own and cannot be shared.")
        for other in self._open.values():
            shared = other.record.path
            if root == shared:
                raise UsageError(f"{root} is shared already, as “{other.record.name}”.")
            if root in shared.parents or shared in root.parents:
                raise UsageError(
                    f"{root} and the folder “{other.record.name}” ({shared}) lie one inside the "
                    "other; a file can belong to one folder only. Choose another directory."
                )

    async def remove(self, name: str, *, dry_run: bool) -> FolderRecord:
        """Stop sharing; the files stay."""
        async with self._changing:
            each = self._find(name)
            if dry_run:
                return each.record
            await self._stop(each)
            await each.index.close()
            del self._open[name]
            failpoints.reach("folder.before-forgetting")
            await self._store.remove_folder(name)
            failpoints.reach("folder.forgotten")
            await asyncio.to_thread(release_root, each.record.path, each.record.token)
            failpoints.reach("folder.released")
            await asyncio.to_thread(_remove_index, self._home / _INDEXES / each.record.index_file)
            _log.info("folder removed name=%s", name)
            return each.record

    async def set_paused(self, name: str, *, paused: bool) -> None:
        async with self._changing:
            each = self._find(name)
            if each.record.paused == paused:
                return
            each.record = replace(each.record, paused=paused)
            await self._store.save_folder(each.record)
            if paused:
                await self._stop(each)
            else:
                await self._start(each)

    async def forget_device(self, device: DeviceID) -> None:
        """It was removed from the group: nothing is shared with it by name any more, and what it
        offered counts no more. Tried again until it is stored, the device is back, or all is
        closed: the next start looks for it."""
        while device not in self._membership.members:
            try:
                async with self._changing:
                    if device not in self._membership.members:
                        await self._forget(device)
                return
            except P2psyncError as error:
                named = short_device_id(device)
                _log.warning("removed device not forgotten yet device=%s reason=%s", named, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESTART_S):
                    await self._ended.wait()
                return

    async def _forget(self, device: DeviceID) -> None:
        await self._store.forget_device(device)
        for each in self._open.values():
            await each.index.forget_peer(device)
            if each.record.shared_with is not None:
                rest = tuple(one for one in each.record.shared_with if one != device)
                each.record = replace(each.record, shared_with=rest)
                each.folder.spec = each.folder.spec._replace(shared_with=frozenset(rest))


def _resolved(path: Path) -> Path:
    """The directory without symlinks on the way. Raises UsageError or NotFoundError."""
    try:
        root = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"There is no directory {path}; make it first.") from None
    except (OSError, RuntimeError) as error:
        raise P2psyncError(f"{path} cannot be looked up: {error}.") from error
    if not root.is_dir():
        raise UsageError(f"{path} is not a directory; only directories can be shared.")
    return root


def _remove_orphans(indexes: Path, records: Iterable[FolderRecord]) -> None:
    """Drop the indexes of folders that were removed, or not yet added, when the power failed."""
    needed = {record.index_file for record in records}
    for path in indexes.glob("*.db"):
        if path.name not in needed:
            _remove_index(path)


def _remove_index(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()
