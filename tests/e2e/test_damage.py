"""Files that the disk damaged are never published, and are mended by whoever holds them.

No program can change a file and leave its ctime, so these tests do it the other way round: while
the daemon is stopped a byte is changed, and the index is told that this is the file it has read.
"""

import sqlite3
from pathlib import Path
from typing import Any

from p2psync.files.fingerprint import fingerprint_of
from p2psync.storage.packing import pack
from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge
from tests.e2e.processes import eventually
from tests.e2e.trees import incompressible

Json = dict[str, Any]

LATER_NS = 1 << 62
"""A time after which nothing is recent."""


def rot(device: Device, path: str, *, at: int) -> None:
    """Change a byte of a file as a bad disk would; the daemon does not run."""
    file = device.root / path
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))
    mark = fingerprint_of(file.stat(), now_ns=LATER_NS)
    (index,) = (device.home / "indexes").glob("*.db")
    connection = sqlite3.connect(index)
    with connection:
        changed = connection.execute(
            "UPDATE held SET fingerprint = ? WHERE path = ?", (pack(mark), path)
        )
        assert changed.rowcount == 1
    connection.close()


def set_aside(device: Device) -> list[Path]:
    return [each for each in (device.root / ".p2psync/damaged").rglob("*") if each.is_file()]


def test_damaged_files_are_found_and_mended_and_never_published(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    big = incompressible(8 * 1024 * 1024, seed=3)
    ada.write("big", big)
    ada.write("plan", "as it was written")
    ada.write("well", "as it is")
    converge(devices)
    ada.stop()
    rot(ada, "plan", at=3)
    rot(ada, "big", at=5_000_000)
    ada.start()
    converge_but_for_damage(devices)
    before = ada.traffic()

    told = ada.ok("verify", "--json").json()["folders"][0]

    assert (told["files"], told["damaged"], told["running"]) == (3, 2, False)
    assert {each["path"]: each["state"] for each in told["findings"]} == {
        "big": "mended",
        "plan": "mended",
    }
    converge(devices)
    assert (ada.read("plan"), ada.read("big")) == (b"as it was written", big)
    assert (bob.read("plan"), bob.read("big")) == (b"as it was written", big)
    assert sorted(each.name for each in set_aside(ada)) == ["big", "plan"]
    assert ada.traffic() - before < len(big) // 2
    again = ada.ok("verify", "--rate", "1000").out
    assert "3 files" in again and "0 damaged" in again


def test_without_a_device_that_holds_it_it_waits_for_one(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    ada.write("plan", "as it was written")
    converge(devices)
    bob.stop()
    ada.stop()
    rot(ada, "plan", at=3)
    ada.start()
    damaged = ada.read("plan")

    begun = ada.ok("verify", "--no-wait", "--json").json()
    assert [row["name"] for row in begun["folders"]] == ["shared"]
    (problem,) = eventually(ada.problems, within=15, what="ada tells of it")
    assert problem["path"] == "plan" and problem["next_step"]
    assert ada.read("plan") == damaged
    assert set_aside(ada) == []
    assert ada.wait(0).code != 0
    ada.restart()
    eventually(ada.problems, within=15, what="ada tells of it after a restart too")

    bob.start()
    converge(devices)
    assert ada.read("plan") == bob.read("plan") == b"as it was written"
    assert [each.read_bytes() for each in set_aside(ada)] == [damaged]
    assert ada.cli("verify").code == 0
    assert bob.cli("verify").code == 0


def test_reading_everything_goes_on_after_a_restart_where_it_was(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, _ = devices
    for name in ("one", "two", "six"):
        ada.write(name, name)
    converge(devices)
    ada.ok("verify", "--no-wait", "--rate", "0.000001")
    begun = eventually(lambda: begun_by(ada, running=True), within=15, what="ada reads")

    ada.restart()

    after = eventually(lambda: begun_by(ada, running=False), within=15, what="ada reads on")
    assert after == begun
    told = ada.folder()["verify"]
    assert (told["files"], told["damaged"]) == (3, 0)


def begun_by(device: Device, *, running: bool) -> str | None:
    """When the reading began that is under way, or done."""
    verify: Json = device.folder()["verify"]
    return verify["begun"] if verify["running"] == running else None


def converge_but_for_damage(devices: list[Device]) -> None:
    for device in devices:
        assert device.wait(20).code == 0
