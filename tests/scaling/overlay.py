"""Who is connected to whom, as graphs of numbered devices: today's full mesh, others that a network
may force on a group, and the rings that could replace the mesh in a large one."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from blake3 import blake3

from tests.support.played_keys import own_device

Edges = frozenset[frozenset[int]]
Neighbours = Mapping[int, frozenset[int]]


def mesh(count: int) -> Edges:
    return frozenset(frozenset((one, two)) for one in range(count) for two in range(one))


def line(count: int) -> Edges:
    return frozenset(frozenset((at, at + 1)) for at in range(count - 1))


def ring(count: int) -> Edges:
    return line(count) | _edge(0, count - 1)


def star(count: int) -> Edges:
    """The author of changes is not its middle."""
    return frozenset(frozenset((count - 1, other)) for other in range(count - 1))


def rings(ids: Sequence[bytes], degree: int) -> Edges:
    """The proposed overlay: `degree` / 2 rings of all devices, each in an order of its own, that of
    the digest of ring and device ID. A device is connected to those beside it in each ring.

    Whoever knows the members knows all of it, and both ends of a connection agree on it. One device
    more or less changes `degree` connections and one between its neighbours in each ring.
    """
    found: set[frozenset[int]] = set()
    for number in range(degree // 2):
        ordered = sorted(range(len(ids)), key=lambda at: _place(number, ids[at]))
        for one, two in zip(ordered, [*ordered[1:], ordered[0]], strict=True):
            found |= _edge(one, two)
    return frozenset(found)


def _place(number: int, device: bytes) -> bytes:
    return blake3(b"%d " % number + device).digest()


def _edge(one: int, two: int) -> Edges:
    return frozenset([frozenset((one, two))] if one != two else [])


def name_of(at: int) -> str:
    return f"d{at:04}"


def ids_of(count: int) -> list[bytes]:
    return [own_device(name_of(at)).device for at in range(count)]


SHAPES: Mapping[str, Callable[[int], Edges]] = {
    "mesh": mesh,
    "line": line,
    "ring": ring,
    "star": star,
    "rings-4": lambda count: rings(ids_of(count), 4),
    "rings-6": lambda count: rings(ids_of(count), 6),
    "rings-8": lambda count: rings(ids_of(count), 8),
}


# --- what can be told of a graph without playing it ----------------------------------------------


def neighbours(edges: Iterable[frozenset[int]], among: Collection[int]) -> Neighbours:
    found: dict[int, set[int]] = {each: set() for each in among}
    for one, two in edges:
        if one in found and two in found:
            found[one].add(two)
            found[two].add(one)
    return {each: frozenset(others) for each, others in found.items()}


def distances(around: Neighbours, start: int) -> dict[int, int]:
    """Hops to each device that can be reached."""
    found, last = {start: 0}, [start]
    while last:
        reached = sorted({other for each in last for other in around[each]} - found.keys())
        found.update(dict.fromkeys(reached, found[last[0]] + 1))
        last = reached
    return found


def diameter(around: Neighbours) -> int:
    """The most hops between any two; the graph is connected."""
    return max(max(distances(around, each).values()) for each in around)


def mean_distance(around: Neighbours) -> float:
    """Hops between two different devices; the graph is connected."""
    total = sum(sum(distances(around, each).values()) for each in around)
    return total / (len(around) * (len(around) - 1))


def share_together(edges: Edges, count: int, *, away: int, source: random.Random) -> float:
    """With `away` devices of chance gone: the share of the rest that is in its largest part."""
    rest = set(range(count)) - set(source.sample(range(count), away))
    around, largest, unseen = neighbours(edges, rest), 0, set(rest)
    while unseen:
        part = distances(around, min(unseen)).keys()
        largest = max(largest, len(part))
        unseen -= part
    return largest / len(rest)


def changed_by_one_more(ids: Sequence[bytes], degree: int) -> int:
    """Connections that are made or ended when the last of `ids` joins the others."""
    return len(rings(ids[:-1], degree) ^ rings(ids, degree))
