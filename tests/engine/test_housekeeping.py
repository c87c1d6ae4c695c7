"""What a folder does now and then."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

import pytest

from p2psync.core.entry import Kind
from p2psync.engine.housekeeping import Housekeeping
from p2psync.ports import Cursor, FolderIndex
from p2psync.protocol.messages import AnyMessage, FolderDigest
from tests.support.devices import FOLDER, Device, Lab

ADA_BOB_CYD = "ada bob cyd"


async def keep_house(device: Device, members: Iterable[Device]) -> None:
    """One round of it."""
    done = asyncio.Event()

    def is_at_rest() -> bool:
        done.set()
        return False

    keeping = Housekeeping(
        FOLDER, device.index, device.disk, device.turn, is_at_rest=is_at_rest, exchanges=list
    )
    running = asyncio.create_task(keeping.run(lambda: [member.id for member in members]))
    async with asyncio.timeout(5):
        await done.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def sharing_a_file(lab: Lab, names: str) -> list[Device]:
    """Devices that hold the same "doc"; the first one is connected with all others."""
    devices = first, *others = await lab.devices(names)
    for other in others:
        lab.connect(first, other)
    first.disk.write("doc", "first")
    await lab.converge(devices)
    return devices


async def tombstones(device: Device) -> list[str]:
    entries = await device.index.entries_after(0, 100)
    return [path for _, path, entry in entries if entry.kind == Kind.TOMBSTONE]


async def deleted(lab: Lab, *, by: Device, known_to: list[Device], names: str) -> None:
    """A file that all have is deleted while only some are there."""
    for name in names.split():
        by.disk.write(name, name)
    links = [lab.connect(by, other) for other in known_to]
    await lab.converge([by, *known_to])
    for link in links:
        await link.cut()
    for name in names.split():
        by.disk.remove(name)


@pytest.mark.slow
async def test_a_tombstone_waits_for_every_member_however_long_one_is_away(lab: Lab) -> None:
    ada, bob, cyd = await lab.devices(ADA_BOB_CYD)
    await deleted(lab, by=ada, known_to=[bob, cyd], names="it")
    lab.connect(ada, bob)
    await lab.converge([ada, bob])
    for _ in range(3):
        lab.clock.advance(400 * 86_400)
        for device, others in ((ada, [bob, cyd]), (bob, [ada, cyd])):
            await keep_house(device, others)
    assert await tombstones(ada) == await tombstones(bob) == ["it"]

    lab.connect(bob, cyd)
    assert await lab.converge([ada, bob, cyd]) == {}


async def test_a_tombstone_that_all_have_goes_and_nothing_comes_back(lab: Lab) -> None:
    devices = ada, bob, cyd = await lab.devices(ADA_BOB_CYD)
    await deleted(lab, by=ada, known_to=[bob, cyd], names="it")
    for one, other in ((ada, bob), (bob, cyd), (ada, cyd)):
        lab.connect(one, other)
    await lab.converge(devices)
    for _ in range(2):
        for device in devices:
            await keep_house(device, [other for other in devices if other is not device])
        assert await lab.converge(devices) == {}
    assert [await tombstones(device) for device in devices] == [[], [], []]


async def test_no_tombstone_goes_while_something_is_wanted(lab: Lab) -> None:
    """It may be that of a copy in a conflict that is not settled yet."""
    ada, bob = await lab.devices("ada bob")
    await deleted(lab, by=ada, known_to=[bob], names="it")
    lab.connect(ada, bob)
    await lab.converge([ada, bob])
    bob.disk.write("other", "content")
    await bob.scan()
    await lab.settle()
    await keep_house(ada, [bob])
    assert await tombstones(ada) == ["it"]
    await lab.converge([ada, bob])
    await keep_house(ada, [bob])
    assert await tombstones(ada) == []


async def test_a_removed_device_is_not_waited_for(lab: Lab) -> None:
    ada, bob, cyd = await lab.devices(ADA_BOB_CYD)
    await deleted(lab, by=ada, known_to=[bob, cyd], names="it")
    lab.connect(ada, bob)
    await lab.converge([ada, bob])
    await keep_house(ada, [bob, cyd])
    assert await tombstones(ada) == ["it"]
    await ada.index.forget_peer(cyd.id)
    await keep_house(ada, [bob])
    assert await tombstones(ada) == []


async def test_a_device_that_comes_back_wants_nothing_that_was_deleted_without_it(lab: Lab) -> None:
    """Of the deletion nothing is left that could tell it."""
    ada, bob, cyd = await lab.devices(ADA_BOB_CYD)
    ada.disk.write("it", "1")
    await ada.scan()
    link = lab.connect(ada, bob)
    async with asyncio.timeout(2):
        while (await bob.index.counts()).need_files < 1:
            lab.changed.clear()
            await lab.changed.wait()
    await link.cut()
    await ada.index.forget_peer(bob.id)
    lab.connect(ada, cyd)
    await lab.converge([ada, cyd])
    ada.disk.remove("it")
    await lab.converge([ada, cyd])
    await keep_house(ada, [cyd])
    assert await tombstones(ada) == []
    lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {}


async def test_without_a_member_tombstones_stay_for_whoever_may_come(lab: Lab, ada: Device) -> None:
    ada.disk.write("it", "1")
    await ada.scan()
    ada.disk.remove("it")
    await ada.scan()
    await keep_house(ada, [])
    assert await tombstones(ada) == ["it"]


async def test_what_was_acknowledged_of_an_earlier_index_does_not_count(lab: Lab) -> None:
    ada, bob = await lab.devices("ada bob")
    ada.disk.write("it", "1")
    await ada.scan()
    ada.disk.remove("it")
    await ada.scan()
    await ada.index.set_acknowledged(bob.id, Cursor(ada.index.epoch + 1, 1 << 62))
    await keep_house(ada, [bob])
    assert await tombstones(ada) == ["it"]
    await ada.index.set_acknowledged(bob.id, Cursor(ada.index.epoch, ada.index.sequence))
    await keep_house(ada, [bob])
    assert await tombstones(ada) == []


async def test_a_digest_names_what_had_come_when_it_was_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await sharing_a_file(lab, "ada bob")
    (exchange,) = bob.exchanges.values()
    known = exchange.received
    meanwhile(bob.index, monkeypatch, lambda: more_from(lab, ada, bob))
    told: list[AnyMessage] = []
    monkeypatch.setattr(exchange.session, "post", told.append)

    await housekeeping(bob)._tell_digest()

    assert exchange.received > known
    assert [each.received for each in told if isinstance(each, FolderDigest)] == [known]


async def test_a_digest_is_made_for_peers_alone_and_once_for_what_is_held(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ada, bob = await sharing_a_file(lab, "ada bob")
    (exchange,) = bob.exchanges.values()
    told: list[AnyMessage] = []
    monkeypatch.setattr(exchange.session, "post", told.append)
    made: list[int] = []

    async def count() -> None:
        made.append(bob.index.sequence)

    meanwhile(bob.index, monkeypatch, count)
    connected = [exchange]
    keeping = Housekeeping(
        FOLDER,
        bob.index,
        bob.disk,
        bob.turn,
        is_at_rest=lambda: True,
        exchanges=lambda: connected,
    )

    connected.clear()
    await keeping._tell_digest()
    assert (len(made), len(told)) == (0, 0)
    connected.append(exchange)
    for _ in range(3):
        await keeping._tell_digest()
    assert (len(made), len(told)) == (1, 1)
    bob.disk.make_directory("new")
    await bob.scan()
    await keeping._tell_digest()
    assert (len(made), len(told)) == (2, 2)


def meanwhile(
    index: FolderIndex, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[None]]
) -> None:
    """While the index makes its digest."""
    digest = index.digest

    async def slow_digest() -> bytes:
        await act()
        return await digest()

    monkeypatch.setattr(index, "digest", slow_digest)


async def more_from(lab: Lab, ada: Device, bob: Device) -> None:
    """Bob has heard of it, and does not hold it yet."""
    ada.disk.write("new", "n")
    await ada.scan()
    (exchange,) = bob.exchanges.values()
    async with asyncio.timeout(5):
        while exchange.received < ada.index.sequence:
            await lab.changed.wait()
            lab.changed.clear()


def housekeeping(device: Device) -> Housekeeping:
    return Housekeeping(
        FOLDER,
        device.index,
        device.disk,
        device.turn,
        is_at_rest=lambda: True,
        exchanges=lambda: list(device.exchanges.values()),
    )


def counting_digests(index: FolderIndex, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences at which it reads itself through."""
    digest, read = index.digest, []

    async def counted() -> bytes:
        read.append(index.sequence)
        return await digest()

    monkeypatch.setattr(index, "digest", counted)
    return read


