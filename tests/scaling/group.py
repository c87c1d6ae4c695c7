"""Groups of simulated devices: what one change costs until all hold it and are at rest again.

The devices are those of the simulation (`tests.simulation`): the real engine, protocol and index,
on a virtual clock. All that is counted is a function of the shape, the number and the seed.
"""

import asyncio
import contextlib
import gc
import logging
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from p2psync.config import BrakesConfig
from p2psync.core.relpath import RelPath
from p2psync.core.roster import decode_statements
from tests.scaling.meter import Meter, by_type, of_device
from tests.scaling.overlay import SHAPES, Edges, name_of
from tests.simulation.device import Device
from tests.simulation.network import SimulatedLink
from tests.simulation.play import _pair
from tests.simulation.world import World, opened_world
from tests.support.played_keys import own_device

_POLL_S = 0.02
_LOOK_S = 0.25
_QUIET_S = 2.0
_LONGEST_S = 600.0
_MINUTE_S = 60.0
_SMALL = 1000
_LARGE = 1_000_000
_BATCH = 100
_LATENCY_S = 0.001


@dataclass(frozen=True, slots=True)
class Cost:
    """What a phase came to. `author` is the device that changed something."""

    seconds: float
    """Virtual, until all devices hold the change (0: nothing was changed)."""
    messages: dict[str, int]
    bytes: dict[str, int]
    author_messages: int
    author_bytes: int
    most_messages: int
    """Sent by the device that sent most."""
    most_bytes: int
    author_writes: int
    most_writes: int
    """Durable transactions of an index, of the device that had most."""
    all_writes: int
    most_offers: int
    """The most rows that an index had of what peers offered, at one time."""


class CountedDevice(Device):
    """Tells how often its index was written durably, and how much peers offered at one time."""

    writes = 0
    most_offers = 0

    def opened(self, connection: sqlite3.Connection) -> None:
        super().opened(connection)
        assert self.life is not None
        self._changes = connection.total_changes
        self.life.after_work = lambda is_database: self._worked(connection) if is_database else None

    def _worked(self, connection: sqlite3.Connection) -> None:
        changes = connection.total_changes
        if changes == self._changes:
            return
        # What a transaction changes comes in one piece of work, and is synced at its end.
        self._changes = changes
        self.writes += 1
        (offers,) = connection.execute("SELECT count(*) FROM wanted").fetchone()
        self.most_offers = max(self.most_offers, offers)

    def tombstones(self) -> int:
        query = "SELECT count(*) FROM held WHERE kind = 0"
        (count,) = self._connections[-1].execute(query).fetchone()
        return int(count)

    def count_anew(self) -> None:
        self.writes = self.most_offers = 0


@dataclass(slots=True)
class Group:
    world: World
    devices: list[CountedDevice]
    edges: Edges
    meter: Meter = field(default_factory=Meter)

    @property
    def author(self) -> CountedDevice:
        return self.devices[0]

    async def phase(
        self,
        change: Callable[[], object] = lambda: None,
        *,
        held: Callable[[CountedDevice], bool] | None = None,
    ) -> Cost:
        """Until all hold what was changed and nothing more is said about it."""
        self._count_anew()
        began = self.meter.last_work_s = self.world.loop.time()
        change()
        seconds = 0.0
        waiting = set(self.devices) if held is not None else set()
        while waiting or self.world.loop.time() - self.meter.last_work_s < _QUIET_S:
            if self.world.loop.time() - began > _LONGEST_S:
                raise RuntimeError(f"{len(waiting)} devices do not come to rest")
            await self._pass(_POLL_S)
            if waiting and held is not None:
                waiting = {device for device in waiting if not held(device)}
                seconds = self.world.loop.time() - began
        return self._cost(seconds)

    async def minute(self) -> Cost:
        """A minute in which nobody does anything."""
        self._count_anew()
        await self._pass(_MINUTE_S)
        return self._cost(0.0)

    def _count_anew(self) -> None:
        self.meter.clear()
        for device in self.devices:
            device.count_anew()

    async def _pass(self, seconds: float) -> None:
        end = self.world.loop.time() + seconds
        step = _LOOK_S / len(self.devices)
        while (left := end - self.world.loop.time()) > 0:
            self.world.trace.check()
            await asyncio.sleep(min(left, step))

    def _cost(self, seconds: float) -> Cost:
        messages, bytes_ = self.meter.messages, self.meter.bytes
        return Cost(
            seconds=round(seconds, 2),
            messages=by_type(messages),
            bytes=by_type(bytes_),
            author_messages=of_device(messages, self.author.id),
            author_bytes=of_device(bytes_, self.author.id),
            most_messages=max(of_device(messages, each.id) for each in self.devices),
            most_bytes=max(of_device(bytes_, each.id) for each in self.devices),
            author_writes=self.author.writes,
            most_writes=max(each.writes for each in self.devices),
            all_writes=sum(each.writes for each in self.devices),
            most_offers=max(each.most_offers for each in self.devices),
        )

    # --- what is done ------------------------------------------------------------------------

    async def begin(self) -> Cost:
        return await self.phase(self.start_all, held=self._is_connected)

    def start_all(self) -> None:
        for device in self.devices:
            device.start()

    def _is_connected(self, device: CountedDevice) -> bool:
        number = self.devices.index(device)
        wanted = sum(number in edge for edge in self.edges)
        return device.is_ready and len(device.cluster.sessions) >= wanted

    def write(self, path: str, content: bytes) -> None:
        self.world.oracle.wrote(content)
        self.author.disk.write(path, content)
        self.author.changed_on_disk({RelPath(path)})

    def remove(self, path: str) -> None:
        self.author.disk.remove(path)
        self.author.changed_on_disk({RelPath(path)})

    async def changed(self, contents: dict[str, bytes]) -> Cost:
        """Files are written at once by the author."""
        ids = {}

        def write() -> None:
            for path, content in contents.items():
                self.write(path, content)
                ids[RelPath(path)] = self.world.oracle.ids[content]

        def held(device: CountedDevice) -> bool:
            known = device.known
            return all(path in known and known[path][1] == id_ for path, id_ in ids.items())

        return await self.phase(write, held=held)

    async def deleted(self, path: str) -> Cost:
        return await self.phase(
            lambda: self.remove(path),
            held=lambda device: device.known.get(RelPath(path), (None, b""))[1] == b"",
        )

    async def returned(self) -> Cost:
        """A device that was stopped starts again."""
        device = self.devices[-1]
        await device.stop()
        await self.phase()
        return await self.phase(device.start, held=self._is_connected)

    async def admitted(self) -> Cost:
        """The author lets in a device that is not there yet."""
        stranger = own_device("stranger")
        membership = self.author.membership

        def admit() -> None:
            self.author.do(
                membership.admit(
                    stranger.certificate, "stranger", decode_statements(membership.encoded())
                )
            )

        return await self.phase(
            admit, held=lambda device: stranger.device in device.membership.members
        )


