"""Discovery by mDNS with a scripted zeroconf, and once with the real one on loopback."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address
from typing import Any

import pytest
import zeroconf.asyncio
from zeroconf import ServiceInfo

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.net.interfaces import Interface, list_interfaces
from p2psync.net.mdns import Mdns
from p2psync.net.mdns_records import DEVICE_SERVICE, PAIRING_SERVICE, device_service
from p2psync.net.sighting import Sighting

ANNA, BEN = DeviceID(b"a" * 32), DeviceID(b"b" * 32)
LAN = Interface(
    name="eth0",
    index=2,
    is_loopback=False,
    is_point_to_point=False,
    ipv4=(IPv4Interface("192.0.2.1/24"),),
    ipv6=(IPv6Address("fe80::1"),),
)
LOOPBACK = Interface(
    name="lo",
    index=1,
    is_loopback=True,
    is_point_to_point=False,
    ipv4=(IPv4Interface("127.0.0.1/8"),),
    ipv6=(IPv6Address("::1"),),
)


class Engine:
    readers: Sequence[Any] = ()


class FakeZeroconf:
    """An `AsyncZeroconf` (and the `Zeroconf` inside) that sends nothing."""

    def __init__(self, targets: list[str | int]) -> None:
        self.targets = targets
        self.engine = Engine()
        self.zeroconf = self
        self.published: dict[str, ServiceInfo] = {}
        self.announced = asyncio.Event()
        self.known: dict[str, FakeInfo] = {}
        self.closed = False

    async def async_wait_for_start(self) -> None: ...

    async def async_update_interfaces(self, targets: list[str | int]) -> None:
        self.targets = targets

    async def async_register_service(
        self, info: ServiceInfo, *, cooperating_responders: bool
    ) -> "asyncio.Future[None]":
        assert cooperating_responders
        assert info.name not in self.published
        return self._publish(info)

    async def async_update_service(self, info: ServiceInfo) -> "asyncio.Future[None]":
        assert info.name in self.published
        return self._publish(info)

    async def async_unregister_service(self, info: ServiceInfo) -> "asyncio.Future[None]":
        del self.published[info.name]
        return self._sent()

    async def async_close(self) -> None:
        self.closed = True

    def _publish(self, info: ServiceInfo) -> "asyncio.Future[None]":
        self.published[info.name] = info
        return self._sent()

    def _sent(self) -> "asyncio.Future[None]":
        self.announced.set()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class FakeInfo:
    """What is known of an instance: in the cache, after a look-up, or never."""

    def __init__(
        self, service: str, name: str, *, cached: bool = True, port: int = 4711, **text: str
    ) -> None:
        self.type, self.name, self.port = service, name, port
        self.decoded_properties = {"v": "1", **text}
        self.cached = cached
        self.answered = asyncio.Event()

    def parsed_scoped_addresses(self) -> list[str]:
        return ["192.0.2.2"]


class Change:
    def __init__(self, name: str) -> None:
        self.name = name


class World:
    """One Mdns with everything around it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.interfaces: list[Interface] = [LAN]
        self.opened: asyncio.Queue[FakeZeroconf] = asyncio.Queue()
        self.failures: list[Exception] = []
        self.said: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.problems: asyncio.Queue[str | None] = asyncio.Queue()
        self.browsers: list[Callable[..., None]] = []
        world = self

        class Browser:
            def __init__(
                self, zc: FakeZeroconf, types: list[str], handlers: list[Callable[..., None]]
            ) -> None:
                assert types == [DEVICE_SERVICE, PAIRING_SERVICE]
                world.browsers.append(handlers[0])

            async def async_cancel(self) -> None: ...

        class Lookup(FakeInfo):
            """Made by the code under test: takes what the zeroconf knows."""

            def __init__(self, service: str, name: str) -> None:
                self.type, self.name = service, name

            def load_from_cache(self, zc: FakeZeroconf) -> bool:
                known = zc.known.get(self.name)
                if known is None or not known.cached:
                    return False
                self.__dict__.update(known.__dict__)
                return True

            async def async_request(self, zc: FakeZeroconf, timeout: float) -> bool:  # noqa: ASYNC109
                known = zc.known.get(self.name)
                if known is None:
                    return False
                await known.answered.wait()
                self.__dict__.update(known.__dict__)
                return True

        patch.setattr(zeroconf.asyncio, "AsyncServiceBrowser", Browser)
        patch.setattr(zeroconf.asyncio, "AsyncServiceInfo", Lookup)
        self.mdns = Mdns(
            ANNA,
            interfaces=lambda: tuple(self.interfaces),
            on_sighting=lambda sighting: self.said.put_nowait(("seen", sighting)),
            on_withdrawn=lambda sighting: self.said.put_nowait(("withdrawn", sighting)),
            on_problem=self.problems.put_nowait,
            rescan_s=0.01,
            retry_s=0.01,
            open_zeroconf=self._open,
        )

    def _open(self, targets: list[str | int]) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        made = FakeZeroconf(targets)
        self.opened.put_nowait(made)
        return made

    def change(self, zc: FakeZeroconf, info: FakeInfo, kind: str = "Added") -> None:
        if kind != "Removed":
            zc.known[info.name] = info
        self.browsers[-1](
            zeroconf=zc, service_type=info.type, name=info.name, state_change=Change(kind)
        )

    async def problem(self, *, like: str | None) -> None:
        """Wait until this is told."""
        async with asyncio.timeout(5):
            while True:
                told = await self.problems.get()
                if told == like or (told is not None and like is not None and like in told):
                    return

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(5):
            return await self.said.get()

    async def open(self) -> FakeZeroconf:
        async with asyncio.timeout(5):
            return await self.opened.get()

    async def published(self, zc: FakeZeroconf, wanted: Callable[[set[str]], bool]) -> None:
        async with asyncio.timeout(5):
            while not wanted(set(zc.published)):
                zc.announced.clear()
                await zc.announced.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeZeroconf]:
        task = asyncio.create_task(self.mdns.run())
        try:
            yield await self.open()
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def device_info(device: DeviceID = BEN, **changes: Any) -> FakeInfo:
    told = device_service(device, 4711, ["192.0.2.2"])
    return FakeInfo(told.type, told.name, **{"id": dict(told.text)["id"], **changes})


