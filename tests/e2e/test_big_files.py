"""How many bytes travel: nothing that arrived is fetched twice, nothing known here is fetched."""

import os
from pathlib import Path

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge
from tests.e2e.processes import eventually
from tests.e2e.trees import incompressible, write_incompressible, write_many_files

GIB = 1 << 30
MB = 1_000_000


def _received(device: Device) -> int:
    return int(device.glance()["traffic"]["received"])


@pytest.mark.limit(150)
def test_a_gigabyte_survives_a_killed_receiver_and_an_insertion_at_its_front(lab: Lab) -> None:
    devices = lab.group("ada", "bob", folder=None)
    ada, bob = devices
    ada.root.mkdir(parents=True)
    write_incompressible(ada.root / "big.bin", GIB, seed=6)
    ada.add_folder()
    eventually(
        lambda: ada.folder()["state"] == "idle" and ada.folder()["bytes"] == GIB,
        within=30,
        what="ada knows the file",
    )

    bob.add_folder()
    arrived = eventually(
        lambda: (got := _received(bob)) >= GIB // 2 and got,
        within=60,
        what="half of it has arrived",
        every=0.005,
    )
    bob.kill()
    assert arrived < GIB * 9 // 10, "killed too late to tell anything"
    assert bob.read("big.bin") is None, "half a file is visible"

    bob.start()
    converge(devices, within=60)
    fetched = _received(bob)
    assert fetched < GIB * 55 // 100, f"{fetched} bytes after the restart"
    # What was under way when it was killed may be fetched again, and no more than that.
    assert fetched < GIB - arrived + 48 * MB, f"{fetched} bytes, {arrived} had arrived"

    before = bob.traffic()
    _insert_at_front(ada.root / "big.bin", incompressible(960, seed=60))
    eventually(
        lambda: (bob.root / "big.bin").stat().st_size == GIB + 960,
        within=60,
        what="the longer file is on bob",
    )
    converge(devices, within=60)
    assert bob.traffic() - before < 3 * MB


def _insert_at_front(path: Path, content: bytes) -> None:
    """As an editor does: a new file beside it, renamed over it."""
    # Beside the root, so that the new file is never seen half written.
    draft = path.parent.with_name("draft")
    with path.open("rb") as source, draft.open("wb") as target:
        target.write(content)
        target.flush()
        left = path.stat().st_size
        while left > 0:
            left -= os.sendfile(target.fileno(), source.fileno(), None, left)
    draft.rename(path)


@pytest.mark.limit(120)
def test_ten_thousand_renamed_files_move_no_content(lab: Lab) -> None:
    devices = lab.group("ada", "bob", folder=None)
    ada, bob = devices
    write_many_files(ada.root / "old", 10_000, size=4096, seed=7)
    for device in devices:
        device.add_folder()
    converge(devices, within=60)
    before = bob.traffic()

    for number, path in enumerate(sorted((ada.root / "old").rglob("*.bin"))):
        target = ada.root / "new" / f"{number % 37:02d}"
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / f"renamed {number}.bin")
    tree = converge(devices, within=60)

    assert len([path for path in tree if path.startswith(b"new/") and b"renamed" in path]) == 10_000
    assert not [path for path in tree if path.startswith(b"old/") and path.endswith(b".bin")]
    assert bob.traffic() - before < 5 * MB


def test_a_copy_of_a_file_that_is_here_already_is_made_here(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    content = incompressible(20 * MB, seed=8)
    ada.write("one.bin", content)
    converge(devices)
    before = bob.traffic()

    ada.write("two.bin", content)
    ada.write("three.bin", content[:7_000_000] + b"a change in the middle" + content[7_000_000:])
    converge(devices)

    assert bob.traffic() - before < 3 * MB
