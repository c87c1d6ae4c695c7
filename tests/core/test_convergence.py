"""Whatever people do on their devices and in whatever order the devices hear of it: nothing is
lost, nothing comes back, conflicts are exactly those there are, and all end alike."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Kind
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath
from p2psync.core.version import MAX_STAMP
from tests.support.model import NOTHING, TOPOLOGIES, Device, Shown, World
from tests.support.strategies import entries, examples

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


@pytest.mark.slow
@examples(10)
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
        wrote: set[tuple[int, RelPath]] = set()
        for deed in deeds_done:
            device = world.devices[deed.device]
            for path, seen in person.do(deed, device):
                after = device.held[path]
                if after.is_live and (seen is None or not seen.same_content(after)):
                    wrote.add((deed.device, path))
        apart = Apart(before, world, wrote)
        world = settled(apart.world, seed)
        again = settled(apart.world, seed + 1)
        for path in apart.paths:
            apart.check(path, world.devices[0].held)
        if not any(apart.loses_equal_contents(path) for path in apart.paths):
            assert again.devices[0].tree == world.devices[0].tree
        assert settled(world, seed + 2).devices == world.devices


@dataclass
class Apart:
    """Devices that were equal and have heard nothing of each other's changes since."""

    before: dict[RelPath, Entry]
    world: World
    wrote: set[tuple[int, RelPath]]
    """Which devices wrote new content where, be it there still or not."""

    @property
    def paths(self) -> set[RelPath]:
        return {path for device in self.world.devices for path in device.held}

    def written(self, path: RelPath) -> list[Content]:
        """What devices wrote at the path and left there."""
        return [
            _content(device.held[path])
            for device in self.world.devices
            if (device.number, path) in self.wrote and device.held[path].is_live
        ]

    def loses_equal_contents(self, path: RelPath) -> bool:
        """Whether two wrote the same and another something else. If the third wins, there are two
        copies where the two did not hear of each other first."""
        return 1 < len(set(self.written(path))) < len(self.written(path))

    def expected(self, path: RelPath) -> set[Content]:
        if written := self.written(path):
            return set(written)
        base = self.before.get(path)
        if base is None or not base.is_live:
            return set()
        replaced = any(where == path for _, where in self.wrote)
        held = [device.held[path] for device in self.world.devices]
        touched = any(entry.is_live and entry.version.dot != base.version.dot for entry in held)
        deleted = any(not entry.is_live for entry in held)
        return set() if deleted and (replaced or not touched) else {_content(base)}

    def check(self, path: RelPath, held: dict[RelPath, Entry]) -> None:
        """The path and its new conflict copies show just what is expected, each once."""
        shown = [_content(held[path])] if held[path].is_live else []
        copies = [
            _content(entry)
            for copy, entry in held.items()
            if entry.copy_of == path and copy not in self.before
        ]
        expected = self.expected(path)
        assert bool(shown) == bool(expected)
        assert {*shown, *copies} == expected
        if not self.loses_equal_contents(path):
            assert len(shown + copies) == len(expected)


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


@pytest.mark.slow
@examples(10)
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


@examples(2)
@given(st.lists(entries(), min_size=2, max_size=4), st.integers(0, 1 << 32))
def test_whatever_entries_there_are_they_come_to_rest(held: list[Entry], seed: int) -> None:
    """Also such as no honest device makes."""
    world = World.of(len(held))
    for device, entry in zip(world.devices, held, strict=True):
        device.held[A] = entry
    settled(world, seed)


# --- stories ------------------------------------------------------------------------------------

A = PATHS[0]


def _world(*contents: bytes) -> World:
    """Devices that each wrote something at one path, each later than the one before."""
    world = World.of(len(contents))
    for number, content in enumerate(contents):
        world.devices[number].see(A, _file(content, 1000 * (number + 1)))
    return world


def _everything(world: World) -> list[bytes]:
    """All contents that every device shows, after an exchange."""
    trees = [device.tree for device in settled(world, 0).devices]
    assert trees == trees[:1] * len(trees)
    return sorted(shown.content for shown in trees[0].values())


def _copy_of(world: World, content: bytes) -> RelPath:
    held = world.devices[0].held.items()
    return next(path for path, entry in held if entry.copy_of and entry.content == content)


def test_a_conflict_of_three_that_one_resolves_while_another_goes_on_editing() -> None:
    world = settled(_world(b"x", b"y", b"z"), 0)
    one, other, _ = world.devices
    one.see(_copy_of(world, b"x"), NOTHING)
    one.see(_copy_of(world, b"y"), NOTHING)
    one.see(A, _file(b"x and y and z", 9000))
    other.see(A, _file(b"z and more", 8000))
    assert _everything(world) == [b"x and y and z", b"z and more"]


