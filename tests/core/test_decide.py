"""What follows for one path from what is held and what peers offer."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.decide import decide, is_news, is_removal
from p2psync.core.entry import Entry
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy, merge
from p2psync.core.relpath import RelPath
from tests.support.builders import directory, file, tombstone
from tests.support.strategies import entries, examples

PATH = RelPath("a.txt")
ANNA, BEN, CARL = (DeviceID(bytes([number] * 32)) for number in (1, 2, 3))
HELD = file("a1", stamp=1)


def test_a_new_path_is_taken_over() -> None:
    decision = decide(PATH, None, [(BEN, HELD)])
    assert (decision.winner, decision.copies, decision.sources) == (HELD, (), (BEN,))
    assert not decision.changes_nothing
    assert not decision.keeps_content


def test_what_is_held_already_changes_nothing() -> None:
    decision = decide(PATH, HELD, [(BEN, HELD), (CARL, HELD)])
    assert decision.changes_nothing
    assert decision.keeps_content
    assert decision.keeps_metadata
    assert decision.sources == (BEN, CARL)


def test_of_equal_losers_that_which_had_a_copy_already_names_the_new_one() -> None:
    """The name for the other may be that of the copy, which may have been deleted."""
    held = file("a1", "z", saw="d1", kept="a1")
    touched = file("b1", "z", origin="a1", mtime_ns=5)
    decision = decide(PATH, held, [(BEN, touched), (CARL, file("c1", stamp=9))])
    (copy,) = decision.copies
    assert copy.path == conflict_copy(PATH, held)[0] != conflict_copy(PATH, touched)[0]


def test_a_touch_keeps_the_content_on_disk() -> None:
    decision = decide(PATH, HELD, [(BEN, file("b1", origin="a1", mtime_ns=5))])
    assert decision.keeps_content
    assert not decision.keeps_metadata


def test_a_deletion_is_a_removal() -> None:
    assert is_removal(decide(PATH, HELD, [(BEN, tombstone("b1", origin="a1"))]))
    assert not is_removal(decide(PATH, HELD, [(BEN, file("b1", saw="a1"))]))


def test_a_losing_content_is_to_be_copied_from_whoever_offers_it() -> None:
    other = file("b1", stamp=9)
    decision = decide(PATH, HELD, [(BEN, other)])
    assert decision.winner.content == other.content
    assert decision.sources == (BEN,)
    (copy,) = decision.copies
    assert (copy.path, copy.entry) == conflict_copy(PATH, HELD)
    assert copy.sources == ()
    (other_copy,) = decide(PATH, other, [(CARL, HELD), (ANNA, HELD)]).copies
    assert (other_copy.path, other_copy.entry) == (copy.path, copy.entry)
    assert other_copy.sources == (CARL, ANNA)


def test_a_conflict_that_one_of_the_offers_resolves_is_none() -> None:
    """Whatever the times: the sides of the conflict were seen by who wrote the last version."""
    offers = [(ANNA, file("b1", stamp=9)), (BEN, file("c1", saw="a1 b1"))]
    for order in itertools.permutations(offers):
        decision = decide(PATH, HELD, order)
        assert decision.winner == file("c1", saw="a1 b1")
        assert decision.copies == ()


def test_a_content_that_was_deleted_makes_no_conflict_with_another() -> None:
    """X would have won over Z and Z been copied, but the deletion of X is offered as well."""
    x, gone, z = file("a1", stamp=9), tombstone("b1", origin="a1", stamp=10), file("c1", stamp=1)
    for held, one, other in itertools.permutations([x, gone, z]):
        decision = decide(PATH, held, [(ANNA, one), (BEN, other)])
        assert decision.winner.content == z.content
        assert decision.copies == ()


def test_two_losers_of_equal_content_have_one_copy() -> None:
    versions = [file("a1", "same", stamp=1), file("b1", "same", stamp=2), file("c1", stamp=9)]
    for held, one, other in itertools.permutations(versions):
        decision = decide(PATH, held, [(ANNA, one), (BEN, other)])
        assert [copy.entry.content for copy in decision.copies] == [versions[0].content]
        assert decision.copies[0].path == conflict_copy(PATH, versions[1])[0]


def test_equal_losers_that_are_heard_of_one_by_one_may_have_two_copies() -> None:
    """Known and harmless: the first copy's version is not at hand when the second loses."""
    winner = file("c1", stamp=9)
    first = decide(PATH, winner, [(ANNA, file("a1", "same", stamp=1))])
    second = decide(PATH, first.winner, [(BEN, file("b1", "same", stamp=2))])
    assert first.copies[0].path != second.copies[0].path
    assert first.copies[0].entry.content == second.copies[0].entry.content


def test_a_content_that_wins_after_all_is_not_copied() -> None:
    offers = [(ANNA, file("b1", "same", stamp=1)), (BEN, file("d1", "same", stamp=9))]
    decision = decide(PATH, file("c1", stamp=5), offers)
    assert [copy.entry.content for copy in decision.copies] == [file("c1").content]


def test_a_directory_displaces_a_file_to_a_copy() -> None:
    decision = decide(PATH, HELD, [(BEN, directory("b1"))])
    assert decision.winner.version.dot == directory("b1").version.dot
    assert [copy.entry.content for copy in decision.copies] == [HELD.content]


_offers = st.lists(st.tuples(st.sampled_from([ANNA, BEN, CARL]), entries()), min_size=1, max_size=3)


@examples(0.15)
@given(st.none() | entries(), _offers)
def test_neither_the_order_of_offers_nor_which_is_held_matters(
    held: Entry | None, offers: list[tuple[DeviceID, Entry]]
) -> None:
    first = decide(PATH, held, offers)
    told = {(copy.path, copy.entry) for copy in first.copies}
    for order in itertools.permutations(offers):
        again = decide(PATH, held, order)
        assert again.winner == first.winner
        assert {(copy.path, copy.entry) for copy in again.copies} == told
    if held is not None:
        (peer, entry), *rest = offers
        swapped = decide(PATH, entry, [(peer, held), *rest])
        assert swapped.winner == first.winner
        assert {(copy.path, copy.entry) for copy in swapped.copies} == told


@examples(0.15)
@given(st.none() | entries(), _offers)
def test_the_same_offers_twice_decide_the_same(
    held: Entry | None, offers: list[tuple[DeviceID, Entry]]
) -> None:
    once, twice = decide(PATH, held, offers), decide(PATH, held, offers + offers)
    assert (twice.winner, twice.copies) == (once.winner, once.copies)


@examples(0.5)
@given(entries(), entries())
def test_what_is_no_news_changes_nothing(held: Entry, offered: Entry) -> None:
    assert is_news(held, offered) == (not decide(PATH, held, [(BEN, offered)]).changes_nothing)
    winner, loser = merge(held, offered)
    if loser is None:
        assert not is_news(winner, offered)


def test_anything_is_news_where_nothing_is_held() -> None:
    assert is_news(None, tombstone("a1"))
