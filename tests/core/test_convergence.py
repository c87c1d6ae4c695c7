"""Whatever people do on their devices and in whatever order the devices hear of it: nothing is
lost, nothing comes back, conflicts are exactly those there are, and all end alike."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Kind
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from tests.support.model import NOTHING, TOPOLOGIES, Device, Shown, World
from tests.support.strategies import examples

PATHS = [RelPath("a.txt"), RelPath("b"), RelPath("d/c.txt")]
SAME = b"same"
"""What several may write."""


class Deed(NamedTuple):
    """What a person does; `target` picks among the paths there are, conflict copies included."""

    device: int
    verb: str
    target: int
    when: int
    """Time of the write and, by another measure, of the device's clock."""


VERBS = ["write", "write same", "delete", "touch", "chmod", "rename", "make directory", "link"]


def deeds(devices: int) -> st.SearchStrategy[Deed]:
    return st.builds(
        Deed,
        st.integers(0, devices - 1),
        st.sampled_from(VERBS),
        st.integers(0, 4),
        st.integers(0, 3),
    )


class Person:
    """Makes every write tell itself apart: by its content, and by its time where that is alike."""

    def __init__(self) -> None:
        self.written = itertools.count(1)

    def do(self, deed: Deed, device: Device) -> list[tuple[RelPath, Entry | None]]:
        """The paths that changed, with the entries they had."""
        paths = sorted({*PATHS, *device.tree})
        path = paths[deed.target % len(paths)]
        there = device.tree.get(path)
        token = next(self.written)
        mtime_ns = 1000 * deed.when + token
        now_ns = 1000 * (3 - deed.when) + token
        found: list[tuple[RelPath, Observation]] = []
        if deed.verb == "write":
            found = [(path, _file(b"%d" % token, mtime_ns))]
        elif deed.verb == "write same":
            found = [(path, _file(SAME, mtime_ns))]
        elif deed.verb == "make directory":
            found = [(path, Observation(Kind.DIRECTORY))]
        elif deed.verb == "link":
            found = [(path, Observation(Kind.SYMLINK, b"%d" % token))]
        elif there is None:
            found = []
        elif deed.verb == "delete":
            found = [(path, NOTHING)]
        elif deed.verb == "rename":
            other = paths[(deed.target + 1) % len(paths)]
            if other != path:
                found = [(path, NOTHING), (other, _seen(there))]
        elif there.kind == Kind.FILE and deed.verb == "touch":
            found = [(path, _seen(there._replace(mtime_ns=mtime_ns)))]
        elif there.kind == Kind.FILE and deed.verb == "chmod":
            found = [(path, _seen(there._replace(executable=not there.executable)))]
        changed = []
        for at, seen in found:
            before = device.held.get(at)
            if device.see(at, seen, now_ns=now_ns):
                changed.append((at, before))
        return changed


def _file(content: bytes, mtime_ns: int) -> Observation:
    return Observation(Kind.FILE, content, len(content), mtime_ns)


def _seen(shown: Shown) -> Observation:
    size = len(shown.content) if shown.kind == Kind.FILE else 0
    return Observation(shown.kind, shown.content, size, shown.mtime_ns, shown.executable)


Content = tuple[Kind, bytes]


def _content(entry: Entry | Shown) -> Content:
    return (entry.kind, entry.content)


def assert_all_hold_the_same_and_rest(world: World) -> None:
    first, *others = [device.held for device in world.devices]
    assert all(held == first for held in others)
    assert not list(world.news())


def settled(world: World, seed: int) -> World:
    """After an exchange over a topology, in an order, of chance."""
    random = Random(seed)
    after = world.copy()
    paths = {path for device in world.devices for path in device.held}
    edges = random.choice(TOPOLOGIES)(len(world.devices))
    taken = after.exchange(edges, random)
    assert taken <= 300 * (len(paths) + 1)
    assert_all_hold_the_same_and_rest(after)
    return after


class Round(NamedTuple):
    deeds: list[Deed]
    seed: int


@st.composite
def _rounds(draw: st.DrawFn) -> tuple[int, list[Round]]:
    devices = draw(st.integers(2, 4))
    return devices, draw(
        st.lists(
            st.builds(Round, st.lists(deeds(devices), max_size=8), st.integers(0, 1 << 32)),
            min_size=1,
            max_size=3,
        )
    )


@examples(3)
@given(_rounds())
def test_changes_that_saw_all_there_was_end_as_people_expect(
    history: tuple[int, list[Round]],
) -> None:
    """Every round begins with equal devices, and changes of one round know of each other only
    where one device made them. What must be there after it follows from the deeds alone."""
    devices, rounds = history
    world = World.of(devices)
    person = Person()
    for deeds_done, seed in rounds:
        before = dict(world.devices[0].held)
        for deed in deeds_done:
            person.do(deed, world.devices[deed.device])
        apart = world
        world = settled(apart, seed)
        _check_round(before, apart, world)
        # P12: another topology and order; P13: all of it once more.
        other = settled(apart, seed + 1)
        if not _equal_contents_lost(before, apart):
            assert other.devices[0].tree == world.devices[0].tree
        assert settled(world, seed + 2).devices == world.devices


