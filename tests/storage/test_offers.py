import msgspec
import pytest

from p2psync.core.entry import SINGLE_CHUNK_MAX
from p2psync.core.relpath import RelPath
from p2psync.ports import Cursor, Offer
from p2psync.storage.folder_index import SqliteFolderIndex
from tests.storage.builders import ANNA, BERT, directory, file, row, tombstone

BIG = SINGLE_CHUNK_MAX + 1


async def offered(index: SqliteFolderIndex, *paths: str) -> None:
    """Anna offers these files, in this order."""
    offers = [(number, RelPath(path), file(path)) for number, path in enumerate(paths, start=1)]
    await index.receive(ANNA, Cursor(1, len(offers)), offers, after=0)


async def live(
    index: SqliteFolderIndex, *, limit: int = 100, skip: tuple[str, ...] = ()
) -> list[str]:
    wanted = await index.wanted(limit=limit, tombstones=False, skip=await stamps(index, *skip))
    return [found.path for found in wanted]


async def stamps(index: SqliteFolderIndex, *paths: str) -> dict[RelPath, int]:
    """Of what is offered at these paths now; 0 where nothing is."""
    found = await index.wanted_at([RelPath(path) for path in paths])
    return {RelPath(path): 0 for path in paths} | {path: at.stamp for path, at in found.items()}


async def deleted(index: SqliteFolderIndex, *, limit: int = 100) -> list[str]:
    return [found.path for found in await index.wanted(limit=limit, tombstones=True)]


async def test_offers_of_several_peers_meet_at_a_path_with_what_is_held(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("held"))])
    await index.receive(ANNA, Cursor(1, 7), [(7, RelPath("a"), file("anna"))], after=0)
    await index.receive(
        BERT,
        Cursor(2, 9),
        [(8, RelPath("a"), tombstone()), (9, RelPath("b"), file("b"))],
        after=0,
    )
    first, second = await index.wanted(limit=10, tombstones=False)
    assert first.path == "a"
    assert first.held == (await index.held([RelPath("a")]))[RelPath("a")]
    assert first.offers == (Offer(ANNA, 7, file("anna")), Offer(BERT, 8, tombstone()))
    assert second[:3] == (RelPath("b"), None, (Offer(BERT, 9, file("b")),))


async def test_a_later_offer_replaces_the_peers_earlier_one(index: SqliteFolderIndex) -> None:
    await index.receive(ANNA, Cursor(1, 1), [(1, RelPath("a"), file("one"))], after=0)
    await index.receive(ANNA, Cursor(1, 2), [(2, RelPath("a"), file("two"))], after=0)
    (found,) = await index.wanted(limit=10, tombstones=False)
    assert found.offers == (Offer(ANNA, 2, file("two")),)


async def test_parents_come_before_children_and_small_files_before_big_ones(
    index: SqliteFolderIndex,
) -> None:
    await index.receive(
        ANNA,
        Cursor(1, 7),
        [
            (1, RelPath("d/e/small"), file("1")),
            (2, RelPath("huge"), file("2", size=BIG * 8)),
            (3, RelPath("big"), file("3", size=BIG)),
            (4, RelPath("small"), file("4", size=SINGLE_CHUNK_MAX)),
            (5, RelPath("d/e"), directory()),
            (6, RelPath("d"), directory()),
            (7, RelPath("empty"), file("7", size=0)),
        ],
        after=0,
    )
    assert await live(index) == ["small", "d", "empty", "big", "huge", "d/e", "d/e/small"]
    assert await live(index, limit=2) == ["small", "d"]


async def test_a_path_is_listed_once_though_offers_of_it_differ_in_size(
    index: SqliteFolderIndex,
) -> None:
    await index.receive(ANNA, Cursor(1, 1), [(1, RelPath("a"), file("a", size=BIG * 8))], after=0)
    await index.receive(
        BERT,
        Cursor(1, 2),
        [(1, RelPath("b"), file("b", size=BIG)), (2, RelPath("a"), file("c"))],
        after=0,
    )
    assert await live(index) == ["a", "b"]
    assert await live(index, limit=1) == ["a"]


async def test_skipped_paths_make_room_for_others(index: SqliteFolderIndex) -> None:
    await offered(index, "a", "b", "c")
    assert await live(index, limit=2, skip=("a", "unheard of")) == ["b", "c"]
    assert await live(index, skip=("a", "b", "c")) == []


