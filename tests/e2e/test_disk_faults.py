"""A disk that is full, that may not be watched or read, or that changes under the writer's hands:
it is said, nothing half written shows, nothing counts as deleted, and all goes on by itself."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.device import WITHOUT_PRIVILEGE, Device
from tests.e2e.harness import Lab, converge, everywhere, pair
from tests.e2e.processes import eventually
from tests.e2e.trees import incompressible, snapshot
from tests.support.beside import Beside
from tests.support.swapping import swap

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to mount a small disk or to drop privileges"
)

_PAGE = 4096


# --- full disks ------------------------------------------------------------------------------


class SmallDisk:
    """A file system of its own, mounted over a directory that keeps its content."""

    def __init__(self, lab: Lab, place: Path, *, kib: int) -> None:
        self.place = place
        self._filler = place / "filler"
        place.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f"{place.name} before")
        shutil.copytree(place, aside)
        options = f"size={kib}k,mode={place.stat().st_mode & 0o7777:o}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
        lab.finally_(lambda: subprocess.run(["umount", "--lazy", place], check=True))
        shutil.copytree(aside, place, dirs_exist_ok=True)

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(_PAGE))
        assert os.statvfs(self.place).f_bavail == 0

    def free(self) -> None:
        self._filler.unlink()


class Onlooker(Beside):
    """Looks at all files of a root all the time, and keeps those that are none of `whole`."""

    def __init__(self, root: Path, whole: dict[str, set[bytes]]) -> None:
        super().__init__()
        self.torn: list[str] = []
        self.looks = 0
        self._root = root
        self._whole = whole

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.looks += 1
            for path, content in _files(self._root):
                if content not in self._whole.get(path, set()):
                    self.torn.append(f"{path}: {len(content)} bytes")


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for place, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name != ".p2psync"]
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):
                yield str(path.relative_to(root)), path.read_bytes()


def _reasons(device: Device) -> str:
    return " ".join(f"{row['reason']} {row['next_step']}" for row in device.problems())


def _reason_by_path(device: Device) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in device.problems()}


@needs_root
def test_on_a_full_disk_nothing_partial_shows_and_all_arrives_when_there_is_space(
    lab: Lab,
) -> None:
    ada, bob = devices = lab.group("ada", "bob", folder=None)
    disk = SmallDisk(lab, lab.base / "small disk", kib=4096)
    bob.root = disk.place / "root"
    old = incompressible(9_000, seed=1)
    ada.write("edited", old)
    ada.write("deleted", "goes")
    for device in devices:
        device.add_folder()
    converge(devices)

    small = {f"new/{number}": incompressible(9_000, seed=number + 2) for number in range(20)}
    large = incompressible(700_000, seed=50)
    new = incompressible(40_000, seed=51)
    contents = {**small, "large": large, "edited": new}
    whole = {path: {content} for path, content in contents.items()}
    whole["edited"].add(old)
    whole["deleted"] = {b"goes"}
    disk.fill()
    with Onlooker(bob.root, whole) as onlooker:
        for path, content in contents.items():
            ada.write(path, content)
        said = eventually(lambda: _reasons(bob), within=15, what="bob says what is wrong")
        assert "The disk is full." in said
        assert "Free some space there" in said
        shown = bob.ok("status").out
        assert "The disk is full." in shown, shown
        assert bob.folder()["state"] != "idle"
        # A deletion needs no space.
        (ada.root / "deleted").unlink()
        eventually(lambda: bob.read("deleted") is None, within=15, what="it goes from bob")
        assert bob.read("edited") == old
        assert bob.read("large") is None

        disk.free()
        for path, content in contents.items():
            everywhere([bob], path, content, within=30)
    assert onlooker.looks > 50
    assert onlooker.torn == []
    converge(devices)
    assert bob.problems() == []


@needs_root
def test_without_space_for_the_index_it_is_said_nothing_is_lost_and_it_goes_on(lab: Lab) -> None:
    ada, bob = devices = [lab.prepare("ada"), lab.prepare("bob")]
    disk = SmallDisk(lab, bob.home, kib=6144)
    for device in devices:
        device.start()
    pair(ada, bob)
    for device in devices:
        device.add_folder()
    ada.write("file", "before")
    converge(devices)

    disk.fill()
    for number in range(150):
        ada.write(f"early/{number}", f"ada {number}")
    eventually(
        lambda: "disk is full" in _reasons(bob), within=20, what="bob says why it is cut off"
    )
    for number in range(150):
        ada.write(f"of ada/{number}", f"ada {number}")
        bob.write(f"of bob/{number}", f"bob {number}")
    said = eventually(lambda: _reasons(bob), within=20, what="bob says what is wrong")
    assert "disk is full. Free some space" in said
    assert str(bob.home) in said
    assert "disk is full" in bob.ok("status").out
    assert bob.folder()["state"] != "idle"
    checks = bob.cli("doctor", "--json").json()["checks"]
    (space,) = [check for check in checks if check["name"] == "space for the index"]
    assert not space["ok"]
    assert "Free some space" in space["next_step"]
    for number in range(150):
        assert bob.read(f"of bob/{number}") == f"bob {number}".encode()

    disk.free()
    tree = converge(devices, within=45)
    assert len(tree) == 454
    assert all(device.conflicts() == [] for device in devices)

    disk.fill()
    bob.kill()
    refused = bob.cli("daemon", timeout=20)
    assert refused.code == 1, str(refused)
    assert refused.err.count("p2psync: ") == 1
    assert refused.err.endswith("the disk is full. Free some space.\n")
    disk.free()
    bob.start()
    assert converge(devices) == tree


# --- what cannot be watched or read ----------------------------------------------------------

FEW_WATCHES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    # Of the new user namespace alone, unlike fs.inotify.max_user_watches.
    'echo 3 >/proc/sys/user/max_inotify_watches && exec "$@"',
    "sh",
)


@needs_root
def test_without_watches_it_is_said_and_changes_are_found_by_scanning(lab: Lab) -> None:
    ada, bob = lab.prepare("ada", enter=FEW_WATCHES), lab.prepare("bob")
    for number in range(6):
        ada.write(f"{number}/file", "before")
    for device in (ada, bob):
        device.start()
    pair(ada, bob)
    for device in (ada, bob):
        device.add_folder()

    said = eventually(lambda: _reasons(ada), within=15, what="ada says that it cannot watch")
    assert "fs.inotify.max_user_watches" in said
    assert "every 10 seconds" in said
    everywhere([bob], "5/file", b"before")
    bob.write("5/file", "an edit elsewhere")
    everywhere([ada], "5/file", b"an edit elsewhere")
    ada.write("4/file", "an edit that nothing tells of")
    (ada.root / "3" / "file").unlink()
    everywhere([bob], "4/file", b"an edit that nothing tells of", within=20)
    eventually(lambda: bob.read("3/file") is None, within=5, what="the deletion arrives too")


@needs_root
def test_what_becomes_unreadable_is_reported_and_never_counts_as_deleted(lab: Lab) -> None:
    ada, bob = lab.prepare("ada", enter=WITHOUT_PRIVILEGE), lab.prepare("bob")
    for path in ("closed/file", "closed/below/file", "locked", "open", "goes"):
        ada.write(path, path)
    for device in (ada, bob):
        device.start()
    pair(ada, bob)
    for device in (ada, bob):
        device.add_folder()
    closed = {
        path: node for path, node in converge([ada, bob]).items() if path.startswith(b"closed")
    }
    assert len(closed) == 4

    # Its time is new too, so that it has to be read again.
    ada.write("locked", "edited, and then locked")
    (ada.root / "locked").chmod(0)
    (ada.root / "closed").chmod(0)
    ada.ok("folder", "rescan", "shared")
    denied = "Permission denied."
    eventually(
        lambda: _reason_by_path(ada) == {"closed": denied, "locked": denied},
        within=15,
        what="both are reported",
    )
    ada.write("open", "edited")
    (ada.root / "goes").unlink()
    ada.ok("folder", "rescan", "shared")
    everywhere([bob], "open", b"edited")
    eventually(lambda: bob.read("goes") is None, within=15, what="a real deletion arrives")
    # A device that starts has to find it all by its first scan.
    ada.restart()
    bob.write("last", "from bob")
    everywhere([ada], "last", b"from bob")
    ada.write("last", "from ada")
    everywhere([bob], "last", b"from ada")
    kept = snapshot(bob.root)
    assert {path: kept.get(path) for path in closed} == closed
    assert bob.read("locked") == b"locked"

    bob.write("closed/new", "for a directory that is closed there")
    (ada.root / "closed").chmod(0o755)
    (ada.root / "locked").chmod(0o644)
    ada.ok("folder", "rescan", "shared")
    everywhere([ada], "closed/new", b"for a directory that is closed there", within=20)
    everywhere([bob], "locked", b"edited, and then locked")
    converge([ada, bob])
    assert ada.problems() == []


# --- a directory swapped for a link ----------------------------------------------------------


class Swapper(Beside):
    """Swaps a directory for a link to another one and back, again and again."""

    def __init__(self, directory: Path, link: Path) -> None:
        super().__init__()
        self.swaps = 0
        self._directory = directory
        self._link = link

    def _run(self) -> None:
        while not self._stop.is_set():
            swap(self._directory, self._link)
            self._stop.wait(0.001)
            swap(self._directory, self._link)
            self.swaps += 1
            self._stop.wait(0.003)


def _write_unfollowed(root: Path, name: str, content: bytes) -> None:
    """Into the directory “busy”, made anew where it is a link: the tests follow none either."""
    busy = root / "busy"
    try:
        directory = os.open(busy, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        busy.mkdir()
    except OSError:
        busy.unlink()
        busy.mkdir()
    else:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644, dir_fd=directory)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.close(directory)


def test_a_directory_swapped_for_a_link_while_files_come_in_leads_nobody_outside(lab: Lab) -> None:
    ada, bob = devices = lab.group("ada", "bob", folder=None)
    outside = lab.base / "outside"
    outside.mkdir()
    for number in range(0, 120, 3):
        (outside / f"{number}").write_text("nobody's business")
    before = snapshot(outside)
    (ada.root / "busy").mkdir(parents=True)
    for device in devices:
        device.add_folder()
    converge(devices)
    link = lab.base / "link"
    link.symlink_to(outside)

    arrived = 0
    with Swapper(bob.root / "busy", link) as swapper:
        for number in range(120):
            _write_unfollowed(ada.root, f"{number}", b"%d" % number)
            if number % 20 == 19:
                # Between others that tell how far bob is.
                ada.write(f"mark {number}", "reached")
                everywhere([bob], f"mark {number}", b"reached", within=20)
                arrived = max(arrived, _count_in(bob.root / "busy", link))
    assert swapper.swaps > 100
    assert arrived > 10, "files came in meanwhile"
    converge(devices)
    assert snapshot(outside) == before


def _count_in(*places: Path) -> int:
    """Files in those of the places that are no links."""
    return sum(len(os.listdir(place)) for place in places if not place.is_symlink())
