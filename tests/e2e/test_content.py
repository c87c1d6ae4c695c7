"""Every size at which a chunker errs, and every name that a file system allows."""

import os
import unicodedata

import pytest

from tests.e2e.harness import Lab, converge
from tests.e2e.processes import eventually
from tests.e2e.trees import incompressible

KIB = 1024
MIN, AVERAGE, MAX = 128 * KIB, 512 * KIB, 2048 * KIB
ONE_CHUNK = 256 * KIB
"""A file of at most this size is not cut."""

EDGES = (0, 1, *(edge + off for edge in (MIN, ONE_CHUNK, AVERAGE, MAX) for off in (-1, 0, 1)))


def test_files_of_every_critical_size_arrive_and_are_followed_when_they_grow(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    for size in EDGES:
        ada.write(f"random/{size}", incompressible(size, seed=size))
        ada.write(f"zeros/{size}", bytes(size))
        bob.write(f"ones/{size}", b"\xff" * size)
    ada.write("zeros/long", bytes(12 * MAX + 1))
    with (bob.root / "sparse").open("wb") as file:
        file.truncate(5 * MAX)

    tree = converge(devices)
    assert len([node for node in tree.values() if node.kind == "file"]) == 3 * len(EDGES) + 2
    assert (ada.root / "sparse").stat().st_blocks * 512 < MIN, "the hole was filled"

    for size in EDGES:
        with (bob.root / f"random/{size}").open("ab") as file:
            file.write(b"+")
        with (bob.root / f"zeros/{size}").open("ab") as file:
            file.truncate(size // 2)
    converge(devices)
    assert ada.read(f"random/{MAX}") == incompressible(MAX, seed=MAX) + b"+"


NAMES = {
    "a space": "two words",
    "spaces at both ends": " padded ",
    "a newline": "first\nsecond",
    "a tab and a bell": "tab\tbell\a",
    "a backslash": "back\\slash",
    "quotes": '"it\'s" `so`',
    "shell characters": "$(x) *?[a] ;|&<>",
    "a leading dash": "-rf",
    "dots": "...",
    "an emoji family": "👩‍👩‍👧‍👦.txt",
    "right to left": "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea\u202c",
    "255 bytes": "n" * 255,
    "255 bytes of two each": "é" * 127 + "e",
    "composed": unicodedata.normalize("NFC", "café composed"),
    "decomposed": unicodedata.normalize("NFD", "café decomposed"),
    "a look like ours": "name (conflict bob 2026-01-01 abcdef).txt",
    "a temporary's look": ".p2psync.tmp",
    "a percent sign": "100%s %d %00",
    "a reserved name elsewhere": "CON",
    "a colon": "a:b",
    "upper case": "CaSe",
    "the same in lower case": "case",
}


def test_names_that_trip_up_programs_arrive_byte_for_byte(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    for name in NAMES.values():
        ada.write(f"files/{name}", name)
        (ada.root / "directories" / name).mkdir(parents=True)
        (ada.root / f"link {len(name.encode())} {name[:20]}").symlink_to(name)
    ada.write("/".join(["deep"] * 40) + "/file", "at the bottom")
    both = {form: unicodedata.normalize(form, "naïve") for form in ("NFC", "NFD")}
    for form, name in both.items():
        ada.write(f"both forms/{name}", form)

    tree = converge(devices)

    for name in NAMES.values():
        assert f"files/{name}".encode() in tree
        assert tree[f"directories/{name}".encode()].kind == "directory"
    for form, name in both.items():
        assert bob.read(f"both forms/{name}") == form.encode()
    assert ada.problems() == bob.problems() == []

    for name in NAMES.values():
        (bob.root / "files" / name).rename(bob.root / "files" / f"r{name[:50]}")
    tree = converge(devices)
    assert f"files/r{NAMES['a newline']}".encode() in tree


INVALID = b"caf\xe9 and \xff\xfe.txt"


def test_a_name_that_is_no_text_is_reported_and_holds_up_nothing(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    ada.root.mkdir(exist_ok=True)
    (ada.root / os.fsdecode(INVALID)).write_bytes(b"cannot be named")
    (ada.root / os.fsdecode(b"dir \xe9")).mkdir()
    (ada.root / os.fsdecode(b"dir \xe9") / "inside").write_bytes(b"below it")
    ada.write("fine.txt", "is fine")

    eventually(lambda: bob.read("fine.txt") == b"is fine", within=20, what="the others arrive")
    reported = eventually(lambda: ada.problems(), within=15, what="it is reported")
    assert any("caf" in row["path"] for row in reported), reported
    for row in reported:
        assert row["reason"], row
        assert row["next_step"], row
    assert sorted(os.listdir(os.fsencode(bob.root))) == [b".p2psync", b"fine.txt"]
    shown = ada.ok("status")
    assert "caf" in shown.out

    (ada.root / os.fsdecode(INVALID)).rename(ada.root / "café.txt")
    (ada.root / os.fsdecode(b"dir \xe9")).rename(ada.root / "dir é")
    eventually(lambda: bob.read("dir é/inside") == b"below it", within=15, what="it arrives")
    converge(devices)
    assert ada.problems() == []


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_neither_file_nor_directory_nor_link_holds_up_nothing(lab: Lab, kind: str) -> None:
    ada, bob = lab.group("ada", "bob")
    special = ada.root / "special"
    if kind == "fifo":
        os.mkfifo(special)
    elif kind == "socket":
        os.mknod(special, 0o140600)
    elif os.geteuid() == 0:
        os.mknod(special, 0o020600, os.makedev(1, 3))
    else:
        pytest.skip("device nodes need root")
    ada.write("fine", "is fine")

    eventually(lambda: bob.read("fine") == b"is fine", within=15, what="the file arrives")
    assert not (bob.root / "special").exists()


def test_links_arrive_as_they_are_and_are_never_followed(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    ada, bob = devices
    outside = lab.base / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not shared")
    for name, target in {
        "relative": "a/b",
        "dangling": "nowhere",
        "absolute": str(outside),
        "upwards": "../../outside",
        "loop": "loop",
        "odd": "with\nnewline ",
    }.items():
        (ada.root / name).symlink_to(target)

    tree = converge(devices)

    assert set(tree) == {b"relative", b"dangling", b"absolute", b"upwards", b"loop", b"odd"}
    assert os.readlink(bob.root / "absolute") == str(outside)
    bob_side = bob.root / "relative"
    bob_side.unlink()
    bob_side.symlink_to("changed")
    tree = converge(devices)
    assert tree[b"relative"].target == b"changed"
    assert os.listdir(outside) == ["secret"]