def _writes(before: dict[RelPath, Entry], apart: World, path: RelPath) -> list[Entry]:
    """The contents that devices wrote at the path in this round and left there."""
    base = before.get(path)
    changed = [device.held[path] for device in apart.devices if path in device.held]
    return [
        entry
        for entry in changed
        if entry.is_live and (base is None or entry.version.origin != base.version.origin)
    ]


def _equal_contents_lost(before: dict[RelPath, Entry], apart: World) -> bool:
    """Whether three or more wrote at a path, two of them the same: if the third wins, the copies
    may be one or two."""
    paths = {path for device in apart.devices for path in device.held}
    for path in paths:
        written = [_content(entry) for entry in _writes(before, apart, path)]
        if 1 < len(set(written)) < len(written):
            return True
    return False


def _check_round(before: dict[RelPath, Entry], apart: World, after: World) -> None:
    for path in {path for device in apart.devices for path in device.held}:
        base = before.get(path)
        written = {_content(entry) for entry in _writes(before, apart, path)}
        states = [device.held.get(path) for device in apart.devices]
        changed = [entry for entry in states if entry is not None and entry != base]
        expected = written
        if not written and base is not None and base.is_live:
            touched = any(entry.is_live for entry in changed)
            deleted = [entry for entry in changed if not entry.is_live]
            replaced = any(entry.version.origin != base.version.origin for entry in deleted)
            expected = set() if deleted and (replaced or not touched) else {_content(base)}
        shown = after.devices[0].tree.get(path)
        assert (shown is not None) == bool(expected)
        new_copies = [
            _content(entry)
            for copy, entry in after.devices[0].held.items()
            if entry.copy_of == path and copy not in before
        ]
        visible = ([_content(shown)] if shown is not None else []) + new_copies
        assert set(visible) == expected
        if not _equal_contents_lost(before, apart):
            assert len(visible) == len(expected)


# --- while others still change things -----------------------------------------------------------


class Pull(NamedTuple):
    """One device settles what another holds just now of some paths."""

    receiver: int
    sender: int
    paths: int


@dataclass
class Ledger:
    """What was written, and what somebody saw before replacing or deleting it."""

    written: Counter[Content] = field(default_factory=Counter)
    replaced: set[tuple[RelPath, Content]] = field(default_factory=set)
    touched: set[Content] = field(default_factory=set)

    def note(self, path: RelPath, before: Entry | None, after: Entry) -> None:
        if before is not None and _content(before) == _content(after):
            self.touched.add(_content(after))
            return
        if before is not None and before.is_live:
            self.replaced.add((path, _content(before)))
        if after.is_live:
            self.written[_content(after)] += 1

    def check(self, tree: dict[RelPath, Shown]) -> None:
        once = {content for content, times in self.written.items() if times == 1}
        shown = {_content(each) for each in tree.values()}
        assert once - {content for _, content in self.replaced} <= shown
        for path, content in self.replaced:
            if content in once - self.touched and path in tree:
                assert _content(tree[path]) != content


@st.composite
def _histories(draw: st.DrawFn) -> tuple[int, list[Deed | Pull], int]:
    devices = draw(st.integers(2, 4))
    numbers = st.integers(0, devices - 1)
    pulls = st.builds(Pull, numbers, numbers, st.integers(1, 7))
    steps = draw(st.lists(deeds(devices) | pulls, max_size=14))
    return devices, steps, draw(st.integers(0, 1 << 32))


@examples(3)
@given(_histories())
def test_changes_amid_exchanges_lose_nothing_bring_back_nothing_and_come_to_rest(
    history: tuple[int, list[Deed | Pull], int],
) -> None:
    """Here some replace what others are just settling. What nobody saw is there in the end, and
    no name shows what somebody saw before writing or deleting there."""
    devices, steps, seed = history
    world = World.of(devices)
    person, ledger = Person(), Ledger()
    for step in steps:
        if isinstance(step, Deed):
            device = world.devices[step.device]
            for path, before in person.do(step, device):
                ledger.note(path, before, device.held[path])
        else:
            held = sorted(world.devices[step.sender].held)
            chosen = [path for at, path in enumerate(held) if step.paths >> at % 3 & 1]
            world.pull(step.receiver, step.sender, chosen)
    for order in range(2):
        after = settled(world, seed + order)
        ledger.check(after.devices[0].tree)
        assert settled(after, seed).devices == after.devices
