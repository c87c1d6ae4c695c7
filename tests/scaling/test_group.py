"""What small groups are counted to say: the formulas of docs/scaling.md."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pytest

from tests.scaling.group import Cost, changes, newcomer, tombstones
from tests.scaling.overlay import SHAPES

pytestmark = pytest.mark.slow

_GROUPS = (("mesh", 5), ("line", 4), ("star", 5))
_SIZES = (2, 5)


class Played(NamedTuple):
    groups: Mapping[tuple[str, int], Mapping[str, Cost]]
    again: Mapping[str, Cost]
    """The line once more."""
    newcomers: Mapping[int, Cost]
    """Of a mesh."""
    tombstones: Mapping[str, int]
    """Of four devices, by shape."""


def _play() -> Played:
    return Played(
        {group: changes(*group, seed=1) for group in _GROUPS},
        changes("line", 4, seed=1),
        {count: newcomer("mesh", count, files=50, seed=1) for count in _SIZES},
        {shape: tombstones(shape, 4, seed=1) for shape in ("mesh", "ring")},
    )


@pytest.fixture(scope="module")
def played() -> Played:
    spawn = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        # The order of sets of paths is a part of what a seed plays.
        patch.setenv("PYTHONHASHSEED", "0")
        return pool.submit(_play).result(timeout=120)


@pytest.mark.parametrize(("shape", "count"), _GROUPS)
def test_every_device_tells_each_neighbour_of_a_change_once(
    shape: str, count: int, played: Played
) -> None:
    ways = 2 * len(SHAPES[shape](count))
    for kind in ("new file", "edit", "deletion", "large file"):
        cost = played.groups[shape, count][kind]
        assert cost.messages["IndexBatch"] == ways, kind
        assert ways < cost.messages["IndexAck"] <= 2 * ways, kind
    assert played.groups[shape, count]["minute after"].messages["FolderDigest"] == ways
    assert played.groups[shape, count]["admission"].messages["Roster"] == ways


@pytest.mark.parametrize(
    ("shape", "count", "least", "most"), [("mesh", 5, 1, 4), ("line", 4, 1, 1), ("star", 5, 1, 1)]
)
def test_a_content_goes_to_each_device_once_and_from_its_author_to_neighbours_at_most(
    shape: str, count: int, least: int, most: int, played: Played
) -> None:
    """Neighbours that are connected have some of it from one another."""
    cost = played.groups[shape, count]["large file"]
    assert cost.messages["ChunkReply"] == cost.messages["ChunkRequest"] == count - 1
    assert least <= cost.author_bytes / 1_000_000 < most + 0.1


def test_a_change_is_written_once_and_twice_for_each_peer(played: Played) -> None:
    """What the peer tells of it, and that it has acknowledged it."""
    for group, peers in ((("mesh", 5), 4), (("line", 4), 1)):
        writes = played.groups[group]["new file"].author_writes
        # An acknowledgement may come in two steps.
        assert 1 + 2 * peers <= writes <= 1 + 3 * peers


def test_nothing_but_signs_of_life_is_said_in_a_quiet_minute(played: Played) -> None:
    quiet = played.groups["mesh", 5]["quiet minute"]
    sessions = 10
    assert quiet.messages.keys() == {"Ping", "Pong"}
    assert 12 * sessions <= quiet.messages["Ping"] <= 24 * sessions
    assert quiet.all_writes == 0


def test_what_is_counted_is_the_same_when_it_is_played_again(played: Played) -> None:
    assert played.again == played.groups["line", 4]


def test_every_device_of_a_mesh_sends_a_newcomer_all_of_its_index(
    played: Played,
) -> None:
    alone, cost = (played.newcomers[count] for count in _SIZES)
    assert 3.8 < cost.bytes["IndexBatch"] / alone.bytes["IndexBatch"] < 4.2
    assert cost.bytes["ChunkReply"] == alone.bytes["ChunkReply"]
    assert alone.most_offers == 51
    assert 51 <= cost.most_offers <= 4 * 51


def test_tombstones_are_forgotten_where_all_are_neighbours_and_only_there(played: Played) -> None:
    assert played.tombstones == {"mesh": 0, "ring": 4}
