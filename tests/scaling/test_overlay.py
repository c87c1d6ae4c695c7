"""Shapes of groups, and what is told of them."""

import random

import pytest

from tests.scaling.overlay import (
    SHAPES,
    changed_by_one_more,
    diameter,
    distances,
    ids_of,
    mean_distance,
    mesh,
    neighbours,
    ring,
    rings,
    share_together,
)


@pytest.mark.parametrize(
    ("shape", "edges", "most", "mean"),
    [
        ("mesh", 15, 1, 1.0),
        ("line", 5, 5, 7 / 3),
        ("ring", 6, 3, 9 / 5),
        ("star", 5, 2, 5 / 3),
    ],
)
def test_six_devices_have_the_hops_of_their_shape(
    shape: str, edges: int, most: int, mean: float
) -> None:
    found = SHAPES[shape](6)
    around = neighbours(found, range(6))
    assert len(found) == edges
    assert diameter(around) == most
    assert mean_distance(around) == pytest.approx(mean)


@pytest.mark.parametrize("degree", [2, 4, 6, 8])
@pytest.mark.parametrize("count", [3, 9, 64])
def test_rings_connect_all_and_nobody_has_more_neighbours_than_the_degree(
    degree: int, count: int
) -> None:
    around = neighbours(rings(ids_of(count), degree), range(count))
    assert len(distances(around, 0)) == count
    assert all(2 <= len(others) <= degree for others in around.values())


def test_rings_are_the_same_for_whoever_computes_them() -> None:
    ids = ids_of(20)
    shuffled = random.Random(3).sample(ids, len(ids))

    def named(listed: list[bytes]) -> set[frozenset[bytes]]:
        return {frozenset(listed[at] for at in edge) for edge in rings(listed, 6)}

    assert named(ids) == named(shuffled)


def test_each_ring_has_an_order_of_its_own() -> None:
    assert len(rings(ids_of(64), 8)) > 3.5 * 64


@pytest.mark.parametrize("count", [10, 65])
def test_one_device_more_changes_three_connections_in_each_ring_at_most(count: int) -> None:
    assert 6 <= changed_by_one_more(ids_of(count), 6) <= 9


def test_two_devices_have_one_connection_in_all_rings_and_one_device_has_none() -> None:
    assert rings(ids_of(2), 8) == mesh(2)
    assert rings(ids_of(1), 8) == frozenset()


def test_who_is_away_parts_a_ring_and_no_mesh() -> None:
    source = random.Random(1)
    shares = [share_together(ring(12), 12, away=3, source=source) for _ in range(20)]
    assert min(shares) < 0.6
    assert share_together(mesh(12), 12, away=9, source=source) == 1.0
    assert share_together(ring(12), 12, away=0, source=source) == 1.0
