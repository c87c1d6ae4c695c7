"""Two versions of one path, the election between them, and the copies of what loses."""

import itertools
from collections.abc import Sequence
from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Kind
from p2psync.core.merge import conflict_copy, merge, rank
from p2psync.core.relpath import (
    MAX_COMPONENT_BYTES,
    MAX_COMPONENTS,
    MAX_PATH_BYTES,
    RelPath,
    parse_relpath,
)
from p2psync.core.version import MAX_KEPT, MAX_STAMP, Dot, first_version, is_kept, join
from tests.support.builders import directory, file, symlink, tombstone, version
from tests.support.strategies import authors, entries, examples, relpaths

OLD = file("a1")

# Each as: what happened, the winner, the other, whether the other's content is kept as a copy.
ELECTIONS: list[tuple[str, Entry, Entry, bool]] = [
    ("An edit replaces what its author saw.", file("b1", saw="a1"), file("a1", stamp=9), False),
    ("A deletion removes what was seen.", tombstone("b1", origin="a1"), file("a1"), False),
    (
        "Who makes a path anew saw that it was deleted.",
        file("c1", saw="a1 b1"),
        tombstone("b1", origin="a1", stamp=9),
        False,
    ),
    ("Of two edits the later wins.", file("b1", stamp=2), file("c1", stamp=1), True),
    ("At the same time the higher replica wins.", file("c1"), file("b1"), True),
    ("Equal contents are no conflict.", file("c1", "same"), file("b1", "same"), False),
    (
        "An edit wins over a deletion, though that is later.",
        file("b1", saw="a1", stamp=2),
        tombstone("c1", origin="a1", stamp=9),
        False,
    ),
    (
        "Of two deletions one stays.",
        tombstone("c1", origin="a1"),
        tombstone("b1", origin="a1"),
        False,
    ),
    (
        "An edit wins over a chmod, and no copy of the old content is made.",
        file("b1", saw="a1", stamp=2),
        file("c1", origin="a1", executable=True),
        False,
    ),
    (
        "A chmod wins over a deletion.",
        file("c1", origin="a1", executable=True),
        tombstone("b1", origin="a1", stamp=9),
        False,
    ),
    (
        "A chmod does not win over the deletion of an edit of the same content.",
        tombstone("b2", saw="a1", origin="b1"),
        file("c1", origin="a1", executable=True),
        False,
    ),
    (
        "Of a chmod and a touch one wins.",
        file("c1", origin="a1", executable=True),
        file("b1", origin="a1", mtime_ns=7),
        False,
    ),
    ("A directory wins over a later file.", directory("b1"), file("c1", stamp=9), True),
    ("A directory wins over a link.", directory("b1"), symlink("c1", stamp=9), True),
    ("A link wins over an earlier file.", symlink("b1", stamp=2), file("c1", stamp=1), True),
    ("A file wins over an earlier link.", file("b1", stamp=2), symlink("c1", stamp=1), True),
    ("Two devices make the same directory.", directory("c1"), directory("b1"), False),
    ("A directory that was deleted has no copy.", file("c1"), tombstone("b1", origin="a1"), False),
    (
        "The loser's copy was made by whoever made the joined version.",
        file("b1", saw="c1", stamp=2),
        file("c1", stamp=1),
        False,
    ),
    (
        "Of two that know each other the one that knows more wins.",
        tombstone("b1", saw="a1 c1 d1"),
        file("c1", saw="b1"),
        False,
    ),
    (
        "Of two with one content that know each other one stays.",
        file("b1", "same", saw="c1 d1"),
        file("c1", "same", saw="b1 e1"),
        False,
    ),
    (
        "Of two that know each other the one that the other keeps wins.",
        file("c1", saw="a1 b1", stamp=1),
        file("a1", saw="d1", kept="c1", stamp=2),
        False,
    ),
    (
        "What is kept wins over a deletion that is known, however much that knows.",
        file("c1", saw="a1 b1"),
        tombstone("b1", saw="d1", kept="c1", origin="a1"),
        False,
    ),
    (
        "Of two that keep each other one wins and the other is copied.",
        file("c1", kept="b1", stamp=1),
        file("b1", kept="c1", stamp=2),
        True,
    ),
    (
        "What won over a file that is kept still does, and may need the copy here as well.",
        directory("b1", kept="c1"),
        file("c1"),
        True,
    ),
    (
        "One dot of two contents is the work of a copied device, and both are kept.",
        file("a1", "one", stamp=1),
        file("a1", "two", stamp=2),
        True,
    ),
    (
        "At the end of time the dots tell versions apart.",
        file("c1", stamp=MAX_STAMP),
        file("b1", stamp=MAX_STAMP),
        True,
    ),
    (
        "At the end of time who saw the other still wins.",
        file("b1", saw="c1", stamp=MAX_STAMP),
        file("c1", stamp=MAX_STAMP),
        False,
    ),
]