def test_a_conflict_copy_that_is_deleted_here_and_edited_there_stays_with_the_edit() -> None:
    world = settled(_world(b"x", b"y"), 0)
    copy = _copy_of(world, b"x")
    world.devices[0].see(copy, NOTHING)
    world.devices[1].see(copy, _file(b"x and more", 5))
    assert _everything(world) == [b"x and more", b"y"]


def test_a_conflict_copy_that_was_deleted_does_not_come_back_with_a_late_device() -> None:
    """The third still holds both sides apart from each other, and makes the copy once more."""
    world = _world(b"x", b"y", b"y")
    world.devices[2].held = {}
    world.pull(2, 0, [A])
    world.pull(0, 1, [A])
    world.devices[0].see(_copy_of(world, b"x"), NOTHING)
    world.pull(2, 1, [A])
    assert _everything(world) == [b"y"]


def test_a_conflict_about_a_conflict_copy_keeps_all_sides() -> None:
    world = settled(_world(b"x", b"y"), 0)
    copy = _copy_of(world, b"x")
    for number, content in enumerate([b"x1", b"x2"]):
        world.devices[number].see(copy, _file(content, number))
    assert _everything(world) == [b"x1", b"x2", b"y"]


def test_a_path_that_was_deleted_after_a_conflict_leaves_the_copy() -> None:
    world = settled(_world(b"x", b"y"), 0)
    world.devices[1].see(A, NOTHING)
    assert _everything(world) == [b"x"]


def test_a_hostile_stamp_does_not_stop_a_path_for_ever() -> None:
    world = _world(b"x", b"")
    entry = world.devices[0].held[A]
    version = msgspec.structs.replace(entry.version, stamp=MAX_STAMP)
    world.devices[0].held[A] = msgspec.structs.replace(entry, version=version)
    world.devices[1].held = {}
    for number in (1, 0, 1, 0):
        world = settled(world, number)
        world.devices[number].see(A, _file(b"edit by %d" % number, 1))
        assert _everything(world) == [b"edit by %d" % number]
    world.devices[1].see(A, NOTHING)
    world.devices[0].see(A, NOTHING)
    assert _everything(world) == []


def test_a_chmod_and_a_deletion_leave_the_file_as_it_was_made() -> None:
    """Found by the model: the deletion had won, as it had seen the content and not the chmod."""
    world = settled(_world(b"x", b"x"), 0)
    seen = _seen(world.devices[0].tree[A])
    world.devices[0].see(A, seen._replace(executable=True))
    world.devices[1].see(A, NOTHING)
    after = settled(world, 0)
    assert after.devices[1].tree[A].executable


def test_what_replaced_a_directory_is_not_undone_by_who_heard_of_the_directory_first() -> None:
    """Found by the model: of versions that covered each other the directory had won again."""
    for order in range(20):
        world = World.of(4)
        world.devices[3].see(A, _file(b"x", 2))
        world.devices[0].see(A, _file(b"y", 3))
        world.devices[2].see(A, Observation(Kind.DIRECTORY), now_ns=4)
        world.pull(3, 2, [A])
        world.devices[2].see(A, Observation(Kind.SYMLINK, b"link"), now_ns=5)
        after = settled(world, order)
        assert after.devices[0].tree[A].kind != Kind.DIRECTORY


def test_what_was_replaced_is_not_back_once_what_won_over_it_is_gone() -> None:
    """A directory and a file are made at once, and one who hears of both settles it. Of the others,
    who have not, one deletes the directory, and one writes the file anew. Some messages arrive
    before they all talk."""
    world = World.of(3)
    ada, bob, cyd = world.devices
    ada.see(A, Observation(Kind.DIRECTORY))
    cyd.see(A, _file(b"x", 1))
    old = cyd.held[A]
    world.pull(bob.number, ada.number, [A])
    world.pull(bob.number, cyd.number, [A])
    settled_by_bob = bob.held[A]
    ada.see(A, NOTHING)
    cyd.see(A, _file(b"x and more", 2))
    deleted, new = ada.held[A], cyd.held[A]
    messages = [
        *((ada.number, entry) for entry in (old, settled_by_bob)),
        *((bob.number, entry) for entry in (deleted, new)),
        *((cyd.number, entry) for entry in (settled_by_bob, deleted)),
    ]
    for order in itertools.chain(*(itertools.permutations(messages, few) for few in range(4))):
        before = world.copy()
        for receiver, entry in order:
            before.devices[receiver].receive(A, [(receiver, entry)])
        tree = settled(before, 0).devices[0].tree
        assert b"x and more" in [shown.content for shown in tree.values()]
        assert A not in tree or tree[A].content == b"x and more"


