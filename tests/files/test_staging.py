import contextlib
import errno
import os
from pathlib import Path

import blake3
import pytest

from p2psync.core.entry import Chunk
from p2psync.core.ids import Digest
from p2psync.files.syscalls import System
from p2psync.ports import Place
from tests.files.folder import Folder, make_folder
from tests.files.interposed import InterposedSystem, fails
from tests.support.steps import rel, walked

MIB = 1024 * 1024


@pytest.fixture
def system() -> InterposedSystem:
    return InterposedSystem()


@pytest.fixture
def folder(tmp_path: Path, system: InterposedSystem) -> Folder:
    return make_folder(tmp_path / "folder", system)


def chunk(data: bytes) -> Chunk:
    return Chunk(Digest(blake3.blake3(data).digest()), len(data))


def test_a_full_disk_is_noticed_before_anything_is_written_and_leaves_nothing(
    folder: Folder, system: InterposedSystem
) -> None:
    system.before = fails("allocate", errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        folder.disk.stage([("c-1", 10 * MIB, [(0, b"1")])])
    assert caught.value.errno == errno.ENOSPC
    assert folder.left_in_staging() == []


def test_a_file_larger_than_the_disk_is_refused_at_once(folder: Folder) -> None:
    with pytest.raises(OSError):
        folder.disk.stage([("c-1", 1 << 50, [])])
    assert folder.left_in_staging() == []


@pytest.mark.parametrize(
    ("free", "total", "size", "fits"),
    [
        (10, 1000, 11, False),
        (20, 1000, 11, False),
        (22, 1000, 11, True),
        (1500, 1_000_000, 1000, False),
        (2500, 1_000_000, 1000, True),
        (0, 0, 1, True),
    ],
    ids=["more than is free", "nearly all", "enough", "nearly all of much", "much", "not known"],
)
def test_room_that_is_not_there_is_not_tried_and_some_is_left_for_others(
    folder: Folder,
    system: InterposedSystem,
    monkeypatch: pytest.MonkeyPatch,
    *,
    free: int,
    total: int,
    size: int,
    fits: bool,
) -> None:
    tried: list[str] = []
    system.before = lambda name, _: tried.append(name)
    monkeypatch.setattr(System, "room", lambda *_: (free * MIB, total * MIB))
    monkeypatch.setattr(System, "allocate", lambda *_: None)
    with contextlib.nullcontext() if fits else pytest.raises(OSError, match="No space"):
        folder.disk.stage([("c-1", size * MIB, [])])
    assert ("allocate" in tried) == fits
    assert fits or folder.left_in_staging() == []


def test_room_is_reserved_and_reads_as_unwritten(folder: Folder) -> None:
    folder.disk.stage([("c-1", 4 * MIB, [(2 * MIB, b"x" * MIB)])])
    staged = folder.root / ".p2psync/tmp/c-1"
    assert staged.stat().st_size == 4 * MIB
    assert staged.stat().st_mode & 0o777 == 0o600
    data = chunk(b"x" * MIB)
    other = chunk(b"y" * MIB)
    assert folder.disk.staged_chunks("c-1", (other, other, data, other)) == [
        False,
        False,
        True,
        False,
    ]


def test_a_hole_is_right_where_the_largest_chunk_of_zeros_belongs(folder: Folder) -> None:
    folder.disk.stage([("c-1", 4 * MIB, [])])
    zeros = chunk(bytes(2 * MIB))
    assert folder.disk.staged_chunks("c-1", (zeros, zeros)) == [True, True]


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "displaced-20300317T174640-1", "x" * 81])
def test_names_of_another_form_are_refused(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError):
        folder.disk.stage([(name, 0, [])])


def test_a_piece_outside_of_its_file_is_refused(folder: Folder) -> None:
    with pytest.raises(ValueError):
        folder.disk.stage([("s-1", 3, [(1, b"abc")])])


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL])
def test_bytes_are_copied_where_extents_cannot_be_shared(
    folder: Folder, system: InterposedSystem, number: int
) -> None:
    data = os.urandom(3 * MIB)
    folder.write("file", data)
    system.before = fails("copy_range", number)
    assert folder.disk.stage_copy("c-1", len(data), 0, Place(rel("file"), 0, len(data)))
    assert (folder.root / ".p2psync/tmp/c-1").read_bytes() == data


def test_the_staging_directory_is_made_anew_when_someone_removed_it(folder: Folder) -> None:
    folder.remove(".p2psync/tmp")
    folder.disk.stage([("s-1", 1, [(0, b"1")])])
    assert folder.disk.staged_names() == ["s-1"]


def test_a_staging_directory_that_is_a_link_leads_nowhere(tmp_path: Path, folder: Folder) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.remove(".p2psync/tmp")
    folder.link(".p2psync/tmp", str(outside))
    with pytest.raises(OSError):
        folder.disk.stage([("s-1", 1, [(0, b"1")])])
    assert list(outside.iterdir()) == []


LOOK_LIKE_OURS = (
    "s-1",
    "c-" + "0" * 64,
    "displaced-20300317T174640-1",
    ".p2psync.tmp",
    "it (conflict bob 2026-01-01 abcdef).txt",
    "it (recovered 2026-01-01 abcdef).txt",
    "2001-01-01",
)


def test_a_users_file_is_never_taken_for_one_of_ours_by_its_name(folder: Folder) -> None:
    """However old it is."""
    folder.make_directory("d")
    for name in LOOK_LIKE_OURS:
        for path in (name, f"d/{name}"):
            folder.write(path, b"mine")
            os.utime(folder.root / path, ns=(1, 1))
    before = folder.tree()
    folder.disk.stage([("s-1", 1, [(0, b"1")])])

    disk = folder.reopen(max_bytes=1)
    disk.unstage([*disk.staged_names(), *LOOK_LIKE_OURS[:2]])
    disk.prune_trash()

    assert folder.tree() == before
    assert {item.path for item in walked(disk, {}).changed} == set(before)
    assert folder.left_in_staging() == []
