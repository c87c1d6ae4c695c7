import random
from pathlib import Path

import pytest

from p2psync.core.entry import Entry
from p2psync.core.relpath import RelPath
from p2psync.ports import Counts, Cursor
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.storage.builders import ANNA, BERT, directory, file, row, tombstone

NAMES = [RelPath(name) for name in ("a", "b", "c", "d/e", "d/f")]


async def test_counts_of_what_is_held(index: SqliteFolderIndex) -> None:
    await index.record(
        [
            row("d", directory()),
            row("d/a", file("a", size=100)),
            row("b", file("b", size=20)),
            row("copy", file("c", size=3, copy_of="b")),
            row("gone", tombstone()),
        ]
    )
    assert await index.counts() == Counts(
        files=3, bytes=123, need_files=0, need_bytes=0, need_deletes=0, conflicts=1
    )


async def test_counts_of_what_is_wanted(index: SqliteFolderIndex) -> None:
    await index.receive(
        ANNA,
        Cursor(1, 3),
        [
            (1, RelPath("a"), file("a", size=100)),
            (2, RelPath("b"), tombstone()),
            (3, RelPath("c"), tombstone()),
        ],
        after=0,
    )
    await index.receive(
        BERT,
        Cursor(1, 2),
        [(1, RelPath("a"), file("b", size=300)), (2, RelPath("c"), file("c", size=5))],
        after=0,
    )
    assert await index.counts() == Counts(
        files=0, bytes=0, need_files=3, need_bytes=305, need_deletes=1, conflicts=0
    )


def some_entry(source: random.Random) -> Entry:
    return source.choice(
        [
            directory(),
            tombstone(),
            file("x", size=source.randrange(10**6)),
            file("y", size=source.randrange(10**6), copy_of="a"),
        ]
    )


async def some_change(index: SqliteFolderIndex, source: random.Random) -> None:
    names = source.choices(NAMES, k=3)
    pairs = [
        (name, offer)
        for name, wanted in (await index.wanted_at(names)).items()
        for offer in wanted.offers
    ]
    match source.randrange(8):
        case 0 | 1:
            await index.record([row(name, some_entry(source)) for name in names])
        case 2:
            await index.record([row(name, some_entry(source)) for name in names], settled=pairs)
        case 3 | 4:
            await index.receive(
                source.choice([ANNA, BERT]),
                Cursor(1, 3),
                [(number, name, some_entry(source)) for number, name in enumerate(names)],
                seen=source.choices(NAMES, k=2),
                after=0,
            )
        case 5:
            await index.settle(pairs)
        case 6:
            await index.set_acknowledged(BERT, Cursor(index.epoch, index.sequence))
            await index.drop_tombstones([BERT])
        case 7:
            await source.choice([index.reset_peer, index.forget_peer])(ANNA)


@pytest.mark.parametrize("seed", range(4))
async def test_counts_kept_along_are_those_counted_anew(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(4):
        index = await open_folder_index(tmp_path / "index.db", randomness=source.randbytes)
        for _ in range(10):
            await some_change(index, source)
        kept = await index.counts()
        await index.close()
        index = await open_folder_index(tmp_path / "index.db", randomness=source.randbytes)
        assert await index.counts() == kept
        await index.close()