@contextlib.contextmanager
def grouped(shape: str, count: int, *, seed: int) -> Iterator[Group]:
    """Devices that are members of one group, reach each other as the shape says, and are off.

    For a process that does nothing else.
    """
    # What is left at the end is closed when nothing needs it any more, and complains of that.
    sys.unraisablehook = lambda _: None
    logging.getLogger("p2psync").propagate = False
    gc.disable()
    try:
        with opened_world(seed) as world:
            group = Group(world, [], SHAPES[shape](count))
            world.network.latency_s = _LATENCY_S
            world.network.on_send = lambda link, data: _sent(group, link, data)
            world.loop.set_exception_handler(
                lambda _loop, details: world.trace.violation(f"unhandled: {details}")
            )
            for number in range(count):
                group.devices.append(_device(world, number))
            world.devices.extend(group.devices)
            _pair(list(group.devices))
            for one, device in enumerate(group.devices):
                for two, other in enumerate(group.devices):
                    if frozenset((one, two)) in group.edges:
                        device.store.known[other.id] = [(other.host, other.port, None)]
                    elif one != two:
                        world.network.unconnectable.add(frozenset((device.id, other.id)))
            yield group
    finally:
        gc.enable()


def _sent(group: Group, link: SimulatedLink, data: bytes) -> None:
    group.meter.sent(link.owner, data, now_s=group.world.loop.time())
    # The loop's bound on what happens is for a few devices. Whoever speaks for ever takes virtual
    # time for it, which has a bound too.
    group.world.loop.count_anew()


def _device(world: World, number: int) -> CountedDevice:
    name = name_of(number)
    return CountedDevice(
        name,
        number,
        world.directory / name,
        world.network,
        world.oracle,
        random.Random(world.source.random()),
        granularity_ns=1,
        scan_interval_s=3600.0,
        brakes=BrakesConfig(),
    )


def changes(shape: str, count: int, *, seed: int) -> dict[str, Cost]:
    """The cost of each kind of change in such a group."""
    found: dict[str, Cost] = {}
    with grouped(shape, count, seed=seed) as group:

        async def play() -> None:
            source = random.Random(seed)
            found["start"] = await group.begin()
            await group.minute()
            found["quiet minute"] = await group.minute()
            found["new file"] = await group.changed({"doc": source.randbytes(_SMALL)})
            found["minute after"] = await group.minute()
            found["edit"] = await group.changed({"doc": source.randbytes(_SMALL)})
            found["deletion"] = await group.deleted("doc")
            found["large file"] = await group.changed({"large": source.randbytes(_LARGE)})
            files = {f"files/{at:03}": source.randbytes(_SMALL) for at in range(_BATCH)}
            found["100 files"] = await group.changed(files)
            found["admission"] = await group.admitted()
            found["return"] = await group.returned()

        group.world.loop.run_until_complete(play())
    return found


def newcomer(shape: str, count: int, *, files: int, seed: int) -> Cost:
    """A device that holds nothing meets a group that holds so many files."""
    found: list[Cost] = []
    with grouped(shape, count, seed=seed) as group:

        async def play() -> None:
            source = random.Random(seed)
            contents = {f"files/{at:05}": source.randbytes(20) for at in range(files)}
            late = group.devices.pop()
            await group.phase(group.start_all)
            await group.changed(contents)
            group.devices.append(late)
            wanted = len(contents)

            def holds_all(device: CountedDevice) -> bool:
                return sum(path.startswith("files/") for path in device.known) >= wanted

            found.append(await group.phase(late.start, held=holds_all))

        group.world.loop.run_until_complete(play())
    return found[0]


def tombstones(shape: str, count: int, *, seed: int) -> int:
    """How many devices still keep the tombstone of a file two minutes after its deletion."""
    found: list[int] = []
    with grouped(shape, count, seed=seed) as group:

        async def play() -> None:
            await group.begin()
            await group.changed({"doc": b"1"})
            await group.deleted("doc")
            await group.minute()
            await group.minute()
            found.append(sum(device.tombstones() for device in group.devices))

        group.world.loop.run_until_complete(play())
    return found[0]