async def test_tombstones_come_deepest_first_and_only_where_nothing_lives(
    index: SqliteFolderIndex,
) -> None:
    gone = ["d", "d/e", "d/e/f", "x/y"]
    offers = [(number, RelPath(path), tombstone()) for number, path in enumerate(gone, start=1)]
    await index.receive(ANNA, Cursor(1, 4), offers, after=0)
    await index.receive(
        BERT,
        Cursor(1, 2),
        [(1, RelPath("d/e"), tombstone()), (2, RelPath("x/y"), file("y"))],
        after=0,
    )
    assert await deleted(index) == ["d/e/f", "d/e", "d"]
    assert await deleted(index, limit=1) == ["d/e/f"]
    assert await live(index) == ["x/y"]
    skip = await stamps(index, "d/e/f")
    skipped = await index.wanted(limit=9, tombstones=True, skip=skip)
    assert [found.path for found in skipped] == ["d/e", "d"]
    assert [len(found.offers) for found in skipped] == [2, 1]


async def test_settling_drops_one_peers_offer_alone(index: SqliteFolderIndex) -> None:
    for peer in (ANNA, BERT):
        await index.receive(peer, Cursor(1, 1), [(1, RelPath("a"), file("a"))], after=0)
    offer = Offer(ANNA, 1, file("a"))
    await index.settle([(RelPath("a"), offer), (RelPath("unheard of"), offer)])
    (found,) = await index.wanted(limit=9, tombstones=False)
    assert [offer.peer for offer in found.offers] == [BERT]
    await index.settle([(RelPath("a"), offer._replace(peer=BERT))])
    assert await live(index) == []


@pytest.mark.parametrize(
    "later", [Offer(ANNA, 2, file("a")), Offer(ANNA, 1, file("of another epoch"))]
)
async def test_settling_keeps_what_replaced_the_offer_meanwhile(
    index: SqliteFolderIndex, later: Offer
) -> None:
    first = Offer(ANNA, 1, file("a"))
    await index.receive(ANNA, Cursor(1, 1), [(1, RelPath("a"), first.entry)], after=0)
    await index.follow(ANNA, 2)
    await index.receive(ANNA, Cursor(2, 2), [(later.sequence, RelPath("a"), later.entry)], after=0)
    await index.settle([(RelPath("a"), first)])
    await index.record([row("b", file("b"))], settled=[(RelPath("a"), first)])
    (found,) = await index.wanted(limit=9, tombstones=False)
    assert found.offers == (later,)


@pytest.mark.parametrize(
    ("cursor", "after"), [(Cursor(1, 9), 5), (Cursor(2, 9), 0), (Cursor(1, 3), 2)]
)
async def test_what_does_not_join_on_is_not_received(
    index: SqliteFolderIndex, cursor: Cursor, after: int
) -> None:
    await index.receive(ANNA, Cursor(1, 4), [(4, RelPath("a"), file("a"))], after=0)
    late = [(9, RelPath("b"), file("b"))]
    assert not await index.receive(ANNA, cursor, late, seen=[RelPath("a")], after=after)
    assert await live(index) == ["a"]
    assert await index.cursor(ANNA) == Cursor(1, 4)
    assert await index.receive(ANNA, Cursor(1, 9), late, seen=[RelPath("a")], after=4)
    assert await live(index) == ["b"]


async def test_a_path_is_skipped_until_something_else_is_offered_for_it(
    index: SqliteFolderIndex,
) -> None:
    await offered(index, "a", "b")
    skip = await stamps(index, "a", "b")
    assert await index.wanted(limit=9, tombstones=False, skip=skip) == []
    await index.receive(ANNA, Cursor(1, 3), [(3, RelPath("b"), file("b2"))], after=0)
    await index.receive(BERT, Cursor(1, 1), [(1, RelPath("a"), file("a"))], after=0)
    wanted = await index.wanted(limit=9, tombstones=False, skip=skip)
    assert {found.path for found in wanted} == {"a", "b"}


@pytest.mark.parametrize("tombstones", [False, True])
async def test_what_is_wanted_is_read_in_pages(index: SqliteFolderIndex, tombstones: bool) -> None:
    names = ["a", "b", "d/a", "d/b", "d/e/a", "f"]
    entry = tombstone() if tombstones else file("a")
    offers = [(number, RelPath(path), entry) for number, path in enumerate(names, start=1)]
    await index.receive(ANNA, Cursor(1, 6), offers, after=0)
    await index.receive(BERT, Cursor(1, 6), offers, after=0)
    whole = await index.wanted(limit=9, tombstones=tombstones)
    pages = []
    after: tuple[int, ...] = ()
    while page := await index.wanted(limit=4, tombstones=tombstones, after=after):
        after = page[-1].place
        pages += page
    assert pages == whole
    assert {found.path for found in whole} == set(names)


async def test_offers_are_found_by_path(index: SqliteFolderIndex) -> None:
    await offered(index, "a", "b")
    found = await index.wanted_at([RelPath("b"), RelPath("unheard of")])
    assert list(found) == ["b"]
    assert found[RelPath("b")].offers == (Offer(ANNA, 2, file("b")),)


