"""Whole devices, disk and network in memory: whatever they do, they end alike."""

import asyncio
import random
import shutil
from pathlib import Path

from tests.support.devices import Device, Lab, conflicts


async def test_edits_deletions_and_renames_arrive(lab: Lab) -> None:
    ada, bob = await lab.devices("ada bob")
    lab.connect(ada, bob)
    ada.disk.write("notes/one", "1")
    ada.disk.write("notes/two", "2")
    ada.disk.link("latest", "notes/two")
    ada.disk.make_directory("empty/below")
    bob.disk.write("bobs", "b")
    tree = await lab.converge([ada, bob])
    assert tree == {
        "bobs": b"b",
        "empty": None,
        "empty/below": None,
        "latest": "notes/two",
        "notes": None,
        "notes/one": b"1",
        "notes/two": b"2",
    }

    bob.disk.write("notes/one", "1 changed")
    bob.disk.make_executable("notes/two")
    ada.disk.remove("empty")
    ada.disk.rename("bobs", "adas")
    tree = await lab.converge([ada, bob])
    assert tree == {
        "adas": b"b",
        "latest": "notes/two",
        "notes": None,
        "notes/one": b"1 changed",
        "notes/two": b"2",
    }
    assert ada.disk.is_executable("notes/two")


async def test_concurrent_edits_make_one_conflict_copy_everywhere(lab: Lab) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for one, other in ((ada, bob), (bob, cyd), (ada, cyd)):
        lab.connect(one, other)
    ada.disk.write("doc.txt", "base")
    await lab.converge(devices)

    for device in devices:
        device.disk.write("doc.txt", f"by {device.name}")
        await device.scan()
    tree = await lab.converge(devices)

    assert len(conflicts(tree)) == 2
    assert set(tree.values()) == {b"by ada", b"by bob", b"by cyd"}


async def test_changes_pass_through_a_device_in_between(lab: Lab) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    lab.connect(ada, bob)
    lab.connect(bob, cyd)
    ada.disk.write("large", random.Random(1).randbytes(700_000))
    ada.disk.write("small", "1")
    await lab.converge(devices)
    cyd.disk.remove("small")
    cyd.disk.rename("large", "moved")
    assert set(await lab.converge(devices)) == {"moved"}
    assert cyd.requests == 0


async def test_a_transfer_goes_on_after_the_link_was_cut(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    data = random.Random(2).randbytes(8_000_000)
    ada.disk.write("large", data)
    await ada.scan()
    connection = lab.connect(ada, bob)
    pulling = asyncio.create_task(_pull_until_asked(lab, bob, ada))
    async with asyncio.timeout(5):
        while not ada.requests:
            await lab.changed.wait()
            lab.changed.clear()
    await connection.cut()
    await pulling
    assert bob.disk.tree() == {}
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"large": data}


async def _pull_until_asked(lab: Lab, device: Device, peer: Device) -> None:
    while not peer.requests:
        await device.puller.run_until_idle()
        await asyncio.sleep(0)


async def test_at_rest_nothing_is_recorded_or_sent(lab: Lab) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for one, other in ((ada, bob), (bob, cyd), (ada, cyd)):
        lab.connect(one, other)
    for device in devices:
        device.disk.write("same", "same")
        device.disk.write("doc", f"by {device.name}")
        device.disk.make_directory(f"d/{device.name}")
    await lab.converge(devices)
    await lab.converge(devices)
    before = [(device.index.sequence, device.index.counter) for device in devices]
    sent = [session.link.bytes_sent for device in devices for session in device.exchanges]
    await lab.converge(devices)
    assert [(device.index.sequence, device.index.counter) for device in devices] == before
    assert [session.link.bytes_sent for device in devices for session in device.exchanges] == sent


async def test_equal_folders_meet_without_a_transfer_or_a_conflict(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    for device in devices:
        for number in range(20):
            device.disk.write(f"d/{number}", f"content {number}")
        device.disk.write("large", bytes(400_000))
    lab.connect(ada, bob)
    assert not conflicts(await lab.converge(devices))
    assert ada.requests == bob.requests == 0


async def test_what_a_restored_index_forgot_is_learned_again(lab: Lab, tmp_path: Path) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("doc", "first")
    lab.connect(ada, bob)
    await lab.converge(devices)
    await lab.stop(ada)
    shutil.copy(lab.index_file(ada), tmp_path / "backup")
    ada = await lab.device("ada", disk=ada.disk)
    lab.connect(ada, bob)
    ada.disk.write("doc", "second")
    ada.disk.write("new", "n")
    await lab.converge([ada, bob])
    await lab.stop(ada)

    shutil.copy(tmp_path / "backup", lab.index_file(ada))
    ada = await lab.device("ada", disk=ada.disk)
    ada.disk.write("later", "l")
    await ada.scan()
    bob.disk.write("doc", "third")
    await bob.scan()
    lab.connect(ada, bob)
    tree = await lab.converge([ada, bob])
    assert {tree["later"], tree["new"], tree["doc"]} == {b"l", b"n", b"third"}
    # The second one was found anew, as an edit of the first: whether the third replaced it is
    # not known any more.
    assert [tree[path] for path in conflicts(tree)] in ([], [b"second"])


async def test_what_a_restored_index_still_wants_may_be_gone_everywhere(
    lab: Lab, tmp_path: Path
) -> None:
    ada, bob = await lab.devices("ada bob")
    bob.disk.write("it", "1")
    bob.disk.write("other", "2")
    await bob.scan()
    lab.connect(ada, bob)
    async with asyncio.timeout(2):
        while (await ada.index.counts()).need_files < 2:
            lab.changed.clear()
            await lab.changed.wait()
    await lab.stop(ada)
    shutil.copy(lab.index_file(ada), tmp_path / "backup")
    ada = await lab.device("ada", disk=ada.disk)
    lab.connect(ada, bob)
    await lab.converge([ada, bob])
    bob.disk.remove("it")
    await lab.converge([ada, bob])
    assert await bob.index.drop_tombstones([ada.id]) == 1
    await lab.stop(ada)

    shutil.copy(tmp_path / "backup", lab.index_file(ada))
    ada = await lab.device("ada", disk=ada.disk)
    lab.connect(ada, bob)
    assert set(await lab.converge([ada, bob])) == {"other"}
