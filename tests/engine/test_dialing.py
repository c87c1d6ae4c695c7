import asyncio
from collections.abc import Awaitable, Callable

import pytest

from p2psync.core.ids import DeviceID
from p2psync.engine import dialing as module
from p2psync.engine.addresses import AddressBook
from p2psync.engine.dialing import Dialing
from p2psync.ports import Address, Link
from tests.support.devices import device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_link import linked

OWN, PEER = device_id("ada"), device_id("bob")


class Network:
    """Every dial comes about."""

    def __init__(
        self,
        serve: Callable[[Link], Awaitable[None]],
        *,
        own: DeviceID = OWN,
        peer: DeviceID = PEER,
    ) -> None:
        self.clock = ManualClock()
        self.connected = False
        self.dials = 0
        book = AddressBook({})
        book.hint(peer, [("192.0.2.1", 1)])
        self.dialing = Dialing(
            own,
            self,
            book,
            self.clock,
            lambda size: b"\xff" * size,
            is_connected=lambda _: self.connected,
            serve=serve,
            reached=self._reached,
        )
        self.dialing.set_members({peer})

    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID,
        timeout: float,  # noqa: ASYNC109 - as in the port
    ) -> Link:
        self.dials += 1
        return linked(OWN, PEER)[0]

    async def _reached(self, device: DeviceID, address: Address) -> None:
        pass

    async def turns(self) -> None:
        """Let everything happen that does not wait for time."""
        for _ in range(200):
            await asyncio.sleep(0)


async def test_a_session_that_ends_at_once_is_not_made_anew_at_once() -> None:
    async def serve(_: Link) -> None:
        network.dialing.ended(PEER)

    network = Network(serve)
    running = asyncio.create_task(network.dialing.run())
    await network.turns()
    assert network.dials == 1
    running.cancel()


async def test_of_two_devices_the_one_with_the_greater_id_lets_the_other_dial_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SECOND_S", 3600)

    async def serve(_: Link) -> None:
        await asyncio.Event().wait()

    lesser, greater = sorted((OWN, PEER))
    for own, peer, dials in ((lesser, greater, 1), (greater, lesser, 0)):
        network = Network(serve, own=own, peer=peer)
        running = asyncio.create_task(network.dialing.run())
        await network.turns()
        assert network.dials == dials
        running.cancel()


async def test_nor_is_one_that_the_other_device_made() -> None:
    async def serve(_: Link) -> None:
        raise AssertionError

    network = Network(serve)
    network.connected = True
    running = asyncio.create_task(network.dialing.run())
    for _ in range(3):
        await network.turns()
        network.connected = False
        network.dialing.ended(PEER)
    await network.turns()
    assert network.dials == 0
    running.cancel()


async def test_one_that_lasted_is_made_anew_at_once() -> None:
    async def serve(_: Link) -> None:
        network.connected = True

    network = Network(serve)
    network.connected = True
    running = asyncio.create_task(network.dialing.run())
    await network.turns()
    network.clock.advance(10.0)
    network.connected = False
    network.dialing.ended(PEER)
    await network.turns()
    assert network.dials == 1
    running.cancel()


async def test_who_joins_while_it_ends_is_dialed_when_it_runs_again() -> None:
    async def serve(_: Link) -> None:
        network.connected = True
        await asyncio.Event().wait()

    network = Network(serve)
    network.dialing.set_members(set())
    running = asyncio.create_task(network.dialing.run())
    await network.turns()
    running.cancel()
    await asyncio.wait([running])

    network.dialing.set_members({PEER})
    assert network.dials == 0
    running = asyncio.create_task(network.dialing.run())
    await network.turns()
    assert network.dials == 1
    running.cancel()
