"""Deletions that look like an accident stop and ask; nobody deletes anything meanwhile."""

import shutil
from functools import partial

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, everywhere
from tests.e2e.processes import eventually
from tests.e2e.trees import snapshot, write_many_files

FILES = 300


def _halted(device: Device) -> str:
    """Why the folder is halted, or nothing."""
    row = device.folder()
    return str(row["problems"]) if row["state"] == "halted" else ""


def _shared_files(lab: Lab) -> list[Device]:
    devices = lab.group("ada", "bob", "cyd", folder=None)
    write_many_files(devices[0].root, FILES, size=100, seed=11)
    for device in devices:
        device.add_folder()
    converge(devices)
    return devices


def test_a_root_replaced_by_an_empty_directory_halts_and_nobody_deletes_anything(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, cyd = devices
    before = snapshot(bob.root)

    disk = ada.root.with_name("the real disk")
    ada.root.rename(disk)
    ada.root.mkdir()

    why = eventually(lambda: _halted(ada), within=20, what="ada halts the folder")
    assert str(ada.root) in why or "empty" in why or "marker" in why, why
    assert ada.folder()["problems"][0]["next_step"]
    assert "halted" in ada.ok("status").out
    ada.restart()
    eventually(lambda: _halted(ada), within=20, what="it is still halted after a restart")
    bob.write("meanwhile", "written elsewhere")
    everywhere([cyd], "meanwhile", b"written elsewhere")
    (bob.root / "meanwhile").unlink()
    eventually(lambda: cyd.read("meanwhile") is None, within=15, what="deleted on cyd as well")
    assert snapshot(bob.root) == snapshot(cyd.root) == before
    assert list(ada.root.iterdir()) == [], "something was written into the mount point"

    ada.root.rmdir()
    disk.rename(ada.root)
    ada.restart()
    assert snapshot(ada.root) == before
    converge(devices)


def test_a_root_that_is_gone_halts_and_nobody_deletes_anything(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, _ = devices
    before = snapshot(bob.root)

    ada.stop()
    shutil.rmtree(ada.root)
    ada.start()

    eventually(lambda: _halted(ada), within=20, what="ada halts the folder")
    assert ada.wait(2).code != 0
    bob.ok("folder", "rescan", "shared")
    assert snapshot(bob.root) == before
    assert not ada.root.exists()


def test_a_root_emptied_but_for_our_marker_halts_too(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, cyd = devices
    before = snapshot(bob.root)

    ada.stop()
    for path in ada.root.iterdir():
        if path.name != ".p2psync":
            shutil.rmtree(path)
    ada.start()

    eventually(lambda: _halted(ada), within=20, what="ada asks before it tells others")
    assert snapshot(bob.root) == snapshot(cyd.root) == before


def test_a_mass_deletion_waits_until_it_is_approved_on_each_device(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, cyd = devices
    before = snapshot(bob.root)

    # Paused meanwhile, so that one scan finds them all however slow this machine is.
    ada.ok("folder", "pause", "shared")
    shutil.rmtree(ada.root / "000")
    for number in range(100, 150):
        (ada.root / "001" / f"file-{number:05d}.bin").unlink()
    ada.ok("folder", "resume", "shared")

    said = eventually(lambda: ada.problems(), within=20, what="ada says that it waits")
    assert "approve" in str(said), said
    assert ada.folder()["state"] != "idle"
    assert ada.wait(1).code != 0
    ada.write("002/new", "an edit goes through while the deletion waits")
    eventually(lambda: bob.read("002/new") is not None, within=15, what="the edit goes through")
    assert before.keys() <= snapshot(bob.root).keys()

    ada.ok("approve", "shared")
    for other in (bob, cyd):
        why = eventually(partial(_halted, other), within=20, what="the others ask as well")
        assert "approve" in why, why
    assert before.keys() <= snapshot(bob.root).keys()
    for other in (bob, cyd):
        other.ok("approve", "shared")

    tree = converge(devices)
    assert len([node for node in tree.values() if node.kind == "file"]) == FILES - 150 + 1
    assert b"000" not in tree
    assert ada.problems() == []


def test_a_deletion_below_the_brake_does_not_wait(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, _ = devices

    for number in range(99):
        (ada.root / "000" / f"file-{number:05d}.bin").unlink()

    converge(devices)
    assert len(list((bob.root / "000").iterdir())) == 1


def test_moving_most_of_the_tree_is_no_deletion(lab: Lab) -> None:
    devices = _shared_files(lab)
    ada, bob, _ = devices

    for shelf in ("000", "001"):
        (ada.root / shelf).rename(ada.root / f"moved {shelf}")

    eventually(lambda: (bob.root / "moved 001").is_dir(), within=15, what="moved on bob")
    tree = converge(devices)
    assert b"000" not in tree
    assert b"moved 000/file-00000.bin" in tree