@pytest.mark.parametrize(
    ("winner", "other", "copied"),
    [row[1:] for row in ELECTIONS],
    ids=[row[0].rstrip(".") for row in ELECTIONS],
)
def test_the_election(winner: Entry, other: Entry, *, copied: bool) -> None:
    for merged in (merge(winner, other), merge(other, winner)):
        assert (merged.winner.version.dot, merged.winner.content, merged.winner.kind) == (
            winner.version.dot,
            winner.content,
            winner.kind,
        )
        assert merged.winner.version.vector == join(winner.version.vector, other.version.vector)
        assert merged.loser == (other if copied else None)


@examples(0.3)
@given(entries(), entries())
def test_merge_is_symmetric(one: Entry, other: Entry) -> None:
    assert merge(one, other) == merge(other, one)


@examples(0.3)
@given(entries(), entries())
def test_the_winner_is_one_of_the_two_with_all_that_both_cover(one: Entry, other: Entry) -> None:
    winner, loser = merge(one, other)
    vector = join(one.version.vector, other.version.vector)
    assert winner.version.vector == vector
    assert loser in (None, one, other)
    if one.is_live and other.is_live and not winner.is_live:
        assert one.version.covers(other.version.dot)
        assert other.version.covers(one.version.dot)
        assert winner.version.dot in (one.version.origin, other.version.origin)
        return
    kept = winner.version.kept
    assert is_kept(winner.version)
    assert winner in [
        msgspec.structs.replace(
            each, version=msgspec.structs.replace(each.version, vector=vector, kept=kept)
        )
        for each in (one, other)
    ]


@examples(0.3)
@given(entries())
def test_merging_with_itself_changes_nothing(entry: Entry) -> None:
    assert merge(entry, entry) == (entry, None)


@examples(0.3)
@given(entries(), entries())
def test_merging_again_changes_nothing(one: Entry, other: Entry) -> None:
    """But that the copy of what is kept is asked for again: it follows from the write."""
    winner, _ = merge(one, other)
    if one.version.origin != other.version.origin and one.version.dot != other.version.dot:
        for each in (one, other):
            kept = each.version.origin in winner.version.kept
            assert merge(winner, each).winner == winner
            assert merge(winner, each).loser in ((None, each) if kept else (None,))


@examples(0.3)
@given(entries(), entries())
def test_a_live_content_goes_only_where_it_was_seen_or_is_copied(one: Entry, other: Entry) -> None:
    winner, loser = merge(one, other)
    for entry, against in ((one, other), (other, one)):
        if entry.kind in (Kind.FILE, Kind.SYMLINK) and not entry.same_content(winner):
            assert loser == entry or against.version.covers(entry.version.origin)


@examples(0.3)
@given(entries(), entries())
def test_only_one_and_the_same_entry_has_the_same_rank(one: Entry, other: Entry) -> None:
    assert (rank(one) == rank(other)) == (one == other)


# --- more than two ------------------------------------------------------------------------------

# Versions made by people who all saw the same before: sentence, what the path shows, what else.
MEETINGS: list[tuple[str, Entry, list[Entry]]] = [
    (
        "Three edits.",
        file("d1", saw="a1", stamp=3),
        [file("b1", saw="a1", stamp=1), file("c1", saw="a1", stamp=2)],
    ),
    (
        "An edit, a chmod and a deletion.",
        file("b1", saw="a1"),
        [file("c1", origin="a1", executable=True), tombstone("d1", origin="a1", stamp=9)],
    ),
    (
        "An edit that was deleted, a chmod and another deletion.",
        tombstone("b2", saw="a1", origin="b1"),
        [file("c1", origin="a1", executable=True), tombstone("d1", origin="a1", stamp=9)],
    ),
    (
        "A directory, a file, a link and a deletion.",
        directory("e1", saw="a1"),
        [
            file("b1", saw="a1", stamp=9),
            symlink("c1", saw="a1", stamp=5),
            tombstone("d1", origin="a1", stamp=7),
        ],
    ),
    (
        "Two equal edits, a touch and a third edit that is the latest.",
        file("d1", saw="a1", stamp=9),
        [
            file("b1", "same", saw="a1", stamp=1),
            file("c1", "same", saw="a1", stamp=2),
            file("e1", origin="a1", mtime_ns=3),
        ],
    ),
    (
        "Four contents that nobody had before.",
        symlink("c1", stamp=9),
        [file("a1", stamp=3), file("b1", stamp=3), file("d1", stamp=2)],
    ),
]


