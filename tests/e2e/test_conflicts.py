"""Everyone may change anything at any time, offline too: nothing is lost, nobody has to agree."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, everywhere, start_all, stop_all
from tests.e2e.processes import eventually
from tests.e2e.trees import Tree, files_holding


def _offline(devices: list[Device], *changes: Callable[[Device], object]) -> None:
    """Each device makes its own change while none of them runs; then all start again."""
    stop_all(devices)
    for device, change in zip(devices, changes, strict=True):
        change(device)
    start_all(devices)


def _copies(tree: Tree) -> list[bytes]:
    return [path for path in tree if b"(conflict " in path]


def test_edits_of_one_file_on_three_devices_make_two_copies_and_one_decision_ends_it(
    lab: Lab,
) -> None:
    devices = lab.group("ada", "bob", "cyd")
    ada, bob, _ = devices
    ada.write("plan.txt", "the first plan")
    converge(devices)

    _offline(devices, *(lambda d: d.write("plan.txt", f"the plan of {d.name}") for _ in devices))
    tree = converge(devices)

    copies = _copies(tree)
    assert len(copies) == 2, sorted(tree)
    assert all(path.endswith(b".txt") for path in copies)
    contents = {ada.read(os.fsdecode(path)) for path in [b"plan.txt", *copies]}
    assert contents == {b"the plan of ada", b"the plan of bob", b"the plan of cyd"}
    for device in devices:
        listed = {row["path"] for row in device.conflicts()}
        assert listed == {os.fsdecode(path) for path in copies}
        assert device.folder()["conflicts"] == 2

    chosen = os.fsdecode(copies[1])
    wanted = bob.read(chosen)
    assert wanted is not None
    bob.ok("conflicts", "keep", bob.root / chosen)

    everywhere(devices, "plan.txt", wanted)
    tree = converge(devices)
    assert list(tree) == [b"plan.txt"]
    for device in devices:
        assert device.conflicts() == []


def test_keeping_the_original_removes_the_copies_everywhere(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    ada.write("notes", "base")
    converge(devices)
    _offline(devices, *(lambda d: d.write("notes", f"by {d.name}") for _ in devices))
    converge(devices)
    winner = ada.read("notes")

    ada.ok("conflicts", "keep", "shared/notes")

    eventually(lambda: bob.conflicts() == [], within=15, what="resolved on bob as well")
    assert list(converge(devices)) == [b"notes"]
    assert bob.read("notes") == winner


def test_edits_one_after_another_on_different_devices_are_no_conflict(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd")
    for number, author in enumerate([*devices, *devices]):
        content = f"edit {number} by {author.name}".encode()
        author.write("diary.txt", content)
        everywhere(devices, "diary.txt", content)

    assert list(converge(devices)) == [b"diary.txt"]


def test_an_edit_stays_when_another_device_deleted_the_file(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    ada.write("kept/file", "base")
    ada.write("kept/other", "deleted by both")
    converge(devices)

    def delete(device: Device) -> None:
        for path in (device.root / "kept" / "file", device.root / "kept" / "other"):
            path.unlink()
        (device.root / "kept").rmdir()

    def edit(device: Device) -> None:
        device.write("kept/file", "edited meanwhile")
        (device.root / "kept" / "other").unlink()

    _offline(devices, delete, edit)
    tree = converge(devices)

    assert set(tree) == {b"kept", b"kept/file"}
    assert ada.read("kept/file") == bob.read("kept/file") == b"edited meanwhile"


def test_the_same_content_written_twice_is_no_conflict(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    devices[0].write("same", "base")
    converge(devices)

    _offline(devices, *(lambda d: d.write("same", "both came to this") for _ in devices))

    assert list(converge(devices)) == [b"same"]
    assert devices[0].conflicts() == []


def test_a_touch_and_a_chmod_are_no_conflict_with_an_edit(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd")
    devices[0].write("tool", "base")
    converge(devices)

    _offline(
        devices,
        lambda d: (d.root / "tool").chmod(0o755),
        lambda d: os.utime(d.root / "tool"),
        lambda d: d.write("tool", "edited"),
    )

    assert list(converge(devices)) == [b"tool"]
    assert devices[0].read("tool") == b"edited"


def _file_becomes_directory(device: Device) -> None:
    (device.root / "thing").unlink()
    device.write("thing/inside", "token of the directory")


def _directory_becomes_file(device: Device) -> None:
    (device.root / "box" / "old").unlink()
    (device.root / "box").rmdir()
    device.write("box", "token of the file")


def _file_becomes_link(device: Device) -> None:
    (device.root / "thing").unlink()
    (device.root / "thing").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("left", "right", "tokens"),
    [
        (
            _file_becomes_directory,
            lambda d: d.write("thing", "token of the edit"),
            [b"token of the directory", b"token of the edit"],
        ),
        (
            _directory_becomes_file,
            lambda d: d.write("box/new", "token of the newcomer"),
            [b"token of the file", b"token of the newcomer"],
        ),
        (
            _file_becomes_link,
            lambda d: d.write("thing", "token of the edit"),
            [b"token of the edit"],
        ),
        (
            _file_becomes_directory,
            _file_becomes_link,
            [b"token of the directory"],
        ),
    ],
    ids=["directory and edit", "file and newcomer", "link and edit", "directory and link"],
)
def test_changes_of_type_lose_nothing(
    lab: Lab,
    left: Callable[[Device], object],
    right: Callable[[Device], object],
    tokens: list[bytes],
) -> None:
    devices = lab.group("ada", "bob")
    devices[0].write("thing", "base")
    devices[0].write("box/old", "base of the box")
    converge(devices)

    _offline(devices, left, right)
    tree = converge(devices)

    for token in tokens:
        assert len(files_holding(devices[0].root, token)) == 1, f"{token!r} in {sorted(tree)}"
    if right is _file_becomes_link or left is _file_becomes_link:
        assert [node for node in tree.values() if node.target == b"elsewhere"], sorted(tree)


def test_two_new_files_of_one_name_both_stay(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    converge(devices)

    _offline(
        devices,
        lambda d: d.write("new.tar.gz", "made by ada"),
        lambda d: d.write("new.tar.gz", "made by bob"),
    )
    tree = converge(devices)

    assert len(tree) == 2
    assert {devices[1].read(os.fsdecode(path)) for path in tree} == {b"made by ada", b"made by bob"}


def test_a_conflict_of_a_conflict_copy_keeps_every_content(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    devices[0].write("file.txt", "base")
    converge(devices)
    _offline(devices, *(lambda d: d.write("file.txt", f"first of {d.name}") for _ in devices))
    (copy,) = map(os.fsdecode, _copies(converge(devices)))
    kept = devices[0].read("file.txt")
    assert kept is not None

    _offline(devices, *(lambda d: d.write(copy, f"second of {d.name}") for _ in devices))
    converge(devices)

    for token in (kept, b"second of ada", b"second of bob"):
        assert len(files_holding(devices[0].root, token)) == 1


def test_a_conflict_on_a_name_of_255_bytes_keeps_both(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    name = "n" * 251 + ".txt"
    converge(devices)

    _offline(devices, *(lambda d: d.write(name, f"of {d.name}") for _ in devices))
    tree = converge(devices)

    assert len(tree) == 2
    assert max(map(len, tree)) == 255
    for token in (b"of ada", b"of bob"):
        assert len(files_holding(devices[1].root, token)) == 1


def test_what_a_remote_change_replaced_or_deleted_is_in_the_trash(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    ada.write("replaced", "the old text")
    ada.write("deep/deleted", "the deleted text")
    converge(devices)

    ada.write("replaced", "the new text")
    (ada.root / "deep" / "deleted").unlink()
    converge(devices)

    assert bob.read("deep/deleted") is None
    trash = bob.root / ".p2psync" / "trash"
    kept = [path.read_bytes() for path in _files_below(trash)]
    assert b"the old text" in kept
    assert b"the deleted text" in kept


def _files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]