async def test_seen_paths_lose_the_peers_offer(index: SqliteFolderIndex) -> None:
    await offered(index, "a", "b")
    await index.receive(BERT, Cursor(1, 1), [(1, RelPath("a"), file("a"))], after=0)
    await index.receive(
        ANNA, Cursor(1, 3), [(3, RelPath("c"), file("c"))], seen=[RelPath("a")], after=0
    )
    assert await live(index) == ["b", "a", "c"]
    (found, *_) = await index.wanted(limit=9, tombstones=False, skip=await stamps(index, "b"))
    assert [offer.peer for offer in found.offers] == [BERT]


async def test_cursors_and_acknowledgements_are_kept_apart(index: SqliteFolderIndex) -> None:
    assert await index.cursor(ANNA) == Cursor(0, 0)
    assert await index.acknowledged(ANNA) == Cursor(0, 0)
    await index.receive(ANNA, Cursor(5, 6), [], after=0)
    await index.set_acknowledged(ANNA, Cursor(7, 8))
    await index.set_acknowledged(BERT, Cursor(9, 10))
    assert await index.cursor(ANNA) == Cursor(5, 6)
    assert await index.acknowledged(ANNA) == Cursor(7, 8)
    assert await index.cursor(BERT) == Cursor(0, 0)
    assert await index.acknowledged(BERT) == Cursor(9, 10)


async def test_applied_stops_before_the_first_unsettled_offer(index: SqliteFolderIndex) -> None:
    assert await index.applied(ANNA) == 0
    await index.receive(
        ANNA,
        Cursor(1, 9),
        [(4, RelPath("a"), file("a")), (6, RelPath("b"), file("b"))],
        after=0,
    )
    assert await index.applied(ANNA) == 3
    await index.settle([(RelPath("a"), Offer(ANNA, 4, file("a")))])
    assert await index.applied(ANNA) == 5
    await index.settle([(RelPath("b"), Offer(ANNA, 6, file("b")))])
    assert await index.applied(ANNA) == 9


async def test_a_peer_is_followed_from_where_it_was_and_anew_in_another_epoch(
    index: SqliteFolderIndex,
) -> None:
    assert await index.follow(ANNA, 1) == Cursor(1, 0)
    assert await index.cursor(ANNA) == Cursor(1, 0)
    await index.receive(ANNA, Cursor(1, 4), [(4, RelPath("a"), file("a"))], after=0)
    await index.receive(BERT, Cursor(1, 1), [(1, RelPath("b"), file("b"))], after=0)
    await index.set_acknowledged(ANNA, Cursor(7, 8))
    assert await index.follow(ANNA, 1) == Cursor(1, 4)
    assert await live(index) == ["a", "b"]
    assert await index.follow(ANNA, 2) == await index.cursor(ANNA) == Cursor(2, 0)
    assert await index.acknowledged(ANNA) == Cursor(7, 8)
    assert await live(index) == ["b"]
    assert (await index.counts()).need_files == 1


async def test_resetting_a_peer_keeps_what_it_acknowledged(index: SqliteFolderIndex) -> None:
    await offered(index, "a")
    await index.receive(BERT, Cursor(1, 1), [(1, RelPath("b"), file("b"))], after=0)
    await index.set_acknowledged(ANNA, Cursor(7, 8))
    await index.reset_peer(ANNA)
    assert await index.cursor(ANNA) == Cursor(0, 0)
    assert await index.acknowledged(ANNA) == Cursor(7, 8)
    assert await live(index) == ["b"]
    assert (await index.counts()).need_files == 1


async def test_a_forgotten_peer_leaves_nothing(index: SqliteFolderIndex) -> None:
    await offered(index, "a")
    await index.receive(BERT, Cursor(1, 1), [(1, RelPath("b"), file("b"))], after=0)
    await index.set_acknowledged(ANNA, Cursor(7, 8))
    await index.forget_peer(ANNA)
    assert await index.cursor(ANNA) == Cursor(0, 0)
    assert await index.acknowledged(ANNA) == Cursor(0, 0)
    assert await live(index) == ["b"]
    assert (await index.counts()).need_files == 1


async def test_sizes_that_add_up_to_more_than_a_column_holds_break_nothing(
    index: SqliteFolderIndex,
) -> None:
    absurd = msgspec.structs.replace(file("a"), size=(1 << 64) - 1)
    offers = [(number, RelPath(str(number)), absurd) for number in range(1, 10_000)]
    await index.receive(ANNA, Cursor(1, len(offers)), offers, after=0)
    await index.reset_peer(BERT)
    assert (await index.counts()).need_files == len(offers)
    (found,) = await index.wanted(limit=1, tombstones=False)
    assert found.offers[0].entry == absurd
