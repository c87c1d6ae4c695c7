"""Three devices on this machine, over loopback only: what p2psync does, told as it happens.

Everything is in a temporary directory and gone afterwards.
"""

import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e.device import FOLDER, Device
from tests.e2e.harness import Lab, converge, everywhere, start_all, stop_all
from tests.e2e.processes import eventually, in_parallel
from tests.e2e.trees import assert_same_trees

_LEFT_OUT = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "test", "tests")


class Story:
    """Prints what happens, and how long each step took."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def chapter(self, title: str) -> None:
        print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)

    def step(self, title: str, action: Callable[[], object]) -> None:
        """Carry out `action`; its answer, when it is a text, is told too."""
        before = time.monotonic()
        answer = action()
        took = time.monotonic() - before
        told = f": {answer}" if isinstance(answer, str) else ""
        print(f"  {took:6.2f} s  {title}{told}", flush=True)

    @property
    def total(self) -> float:
        return time.monotonic() - self._began


def _pair_by_code(host: Device, guest: Device) -> str:
    code = host.new_code()
    joined = guest.join(code)
    assert joined.code == 0, str(joined)
    return f"the code was {code}"


def _pair_by_key_file(host: Device, guest: Device, key: Path) -> str:
    host.ok("pair", "new", "--no-wait", "--key-file", key)
    guest.ok("pair", "join", "--key-file", key)
    return "a key of 256 bits, made once and copied to every device"


def _all_connected(devices: Sequence[Device]) -> bool:
    return all(
        one.is_connected_to(other) for one in devices for other in devices if one is not other
    )


def _first_sync(devices: Sequence[Device]) -> str:
    in_parallel(lambda device: device.add_folder(), devices)
    tree = converge(devices)
    size = sum(path.stat().st_size for path in devices[0].root.rglob("*") if path.is_file())
    files = sum(node.kind == "file" for node in tree.values())
    return f"{files} files, {size / 1e6:.1f} MB on each"


def _edit(author: Device, others: Sequence[Device]) -> str:
    content = b"# edited on " + author.name.encode() + b"\n"
    began = time.monotonic()
    author.write("lib/this.py", content)
    everywhere(others, "lib/this.py", content, every=0.002)
    return f"visible on the others after {time.monotonic() - began:.2f} s"


def _delete(author: Device, others: Sequence[Device]) -> None:
    (author.root / "lib" / "antigravity.py").unlink()
    _await_paths(others, absent="lib/antigravity.py")


def _rename(author: Device, others: Sequence[Device]) -> str:
    files = sum(path.is_file() for path in (author.root / "lib" / "asyncio").rglob("*"))
    before = author.traffic()
    (author.root / "lib" / "asyncio").rename(author.root / "lib" / "renamed")
    _await_paths(others, present="lib/renamed/tasks.py", absent="lib/asyncio")
    converge([author, *others])
    moved = author.traffic() - before
    return f"{files} files took their new names for {moved / 1e3:.0f} kB on the wire"


def _await_paths(devices: Sequence[Device], *, present: str = "", absent: str = "") -> None:
    eventually(
        lambda: all(
            (device.root / present).exists() and not (absent and (device.root / absent).exists())
            for device in devices
        ),
        within=20,
        every=0.01,
        what=f"“{present or absent}” is {'there' if present else 'gone'} everywhere",
    )


def _conflict(devices: Sequence[Device]) -> str:
    stop_all(devices)
    for device in devices:
        device.write("plan.txt", f"The plan, as {device.name} sees it.\n")
    start_all(devices)
    tree = converge(devices)
    copies = sorted(path.decode() for path in tree if b"(conflict " in path)
    return f"nothing is lost, and all three have {', '.join(f'“{copy}”' for copy in copies)}"


def _resolve(device: Device, devices: Sequence[Device]) -> str:
    device.ok("conflicts", "keep", f"{FOLDER}/plan.txt")
    eventually(
        lambda: not any(each.conflicts() for each in devices), within=20, what="resolved everywhere"
    )
    kept = (device.root / "plan.txt").read_text().strip()
    return f"“{kept}” is what all have now"


def _compare(devices: Sequence[Device]) -> str:
    converge(devices)
    tree = assert_same_trees({device.name: device.root for device in devices})
    return f"{len(tree)} paths: types, bytes, times, executable bits and link targets are identical"


def play(base: Path) -> None:
    story = Story()
    print("p2psync: three devices on this machine, talking over loopback only")
    with closing(Lab(base)) as lab:
        devices: list[Device] = []

        def begin() -> None:
            devices.extend(in_parallel(lab.prepare, ["ada", "bob", "cyd"]))
            start_all(devices)

        story.chapter("Pairing: they find each other, and trust whom they were told to trust")
        story.step("ada, bob and cyd are up", begin)
        ada, bob, cyd = devices
        story.step("bob pairs with ada by a one-time code", lambda: _pair_by_code(ada, bob))
        story.step(
            "cyd pairs with ada by a key file",
            lambda: _pair_by_key_file(ada, cyd, base / "fleet.key"),
        )
        story.step(
            "bob and cyd, who never met, are connected too",
            lambda: eventually(lambda: _all_connected(devices), within=20, what="all connected"),
        )

        story.chapter("A real tree: the standard library of this Python")
        library = ada.root / "lib"
        shutil.copytree(sysconfig.get_paths()["stdlib"], library, symlinks=True, ignore=_LEFT_OUT)
        (library / "tool").write_text("#!/bin/sh\n")
        (library / "tool").chmod(0o755)
        (library / "link").symlink_to("tool")
        (library / "an" / "empty" / "directory").mkdir(parents=True)
        story.step("first sync", lambda: _first_sync(devices))

        story.chapter("Everyone changes things")
        story.step("bob edits lib/this.py", lambda: _edit(bob, [ada, cyd]))
        story.step("cyd deletes lib/antigravity.py", lambda: _delete(cyd, [ada, bob]))
        story.step("ada renames lib/asyncio", lambda: _rename(ada, [bob, cyd]))
        story.step("all three write plan.txt while offline", lambda: _conflict(devices))
        story.step("cyd decides which plan to keep", lambda: _resolve(cyd, devices))

        story.chapter("The comparison, byte for byte")
        story.step("ada, bob and cyd hold the same", lambda: _compare(devices))
    print(f"\nDone in {story.total:.0f} s; everything is cleaned up.")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="p2psync-demo-") as directory:
        try:
            play(Path(directory))
        except (AssertionError, RuntimeError) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted; everything is cleaned up.", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