async def test_the_index_is_read_once_for_a_digest_however_many_peers_tell_theirs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = ada, _bob, _cyd = await sharing_a_file(lab, ADA_BOB_CYD)
    right = await ada.index.digest()
    read = counting_digests(ada.index, monkeypatch)
    keeping = housekeeping(ada)
    for _ in range(2):
        await keeping._tell_digest()
        for exchange in ada.exchanges.values():
            told = FolderDigest(FOLDER, exchange.received, ada.index.sequence, right)
            await keeping.compare(exchange, told)
    assert read == [ada.index.sequence]

    ada.disk.write("doc", "second")
    await lab.converge(devices)
    read.clear()
    exchanges = list(ada.exchanges.values())
    both = [FolderDigest(FOLDER, each.received, ada.index.sequence, right) for each in exchanges]
    await asyncio.gather(*map(keeping.compare, exchanges, both))
    assert read == [ada.index.sequence]


async def test_a_digest_of_another_time_is_not_compared(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, _bob = await sharing_a_file(lab, "ada bob")
    read = counting_digests(ada.index, monkeypatch)
    (exchange,) = ada.exchanges.values()
    keeping = housekeeping(ada)
    known = exchange.received, ada.index.sequence
    for sequence, received in ((known[0] - 1, known[1]), (known[0], known[1] - 1)):
        early = FolderDigest(FOLDER, sequence, received, bytes(32))
        await keeping.compare(exchange, early)
    assert read == []
    assert not exchange.session.closed.is_set()


async def test_what_comes_while_others_wait_for_a_digest_is_no_drift(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob, cyd = await sharing_a_file(lab, ADA_BOB_CYD)
    right = await ada.index.digest()
    exchanges = list(ada.exchanges.values())
    told = [FolderDigest(FOLDER, each.received, ada.index.sequence, right) for each in exchanges]

    async def edit_once() -> None:
        if ada.disk.read_text("doc") == "first":
            ada.disk.write("doc", "second")
            await ada.scan()

    meanwhile(ada.index, monkeypatch, edit_once)
    await asyncio.gather(*map(housekeeping(ada).compare, exchanges, told))
    assert all([(await ada.index.cursor(each.id)).sequence for each in (bob, cyd)])


async def test_equal_sequences_and_another_digest_end_the_session(lab: Lab) -> None:
    ada, bob = await sharing_a_file(lab, "ada bob")
    (exchange,) = ada.exchanges.values()
    keeping = housekeeping(ada)
    await keeping._tell_digest()
    told = FolderDigest(FOLDER, exchange.received, ada.index.sequence, bytes(32))
    await keeping.compare(exchange, told)
    async with asyncio.timeout(5):
        await exchange.session.closed.wait()
    assert await ada.index.cursor(bob.id) == Cursor(0, 0)
