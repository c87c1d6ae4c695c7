"""What of a file is known when it is read again."""

from collections.abc import Sequence
from typing import Any

import pytest

from p2psync.core.entry import Manifest
from p2psync.core.relpath import RelPath
from p2psync.engine import reading
from p2psync.errors import DamagedError
from tests.support.devices import Device
from tests.support.memory_disk import chunked

LARGE, LARGER, SMALL = b"1" * 900_000, b"2" * 950_000, b"3" * 9


@pytest.fixture
def known(ada: Device, monkeypatch: pytest.MonkeyPatch) -> dict[RelPath, Manifest]:
    """What the disk is told of each file that it hashes."""
    monkeypatch.setattr(reading, "FOLLOWED_FROM", 800_000)
    told: dict[RelPath, Manifest] = {}
    hash_file = ada.disk.hash_file

    def hashed(path: RelPath, *, known: Manifest = (), **options: Any) -> object:
        told[path] = known
        return hash_file(path, known=known, **options)

    monkeypatch.setattr(ada.disk, "hash_file", hashed)
    return told


async def scan(ada: Device, files: Sequence[tuple[str, bytes]]) -> None:
    for name, data in files:
        ada.disk.write(name, data)
    ada.local.mark(None)
    await ada.scan()


async def test_of_a_large_file_that_changed_it_is_known_how_it_was_cut(
    ada: Device, known: dict[RelPath, Manifest]
) -> None:
    await scan(ada, [("changed", LARGE), ("small", SMALL)])
    assert known == {RelPath("changed"): (), RelPath("small"): ()}
    await scan(ada, [("changed", LARGER), ("small", SMALL * 2), ("new", LARGE)])
    assert known == {
        RelPath("changed"): chunked(LARGE),
        RelPath("small"): (),
        RelPath("new"): (),
    }


async def test_a_list_of_chunks_that_is_damaged_keeps_no_file_from_being_read(
    ada: Device, known: dict[RelPath, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    await scan(ada, [("changed", LARGE)])

    async def damaged(_content: bytes) -> Manifest | None:
        raise DamagedError("A stored list of chunks is damaged.")

    monkeypatch.setattr(ada.index, "manifest", damaged)
    await scan(ada, [("changed", LARGER), ("new", SMALL)])
    assert known == {RelPath("changed"): (), RelPath("new"): ()}
    assert ada.problems.listed() == []
    held = await ada.index.held([RelPath("changed"), RelPath("new")])
    assert held[RelPath("changed")].entry.size == len(LARGER)
    assert held[RelPath("new")].entry.size == len(SMALL)
