"""Which conflict copies people are told to be needless."""

from pathlib import Path

import msgspec
import pytest

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.engine.conflicts import find_conflicts
from p2psync.ports import Damage, Row
from p2psync.storage.folder_index import open_folder_index
from tests.support.builders import file

PATH = RelPath("a.txt")
LOST = file("a1", saw="b1")
WON_AFTER_ALL = file("a1", saw="b1", kept="a1")
MARK = Fingerprint(Kind.FILE, 1, 0, 0, 1, executable=False, racy=False)


@pytest.mark.parametrize(
    ("original", "needless"),
    [
        (WON_AFTER_ALL, True),
        (LOST, False),
        (msgspec.structs.replace(WON_AFTER_ALL, content=b"x" * 32), False),
    ],
    ids=["it won after all", "what replaces it is still to come", "it was edited"],
)
async def test_a_copy_is_needless_where_another_would_be_made_if_one_were_needed(
    tmp_path: Path, original: Entry, *, needless: bool
) -> None:
    index = await open_folder_index(tmp_path / "index.db", randomness=bytes, now_ns=1)
    name, copy = conflict_copy(PATH, LOST)
    await index.record([Row(PATH, original, MARK), Row(name, copy, MARK)])
    (row,) = await find_conflicts(index)
    assert (row.path, row.original, row.is_needless) == (name, PATH, needless)
    await index.mark_damaged([Damage(PATH, MARK, b"")], now_ns=1)
    (row,) = await find_conflicts(index)
    assert not row.is_needless, "the original is damaged"
    await index.close()
