"""First sync on loopback, beside Syncthing in the same run: seconds, CPU seconds, peak memory.

Both daemons of a pair know each other, share a folder that only the first one has filled, have an
empty index, and start together. The clock runs from there until both trees are the same on disk
and both daemons rest. Everything happens in a network namespace from which nothing can leave.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import bench_syncthing
from tests.e2e.device import FOLDER, Device
from tests.e2e.harness import Lab, pair, stop_all
from tests.e2e.processes import end, eventually, in_parallel
from tests.e2e.trees import (
    Tree,
    differences,
    snapshot,
    write_incompressible,
    write_many_files,
)

_LIMIT_S = 600.0
_LOOK_EVERY_S = 0.1
_INSIDE = "P2PSYNC_BENCH_INSIDE"
_MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Work:
    """What the first device has and the second one lacks."""

    title: str
    files: int
    size: int
    fill: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """How one tool did one piece of work; memory is for each of the two daemons, in MiB."""

    seconds: float
    cpu_s: float
    peak_mib: tuple[float, float]


def _works(files: int, mebibytes: int) -> list[Work]:
    size = mebibytes * _MIB
    return [
        Work(
            f"{files} files of 4 KiB",
            files,
            files * 4096,
            lambda root: write_many_files(root, files, size=4096, seed=1),
        ),
        Work(
            f"one file of {mebibytes} MiB",
            1,
            size,
            lambda root: write_incompressible(root / "big.bin", size, seed=2),
        ),
    ]


def _process_tree(pid: int) -> list[int]:
    """`pid` and its descendants; those that are gone are left out."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _process_tree(int(child))
    return found


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # utime, stime, cutime, cstime: fields 14 to 17, of which three went before.
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _holds(root: Path, work: Work) -> bool:
    """A look at the disk that is cheap enough not to disturb what is measured."""
    files = size = 0
    for directory, directories, names in os.walk(root):
        directories[:] = [name for name in directories if not name.startswith((".p2p", ".st"))]
        files += len(names)
        size += sum(os.stat(os.path.join(directory, name)).st_size for name in names)
    return files == work.files and size == work.size


def _measure(
    work: Work,
    launches: Sequence[Callable[[], subprocess.Popen[bytes]]],
    *,
    roots: Sequence[Path],
    at_rest: Callable[[], bool],
) -> Measured:
    os.sync()
    began = time.monotonic()
    processes = [launch() for launch in launches]
    eventually(
        lambda: at_rest() and all(_holds(root, work) for root in roots),
        within=_LIMIT_S,
        what=f"the sync of {work.title}",
        every=_LOOK_EVERY_S,
    )
    seconds = time.monotonic() - began
    trees = [_process_tree(process.pid) for process in processes]
    measured = Measured(
        seconds,
        sum(_cpu_seconds(pid) for tree in trees for pid in tree),
        (max(map(_peak_mib, trees[0])), max(map(_peak_mib, trees[1]))),
    )
    found = differences(_tree(roots[0]), _tree(roots[1]))
    if found:
        raise SystemExit(f"The trees differ after the sync: {found[0]}")
    return measured


def _tree(root: Path) -> Tree:
    return {path: node for path, node in snapshot(root).items() if not path.startswith(b".st")}


def _run_p2psync(work: Work, base: Path) -> Measured:
    with closing(Lab(base)) as lab:
        devices = [lab.device(name) for name in ("a", "b")]
        pair(*devices)
        in_parallel(lambda device: device.add_folder(), devices)
        stop_all(devices)
        work.fill(devices[0].root)

        def launcher(device: Device) -> Callable[[], subprocess.Popen[bytes]]:
            def launch() -> subprocess.Popen[bytes]:
                device.launch()
                assert device.process is not None
                return device.process

            return launch

        return _measure(
            work,
            [launcher(device) for device in devices],
            roots=[device.root for device in devices],
            at_rest=lambda: all(_rests(device, work) for device in devices),
        )


def _rests(device: Device, work: Work) -> bool:
    try:
        rows = device.glance()["folders"]
    except Exception:  # not up yet
        return False
    return all(
        row["state"] == "idle" and row["need_files"] == 0 and row["files"] == work.files
        for row in rows
        if row["name"] == FOLDER
    )


def _run_syncthing(work: Work, base: Path) -> Measured:
    nodes = bench_syncthing.make_pair(base)
    work.fill(nodes[0].root)
    try:
        return _measure(
            work,
            [node.launch for node in nodes],
            roots=[node.root for node in nodes],
            at_rest=lambda: all(node.is_done(work.files, work.size) for node in nodes),
        )
    finally:
        for node in nodes:
            if node.process is not None:
                end(node.process)


def _row(title: str, ours: str, theirs: str, ratio: str) -> str:
    return f"  {title:<24}{ours:>18}{theirs:>22}   {ratio}"


def _report(work: Work, ours: Measured, theirs: Measured | None, name: str) -> None:
    print(f"\n{work.title}, first sync between two devices")
    print(_row("", "p2psync", name if theirs else "", ""))
    for title, one, other in (
        ("seconds", ours.seconds, theirs.seconds if theirs else None),
        ("CPU seconds, both", ours.cpu_s, theirs.cpu_s if theirs else None),
    ):
        ratio = f"{other / one:.1f} times less" if other else ""
        print(_row(title, f"{one:.2f}", f"{other:.2f}" if other else "", ratio))
    memory = [
        f"{sender:.0f} + {receiver:.0f}"
        for sender, receiver in (m.peak_mib for m in (ours, theirs) if m is not None)
    ]
    ratio = f"{max(theirs.peak_mib) / max(ours.peak_mib):.1f} times less" if theirs else ""
    print(_row("peak MiB, each", memory[0], memory[1] if theirs else "", ratio), flush=True)


def run(files: int, mebibytes: int, place: Path) -> None:
    name = bench_syncthing.version()
    if name is None:
        print(
            "Syncthing is not installed (Debian: apt install syncthing): nothing to compare with."
        )
    for number, work in enumerate(_works(files, mebibytes)):
        ours = _in_fresh(place / f"p2psync-{number}", work, _run_p2psync)
        theirs = _in_fresh(place / f"syncthing-{number}", work, _run_syncthing) if name else None
        _report(work, ours, theirs, name or "")


def _in_fresh(base: Path, work: Work, measure: Callable[[Work, Path], Measured]) -> Measured:
    base.mkdir()
    try:
        return measure(work, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _enter_namespace() -> None:
    """Start again where there is nothing but a loopback."""
    if os.environ.get(_INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    again = [*words, sys.executable, __file__, *sys.argv[1:]]
    try:
        os.execvpe(again[0], again, {**os.environ, _INSIDE: "1"})
    except OSError as error:
        raise SystemExit(f"The benchmark needs a network namespace: unshare: {error}") from None


def main() -> None:
    options = argparse.ArgumentParser(description="First sync on loopback, beside Syncthing.")
    options.add_argument("--files", type=int, default=10_000, help="small files [10000]")
    options.add_argument("--size", type=int, default=512, help="MiB of the one big file [512]")
    options.add_argument("--dir", type=Path, default=None, help="where to work [temporary]")
    given = options.parse_args()
    _enter_namespace()
    with tempfile.TemporaryDirectory(prefix="p2psync-bench-", dir=given.dir) as directory:
        run(given.files, given.size, Path(directory))


if __name__ == "__main__":
    main()
