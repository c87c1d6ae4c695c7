import pytest

from p2psync.core.entry import Entry
from p2psync.core.relpath import RelPath
from tests.support.devices import Device, Lab, conflicts


async def entry(device: Device, path: str) -> Entry:
    return (await device.index.held([RelPath(path)]))[RelPath(path)].entry


@pytest.mark.parametrize("act", ["delete", "edit", "move"])
async def test_a_conflict_copy_that_was_taken_away_is_kept_no_more_on_any_device(
    lab: Lab, act: str
) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for device in devices:
        device.disk.write("it", f"by {device.name}")
        await device.scan()
    lab.connect(ada, bob)
    lab.connect(bob, cyd)
    copy, other = conflicts(await lab.converge(devices))
    gone, stays = (await entry(ada, copy)).version.origin, (await entry(ada, other)).version.origin
    assert set((await entry(ada, "it")).version.kept) == {gone, stays}

    if act == "delete":
        ada.disk.remove(copy)
    elif act == "edit":
        ada.disk.write(copy, "edited")
    else:
        ada.disk.rename(copy, "moved")
    await lab.converge(devices)

    assert [(await entry(device, "it")).version.kept for device in devices] == [(stays,)] * 3


async def test_a_conflict_copy_that_was_touched_is_kept(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    for device in devices:
        device.disk.write("it", f"by {device.name}")
        await device.scan()
    lab.connect(ada, bob)
    (copy,) = conflicts(await lab.converge(devices))
    ada.disk.make_executable(copy)
    await lab.converge(devices)
    kept = [(await entry(device, "it")).version.kept for device in devices]
    assert kept == [((await entry(ada, copy)).version.origin,)] * 2


async def test_what_two_of_one_scan_did_to_two_copies_of_one_original_is_told_together(
    lab: Lab,
) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for device in devices:
        device.disk.write("it", f"by {device.name}")
        await device.scan()
    lab.connect(ada, bob)
    lab.connect(bob, cyd)
    for copy in conflicts(await lab.converge(devices)):
        ada.disk.remove(copy)
    before = (await entry(ada, "it")).version
    await lab.converge(devices)
    after = [(await entry(device, "it")).version for device in devices]
    assert [each.kept for each in after] == [()] * 3
    assert [each.vector for each in after] == [before.vector] * 3
