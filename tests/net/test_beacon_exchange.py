"""On the loopback interface only, by its broadcast address."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2psync.net.beacon import Beacon
from p2psync.net.beacon_exchange import BeaconExchange
from p2psync.net.interfaces import Interface

LO = Interface(
    name="lo",
    index=1,
    is_loopback=True,
    is_point_to_point=False,
    ipv4=(IPv4Interface("127.0.0.1/8"),),
    ipv6=(),
)


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        free: int = sock.getsockname()[1]
    return free


class Station:
    """One exchange, with what it heard and its problems in queues."""

    def __init__(self, seed: int, port: int, interfaces: Sequence[Interface] = (LO,)) -> None:
        self.heard: asyncio.Queue[tuple[Beacon, str]] = asyncio.Queue()
        self.problems: asyncio.Queue[str | None] = asyncio.Queue()
        self.interfaces = interfaces
        key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.exchange = BeaconExchange(
            key.public_key().public_bytes_raw(),
            key.sign,
            interfaces=lambda: self.interfaces,
            on_beacon=lambda beacon, host: self.heard.put_nowait((beacon, host)),
            on_problem=self.problems.put_nowait,
            port=port,
            rescan_s=0.01,
        )

    async def hears(self, **wanted: int) -> tuple[Beacon, str]:
        """The next beacon with those values."""
        async with asyncio.timeout(5):
            while True:
                beacon, host = await self.heard.get()
                if all(getattr(beacon, name) == value for name, value in wanted.items()):
                    return beacon, host

    async def reports(self, part: str | None) -> None:
        """Wait for a problem that has `part` in it, or for its cure."""
        async with asyncio.timeout(5):
            while True:
                problem = await self.problems.get()
                if problem is part or (part and problem and part in problem):
                    return

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Station"]:
        task = asyncio.create_task(self.exchange.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


async def test_a_newcomer_and_those_before_it_hear_one_another_at_once(port: int):
    old = Station(1, port)
    old.exchange.announce(1001)
    async with old.running():
        await old.reports(None)  # its first beacon is out
        new = Station(2, port)
        new.exchange.announce(2002)
        async with new.running():
            assert (await old.hears(port=2002))[1] == "127.0.0.1"
            assert (await new.hears(port=1001))[1] == "127.0.0.1"


async def test_three_daemons_of_one_machine_all_hear_one_another(port: int):
    stations = [Station(number, port) for number in (1, 2, 3)]
    for number, station in enumerate(stations, start=1):
        station.exchange.announce(number)
    async with stations[0].running(), stations[1].running(), stations[2].running():
        for number, station in enumerate(stations, start=1):
            for other in {1, 2, 3} - {number}:
                await station.hears(port=other)


async def test_what_this_device_says_itself_is_not_handed_on(port: int):
    one, other = Station(1, port), Station(2, port)
    one.exchange.announce(1)
    async with one.running(), other.running():
        await other.hears(port=1)
        one.exchange.announce(2)
        await other.hears(port=2)
    while not one.heard.empty():
        assert one.heard.get_nowait()[0].port == 0


async def test_a_changed_port_and_a_pairing_window_are_told_without_delay(port: int):
    one, other = Station(1, port), Station(2, port)
    async with one.running(), other.running():
        one.exchange.announce(5000)
        await other.hears(port=5000, nameplate=0)
        one.exchange.announce_pairing(7, 6000)
        await other.hears(port=5000, nameplate=7, pairing_port=6000)
        one.exchange.withdraw_pairing()
        await other.hears(port=5000, nameplate=0, pairing_port=0)


async def test_asking_brings_an_answer_from_a_device_that_is_known_already(port: int):
    one, other = Station(1, port), Station(2, port)
    one.exchange.announce(1)
    async with one.running(), other.running():
        await other.hears(port=1)
        table = one.exchange._timetable
        table._planned = []  # nothing more is due for half a minute
        while not other.heard.empty():
            other.heard.get_nowait()
        other.exchange.ask()
        await other.hears(port=1)


async def test_garbage_forgeries_and_floods_are_not_handed_on(port: int):
    one, other = Station(1, port), Station(2, port)
    other.exchange.announce(2)
    async with one.running():
        await one.reports(None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind(("127.0.0.7", 0))  # another source than the honest one
            for size in range(100):
                sock.sendto(b"p2psync\x01" + bytes(size), ("127.255.255.255", port))
        async with other.running():
            beacon, _ = await one.hears()
    assert beacon.public_key == other.exchange._beacon.public_key


async def test_without_a_network_it_says_so_and_starts_when_one_comes(port: int):
    one = Station(1, port, interfaces=())
    async with one.running():
        await one.reports("No network")
        one.interfaces = (LO,)
        await one.reports(None)


async def test_a_port_that_another_program_holds_is_a_problem_and_is_tried_again(port: int):
    one = Station(1, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_program:
        other_program.bind(("127.255.255.255", port))
        task = asyncio.create_task(one.exchange.run())
        await one.reports(f"UDP port {port}")
    await one.reports(None)
    task.cancel()
    await asyncio.wait([task])


async def test_a_network_that_goes_away_is_left(port: int):
    one = Station(1, port)
    async with one.running():
        await one.reports(None)
        one.interfaces = ()
        await one.reports("No network")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.255.255.255", port))  # without SO_REUSEADDR: nobody holds it
