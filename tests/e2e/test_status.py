"""What people are told is true: idle means that nothing is pending, done that peers have it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.device import FOLDER, Device
from tests.e2e.harness import Lab, converge
from tests.e2e.processes import eventually
from tests.e2e.trees import write_incompressible, write_many_files
from tests.support.beside import Beside

FILES = 1500


class Sampler(Beside):
    """Looks at a device's status as often as it can, and at how much of the tree is on its disk."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self.samples: list[tuple[int, dict[str, Any]]] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            (row,) = self._device.glance()["folders"]
            # Counted after the answer: what the answer calls done is on the disk by then.
            self.samples.append((_files_in(self._device.root), row))


def _files_in(root: Path) -> int:
    found = 0
    for _, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name != ".p2psync"]
        found += len(names)
    return found


def test_status_is_never_idle_while_files_that_were_announced_are_missing(lab: Lab) -> None:
    ada, bob = devices = lab.group("ada", "bob", folder=None)
    write_many_files(ada.root, FILES, size=2000, seed=12)
    write_incompressible(ada.root / "large.bin", 150_000_000, seed=13)
    ada.add_folder()
    eventually(lambda: ada.folder()["state"] == "idle", within=30, what="ada has scanned")
    bob.add_folder()
    # From here on bob has heard of what it lacks.
    eventually(
        lambda: (row := bob.glance()["folders"][0])["state"] != "idle" or row["files"] > FILES,
        within=20,
        what="bob knows that something is to come",
        every=0.005,
    )
    with Sampler(bob) as sampler:
        converge(devices)

    assert len(sampler.samples) > 5
    lies = [row for present, row in sampler.samples if row["state"] == "idle" and present <= FILES]
    assert not lies, lies[0]
    early = [present for present, _ in sampler.samples if present <= FILES]
    assert early, "the sync was over before the first sample"
    assert any(row["need_files"] > 0 for _, row in sampler.samples)


def test_status_says_what_a_peer_still_needs(lab: Lab) -> None:
    ada, bob = lab.group("ada", "bob")
    converge([ada, bob])
    bob.stop()
    ada.write("one", "1")
    ada.write("two", "22")

    def needs() -> tuple[int, int]:
        row = ada.peer(bob)
        assert row is not None
        (folder,) = row["folders"]
        return folder["need_files"], folder["need_bytes"]

    eventually(lambda: needs() == (2, 3), within=15, what="two files of three bytes are pending")
    bob.start()
    eventually(lambda: needs() == (0, 0), within=15, what="nothing is pending any more")


def test_wait_ends_with_success_only_when_the_peers_hold_what_was_written(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd")
    ada, bob, cyd = devices
    converge(devices)

    for number in range(8):
        ada.write(f"{number}.txt", f"round {number}")
        ada.ok("folder", "rescan", FOLDER)
        assert ada.wait(30).code == 0
        for device in (bob, cyd):
            assert device.read(f"{number}.txt") == f"round {number}".encode(), device.name


def test_wait_fails_in_time_and_says_for_whom_it_waited(lab: Lab) -> None:
    ada, bob = lab.group("ada", "bob")
    converge([ada, bob])
    bob.stop()
    ada.write("file", "for bob")
    ada.ok("folder", "rescan", FOLDER)

    result = ada.wait(2)

    assert result.code == 6, str(result)
    assert "bob" in result.said
    assert "Traceback" not in result.said
    bob.start()
    assert ada.wait(30).code == 0
    assert bob.read("file") == b"for bob"


def test_a_file_that_cannot_be_written_keeps_the_status_from_idle_and_others_arrive(
    lab: Lab,
) -> None:
    ada, bob = lab.group("ada", "bob")
    converge([ada, bob])
    ada.write("blocked/file", "lands in time")
    eventually(lambda: bob.read("blocked/file") is not None, within=15, what="the directory")
    _freeze(lab, bob.root / "blocked")

    ada.write("blocked/second", "cannot land")
    ada.write("free", "can land")

    eventually(lambda: bob.read("free") == b"can land", within=15, what="the other file arrives")
    row = eventually(
        lambda: (row := bob.folder())["problems"] and row, within=15, what="bob reports it"
    )
    assert row["state"] != "idle"
    assert "blocked" in str(row["problems"])
    assert bob.wait(1).code != 0
    assert ada.wait(1).code != 0
    _thaw(bob.root / "blocked")
    bob.ok("folder", "rescan", FOLDER)
    eventually(
        lambda: bob.read("blocked/second") is not None, within=30, what="it lands when it can"
    )
    converge([ada, bob])


def _freeze(lab: Lab, directory: Path) -> None:
    """Let no one, root included, add to the directory."""
    done = subprocess.run(["chattr", "+i", directory], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system, or not being root, allows no immutable directory")
    lab.finally_(lambda: _thaw(directory))


def _thaw(directory: Path) -> None:
    subprocess.run(["chattr", "-i", directory], capture_output=True, check=False)