def _merged(versions: Sequence[Entry]) -> list[Entry]:
    """All that can become of them, in whatever order and in whatever groups they meet."""
    if len(versions) == 1:
        return list(versions)
    return [
        merge(one, other).winner
        for at in range(1, len(versions))
        for one in _merged(versions[:at])
        for other in _merged(versions[at:])
    ]


@pytest.mark.parametrize(
    ("winner", "others"),
    [row[1:] for row in MEETINGS],
    ids=[row[0].rstrip(".") for row in MEETINGS],
)
def test_every_order_elects_the_same(winner: Entry, others: list[Entry]) -> None:
    ends = {end for order in itertools.permutations([winner, *others]) for end in _merged(order)}
    assert {end.version.dot for end in ends} == {winner.version.dot}
    # Of equal contents that lose one by one each is kept, where they met first only one.
    (last,) = {reduce(lambda one, other: merge(one, other).winner, order) for order in _both(ends)}
    assert last in ends


def _both(ends: set[Entry]) -> list[list[Entry]]:
    ordered = sorted(ends, key=rank)
    return [ordered, ordered[::-1]]


def test_an_edit_with_an_earlier_time_closes_no_circle() -> None:
    """By their times alone the old content wins over the other one, and that one over the edit."""
    old = file("a1", stamp=3, mtime_ns=3)
    edit = file("b1", saw="a1", stamp=4, mtime_ns=1)
    other = file("c1", stamp=2, mtime_ns=2)
    ends = {end for order in itertools.permutations([old, edit, other]) for end in _merged(order)}
    assert {end.version.dot for end in ends} == {edit.version.dot}


def test_a_tombstone_that_knows_of_a_later_deletion_is_not_undone_by_an_earlier_chmod() -> None:
    """Found by thought: the chmod had won over one deletion, but another had seen its edit."""
    chmod = file("b1", saw="c1", origin="a1", executable=True)
    deleted = tombstone("c1", saw="a1 b1 d1 d2", origin="a1")
    assert merge(chmod, deleted).winner == deleted


def test_of_two_that_won_over_each_other_by_others_the_weaker_shows() -> None:
    """Of X and Z, X won and Z was copied; elsewhere X was deleted and Z won over the deletion."""
    deleted = tombstone("b1", saw="a1 c1", origin="a1", stamp=3)
    other = file("c1", saw="a1 b1", stamp=1)
    assert merge(deleted, other) == (deleted, None)


# --- what is kept -------------------------------------------------------------------------------

# Two versions, and what the joined one keeps.
KEPT: list[tuple[str, Entry, Entry, str]] = [
    ("The loser of a conflict is kept.", file("b1", stamp=2), file("c1", stamp=1), "c1"),
    ("What was replaced is not.", file("b1", saw="c1"), file("c1"), ""),
    ("What is the same is not.", file("b1", "same"), file("c1", "same"), ""),
    (
        "What one keeps and the other does not know stays.",
        file("b1", kept="c1"),
        file("d1"),
        "c1 b1",
    ),
    (
        "What one keeps and the other has replaced goes.",
        directory("b1", kept="c1"),
        file("c2", saw="c1"),
        "c2",
    ),
    (
        "What one keeps and the other has deleted goes.",
        directory("b1", kept="c1"),
        tombstone("d1", origin="c1"),
        "",
    ),
    ("What one keeps and the other shows stays.", directory("b1", kept="c1"), file("c1"), "c1"),
    (
        "What one keeps and the other touched stays.",
        directory("b1", kept="c1"),
        file("d1", origin="c1", mtime_ns=1),
        "c1",
    ),
    (
        "What shows after all has a copy.",
        file("c1", saw="a1 b1"),
        tombstone("b1", origin="a1", kept="c1"),
        "c1",
    ),
    (
        "What shows after all keeps the mark that it has one.",
        file("c2", origin="c1", kept="c1", executable=True),
        tombstone("d1", origin="c1"),
        "c1",
    ),
    ("What both keep stays.", file("b1", kept="a1 d1"), file("c1", saw="d1", kept="a1"), "a1 b1"),
]


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [row[1:] for row in KEPT],
    ids=[row[0].rstrip(".") for row in KEPT],
)
def test_what_the_joined_version_keeps(one: Entry, other: Entry, kept: str) -> None:
    for merged in (merge(one, other), merge(other, one)):
        assert merged.winner.version.kept == version("h9", kept=kept).kept


def test_of_many_that_are_kept_some_are_told_of() -> None:
    entry, dots = file("a1", stamp=1), [Dot(number, 1) for number in range(2, MAX_KEPT + 9)]
    for write in dots:
        other = msgspec.structs.replace(
            file("b1"), version=first_version(write, stamp=0, author="ben"), content=bytes(write)
        )
        merged = merge(entry, other)
        assert merged.loser == other
        entry = merged.winner
    assert entry.version.kept == tuple(dots[-MAX_KEPT:])
    assert all(entry.version.covers(write) for write in dots)