SEEN = Sighting(BEN, (("192.0.2.2", 4711),), "mdns")


async def test_nothing_is_announced_before_there_is_a_port(world: World) -> None:
    async with world.running() as zc:
        await world.problem(like=None)
        assert zc.published == {}
        assert zc.targets == ["192.0.2.1", 2]
    assert zc.closed


async def test_the_device_and_its_window_are_announced_and_withdrawn(world: World) -> None:
    world.mdns.announce(4711)
    async with world.running() as zc:
        name = f"{short_device_id(ANNA)}.{DEVICE_SERVICE}"
        await world.published(zc, lambda names: names == {name})
        assert zc.published[name].port == 4711
        assert zc.published[name].parsed_addresses() == ["192.0.2.1", "fe80::1"]

        world.mdns.announce_pairing(7, 4712)
        await world.published(zc, lambda names: len(names) == 2)
        (first,) = zc.published.keys() - {name}
        assert first.endswith(f".{PAIRING_SERVICE}")
        assert zc.published[first].properties == {b"v": b"1", b"np": b"7"}

        world.mdns.announce_pairing(7, 4712)
        await world.published(zc, lambda names: len(names) == 2 and first not in names)
        world.mdns.withdraw_pairing()
        await world.published(zc, lambda names: names == {name})
        world.mdns.announce(4713)
        await world.published(zc, lambda _: zc.published[name].port == 4713)


async def test_devices_and_windows_of_others_are_told_once(world: World) -> None:
    async with world.running() as zc:
        world.change(zc, device_info())
        assert await world.next() == ("seen", SEEN)
        world.change(zc, device_info(), "Updated")
        world.change(zc, FakeInfo(PAIRING_SERVICE, f"x.{PAIRING_SERVICE}", np="7"))
        assert await world.next() == ("seen", Sighting(None, SEEN.addresses, "mdns", 7))


async def test_one_that_moves_is_withdrawn_and_told_anew(world: World) -> None:
    async with world.running() as zc:
        world.change(zc, device_info())
        world.change(zc, device_info(port=4712), "Updated")
        world.change(zc, device_info(), "Removed")
        world.change(zc, device_info(), "Removed")
        moved = replace(SEEN, addresses=(("192.0.2.2", 4712),))
        assert [await world.next() for _ in range(4)] == [
            ("seen", SEEN),
            ("withdrawn", SEEN),
            ("seen", moved),
            ("withdrawn", moved),
        ]
        assert world.said.empty()


