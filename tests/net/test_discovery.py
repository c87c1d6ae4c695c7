"""Which pairing windows are remembered, and what the two ways of discovery make of each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from p2psync.config import MAX_PAIRING_TTL_S
from p2psync.core.ids import DeviceID
from p2psync.net import discovery as module
from p2psync.net.beacon import Beacon
from p2psync.net.discovery import Discovery, PairingWindows
from p2psync.net.sighting import Sighting

ANNA, BEN = DeviceID(b"a" * 32), DeviceID(b"b" * 32)
HERE, THERE, ELSEWHERE = ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.3", 3)


def window(
    nameplate: int | None, *addresses: tuple[str, int], device: DeviceID | None = None
) -> Sighting:
    return Sighting(device, addresses, "beacon" if device else "mdns", nameplate)


# --- windows -----------------------------------------------------------------------------------


def test_windows_are_told_by_nameplate_those_seen_last_first() -> None:
    windows = PairingWindows()
    windows.seen(window(7, HERE), 0)
    windows.seen(window(7, THERE, ELSEWHERE), 1)
    windows.seen(window(8, HERE), 2)
    assert windows.of(7, 3) == [THERE, ELSEWHERE, HERE]
    assert windows.of(8, 3) == [HERE]
    assert windows.of(9, 3) == []
    windows.seen(window(7, HERE), 4)
    assert windows.of(7, 5) == [HERE, THERE, ELSEWHERE]


def test_a_device_alone_is_no_window() -> None:
    windows = PairingWindows()
    windows.seen(window(None, HERE, device=ANNA), 0)
    assert windows.of(0, 0) == []


def test_a_window_is_remembered_for_as_long_as_one_may_be_open() -> None:
    windows = PairingWindows()
    windows.seen(window(7, HERE), 0)
    assert windows.of(7, MAX_PAIRING_TTL_S) == [HERE]
    assert windows.of(7, MAX_PAIRING_TTL_S + 1) == []


def test_a_window_that_was_withdrawn_is_forgotten() -> None:
    windows = PairingWindows()
    windows.seen(window(7, HERE, THERE), 0)
    windows.withdrawn(window(7, HERE))
    windows.withdrawn(window(8, THERE))
    windows.withdrawn(window(None, THERE, device=ANNA))
    assert windows.of(7, 1) == [THERE]


def test_a_device_has_one_window_at_most() -> None:
    windows = PairingWindows()
    windows.seen(window(7, HERE, device=ANNA), 0)
    windows.seen(window(7, THERE, device=BEN), 0)
    windows.seen(window(7, ELSEWHERE), 0)
    windows.only(ANNA, 7)
    assert HERE in windows.of(7, 1)
    windows.only(ANNA, 8)
    assert windows.of(7, 1) == [ELSEWHERE, THERE]
    windows.only(BEN, None)
    assert windows.of(7, 1) == [ELSEWHERE]


def test_a_flood_of_windows_drops_the_oldest() -> None:
    windows = PairingWindows()
    for number in range(1000):
        windows.seen(window(7, ("192.0.2.1", number + 1)), number)
    assert windows.of(7, 1000) == [("192.0.2.1", 1000 - number) for number in range(256)]


# --- both ways together ------------------------------------------------------------------------


class Part:
    """A way of discovery that does nothing but remember what it was told."""

    def __init__(self, *_: object, **handlers: Callable[..., None]) -> None:
        self.handlers = handlers
        self.told: list[object] = []
        self.running = asyncio.Event()

    async def run(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running.clear()

    def announce(self, port: int) -> None:
        self.told.append(port)

    def announce_pairing(self, nameplate: int, port: int) -> None:
        self.told.append((nameplate, port))

    def withdraw_pairing(self) -> None:
        self.told.append("withdrawn")

    def ask(self) -> None:
        self.told.append("asked")


class World:
    def __init__(self, *, mdns: bool = True, beacon: bool = True) -> None:
        self.sightings: list[Sighting] = []
        self.problems: list[tuple[str, str | None]] = []
        self.now = 0.0
        self.discovery = Discovery(
            ANNA,
            bytes(32),
            lambda data: bytes(64),
            interfaces=None,
            on_sighting=self.sightings.append,
            on_problem=lambda source, sentence: self.problems.append((source, sentence)),
            beacon_port=1,
            mdns=mdns,
            beacon=beacon,
            clock=lambda: self.now,
        )

    @property
    def mdns(self) -> Part:
        part = self.discovery._mdns
        assert isinstance(part, Part)
        return part

    @property
    def beacon(self) -> Part:
        part = self.discovery._beacon
        assert isinstance(part, Part)
        return part

    def hear(self, beacon: Beacon, host: str = "192.0.2.2") -> None:
        self.beacon.handlers["on_beacon"](beacon, host)

    @asynccontextmanager
    async def finding(self, nameplate: int) -> AsyncIterator["asyncio.Task[list[tuple[str, int]]]"]:
        task = asyncio.create_task(self.discovery.find_pairing(nameplate, 5))
        await asyncio.sleep(0)
        yield task


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Mdns", Part)
    monkeypatch.setattr(module, "BeaconExchange", Part)
    monkeypatch.setattr(module, "_GATHER_S", 0.01)


async def test_everything_is_announced_both_ways() -> None:
    world = World()
    world.discovery.announce(4711)
    world.discovery.announce_pairing(7, 4712)
    world.discovery.withdraw_pairing()
    assert world.mdns.told == world.beacon.told == [4711, (7, 4712), "withdrawn"]


@pytest.mark.parametrize("nameplate", [0, -1, 65536])
async def test_what_cannot_be_a_nameplate_is_not_announced(nameplate: int) -> None:
    world = World()
    with pytest.raises(ValueError, match="no nameplate"):
        world.discovery.announce_pairing(nameplate, 4712)
    assert world.mdns.told == []


async def test_both_run_until_cancelled() -> None:
    world = World()
    running = asyncio.create_task(world.discovery.run())
    await world.mdns.running.wait()
    await world.beacon.running.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert not world.mdns.running.is_set()


@pytest.mark.parametrize(("mdns", "beacon"), [(True, False), (False, True), (False, False)])
async def test_a_way_that_is_switched_off_is_not_there(mdns: bool, beacon: bool) -> None:
    world = World(mdns=mdns, beacon=beacon)
    world.discovery.announce(1)
    assert (world.discovery._mdns is not None, world.discovery._beacon is not None) == (
        mdns,
        beacon,
    )


async def test_a_beacon_tells_of_the_device_and_of_its_window() -> None:
    world = World()
    beacon = Beacon(b"k" * 32, bytes(8), port=4711, pairing_port=4712, nameplate=7)
    world.hear(beacon)
    assert world.sightings == [
        Sighting(beacon.device, (("192.0.2.2", 4711),), "beacon"),
        Sighting(beacon.device, (("192.0.2.2", 4712),), "beacon", 7),
    ]
    assert await world.discovery.find_pairing(7, 0) == [("192.0.2.2", 4712)]


async def test_a_beacon_without_a_window_ends_the_one_before() -> None:
    world = World()
    world.hear(Beacon(b"k" * 32, bytes(8), pairing_port=4712, nameplate=7))
    world.hear(Beacon(b"k" * 32, bytes(8), port=4711))
    assert await world.discovery.find_pairing(7, 0) == []


async def test_a_window_is_waited_for_and_the_network_is_asked() -> None:
    world = World()
    async with world.finding(7) as found:
        assert world.beacon.told == ["asked"]
        world.mdns.handlers["on_sighting"](window(8, THERE))
        world.mdns.handlers["on_sighting"](window(7, HERE))
        world.mdns.handlers["on_sighting"](window(7, THERE))
        assert await found == [THERE, HERE]


async def test_a_window_that_is_not_there_is_not_found() -> None:
    assert await World().discovery.find_pairing(7, 0.01) == []


async def test_a_window_that_is_withdrawn_while_others_are_gathered_is_not_found() -> None:
    world = World()
    async with world.finding(7) as found:
        world.mdns.handlers["on_sighting"](window(7, HERE))
        world.mdns.handlers["on_withdrawn"](window(7, HERE))
        world.mdns.handlers["on_sighting"](window(7, THERE))
        assert await found == [THERE]


async def test_a_problem_is_told_once_and_its_end_too() -> None:
    world = World()
    say_mdns = world.mdns.handlers["on_problem"]
    say_beacon = world.beacon.handlers["on_problem"]
    for sentence in (None, "No.", "No.", "Still no.", None, None):
        say_mdns(sentence)
    say_beacon("No.")
    assert world.problems == [
        ("mdns", "No."),
        ("mdns", "Still no."),
        ("mdns", None),
        ("beacon", "No."),
    ]
