"""One device: what outlives it, and its lives. All that works in it is the real thing, up to the
daemon's folders; disk, watcher, network, clock and the device's store are played."""

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2psync.config import BrakesConfig, Config
from p2psync.core.entry import Kind
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath
from p2psync.core.roster import View, decode_statements
from p2psync.daemon.folders import Folders
from p2psync.engine.addresses import AddressBook
from p2psync.engine.cluster import Cluster
from p2psync.engine.folder import Folder
from p2psync.engine.membership import Membership, load_membership
from p2psync.storage.device_store import FolderRecord
from p2psync.storage.folder_index import SqliteFolderIndex
from p2psync.storage.held import held_at
from tests.simulation.disk import Nodes, SimulatedDisk
from tests.simulation.loop import Life, SimulatedLoop
from tests.simulation.network import Network, SimulatedLink
from tests.simulation.oracle import Oracle
from tests.support.played_keys import own_device

FOLDER = "shared"
_POLL_S = 0.5
_LAST_TASKS_S = 3.0
"""For what is left of its sessions."""
_EPOCH_NS = 1_700_000_000_000_000_000

Known = dict[RelPath, tuple[Kind, bytes]]


class SimulatedClock:
    """`ports.Clock`."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return _EPOCH_NS + self.ahead_ns + round(self._loop.time() * 1e9)

    def monotonic(self) -> float:
        return 1000.0 + self._loop.time()


class PlayedStore:
    """What the daemon's store of the device does, in memory; all is durable at once."""

    def __init__(self, record: FolderRecord) -> None:
        self.body = b""
        self.record = record
        self.known: dict[DeviceID, list[tuple[str, int, int | None]]] = {}

    async def roster(self) -> bytes:
        return self.body

    async def save_roster(self, body: bytes) -> None:
        self.body = body

    async def addresses(self) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
        return {device: list(listed) for device, listed in self.known.items()}

    async def save_address(
        self, device: DeviceID, host: str, port: int, last_ok_ns: int | None
    ) -> None:
        rest = [one for one in self.known.get(device, []) if one[:2] != (host, port)]
        self.known[device] = [(host, port, last_ok_ns), *rest][:16]

    async def folders(self) -> list[FolderRecord]:
        return [self.record]

    async def save_folder(self, record: FolderRecord) -> None:
        self.record = record

    async def forget_device(self, device: DeviceID) -> None:
        self.known.pop(device, None)


class PlayedWatcher:
    """`ports.Watcher`."""

    def __init__(self, device: "Device", on_change: Callable[[set[RelPath] | None], None]) -> None:
        self._device = device
        self._on_change = on_change
        self._begun = asyncio.Event()

    async def begun(self) -> None:
        await self._begun.wait()

    async def run(self) -> None:
        self._device.watcher = self
        self._begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if self._device.watcher is self:
                self._device.watcher = None

    def tell(self, paths: set[RelPath]) -> None:
        if self._device.watcher is self:
            self._on_change(paths)


