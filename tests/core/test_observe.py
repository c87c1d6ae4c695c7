"""What a look at the disk means, against what was held."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.merge import conflict_copy, merge
from p2psync.core.observe import Observation, as_given, is_new, successor
from p2psync.core.relpath import RelPath
from p2psync.core.version import MAX_STAMP
from tests.support.builders import directory, dot, file, symlink, tombstone, vector
from tests.support.strategies import entries, examples

CONTENT = b"new".ljust(32)
NOTHING = Observation(Kind.TOMBSTONE)


def _seen(entry: Entry) -> Observation:
    return Observation(
        entry.kind, entry.content, entry.size, entry.mtime_ns, executable=entry.executable
    )


def _after(held: Entry | None, seen: Observation, *, now_ns: int = 100) -> Entry:
    return successor(held, seen, dot("b1"), now_ns=now_ns, author="ben")


HELD = file("a1", stamp=7, mtime_ns=7)

# What is held, what is seen, whether it is news, and why.
SIGHTS: list[tuple[Entry | None, Observation, bool, str]] = [
    (None, NOTHING, False, "Nothing is where nothing was."),
    (tombstone("a1"), NOTHING, False, "What was deleted is still gone."),
    (HELD, _seen(HELD), False, "The file is as it was."),
    (directory("a1"), Observation(Kind.DIRECTORY), False, "The directory is still there."),
    (symlink("a1", "x"), Observation(Kind.SYMLINK, b"x"), False, "The link is as it was."),
    (None, Observation(Kind.DIRECTORY), True, "A directory was made."),
    (HELD, NOTHING, True, "The file is gone."),
    (HELD, _seen(HELD)._replace(mtime_ns=8), True, "The file was touched."),
    (HELD, _seen(HELD)._replace(executable=True), True, "The file was made executable."),
    (HELD, _seen(HELD)._replace(content=CONTENT), True, "Other content at the same time and size."),
    (HELD, Observation(Kind.DIRECTORY), True, "A directory is where a file was."),
    (tombstone("a1"), _seen(HELD), True, "A deleted file is back."),
    (symlink("a1", "x"), Observation(Kind.SYMLINK, b"y"), True, "The link leads elsewhere."),
]


@pytest.mark.parametrize(
    ("held", "seen", "news"), [row[:3] for row in SIGHTS], ids=[row[3][:-1] for row in SIGHTS]
)
def test_news(held: Entry | None, seen: Observation, *, news: bool) -> None:
    assert is_new(held, seen) is news


@examples(0.3)
@given(st.none() | entries(), entries(), st.integers(0, 1 << 70))
def test_what_was_recorded_is_no_news_any_more(held: Entry | None, there: Entry, now: int) -> None:
    assert not is_new(_after(held, _seen(there), now_ns=now), _seen(there))


@examples(0.3)
@given(entries(), entries(), st.integers(0, 1 << 70))
def test_a_local_change_wins_over_what_was_held(held: Entry, there: Entry, now: int) -> None:
    if held.version.covers(dot("b1")) or (
        held.content == there.content and held.size != there.size
    ):
        return
    after = _after(held, _seen(there), now_ns=now)
    assert merge(after, held) == (after, None)


def test_a_change_of_metadata_keeps_origin_and_stamp() -> None:
    after = _after(HELD, _seen(HELD)._replace(executable=True))
    assert (after.version.origin, after.version.stamp) == (dot("a1"), 7)
    assert after.version.dot == dot("b1")
    assert after.version.author == "anna"


def test_new_content_has_its_writer_its_origin_and_all_that_was_seen() -> None:
    after = _after(HELD, _seen(HELD)._replace(content=CONTENT))
    assert after.version.origin == dot("b1")
    assert after.version.vector == vector("a1 b1")
    assert after.version.author == "ben"


def test_a_deletion_keeps_the_origin_of_what_was_deleted() -> None:
    after = _after(HELD, NOTHING)
    assert (after.kind, after.version.origin) == (Kind.TOMBSTONE, dot("a1"))
    assert after.version.author == "ben"


def test_a_file_that_comes_back_with_its_old_content_is_a_new_write() -> None:
    after = _after(tombstone("c1", origin="a1"), _seen(HELD))
    assert after.version.origin == dot("b1")


# Time of the file, time of the scan, the stamp, and why.
TIMES = [
    (50, 100, 50, "The file's own time, where it has passed."),
    (150, 100, 100, "A file from the future was written by now at the latest."),
    (3, 100, 8, "A file with an old time is still later than what it replaces."),
    (-5, 100, 8, "Likewise one from before 1970."),
    (1 << 70, 1 << 70, MAX_STAMP, "A clock beyond the wire's end of time."),
]


@pytest.mark.parametrize(
    ("mtime_ns", "now_ns", "stamp"), [row[:3] for row in TIMES], ids=[row[3][:-1] for row in TIMES]
)
def test_stamps(mtime_ns: int, now_ns: int, stamp: int) -> None:
    seen = Observation(Kind.FILE, CONTENT, 1, mtime_ns)
    assert _after(HELD, seen, now_ns=now_ns).version.stamp == stamp


@pytest.mark.parametrize("mtime_ns", [1 << 63, 1 << 80, -(1 << 63) - 1])
def test_a_file_time_that_fits_no_wire_is_brought_into_it(mtime_ns: int) -> None:
    seen = Observation(Kind.FILE, CONTENT, 1, mtime_ns)
    after = _after(None, seen)
    assert -(1 << 63) <= after.mtime_ns < 1 << 63
    assert not is_new(after, seen)


# What the disk made of a time and an execute bit.
GIVEN = file("a1", mtime_ns=1_600_000_001_123_456_789, executable=True)
SECOND_LATER_NS = 1_600_000_002_000_000_000
SHOWN = Fingerprint(Kind.FILE, 1, 1_600_000_001_000_000_000, 5, 6, executable=False, racy=True)
AS_SHOWN = _seen(GIVEN)._replace(mtime_ns=SHOWN.mtime_ns, executable=False)


def test_what_the_disk_made_of_metadata_is_no_news() -> None:
    assert is_new(GIVEN, AS_SHOWN)
    assert as_given(GIVEN, SHOWN, AS_SHOWN) == _seen(GIVEN)


@pytest.mark.parametrize(
    "change",
    [
        {"mtime_ns": 1_600_000_002_000_000_000},
        {"mtime_ns": 1_600_000_001_100_000_000},
        {"executable": True, "mtime_ns": 3},
        {"content": CONTENT},
        {"kind": Kind.DIRECTORY},
        {"kind": Kind.TOMBSTONE},
    ],
)
def test_what_changed_since_it_was_shown_is_news(change: dict[str, object]) -> None:
    seen = AS_SHOWN._replace(**change)  # type: ignore[arg-type]
    assert is_new(GIVEN, as_given(GIVEN, SHOWN, seen))


def test_an_edit_keeps_the_execute_bit_that_the_disk_does_not_have() -> None:
    seen = as_given(GIVEN, SHOWN, AS_SHOWN._replace(content=CONTENT, mtime_ns=SECOND_LATER_NS))
    assert (seen.mtime_ns, seen.executable) == (SECOND_LATER_NS, True)


def test_what_was_not_held_or_not_as_a_file_is_as_it_is_seen() -> None:
    assert as_given(None, None, AS_SHOWN) == AS_SHOWN
    assert as_given(tombstone("a1"), None, AS_SHOWN) == AS_SHOWN
    was_link = SHOWN._replace(kind=Kind.SYMLINK)
    assert as_given(symlink("a1", "x"), was_link, AS_SHOWN) == AS_SHOWN


def test_an_edited_copy_is_still_a_copy_until_it_is_deleted() -> None:
    _, copy = conflict_copy(RelPath("a"), HELD)
    edited = _after(copy, _seen(HELD)._replace(content=CONTENT))
    assert edited.copy_of == "a"
    gone = _after(edited, NOTHING)
    assert gone.copy_of == ""
    assert _after(gone, _seen(HELD)).copy_of == ""


def test_an_edit_after_a_hostile_stamp_still_wins_over_it() -> None:
    hostile = msgspec.structs.replace(
        HELD, version=msgspec.structs.replace(HELD.version, stamp=MAX_STAMP)
    )
    edited = _after(hostile, _seen(HELD)._replace(content=CONTENT))
    assert merge(edited, hostile) == (edited, None)
    assert edited.version.stamp == MAX_STAMP
