"""Vectors, dots and stamps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.version import (
    MAX_STAMP,
    MAX_VECTOR,
    Dot,
    Vector,
    Version,
    capped,
    content_successor,
    deletion_successor,
    first_version,
    is_kept,
    is_vector,
    join,
    metadata_successor,
)
from tests.support.builders import dot, vector, version
from tests.support.strategies import dots, examples, stamps, vectors, versions


@given(vectors, vectors, vectors)
def test_join_is_commutative_associative_and_idempotent(x: Vector, y: Vector, z: Vector) -> None:
    assert join(x, y) == join(y, x)
    assert join(join(x, y), z) == join(x, join(y, z))
    assert join(x, x) == x
    assert join(x, ()) == x


@given(versions(), vectors, dots)
def test_a_join_covers_what_either_covers_and_no_more(
    one: Version, other: Vector, write: Dot
) -> None:
    def covered(by: Vector) -> bool:
        return Version(one.dot, one.origin, 0, by, "anna").covers(write)

    assert covered(join(one.vector, other)) == (covered(one.vector) or covered(other))


@examples(0.5)
@given(vectors, vectors)
def test_a_join_of_vectors_is_a_vector(x: Vector, y: Vector) -> None:
    assert is_vector(join(x, y))


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        (((2, 1), (1, 1)), "replicas out of order"),
        (((1, 1), (1, 2)), "a replica twice"),
        (((0, 1),), "a replica that is no replica"),
        (((1, 0),), "a counter below one"),
        (((1, 1 << 63),), "a counter that no table holds"),
        (((1 << 63, 1),), "a replica that no table holds"),
        (((-1, 1),), "a negative replica"),
    ],
)
def test_what_is_no_vector_is_told(pairs: Vector, what: str) -> None:
    assert not is_vector(pairs), what


@pytest.mark.parametrize(
    ("saw", "write", "covered", "why"),
    [
        ("a2", "a1", True, "who saw the second write of a replica saw the first"),
        ("a2", "a2", True, "the write itself"),
        ("a2", "a3", False, "the third came later"),
        ("a2", "b1", False, "of another replica nothing is known"),
    ],
)
def test_covers(saw: str, write: str, *, covered: bool, why: str) -> None:
    assert version("c1", saw=saw).covers(dot(write)) is covered, why


@given(versions(), dots, stamps)
def test_a_successor_covers_all_its_predecessor_does_and_is_later(
    seen: Version, write: Dot, now: int
) -> None:
    for make in (content_successor, deletion_successor):
        later = make(seen, write, now_ns=now, author="ben")
        assert join(later.vector, seen.vector) == later.vector
        assert later.covers(write)
        assert later.covers(later.origin)
        assert later.stamp > seen.stamp or later.stamp == MAX_STAMP
        assert now <= later.stamp <= MAX_STAMP
        assert later.author == "ben"


@given(versions(), dots)
def test_a_change_of_metadata_keeps_what_tells_the_content(seen: Version, write: Dot) -> None:
    later = metadata_successor(seen, write)
    assert (later.origin, later.stamp, later.author) == (seen.origin, seen.stamp, seen.author)
    assert later.dot == write
    assert later.covers(write)


def test_who_writes_or_deletes_saw_what_was_kept_and_who_touches_may_not_have() -> None:
    seen, write = version("a1", kept="c1 d1"), dot("b1")
    assert content_successor(seen, write, now_ns=1, author="ben").kept == ()
    assert deletion_successor(seen, write, now_ns=1, author="ben").kept == ()
    assert metadata_successor(seen, write).kept == (dot("c1"), dot("d1"))


@pytest.mark.parametrize(
    ("seen", "origin", "replaced"),
    [
        (version("a1", saw="b2"), "b1", True),
        (version("a1", saw="b2"), "b3", False),
        (version("a1", kept="b2"), "b2", False),
        (version("a1", kept="b2"), "b1", True),
    ],
)
def test_what_was_seen_and_is_not_kept_was_replaced(
    seen: Version, origin: str, *, replaced: bool
) -> None:
    assert seen.has_replaced(dot(origin)) is replaced


@examples(0.5)
@given(versions(), vectors, st.lists(dots, max_size=4))
def test_a_joined_version_keeps_of_what_it_covers(
    one: Version, vector: Vector, kept: list[Dot]
) -> None:
    after = one.joined(join(one.vector, vector), kept)
    assert is_kept(after)
    assert set(after.kept) == {each for each in kept if after.covers(each)}


def test_a_first_version_has_seen_itself_alone() -> None:
    first = first_version(dot("a1"), stamp=5, author="anna")
    assert first == version("a1", stamp=5)
    assert first.vector == vector("a1")
    assert content_successor(None, dot("a1"), now_ns=5, author="anna") == first


def test_a_deletion_keeps_the_origin_of_what_it_deletes() -> None:
    deleted = deletion_successor(version("a1"), dot("b1"), now_ns=1, author="ben")
    assert deleted.origin == dot("a1")


@pytest.mark.parametrize("now", [0, MAX_STAMP, MAX_STAMP + 9])
def test_a_stamp_at_the_end_of_time_stays_there(now: int) -> None:
    hostile = version("a1", stamp=MAX_STAMP)
    later = content_successor(hostile, dot("b1"), now_ns=now, author="ben")
    assert later.stamp == MAX_STAMP
    assert later.covers(hostile.dot)


@given(st.integers(0, 1 << 70))
def test_a_clock_far_ahead_makes_a_stamp_that_fits_the_wire(now: int) -> None:
    assert content_successor(None, dot("a1"), now_ns=now, author="anna").stamp <= MAX_STAMP


def _crowd(first: int, count: int) -> Vector:
    return tuple((number, 1) for number in range(first, first + count))


def test_a_crowded_vector_keeps_what_it_needs_and_the_least_replicas() -> None:
    crowd = _crowd(10, MAX_VECTOR + 50)
    write, origin = Dot(MAX_VECTOR + 59, 1), Dot(MAX_VECTOR + 20, 1)
    short = capped(crowd, write, origin)
    assert is_vector(short)
    assert len(short) == MAX_VECTOR
    assert {(write.replica, 1), (origin.replica, 1), *_crowd(10, MAX_VECTOR - 2)} == set(short)


def test_crowded_vectors_come_to_the_same_in_whatever_order_they_are_joined() -> None:
    one, other, third = _crowd(1, 900), _crowd(500, 900), _crowd(1000, 900)
    write = Dot(1500, 1)
    left = capped(join(capped(join(one, other), write), third), write)
    right = capped(join(one, capped(join(third, other), write)), write)
    assert left == right


def test_a_successor_of_a_full_vector_can_still_be_sent() -> None:
    kept = (Dot(6, 1), Dot(MAX_VECTOR, 1))
    full = Version(Dot(5, 1), Dot(7, 1), 0, _crowd(1, MAX_VECTOR), "eve", kept)
    write = Dot(1 << 40, 1)
    for after in (
        content_successor(full, write, now_ns=1, author="ada"),
        deletion_successor(full, write, now_ns=1, author="ada"),
        metadata_successor(full, write),
    ):
        assert len(after.vector) == MAX_VECTOR
        assert is_kept(after)
        assert after.covers(write)
        assert after.covers(after.origin)
