"""What goes wrong, each for a while, and how it is put right in the end."""

import asyncio
import contextlib
import errno
import random
from collections.abc import Awaitable, Callable

from p2psync.core.relpath import RelPath
from p2psync.errors import P2psyncError
from p2psync.storage.database import StorageError
from tests.simulation.device import Device
from tests.simulation.loop import CrashError
from tests.simulation.mix import Mix
from tests.simulation.world import World

_LONGEST_OFF_S = 15.0
_POLL_S = 1.0
_SHORT = 100
"""Contents up to this size (bytes) are damaged where their number is."""


class Faults:
    def __init__(self, world: World, mix: Mix, source: random.Random) -> None:
        self._world = world
        self._mix = mix
        self._source = source
        self._loop, self._trace = world.loop, world.trace
        self._is_over = False
        self._stopping: set[asyncio.Task[None]] = set()
        self._removed: dict[int, Device] = {}
        """Numbers of devices that are out of the group, and who removed them."""
        self._rotted = 0
        self.unreadable: list[tuple[Device, str]] = []

    def strike(self, kind: str) -> None:
        self._trace.count(kind, "")
        getattr(self, f"_{kind}")()

    def _device(self) -> Device:
        return self._source.choice(self._world.devices)

    def _later(self, least: float, most: float, act: Callable[..., None], *args: object) -> None:
        """Unless all is put right before."""

        def unless_over() -> None:
            if not self._is_over:
                act(*args)

        when = self._loop.time() + least + (most - least) * self._source.random()
        self._loop.at(when, unless_over)

    # --- network -----------------------------------------------------------------------------

    def _partitions(self) -> None:
        devices = self._world.devices
        side = {device.id for device in devices if self._source.random() < 0.5}
        parted = [
            frozenset((one.id, other.id))
            for number, one in enumerate(devices)
            for other in devices[:number]
            if (one.id in side) != (other.id in side)
        ]
        for ids in parted:
            self._world.network.part(ids)
            self._later(0.2, 25.0, self._world.network.join, ids)

    def _half_open(self) -> None:
        if pairs := self._world.network.pairs:
            self._source.choice(pairs).silence(self._source.randrange(2))

    def _cuts(self) -> None:
        if pairs := self._world.network.pairs:
            self._source.choice(pairs).cut()

    def _reoffers(self) -> None:
        """Either side may make its offer again at any time, so that the index comes doubled."""
        device = self._device()
        if device.is_ready:
            for exchange in device.folder._exchanges.all():
                device.do(_tolerant(exchange.offer()))

    # --- ends and starts ---------------------------------------------------------------------

    def _crashes(self) -> None:
        self._crash(self._device(), power=self._source.random() < 0.5)

    def _crash(self, device: Device, *, power: bool, off_s: float = _LONGEST_OFF_S) -> None:
        if device.life is None:
            return
        device.crash(is_told=not power, power=power)
        self._later(0.0, off_s, self._start, device)

    def _crash_points(self) -> None:
        """At a call of the disk or the database, before or after it, some calls from now."""
        device = self._device()
        life = device.life
        if life is None:
            return
        left = self._source.randrange(1, 60)
        power = self._source.random() < 0.6

        def count(_what: object) -> None:
            nonlocal left
            left -= 1
            if left == 0 and not self._is_over:
                raise CrashError

        def crash() -> None:
            self._trace.count("crash_point_met", device.name)
            self._crash(device, power=power)

        life.on_crash = crash
        match self._source.randrange(3):
            case 0:
                life.before_work = count
            case 1:
                life.after_work = count
            case 2:
                device.disk.on_call = count

    def _start(self, device: Device) -> None:
        if device.life is None:
            device.disk.on_call = lambda _: None
            device.start()

    def _stops(self) -> None:
        self._stop(self._device(), lambda: None)

    def _stop(self, device: Device, act: Callable[[], None], off_s: float = 5.0) -> None:
        """As its owner stops it; `act` while it is off."""

        async def stop() -> None:
            await device.stop()
            if device.life is None:
                act()
            self._later(0.0, off_s, self._start, device)

        task = self._loop.create_task(stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _absences(self) -> None:
        self._crash(self._device(), power=False, off_s=130.0)

    def _index_losses(self) -> None:
        device = self._device()
        self._forget(device, restore=False)

    def _index_rollbacks(self) -> None:
        """A backup now, which comes back later."""
        device = self._device()
        self._stop(device, device.back_up, 0.5)
        self._later(1.0, 8.0, lambda: self._forget(device, restore=True))

    def _disk_rollbacks(self) -> None:
        """The same, but its files are in the backup too."""
        device = self._device()
        self._stop(device, device.back_up, 0.5)
        self._later(1.0, 8.0, lambda: self._forget(device, restore=True, with_files=True))

    def _forget(self, device: Device, *, restore: bool, with_files: bool = False) -> None:
        def forget() -> None:
            self._world.oracle.forgot()
            if with_files:
                self._excuse_what_is_nowhere_else(device)
            was_restored = device.lose_index(restore=restore, with_files=with_files)
            self._trace.say(f"{device.name} lost its index, restored: {was_restored}")

        if device.life is None:
            forget()
        else:
            self._stop(device, forget)

    def _excuse_what_is_nowhere_else(self, device: Device) -> None:
        oracle = self._world.oracle
        others = [other for other in self._world.devices if other is not device]
        elsewhere = {data for other in others for _, data in other.disk.data_at_and_below("")}
        for _, data in device.disk.data_at_and_below(""):
            if data not in elsewhere:
                oracle.superseded(oracle.meant(data), was_noticed=False)

    # --- disks -------------------------------------------------------------------------------

    def _full_disks(self) -> None:
        device = self._device()
        device.disk.is_full = True
        self._later(0.5, 6.0, self._empty, device)

    def _empty(self, device: Device) -> None:
        device.disk.is_full = False

    def _failing_calls(self) -> None:
        self._device().disk.fails_in = self._source.randrange(1, 6)

    def _database_troubles(self) -> None:
        device = self._device()
        life = device.life
        if life is None or not device.is_ready:
            return
        until = self._loop.time() + 2.0 * self._source.random()

        def fail(is_database: bool) -> None:
            if is_database and self._loop.time() < until and not self._is_over:
                raise StorageError("The disk is full. Free some space.")

        life.before_work = fail

    def _lost_roots(self) -> None:
        disk = self._device().disk
        disk.root_is_lost = True
        self._later(0.2, 8.0, lambda: setattr(disk, "root_is_lost", False))

    def _unreadable(self) -> None:
        device = self._device()
        files = [path for path, shown in device.disk.tree().items() if isinstance(shown, bytes)]
        if files:
            path = self._source.choice(files)
            for method in ("hash_file", "read"):
                device.disk.fail(method, path, errno.EACCES)
            self._later(1.0, 9.0, device.disk.mend)

    def _rot(self) -> None:
        """The disk changes a file by itself, and nothing that a stat tells."""
        device = self._device()
        files = device.intact_files()
        if not files:
            return
        path, content = self._source.choice(files)
        at = self._source.randrange(len(content) - 1) if len(content) > _SHORT else 0
        # No two damages are alike: what is known of one says nothing of another.
        self._rotted += 1
        mark = bytes(ord("A") + digit for digit in divmod(self._rotted, 26))
        damaged = content[:at] + mark + content[at + len(mark) :]
        device.disk.rots(path, damaged)
        self._trace.say(f"on {device.name} rots {path}")
        self._world.oracle.rotted(damaged, content)

    def _steps(self) -> None:
        ahead = self._source.choice((-3600, -10, -1, 1, 10, 3600))
        self._device().clock.ahead_ns += ahead * 1_000_000_000

    # --- people's decisions ------------------------------------------------------------------

    def _pauses(self) -> None:
        device = self._device()
        device.set_paused(paused=True)
        self._later(0.2, 6.0, lambda: device.set_paused(paused=False))

    def _removals(self) -> None:
        devices = self._world.devices
        if self._mix.topology != "mesh" or len(devices) < 3 or self._removed:
            return
        out, by = self._source.sample(range(len(devices)), 2)
        if not all(device.is_up for device in devices):
            return
        if devices[by].accepts(devices[out].id):
            # What it had not heard by then it brings back.
            self._world.oracle.forgot()
            self._removed[out] = devices[by]
            self._trace.say(f"{devices[by].name} removes {devices[out].name}")
            devices[by].remove_member(devices[out])
            self._later(0.5, 8.0, self._admit, out)

    def _admit(self, out: int) -> None:
        device, by = self._world.devices[out], self._removed[out]
        if device.is_up and by.is_up:
            del self._removed[out]
            self._trace.count("admissions", f"{by.name} and {device.name} pair anew")
            by.admit(device)
            device.admit(by)

    async def _pair_again(self) -> None:
        """As people do whose device lists lack someone: removals that crossed put out both."""
        await asyncio.sleep(10.0)
        for _ in range(3):
            for number, one in enumerate(self._world.devices):
                for other in self._world.devices[:number]:
                    if not (one.accepts(other.id) and other.accepts(one.id)):
                        self._trace.count("admissions", f"{one.name} and {other.name} pair anew")
                        one.admit(other)
                        other.admit(one)
                        await asyncio.sleep(10.0)

    # --- the end -----------------------------------------------------------------------------

    async def put_right(self) -> None:
        self._is_over = True
        for device in self._world.devices:
            device.disk.on_call = lambda _: None
            if device.life is not None:
                device.life.before_work = device.life.after_work = lambda _: None
            self._empty(device)
            device.disk.fails_in = None
            device.disk.mend()
            device.disk.root_is_lost = False
            device.disk.before_step = lambda _: None
            device.disk.before_part = lambda: None
            device.events_lost = 0.0
        for ids in list(self._world.network.apart):
            self._world.network.join(ids)
        while self._stopping:
            await asyncio.wait(self._stopping)
        for device in self._world.devices:
            self._start(device)
        for device in self._world.devices:
            await device.began.wait()
            device.set_paused(paused=False)
        for out in list(self._removed):
            self._admit(out)
        if self._mix.removals:
            await self._pair_again()
        if self._mix.rot:
            await self.verify()

    async def verify(self) -> None:
        """Everything is read, as it is every few weeks, or when a person says so."""
        verifiers = [device.folder.verifier for device in self._world.devices]
        for verifier in verifiers:
            verifier.start(None)
        while any(verifier.is_running for verifier in verifiers):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def beyond_mending(self) -> list[tuple[Device, RelPath]]:
        """Damaged files whose right bytes no device has."""
        oracle = self._world.oracle
        there = [
            (device, path, data)
            for device in self._world.devices
            for path, data in device.disk.data_at_and_below("")
        ]
        shown = {data for _, _, data in there}
        return [(device, path) for device, path, data in there if oracle.meant(data) not in shown]


async def _tolerant(work: Awaitable[None]) -> None:
    with contextlib.suppress(P2psyncError):
        await work
