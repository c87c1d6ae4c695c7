"""One program goes through one scenario."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msgspec import structs

from tests.e2e.trees import Tree, differences, snapshot
from tests.race.measuring import Meter
from tests.race.peers import Failed, Peers, Program
from tests.race.record import Figures
from tests.race.works import Kind, Scenario, Sizes, Work, content_of_edit, to_edit

_VISIBLE_EVERY_S = 0.001
_WRITTEN_AT_ONCE = 1 << 20
_NOT_THE_USERS = (".p2psync", ".stfolder")

_ALMOST_NS = 2_000
"""Times that are no more apart are the same: some programs keep microseconds, and round."""

Outline = dict[str, tuple[int, int]]
"""Size and mtime of each file by its path: what a look tells without reading."""

Watch = Callable[[str, Sequence[Sequence[int]]], AbstractContextManager[None]]
"""To be around a work that is not idle, of this name, of these processes."""

Done = dict[str, Figures | str]
"""Of each work what was measured, or in a line why not."""


@dataclass(frozen=True, slots=True)
class Settings:
    sizes: Sizes
    limit_s: float
    """For each work."""
    tell: Callable[[str], None]
    """Hears of each work when it is done."""
    watch: Watch = lambda work, processes: nullcontext()


def run(
    program: Program, scenario: Scenario, wanted: Set[str], base: Path, settings: Settings
) -> Done:
    """What `program` did of the wanted works, those before them included. What it cannot do is
    left out; after a failure nothing more is tried."""
    names = [work.name for work in scenario.works]
    last = max(at for at, name in enumerate(names) if name in wanted)
    works: list[Work] = []
    for work in scenario.works[: last + 1]:
        if work.name in program.cannot:
            break
        works.append(work)
    done: Done = {}
    if not works:
        return done
    try:
        peers = program.make(base, scenario.devices)
        try:
            for work in works:
                done[work.name] = figures = _measure(work, peers, program, settings)
                settings.tell(f"{program.title}: {work.title}: {figures.seconds:.2f} s")
        finally:
            peers.close()
    except (Failed, AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        failed, *unreached = [work.name for work in works if work.name not in done]
        done[failed] = why = " ".join(str(error).split())[:500]
        settings.tell(f"{program.title}: “{failed}” failed: {why}")
        done.update((name, f"not tried after “{failed}” failed") for name in unreached)
    return {name: figures for name, figures in done.items() if name in wanted}


def _measure(work: Work, peers: Peers, program: Program, settings: Settings) -> Figures:
    every_s = program.look_every_s
    if work.kind is not Kind.COLD:
        _rest(peers, every_s, settings.limit_s)
    else:
        peers.stop()
        work.change(peers.roots[0])
        _have_memory_for(peers.roots)
    os.sync()
    before = peers.sent_by_author()
    if work.kind is Kind.COLD:
        figures = _cold(peers, every_s, settings.limit_s, partial(settings.watch, work.name))
    elif work.kind is Kind.EDITS:
        with settings.watch(work.name, peers.processes()):
            figures = _edits(peers, settings.sizes.edits, every_s, settings.limit_s)
    else:
        figures = _idle(peers, settings.sizes.idle_s)
    after = peers.sent_by_author()
    sent = None if before is None or after is None else after - before
    _assert_same(peers.roots)
    return structs.replace(figures, sent_by_author=sent, index=peers.index_bytes())


def _have_memory_for(roots: Sequence[Path]) -> None:
    """So that the clock sees nobody wait for memory: the host of a virtual machine takes what is
    free for a while, and gives it back page by page. What all of them may write is written and
    deleted again."""
    left = sum(size for size, _ in outline(roots[0]).values()) * len(roots)
    page = bytes(_WRITTEN_AT_ONCE)
    with tempfile.TemporaryFile(dir=roots[0].parent) as file:
        while left > 0:
            left -= file.write(page[:left])


def _cold(
    peers: Peers,
    every_s: float,
    limit_s: float,
    watch: Callable[[Sequence[Sequence[int]]], AbstractContextManager[None]],
) -> Figures:
    wanted = outline(peers.roots[0])
    meter = Meter([[] for _ in peers.roots])
    peers.begin()
    with watch(peers.processes()):
        while True:
            meter.look(peers.processes())
            if peers.rests(len(wanted)):
                # The look at the disks is ours, and may take longer than the work.
                figures = _figures(meter, peers)
                if all(agree(outline(root), wanted) for root in peers.roots):
                    return figures
            _give_up_after(limit_s, meter)
            time.sleep(every_s)


def _edits(peers: Peers, count: int, every_s: float, limit_s: float) -> Figures:
    author, *others = peers.roots
    paths = to_edit(author, count)
    meter = Meter(peers.processes())
    taken = []
    for number, path in enumerate(paths):
        content = content_of_edit(number)
        began = time.monotonic()
        (author / path).write_bytes(content)
        while not all(_holds(other / path, content) for other in others):
            _give_up_after(limit_s, meter)
            time.sleep(_VISIBLE_EVERY_S)
        taken.append(time.monotonic() - began)
        _rest(peers, every_s, limit_s)
    return _figures(meter, peers, seconds=statistics.median(taken), longest_s=max(taken))


def _idle(peers: Peers, seconds: float) -> Figures:
    meter = Meter(peers.processes())
    time.sleep(seconds)
    return _figures(meter, peers)


def _figures(
    meter: Meter, peers: Peers, *, seconds: float | None = None, longest_s: float | None = None
) -> Figures:
    taken = meter.seconds
    wire = meter.wire
    running = peers.processes()
    cpu_s = meter.cpu_s(running)
    meter.look(running)
    return Figures(
        seconds=taken if seconds is None else seconds,
        wire=wire,
        cpu_s=cpu_s,
        peaks_mib=meter.peaks_mib,
        longest_s=longest_s,
    )


def _rest(peers: Peers, every_s: float, limit_s: float) -> None:
    files = len(outline(peers.roots[0]))
    meter = Meter([])
    while not peers.rests(files):
        _give_up_after(limit_s, meter)
        time.sleep(every_s)


def _give_up_after(limit_s: float, meter: Meter) -> None:
    if meter.seconds > limit_s:
        raise Failed(f"not done within {limit_s:g} s")


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def outline(root: Path) -> Outline:
    found: Outline = {}
    top = str(root)
    for directory, directories, names in os.walk(top):
        if directory == top:
            directories[:] = [name for name in directories if not name.startswith(_NOT_THE_USERS)]
        for name in names:
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            found[path[len(top) + 1 :]] = (status.st_size, status.st_mtime_ns)
    return found


def agree(left: Outline, right: Outline) -> bool:
    return left.keys() == right.keys() and all(
        size == right[path][0] and abs(mtime - right[path][1]) <= _ALMOST_NS
        for path, (size, mtime) in left.items()
    )


def _assert_same(roots: Sequence[Path]) -> None:
    """Byte for byte."""
    author = _tree(roots[0])
    for number, root in enumerate(roots[1:], start=1):
        found = differences(author, _tree(root))
        if found:
            raise Failed(f"peer {number} differs in {len(found)} paths afterwards: {found[0]}")
        if not agree(outline(root), outline(roots[0])):
            raise Failed(f"peer {number} has other times of files afterwards")


def _tree(root: Path) -> Tree:
    return {
        path: replace(node, mtime_ns=0)
        for path, node in snapshot(root).items()
        if not path.startswith(tuple(map(str.encode, _NOT_THE_USERS)))
    }
