"""Conflict copies of what the path still shows: when they go, and when they must not."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from p2psync.core.entry import Entry
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.engine.exchange import Exchange
from p2psync.engine.twins import Twins
from p2psync.ports import Row
from tests.support.devices import Device, Lab

IT = RelPath("it.txt")
DEVICES = "ada bob"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    await lab.close()


class _Others:
    def __init__(self, device: Device, others: Iterable[Device]) -> None:
        self._device = device
        self._others = list(others)

    def exchanges(self) -> list[Exchange]:
        return list(self._device.exchanges.values())

    def sharers(self) -> list[DeviceID]:
        return [other.id for other in self._others]


def _twins(device: Device, *others: Device) -> Twins:
    return Twins(
        device.index,
        device.disk,
        device.turn,
        _Others(device, others),
        look_at=device.local.mark,
    )


async def _original(device: Device) -> Entry:
    return (await device.index.held([IT]))[IT].entry


async def _with_a_copy_beside_it(device: Device) -> RelPath:
    """What a conflict leaves whose other side went while it was settled; the copy's path."""
    device.disk.write(IT, "mine")
    await device.scan()
    path, entry = conflict_copy(IT, await _original(device))
    device.disk.write(path, "mine", mtime_ns=entry.mtime_ns)
    fingerprint = device.disk.look([path])[path].fingerprint._replace(racy=False)
    await device.index.record([Row(path, entry, fingerprint)])
    device.announce()
    return path


async def test_a_copy_goes_once_all_hold_what_the_path_shows(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    twins = _twins(ada, bob)
    assert await twins.are_due()
    await twins.remove()
    assert await lab.converge([ada, bob]) == {IT: b"mine"}
    assert not await twins.are_due()


async def test_it_stays_while_somebody_is_away(lab: Lab) -> None:
    ada, bob, cyd = await lab.devices("ada bob cyd")
    lab.connect(ada, bob)
    path = await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    twins = _twins(ada, bob, cyd)
    assert not await twins.are_due()
    await twins.remove()
    assert path in ada.disk.tree()


async def test_it_stays_until_all_have_applied_what_is_held_here(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    path = await _with_a_copy_beside_it(ada)
    await lab.settle()
    twins = _twins(ada, bob)
    assert await twins.are_due()
    await twins.remove()
    assert path in ada.disk.tree()


async def test_it_stays_while_something_is_wanted_here(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    path = await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    bob.disk.write("other", "theirs")
    await bob.scan()
    await lab.settle()
    assert (await ada.index.counts()).need_files
    await _twins(ada, bob).remove()
    assert path in ada.disk.tree()


async def test_only_the_device_that_wrote_the_content_takes_it_away(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    assert not await _twins(bob, ada).are_due()


@pytest.mark.parametrize("which", ["replaced", "deleted", "copy touched", "copy edited"])
async def test_a_copy_of_something_else_stays(lab: Lab, which: str) -> None:
    ada, bob = await lab.devices(DEVICES)
    path = await _with_a_copy_beside_it(ada)
    if which == "replaced":
        for content in ("other", "mine"):
            ada.disk.write(IT, content)
            await ada.scan()
    elif which == "deleted":
        ada.disk.remove(IT)
        await ada.scan()
    elif which == "copy touched":
        ada.disk.make_executable(path)
        await ada.scan()
    else:
        ada.disk.write(path, "other")
        await ada.scan()
    lab.connect(ada, bob)
    await lab.converge([ada, bob])
    assert not await _twins(ada, bob).are_due()
    assert path in ada.disk.tree()


async def test_an_edit_of_the_copy_that_nobody_has_seen_yet_stays(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    path = await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    ada.disk.write(path, "edited")
    twins = _twins(ada, bob)
    await twins.remove()
    assert ada.disk.tree()[path] == b"edited"
    assert not await twins.are_due(), "it would be tried again and again"
    assert await lab.converge([ada, bob]) == {IT: b"mine", path: b"edited"}


async def test_what_may_have_been_edited_just_now_is_read_again_first(lab: Lab) -> None:
    ada, bob = await lab.devices(DEVICES)
    lab.connect(ada, bob)
    path = await _with_a_copy_beside_it(ada)
    await lab.converge([ada, bob])
    held = (await ada.index.held([path]))[path]
    assert held.fingerprint is not None
    await ada.index.refresh([(path, held.fingerprint._replace(racy=True))])
    twins = _twins(ada, bob)
    await twins.remove()
    assert path in ada.disk.tree()
    assert ada.local.pending