class Device:
    """`network.Host`."""

    def __init__(
        self,
        name: str,
        number: int,
        home: Path,
        network: Network,
        oracle: Oracle,
        source: random.Random,
        *,
        granularity_ns: int,
        scan_interval_s: float,
        brakes: BrakesConfig,
    ) -> None:
        self.name = name
        self.own = own_device(name)
        self.host, self.port = f"10.0.0.{number + 1}", 22_000
        self.loop, self.trace = network.loop, network.trace
        self._network, self._oracle = network, oracle
        self._source = source
        self._home = home
        home.mkdir()
        self.clock = SimulatedClock(self.loop)
        self.disk = SimulatedDisk(self.clock.now_ns, source, granularity_ns=granularity_ns)
        self.disk.on_placed = lambda path, data: oracle.placed(name, path, data)
        self.disk.on_own_change = self.changed_on_disk
        self._config = Config(scan_interval_s=round(scan_interval_s), brakes=brakes)
        self.store = PlayedStore(
            FolderRecord(
                FOLDER, Path("/folder") / name, "send-receive", False, "token", "index.db", None
            )
        )
        self.watcher: PlayedWatcher | None = None
        self.events_lost = 0.0
        """The share of the watcher's events that do not come."""
        self.known: Known = {}
        """What its index holds, as far as it was committed."""
        self._backup: tuple[Known, list[Path], Nodes] | None = None
        self._connections: list[sqlite3.Connection] = []
        self.index: SqliteFolderIndex | None = None
        self.life: Life | None = None
        self.is_up = False
        """Whether it has links."""
        self.is_ready = False
        """Whether it has its folder."""
        self.began = asyncio.Event()
        """Set when it has, since it was last started."""
        self._serving: set[asyncio.Task[None]] = set()
        """Of links that came in."""
        self.slowness_s = 0.001
        network.hosts[self.host] = self

    # --- network.Host ------------------------------------------------------------------------

    @property
    def id(self) -> DeviceID:
        return self.own.device

    @property
    def listens(self) -> bool:
        return self.is_up

    def accepts(self, device: DeviceID) -> bool:
        return device in self.membership.members

    def serve(self, link: SimulatedLink) -> None:
        task = self.do(self.cluster.serve(link, dialled=False))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    # --- lives -------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In the device's life."""
        assert self.life is not None
        context = self.life.context.copy()
        return self.loop.create_task(work, context=context)

    @property
    def folder(self) -> Folder:
        return self.folders.get(FOLDER)

    def start(self) -> None:
        self.life = Life(self.name, on_crash=lambda: self.crash(is_told=True, power=False))
        self.life.slowness_s = self.slowness_s
        self._serving = set()
        self.began.clear()
        self.trace.say(f"{self.name} starts")
        self._main = self.do(self._run())
        self._main.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.trace.violation(f"the daemon of {self.name} ended: {error!r}")

    async def _run(self) -> None:
        own = self.own
        self.membership: Membership = await load_membership(self.store, own, name=self.name)
        self.cluster = Cluster(
            self.membership,
            self._network.dialer_of(self),
            self.store,
            AddressBook(await self.store.addresses()),
            self.clock,
            self._source.randbytes,
            software="simulated",
            listen_port=lambda: self.port,
        )
        self.folders = Folders(
            self._home,
            self._config,
            self.store,  # type: ignore[arg-type]
            self.cluster,
            self.membership,
            self.clock,
            self._source.randbytes,
        )
        self.cluster.on_members = self._members_changed
        self.is_up = True
        work = asyncio.ensure_future(self.cluster.run())
        try:
            await self.folders.open_all()
            self.is_ready = True
            self.began.set()
            await work
        finally:
            work.cancel()

    def _members_changed(self, before: View) -> None:
        for device in before.members.keys() - self.membership.members.keys():
            self._forgetting = asyncio.ensure_future(self.folders.forget_device(device))

    async def stop(self) -> None:
        """As the daemon does when it is told to; not while it is starting or stopping."""
        life = self.life
        if life is None or not self.is_ready:
            return
        self.trace.say(f"{self.name} stops")
        self.is_ready = False
        life.before_work = life.after_work = lambda _: None

        async def stop() -> None:
            await self.folders.close_all()
            await self.cluster.stop()
            self.is_up = False
            for task in (self._main, *self._serving):
                task.cancel()

        stopping = self.do(stop())
        while life.is_alive and not stopping.done():
            await asyncio.wait([stopping], timeout=_POLL_S)
        if not life.is_alive:
            return
        stopping.result()
        await asyncio.sleep(_LAST_TASKS_S)
        if life.is_alive:
            if left := [task.get_name() for task in self.loop.tasks_of(life)]:
                self.trace.violation(f"tasks are left of {self.name}: {left}")
            self._end(is_told=True)

    def crash(self, *, is_told: bool, power: bool) -> None:
        """All stops here. `is_told`: whether its peers notice, by the kernel that closes links."""
        if self.life is None:
            return
        self.trace.say(f"{self.name} crashes")
        self.loop.bury(self.life)
        self._end(is_told=is_told)
        if power:
            self.disk.power_cut()
        # What was committed and not recorded will be found as a file of this device's own, and so
        # wins over a deletion elsewhere.
        for path, data in self.disk.data_at_and_below(""):
            content = self._oracle.meant(data)
            if not self.notices(path, content):
                self._oracle.moved(content)

    def _end(self, *, is_told: bool) -> None:
        if self.life is not None:
            self.loop.bury(self.life)
        self._network.died(self.id, is_told=is_told)
        self.life, self.is_up, self.is_ready = None, False, False
        self.watcher, self.index = None, None
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    # --- its index ---------------------------------------------------------------------------

    def opened(self, connection: sqlite3.Connection) -> None:
        self._connections.append(connection)

    def owns(self, connection: sqlite3.Connection) -> bool:
        return any(connection is one for one in self._connections)

    def _files(self) -> list[Path]:
        """Of the index, while the device is off."""
        return sorted((self._home / "indexes").glob("index.db*"))

    def back_up(self) -> None:
        """While it is off."""
        kept = []
        for file in self._files():
            kept.append(self._home / f"{file.name}.kept")
            shutil.copy(file, kept[-1])
        self._backup = (dict(self.known), kept, self.disk.nodes()) if kept else None

    def lose_index(self, *, restore: bool, with_files: bool = False) -> bool:
        """While it is off; whether an earlier one was restored. `with_files`: the device is set
        back as a whole, if it was backed up."""
        for file in self._files():
            file.unlink()
        self.known = {}
        if not restore or self._backup is None:
            return False
        known, kept, nodes = self._backup
        if with_files:
            self.disk.set_back(nodes)
        self.known = dict(known)
        for file in kept:
            shutil.copy(file, self._home / "indexes" / file.name.removesuffix(".kept"))
        return True

    # --- its files ---------------------------------------------------------------------------

    def notices(self, path: str, data: bytes) -> bool:
        """Whether its index has what is there."""
        return self.known.get(RelPath(path)) == (Kind.FILE, self._oracle.ids.get(data))

    def intact_files(self) -> list[tuple[RelPath, bytes]]:
        """Those that are as its index says, so that another content would show in nothing else."""
        if self.index is None or not self.is_ready:
            return []
        files = self.disk.data_at_and_below("")
        held = held_at(self._connections[-1], [path for path, _ in files])
        return [
            (path, data)
            for path, data in files
            if (at := held.get(path)) is not None
            and at.damage is None
            and at.entry.content == self._oracle.ids.get(data)
            and at.fingerprint is not None
            and at.fingerprint.unchanged(self.disk.mark_at(path))
        ]

    def changed_on_disk(self, paths: set[RelPath]) -> None:
        """The watcher tells of it, mostly."""
        watcher = self.watcher
        if watcher is None or self._source.random() < self.events_lost:
            return
        delay = 0.02 + 0.03 * self._source.random()
        self.loop.at(self.loop.time() + delay, self._tell, watcher, paths)

    def _tell(self, watcher: PlayedWatcher, paths: set[RelPath]) -> None:
        if self.life is not None and self.life.is_alive:
            self.life.context.copy().run(watcher.tell, paths)

    async def is_at_rest(self) -> bool:
        if not self.is_ready:
            return False
        with contextlib.suppress(Exception):
            return not await self.folder.waiting_for(self.membership.name_of)
        return False

    # --- its group ---------------------------------------------------------------------------

    def remove_member(self, other: "Device") -> None:
        self.do(self.membership.remove(other.id))

    def admit(self, other: "Device") -> None:
        """As pairing does, and with the address at which it met the other one."""
        statements = decode_statements(other.membership.encoded())

        async def admit() -> None:
            await self.membership.admit(other.own.certificate, other.name, statements)
            self.cluster.hint(other.id, [(other.host, other.port)])

        self.do(admit())

    def set_paused(self, *, paused: bool) -> None:
        if self.is_ready:
            self.do(self.folders.set_paused(FOLDER, paused=paused))
        else:
            self.store.record = replace(self.store.record, paused=paused)