async def test_what_is_not_known_yet_is_looked_up(world: World) -> None:
    async with world.running() as zc:
        info = device_info(cached=False)
        world.change(zc, info)
        info.answered.set()
        assert await world.next() == ("seen", SEEN)


async def test_only_so_many_are_looked_up_at_a_time(world: World) -> None:
    async with world.running() as zc:
        infos = [
            FakeInfo(PAIRING_SERVICE, f"{n}.{PAIRING_SERVICE}", cached=False, np=str(n + 1))
            for n in range(30)
        ]
        for info in infos:
            world.change(zc, info)
        for info in infos:
            info.answered.set()
        seen = [(await world.next())[1].nameplate for _ in range(16)]
        assert seen == list(range(1, 17))
        world.change(zc, infos[20])
        assert (await world.next())[1].nameplate == 21
        assert world.said.empty()


async def test_what_this_device_announces_itself_is_not_told(world: World) -> None:
    world.mdns.announce(4711)
    async with world.running() as zc:
        await world.published(zc, lambda names: len(names) == 1)
        world.change(zc, device_info(ANNA))
        await world.problem(like=None)
        copy = device_info(ANNA)
        copy.name = f"copied.{DEVICE_SERVICE}"
        world.change(zc, copy)
        world.change(zc, device_info())
        assert await world.next() == ("seen", SEEN)


async def test_announcements_that_do_not_come_back_are_a_problem(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psync.net.mdns._ECHO_S", 0.01)
    world.mdns.announce(4711)
    async with world.running() as zc:
        await world.problem(like="multicast seems to be blocked")
        world.change(zc, device_info(ANNA))
        await world.problem(like=None)


async def test_without_a_network_one_is_waited_for(world: World) -> None:
    world.interfaces = []
    task = asyncio.create_task(world.mdns.run())
    try:
        await world.problem(like="No network is up")
        world.interfaces = [LAN]
        await world.open()
        await world.problem(like=None)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_failure_is_a_sentence_and_tried_again(world: World) -> None:
    world.failures = [OSError(98, "Address already in use"), RuntimeError("no adapters")]
    async with world.running():
        await world.problem(like="(Address already in use)")
        await world.problem(like="(no adapters)")
        await world.problem(like=None)


async def test_new_interfaces_are_used_and_another_kind_begins_anew(world: World) -> None:
    async with world.running() as zc:
        more = replace(LAN, name="eth1", index=3, ipv4=(IPv4Interface("198.51.100.1/24"),), ipv6=())
        world.interfaces = [LAN, more]
        world.mdns.announce(4711)
        await world.published(zc, lambda _: zc.targets == ["192.0.2.1", 2, "198.51.100.1"])
        world.interfaces = [LOOPBACK]
        world.mdns.announce(4712)
        confined = await world.open()
        assert confined.targets == ["127.0.0.1"]
        assert zc.closed


@pytest.mark.slow
async def test_two_devices_find_each_other_on_loopback() -> None:
    loopback = [one for one in list_interfaces() if one.is_loopback]
    # Drawn anew each time: other processes may announce on the same loopback.
    anna, ben = DeviceID(os.urandom(32)), DeviceID(os.urandom(32))
    said: asyncio.Queue[tuple[str, DeviceID | None, tuple[str, int]]] = asyncio.Queue()

    def make(device: DeviceID, port: int) -> Mdns:
        made = Mdns(
            device,
            interfaces=lambda: loopback,
            on_sighting=lambda seen: said.put_nowait(("seen", seen.device, seen.addresses[0])),
            on_withdrawn=lambda gone: said.put_nowait(("gone", gone.device, gone.addresses[0])),
            on_problem=lambda problem: None,
        )
        made.announce(port)
        return made

    async def until(*wanted: tuple[str, DeviceID, tuple[str, int]]) -> None:
        left = set(wanted)
        while left:
            left.discard(await said.get())

    tasks = [
        asyncio.create_task(make(device, port).run()) for device, port in ((anna, 1), (ben, 2))
    ]
    try:
        async with asyncio.timeout(20):
            await until(("seen", anna, ("127.0.0.1", 1)), ("seen", ben, ("127.0.0.1", 2)))
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
            await until(("gone", ben, ("127.0.0.1", 2)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
