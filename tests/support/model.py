"""Devices that hold entries and nothing else: local changes and exchanges by the core's functions.

What the engine does with disk and network is left out, but not its order: the copies of losing
contents are held before the winner's joined vector is.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from p2psync.core.decide import decide, is_news
from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.observe import Observation, is_new, successor
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot

NOTHING = Observation(Kind.TOMBSTONE)


class Shown(NamedTuple):
    """What a person sees at a path."""

    kind: Kind
    content: bytes
    mtime_ns: int
    executable: bool


class Offer(NamedTuple):
    receiver: int
    sender: int
    path: RelPath
    entry: Entry


@dataclass
class Device:
    number: int
    held: dict[RelPath, Entry] = field(default_factory=dict)
    counter: int = 0

    def see(self, path: RelPath, seen: Observation, *, now_ns: int = 1 << 40) -> bool:
        """A scan finds this at the path; whether that was new."""
        held = self.held.get(path)
        if not is_new(held, seen):
            return False
        self.counter += 1
        dot = Dot(self.number + 1, self.counter)
        self.held[path] = successor(held, seen, dot, now_ns=now_ns, author=f"d{self.number}")
        return True

    def receive(self, path: RelPath, offers: Sequence[tuple[int, Entry]]) -> list[RelPath]:
        """Settle these offers; the paths whose entries changed."""
        named = [(DeviceID(bytes([sender]) * 32), entry) for sender, entry in offers]
        decision = decide(path, self.held.get(path), named)
        changed = []
        for copy in decision.copies:
            if is_news(self.held.get(copy.path), copy.entry):
                changed += self.receive(copy.path, [(self.number, copy.entry)])
        if decision.winner != self.held.get(path):
            self.held[path] = decision.winner
            changed.append(path)
        return changed

    @property
    def tree(self) -> dict[RelPath, Shown]:
        return {
            path: Shown(entry.kind, entry.content, entry.mtime_ns, entry.executable)
            for path, entry in self.held.items()
            if entry.is_live
        }


Edges = Sequence[tuple[int, int]]


def line(devices: int) -> Edges:
    return [(number, number + 1) for number in range(devices - 1)]


def ring(devices: int) -> Edges:
    return [*line(devices), (devices - 1, 0)]


def star(devices: int) -> Edges:
    return [(0, number) for number in range(1, devices)]


def mesh(devices: int) -> Edges:
    return list(itertools.combinations(range(devices), 2))


TOPOLOGIES: tuple[Callable[[int], Edges], ...] = (line, ring, star, mesh)


@dataclass
class World:
    devices: list[Device]

    @classmethod
    def of(cls, devices: int) -> "World":
        return cls([Device(number) for number in range(devices)])

    def copy(self) -> "World":
        return World([Device(each.number, dict(each.held), each.counter) for each in self.devices])

    def exchange(self, edges: Edges, random: Random) -> int:
        """Until nobody has news for another, in an order of chance, late and doubled as it comes;
        how many offers it took."""
        neighbours: dict[int, list[int]] = {device.number: [] for device in self.devices}
        for one, other in edges:
            neighbours[one].append(other)
            neighbours[other].append(one)
        waiting = [
            Offer(receiver, device.number, path, entry)
            for device in self.devices
            for path, entry in device.held.items()
            for receiver in neighbours[device.number]
        ]
        taken = 0
        while waiting:
            offers = _some_of_one_path(waiting, random)
            if random.random() < 0.1:
                waiting.append(random.choice(offers))
            taken += len(offers)
            receiver = self.devices[offers[0].receiver]
            changed = receiver.receive(
                offers[0].path, [(offer.sender, offer.entry) for offer in offers]
            )
            waiting += [
                Offer(neighbour, receiver.number, path, receiver.held[path])
                for path in changed
                for neighbour in neighbours[receiver.number]
            ]
        return taken

    def pull(self, receiver: int, sender: int, paths: Iterable[RelPath]) -> None:
        for path in paths:
            if (entry := self.devices[sender].held.get(path)) is not None:
                self.devices[receiver].receive(path, [(sender, entry)])

    def news(self) -> Iterator[Offer]:
        """What any device could still tell any other."""
        for sender, receiver in itertools.permutations(self.devices, 2):
            for path, entry in sender.held.items():
                if is_news(receiver.held.get(path), entry):
                    yield Offer(receiver.number, sender.number, path, entry)


def _some_of_one_path(waiting: list[Offer], random: Random) -> list[Offer]:
    """Take out one offer or, now and then, all that wait at its receiver for its path."""
    at = random.randrange(len(waiting))
    waiting[at], waiting[-1] = waiting[-1], waiting[at]
    first = waiting.pop()
    if random.random() < 0.5:
        return [first]
    same = [offer for offer in waiting if offer[0] == first[0] and offer[2] == first[2]]
    waiting[:] = [offer for offer in waiting if offer not in same]
    return [first, *same]
