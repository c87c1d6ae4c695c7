"""A power cut at any time: nothing half written is ever visible, and it goes on afterwards."""

import os
from functools import partial

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, start_all
from tests.e2e.processes import eventually
from tests.e2e.trees import snapshot, write_many_files

FILES = 2000


@pytest.mark.limit(90)
def test_both_daemons_killed_in_the_middle_of_a_sync_converge_after_a_restart(lab: Lab) -> None:
    devices = lab.group("ada", "bob", folder=None)
    ada, bob = devices
    write_many_files(ada.root / "of ada", FILES, size=6000, seed=14)
    write_many_files(bob.root / "of bob", FILES // 4, size=6000, seed=15)
    complete = {**snapshot(ada.root), **snapshot(bob.root)}
    for device in devices:
        device.add_folder()

    for goal in (FILES // 5, FILES // 2, FILES * 4 // 5):
        eventually(
            partial(_has_files, bob, goal), within=30, what=f"{goal} have arrived", every=0.005
        )
        for device in devices:
            device.kill()
        for path, node in snapshot(bob.root).items():
            assert complete[path] == node, f"{path!r} is not what was written"
        start_all(devices)

    tree = converge(devices, within=60)
    assert tree == complete
    assert ada.conflicts() == []


def _has_files(device: Device, count: int) -> bool:
    return sum(len(names) for _, _, names in os.walk(device.root / "of ada")) >= count


def test_edits_made_while_the_daemons_were_dead_are_found(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    for number in range(40):
        ada.write(f"{number}", f"base {number}")
    converge(devices)

    for device in devices:
        device.kill()
    ada.write("1", "edited by ada")
    (ada.root / "2").unlink()
    (bob.root / "3").rename(bob.root / "three")
    bob.write("4", "edited by bob")
    (bob.root / "5").chmod(0o755)
    start_all(devices)

    tree = converge(devices)
    assert ada.read("4") == b"edited by bob"
    assert bob.read("1") == b"edited by ada"
    assert b"2" not in tree
    assert b"3" not in tree
    assert tree[b"5"].executable
    assert len(tree) == 39