def test_what_is_kept_shows_where_what_won_over_it_was_deleted() -> None:
    """One settles a conflict of three. Another hears of the winner, deletes it, and then hears of a
    loser. Each now knows of the other's content, but only one of them was replaced."""
    for order in range(20):
        world = _world(b"x", b"y", b"z", b"", b"")
        for number, others in [(3, (2, 1, 0)), (4, (2,))]:
            world.devices[number].held = {}
            for other in others:
                world.pull(number, other, [A])
        world.devices[4].see(A, NOTHING)
        world.pull(4, 1, [A])
        world.pull(4, 3, [A])
        assert world.devices[4].tree[A].content == b"y"
        assert settled(world, order).devices[0].tree[A].content in (b"x", b"y")


def test_a_content_that_shows_somewhere_stays_though_its_copy_was_tidied_away_elsewhere() -> None:
    """Bob settled x and y for y and deleted the copy of x. Cyd deleted y, which she had, and then
    heard of x: nobody deleted x where it shows."""
    for order in range(20):
        world = _world(b"", b"", b"")
        ada, bob, cyd = world.devices
        for device in world.devices:
            device.held = {}
        ada.see(A, _file(b"x", 1000))
        cyd.see(A, _file(b"y", 9000))
        world.pull(bob.number, ada.number, [A])
        world.pull(bob.number, cyd.number, [A])
        assert bob.tree[A].content == b"y"
        bob.see(next(path for path in bob.tree if path != A), NOTHING)
        cyd.see(A, NOTHING)
        world.pull(cyd.number, ada.number, [A])
        assert cyd.tree[A].content == b"x"
        assert settled(world, order).devices[0].tree[A].content == b"x"


def test_two_contents_that_were_each_deleted_stay_away() -> None:
    """Neither who deletes the one nor who deletes the other has heard of both, and one each has
    heard of a deletion and of the other content by then."""
    for order in range(20):
        world = _world(b"x", b"y", b"", b"")
        for late, early in [(2, 0), (3, 1)]:
            world.devices[late].held = {}
            world.pull(late, early, [A])
            world.devices[late].see(A, NOTHING)
        world.pull(2, 1, [A])
        world.pull(3, 0, [A])
        assert A not in settled(world, order).devices[0].tree


def test_one_side_of_a_conflict_that_is_deleted_meanwhile_leaves_the_other() -> None:
    """Known and harmless: who heard of the deletion first shows the other at its name, and who
    heard of the conflict first has it as a copy; in some orders it is there as both."""
    for order in range(20):
        world = _world(b"z", b"x", b"", b"")
        for late, early in [(2, 1), (3, 0)]:
            world.devices[late].held = {}
            world.pull(late, early, [A])
        world.devices[2].see(A, NOTHING)
        world.pull(0, 1, [A])
        assert set(_everything(settled(world, order))) == {b"z"}


def test_a_content_whose_needless_copy_was_deleted_still_has_one_when_it_loses_later() -> None:
    """As above, and then somebody deletes the copies that they find, and a newcomer brings another
    content for the path."""
    copies = 0
    for order in range(20):
        world = _world(b"z", b"x", b"", b"", b"")
        newcomer = world.devices.pop()
        for late, early in [(2, 1), (3, 0)]:
            world.devices[late].held = {}
            world.pull(late, early, [A])
        world.devices[2].see(A, NOTHING)
        world.pull(0, 1, [A])
        world = settled(world, order)
        ada = world.devices[0]
        if A not in ada.tree:
            continue
        for path in ada.tree.keys() - {A}:
            ada.see(path, NOTHING)
            copies += 1
        world = settled(world, order + 1)
        newcomer.held = {}
        newcomer.see(A, _file(b"new", 1 << 41))
        world.devices.append(newcomer)
        assert _everything(world) == [b"new", b"z"]
    assert copies


def test_one_side_of_a_conflict_that_is_edited_meanwhile_may_leave_its_old_content() -> None:
    """Known and harmless: who made the copy had not heard of the edit."""
    world = _world(b"x", b"y", b"")
    world.devices[2].held = {}
    world.pull(2, 0, [A])
    world.pull(2, 1, [A])
    world.devices[0].see(A, _file(b"x and more", 9000))
    assert _everything(world) == [b"x", b"x and more", b"y"]


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_the_same_content_everywhere_is_no_conflict(devices: int) -> None:
    assert _everything(_world(*[SAME] * devices)) == [SAME]


def test_devices_copied_from_one_another_lose_nothing() -> None:
    """Both give their writes the same dots."""
    world = World.of(3)
    for number, content in enumerate([b"x", b"y"]):
        twin = Device(7)
        twin.see(A, _file(content, number))
        world.devices[number].held = twin.held
    assert _everything(world) == [b"x", b"y"]
