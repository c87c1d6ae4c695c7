"""Devices that share one folder, each with a real index and a disk in memory, linked in memory."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from p2psync.core.entry import Kind
from p2psync.core.ids import DeviceID
from p2psync.engine.content import Contents
from p2psync.engine.exchange import Exchange
from p2psync.engine.integrity import Integrity
from p2psync.engine.local import Brakes, LocalChanges
from p2psync.engine.mend import Mender
from p2psync.engine.problems import Problems
from p2psync.engine.pull import Puller
from p2psync.engine.session import Session
from p2psync.engine.supplier import Supplier
from p2psync.engine.swarm import Swarm
from p2psync.protocol.messages import (
    PROTOCOL_VERSION,
    SWARM,
    ZSTD,
    AnyMessage,
    ChunkRequest,
    FolderOffer,
    Hello,
    Holding,
    IndexAck,
    IndexBatch,
    ManifestRequest,
)
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import MemoryDisk
from tests.support.memory_link import MemoryLink, linked
from tests.support.steps import walked

FOLDER = "shared"
NO_BRAKES = Brakes(files=1_000_000, percent=100)
_STUCK_S = 0.02
"""Real time without any message after which the devices' clock is moved."""
_TOO_LONG_S = 20.0


def device_id(name: str) -> DeviceID:
    return DeviceID(name.encode().ljust(32, b"."))


class Device:
    def __init__(
        self, name: str, index: SqliteFolderIndex, disk: MemoryDisk, lab: "Lab", brakes: Brakes
    ) -> None:
        self.name = name
        self.id = device_id(name)
        self.index = index
        self.disk = disk
        self._lab = lab
        self.problems = Problems()
        self.turn = asyncio.Lock()
        self.local = LocalChanges(
            index, disk, lab.clock, self.problems, self.turn, author=name, brakes=brakes
        )
        self.exchanges: dict[Session, Exchange] = {}
        self.swarm = Swarm(
            FOLDER, lab.clock, self._sessions, own=self.id, help_came=lambda: self._help_came()
        )
        self.contents = Contents(FOLDER, index, disk, self.swarm, self._sessions)
        self.puller = Puller(
            index,
            disk,
            lab.clock,
            self.contents,
            self.local,
            self.problems,
            self.turn,
            own=self.id,
            brakes=brakes,
            committed=self.announce,
            suspect=lambda paths: self.integrity.suspect(paths),
        )
        self.integrity = Integrity(
            FOLDER,
            index,
            disk,
            lab.clock,
            self.turn,
            edited=self.local.mark,
            damaged=self.may_be_mended,
            recorded=self.announce,
        )
        self.mender = Mender(
            index,
            disk,
            lab.clock,
            self.contents,
            self.local,
            self.integrity,
            self.problems,
            self.turn,
        )
        self.supplier = Supplier(index, disk, self.integrity.suspect, self.swarm.place_of)
        self.requests = 0
        """Chunks that it was asked for."""
        self.announced = 0

    def _sessions(self) -> dict[DeviceID, Session]:
        return {session.peer: session for session in self.exchanges}

    def is_connected_to(self, other: "Device") -> bool:
        return other.id in self._sessions()

    def announce(self) -> None:
        self.announced += 1
        for exchange in self.exchanges.values():
            exchange.recorded()

    def offers_arrived(self) -> None:
        self.puller.notice()

    def offers_settled(self) -> None:
        self.announce()

    def _help_came(self) -> None:
        self.puller.try_again()
        self.puller.notice()

    def may_be_mended(self) -> None:
        self.mender.hurry()

    async def begin_anew(self, epoch: int, _reason: str) -> None:
        for session in self.exchanges:
            session.drop("The index of a folder is exchanged anew.")
        async with self.turn:
            if epoch == self.index.epoch:
                await self.index.renew_replica()

    async def handle(self, session: Session, message: AnyMessage, payload: bytes) -> None:
        exchange = self.exchanges[session]
        match message:
            case FolderOffer():
                await exchange.on_offer(message)
            case IndexBatch():
                await exchange.on_batch(message, payload)
            case Holding():
                self.swarm.heard(session.peer, message, payload)
            case IndexAck():
                await exchange.on_ack(message)
            case ManifestRequest():
                session.answer(self.supplier.manifest(message))
            case ChunkRequest():
                self.requests += len(message.digests)
                session.answer(self.supplier.chunks(message, session.packing))
        self._lab.changed.set()

    async def scan(self) -> None:
        """Look at everything, and again at what was put off."""
        self.local.mark(None)
        for _ in range(50):
            self._lab.clock.advance(2.0)
            await self.local.wait(0.0)
            await self.local.scan()
            if not self.local.pending:
                break
        self.announce()

    async def work(self) -> None:
        await self.scan()
        await self.integrity.judge_suspects()
        await self.puller.run_until_idle()
        if await self.mender.mend():
            self.puller.try_again()
            self.announce()

    async def is_at_rest(self) -> bool:
        return (
            not self.local.pending
            and not (await self.index.counts()).need_files
            and all(each.peer_holds_ours and not each.pending for each in self.exchanges.values())
        )


class Connection:
    def __init__(
        self, link: MemoryLink, serving: Sequence[asyncio.Task[None]], forget: Callable[[], None]
    ) -> None:
        self.link = link
        self._serving = serving
        self._forget = forget

    async def cut(self) -> None:
        """Both devices have noticed that it is gone, on return."""
        self._forget()
        await self.link.cut()
        await asyncio.gather(*self._serving)