# --- conflict copies ----------------------------------------------------------------------------

PATH = RelPath("docs/plan.txt")


def test_a_copy_is_named_after_the_writer_the_day_and_the_write() -> None:
    name, entry = conflict_copy(PATH, file("a1", stamp=1_700_000_000 * 10**9))
    assert name.startswith("docs/plan (conflict anna 2023-11-14 ")
    assert name.endswith(").txt")
    assert entry.copy_of == PATH
    assert entry.version == version("a1", stamp=1_700_000_000 * 10**9)


def test_all_that_preserve_a_content_make_the_same_copy() -> None:
    plain = file("a1", stamp=4)
    joined = file("a1", saw="b1 c3", stamp=4)
    assert conflict_copy(PATH, plain) == conflict_copy(PATH, joined)
    touched = conflict_copy(PATH, file("b2", origin="a1", stamp=4))
    assert touched[0] == conflict_copy(PATH, plain)[0]
    assert touched[1].version == conflict_copy(PATH, plain)[1].version


def test_making_a_copy_again_after_it_was_deleted_changes_nothing() -> None:
    _, copy = conflict_copy(PATH, file("a1"))
    deleted = tombstone("b1", origin="a1")
    assert merge(deleted, copy) == (deleted, None)


def test_a_copy_of_what_won_after_one_was_made_has_another_name() -> None:
    """That one may have been deleted, because its content was at the path."""
    first, _ = conflict_copy(PATH, file("c1", saw="b1"))
    assert conflict_copy(PATH, file("c1", saw="b1", kept="c1"))[0] != first
    assert conflict_copy(PATH, file("c1", saw="b1", kept="b1"))[0] == first


def test_making_a_copy_again_after_it_was_edited_changes_nothing() -> None:
    _, copy = conflict_copy(PATH, file("a1"))
    edited = file("b1", saw="a1", copy_of=PATH)
    assert merge(edited, copy) == (edited, None)


def test_two_losers_of_one_day_have_copies_of_their_own() -> None:
    assert conflict_copy(PATH, file("a1"))[0] != conflict_copy(PATH, file("a2"))[0]


def test_a_copy_of_a_copy_says_so_and_has_a_name_of_its_own() -> None:
    name, _ = conflict_copy(PATH, file("a1"))
    again, entry = conflict_copy(name, file("b1", copy_of=PATH))
    assert again != name
    assert entry.copy_of == name


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("Makefile", ")"),
        (".profile", ")"),
        ("archive.tar.gz", ").gz"),
        ("a.b/c", ")"),
        ("version 1.2 of the long story", ")"),
        ("dot.", ")."),
    ],
)
def test_a_suffix_stays_at_the_end_of_the_name(path: str, end: str) -> None:
    name, _ = conflict_copy(RelPath(path), file("a1"))
    assert name.rpartition(" ")[2][6:] == end


@examples(0.4)
@given(
    relpaths,
    authors,
    st.integers(0, MAX_STAMP),
    st.sampled_from(["", "x" * 250, "ü" * 120, "x" * 200 + ".j" + "ü" * 14]),
    st.sampled_from([0, 90, 3790, 3799]),
)
def test_a_copy_has_a_name_that_every_device_can_have(
    path: RelPath, author: str, stamp: int, base: str, deep: int
) -> None:
    above = ("d" * 99 + "/") * (deep // 100) + ("e" * (deep % 100 - 1) + "/") * (deep % 100 > 1)
    long_path = (above + (base or path.replace("/", "_")))[:MAX_PATH_BYTES]
    if len(long_path.encode()) > MAX_PATH_BYTES:
        long_path = path
    original = parse_relpath(long_path.rstrip("/"))
    loser = file("a1")
    loser = msgspec.structs.replace(
        loser, version=msgspec.structs.replace(loser.version, author=author, stamp=stamp)
    )
    name, _ = conflict_copy(original, loser)
    assert parse_relpath(name) == name != original


def test_a_copy_without_room_beside_the_original_is_further_up() -> None:
    above = "/".join(["d" * 250] * 15)
    original = parse_relpath(f"{above}/{'x' * 30}")
    name, entry = conflict_copy(original, file("a1"))
    assert original.startswith(name.rpartition("/")[0] + "/")
    assert len(name.encode()) <= MAX_PATH_BYTES
    assert len(name.rpartition("/")[2].encode()) <= MAX_COMPONENT_BYTES
    assert entry.copy_of == original


def test_a_copy_is_as_deep_as_may_be() -> None:
    original = parse_relpath("/".join(["d"] * MAX_COMPONENTS))
    assert parse_relpath(conflict_copy(original, file("a1"))[0])
