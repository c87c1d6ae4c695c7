"""Entries compared, and files recognised as unchanged."""

import msgspec
import pytest

from p2psync.core.entry import Entry, Fingerprint, Kind
from tests.support.builders import directory, file, symlink, tombstone


def larger(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, size=entry.size + 1)


SEEN = Fingerprint(Kind.FILE, 1, 2, 3, 4, executable=False, racy=False)


def test_a_file_with_the_same_fingerprint_is_unchanged() -> None:
    assert SEEN.unchanged(SEEN)
    assert SEEN.unchanged(SEEN._replace(racy=True)), "only the earlier look may have been too early"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": Kind.SYMLINK},
        {"size": 9},
        {"mtime_ns": 9},
        {"ctime_ns": 9},
        {"inode": 9},
        {"executable": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_difference_is_a_change(change: dict[str, object]) -> None:
    assert not SEEN.unchanged(SEEN._replace(**change))  # type: ignore[arg-type]


def test_a_file_that_was_read_in_the_tick_of_its_change_is_never_taken_as_unchanged() -> None:
    racy = SEEN._replace(racy=True)
    assert not racy.unchanged(racy)


@pytest.mark.parametrize(
    ("one", "other", "same", "why"),
    [
        (file("a1", "x"), file("b1", "x"), True, "who wrote it does not matter"),
        (file("a1", "x"), file("a1", "y"), False, "other bytes"),
        (file("a1", "x"), larger(file("a1", "x")), False, "only a liar gives it another size"),
        (directory("a1"), directory("b1"), True, "directories have no content"),
        (directory("a1"), tombstone("b1"), False, "nothing is no directory"),
        (symlink("a1", "x"), symlink("b1", "y"), False, "links that lead elsewhere"),
    ],
)
def test_same_content(one: Entry, other: Entry, *, same: bool, why: str) -> None:
    assert one.same_content(other) is same, why
    assert other.same_content(one) is same, why


def test_metadata_is_time_and_executable_bit() -> None:
    one = file("a1", mtime_ns=1)
    assert one.same_metadata(file("b1", "other", mtime_ns=1))
    assert not one.same_metadata(file("a1", mtime_ns=2))
    assert not one.same_metadata(file("a1", mtime_ns=1, executable=True))


def test_all_but_a_tombstone_is_live() -> None:
    assert [kind for kind in Kind if kind != Kind.TOMBSTONE] == [
        entry.kind for entry in (symlink("a1"), file("a1"), directory("a1")) if entry.is_live
    ]
    assert not tombstone("a1").is_live