class Lab:
    """Makes devices, links them and waits until they agree."""

    def __init__(self, directory: Path, *, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.changed = asyncio.Event()
        self._directory = directory
        self._random = random.Random(seed)
        self._seeds = itertools.count(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._pairs: set[tuple[Device, Device]] = set()
        """Who is connected, or was until a session ended by itself."""
        self._open: list[SqliteFolderIndex] = []

    async def close(self) -> None:
        """End all that runs; raises what went wrong in it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for index in self._open:
            await index.close()
        self._check_tasks()

    def _check_tasks(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def device(
        self, name: str, *, disk: MemoryDisk | None = None, brakes: Brakes = NO_BRAKES
    ) -> Device:
        """A device; again for the same name is the device restarted, with `disk` as it was."""
        index = await open_folder_index(
            self._directory / f"{name}.db",
            randomness=self._random.randbytes,
            now_ns=self.clock.now_ns(),
        )
        self._open.append(index)
        disk = disk if disk is not None else MemoryDisk(self.clock.now_ns)
        return Device(name, index, disk, self, brakes)

    async def stop(self, device: Device) -> None:
        """End the device; its disk and the file of its index stay as they are."""
        self._pairs = {pair for pair in self._pairs if device not in pair}
        for session in list(device.exchanges):
            session.drop("This device is stopping.")
            await session.closed.wait()
        await device.index.close()

    def index_file(self, device: Device) -> Path:
        return self._directory / f"{device.name}.db"

    async def devices(self, names: str) -> list[Device]:
        return [await self.device(name) for name in names.split()]

    def connect(self, one: Device, other: Device) -> "Connection":
        ends = linked(one.id, other.id, seed=next(self._seeds))
        serving = []
        for device, link in zip((one, other), ends, strict=True):
            hello = Hello(PROTOCOL_VERSION, (SWARM, ZSTD), "test", b"\0" * 32, 0)
            session = Session(link, hello, ManualClock())
            exchange = Exchange(FOLDER, session, device.index, device)
            device.exchanges[session] = exchange
            serving.append(asyncio.create_task(self._serve(device, exchange)))
        self._tasks += serving
        pair = (one, other)
        self._pairs.add(pair)
        return Connection(ends[0], serving, lambda: self._pairs.discard(pair))

    def _reconnect(self) -> bool:
        """Whether all that are to be connected were."""
        ends = [
            (pair, {pair[0].is_connected_to(pair[1]), pair[1].is_connected_to(pair[0])})
            for pair in self._pairs
        ]
        for (one, other), connected in ends:
            if connected == {False}:
                self.connect(one, other)
        return all(connected == {True} for _, connected in ends)

    async def _serve(self, device: Device, exchange: Exchange) -> None:
        session = exchange.session
        await exchange.offer()
        sending = asyncio.ensure_future(exchange.run())
        try:
            await session.run(device.handle)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            del device.exchanges[session]
            self.changed.set()

    def forget(self, one: Device, other: Device) -> None:
        """Do not connect them again when their session ends."""
        self._pairs -= {(one, other), (other, one)}

    async def settle(self) -> None:
        """Let all that is under way between the devices be done."""
        while True:
            self.changed.clear()
            try:
                async with asyncio.timeout(_STUCK_S):
                    await self.changed.wait()
            except TimeoutError:
                return

    async def until(self, done: Callable[[], bool], *devices: Device) -> None:
        """Let these devices work until that is so, and the others only answer."""
        async with asyncio.timeout(_TOO_LONG_S):
            while not done():
                for device in devices:
                    await device.work()
                await asyncio.sleep(0)

    async def converge(self, devices: Iterable[Device]) -> dict[str, bytes | str | None]:
        """Let the devices work until all are at rest; the tree that all of them then have."""
        listed = list(devices)
        async with asyncio.timeout(_TOO_LONG_S):
            while True:
                self._check_tasks()
                self.changed.clear()
                for device in listed:
                    await device.work()
                if self._reconnect() and all([await device.is_at_rest() for device in listed]):
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STUCK_S):
                        await self.changed.wait()
        trees = [device.disk.tree() for device in listed]
        for device, tree in zip(listed, trees, strict=True):
            differing = _brief(tree.items() ^ trees[0].items())
            assert not differing, f"{device.name} and {listed[0].name} differ: {differing}"
        digests = {await device.index.digest() for device in listed}
        assert len(digests) == 1
        for device in listed:
            await check_index(device)
        return trees[0]


def _brief(shown: Iterable[tuple[str, bytes | str | None]]) -> list[tuple[str, object]]:
    brief = [(path, content[:40] if content else content) for path, content in shown]
    return sorted(brief, key=lambda item: item[0])


async def check_index(device: Device) -> None:
    """What the index says is held is what the disk shows."""
    sequence = device.index.sequence
    # What was placed in the tick of its last change is read once more, and is as it was.
    await device.scan()
    assert device.index.sequence == sequence
    known = dict(await device.index.fingerprints(limit=1_000_000))
    assert walked(device.disk, known) == ([], [], [])
    held = await device.index.held(list(known))
    for path, shown in device.disk.tree().items():
        entry = next(each.entry for where, each in held.items() if where == path)
        assert (entry.kind == Kind.DIRECTORY) == (shown is None)


def conflicts(tree: dict[str, bytes | str | None]) -> list[str]:
    return [path for path in tree if "(conflict " in path]
