import contextlib
import errno
import itertools
import os
from pathlib import Path

import blake3
import pytest

from p2psync.core.entry import Chunk
from p2psync.core.ids import Digest
from p2psync.files.syscalls import System
from p2psync.ports import Place, Whole
from tests.files.folder import Folder, make_folder
from tests.files.interposed import InterposedSystem, fails
from tests.support.contracts.disk import bytes_of
from tests.support.memory_disk import chunked
from tests.support.steps import file, rel, stage, walked

MIB = 1024 * 1024


@pytest.fixture
def system() -> InterposedSystem:
    return InterposedSystem()


@pytest.fixture
def folder(tmp_path: Path, system: InterposedSystem) -> Folder:
    return make_folder(tmp_path / "folder", system)


def chunk(data: bytes) -> Chunk:
    return Chunk(Digest(blake3.blake3(data).digest()), len(data))


def unlike_zeros(size: int) -> tuple[Chunk, ...]:
    """A file of so many MiB."""
    return (chunk(b"x" * MIB),) * size


def test_a_full_disk_is_noticed_before_anything_is_written_and_leaves_nothing(
    folder: Folder, system: InterposedSystem
) -> None:
    system.before = fails("allocate", errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        folder.disk.prepare("c-1", unlike_zeros(10))
    assert caught.value.errno == errno.ENOSPC
    assert folder.left_in_staging() == []


def test_a_file_larger_than_the_disk_is_refused_at_once(folder: Folder) -> None:
    with pytest.raises(OSError):
        folder.disk.prepare("c-1", (chunk(b"1")._replace(size=1 << 50),))
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
        folder.disk.prepare("c-1", unlike_zeros(size))
    assert ("allocate" in tried) == fits
    assert fits or folder.left_in_staging() == []


def test_room_is_reserved_and_reads_as_unwritten(folder: Folder) -> None:
    other, data = chunk(b"y" * MIB), chunk(b"x" * MIB)
    chunks = (other, other, data, other)
    folder.disk.prepare("c-1", chunks)
    folder.disk.stage_pieces("c-1", [(2 * MIB, b"x" * MIB)])
    staged = folder.root / ".p2psync/tmp/c-1"
    assert staged.stat().st_size == 4 * MIB
    assert staged.stat().st_blocks * 512 >= 4 * MIB
    assert staged.stat().st_mode & 0o777 == 0o600
    assert folder.disk.prepare("c-1", chunks) == [False, False, True, False]


def test_a_hole_stays_one_and_no_room_is_reserved_for_it(
    folder: Folder, system: InterposedSystem
) -> None:
    reserved: list[tuple[object, ...]] = []
    system.before = lambda name, args: reserved.append(args[1:]) if name == "allocate" else None
    zeros, data, rest = chunk(bytes(2 * MIB)), chunk(b"x" * MIB), chunk(bytes(5))
    chunks = (data, zeros, zeros, data, data, zeros, rest)

    is_there = [False, True, True, False, False, True, True]
    assert folder.disk.prepare("c-1", chunks) == is_there
    assert reserved == [(MIB, 0), (2 * MIB, 5 * MIB)]
    folder.disk.stage_pieces("c-1", [(at * MIB, b"x" * MIB) for at in (0, 5, 6)])

    staged = folder.root / ".p2psync/tmp/c-1"
    assert staged.stat().st_size == 9 * MIB + 5
    assert staged.stat().st_blocks * 512 < 4 * MIB
    assert folder.disk.prepare("c-1", chunks) == [True] * 7
    assert len(reserved) == 2, "what was begun is gone on with"


def test_where_room_cannot_be_reserved_it_is_written_to_all_the_same(
    folder: Folder, system: InterposedSystem
) -> None:
    system.before = fails("allocate", errno.EOPNOTSUPP)
    chunks = unlike_zeros(2)
    assert folder.disk.prepare("c-1", chunks) == [False, False]
    assert (folder.root / ".p2psync/tmp/c-1").stat().st_size == 2 * MIB


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "displaced-20300317T174640-1", "x" * 81])
def test_names_of_another_form_are_refused(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError):
        stage(folder.disk, name, b"")


# --- copies ---------------------------------------------------------------------------------------

BLOCK = 4096


class Traffic:
    """How many bytes of contents pass through which calls."""

    def __init__(self, system: InterposedSystem) -> None:
        self.bytes = {"read_into": 0, "write": 0, "clone_range": 0}
        system.before = self._count

    def _count(self, name: str, args: tuple[object, ...]) -> None:
        if name in self.bytes:
            passed = args[2] if name == "clone_range" else len(args[1])  # type: ignore[arg-type]
            assert isinstance(passed, int)
            self.bytes[name] += passed


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def clone(source: int, target: int, count: int, offsets: tuple[int, int]) -> None:
    """As a file system does that can."""
    assert not count % BLOCK and not offsets[0] % BLOCK and not offsets[1] % BLOCK
    os.pwrite(target, os.pread(source, count, offsets[0]), offsets[1])


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(System, "clone_range", staticmethod(clone))


def test_each_byte_of_a_copy_is_read_once_and_written_once(
    folder: Folder, system: InterposedSystem
) -> None:
    data = os.urandom(3 * MIB)
    folder.write("file", data)
    chunks = tuple(chunk(piece) for piece in in_pieces(data, 700_001))
    folder.disk.prepare("c-1", chunks)
    traffic = Traffic(system)

    assert all(folder.disk.stage_copy("c-1", 0, chunks, Place(rel("file"), 0, len(data))))

    assert (folder.root / ".p2psync/tmp/c-1").read_bytes() == data
    assert traffic.bytes["read_into"] == traffic.bytes["write"] == len(data)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY])
def test_bytes_are_copied_where_blocks_cannot_be_shared(
    folder: Folder, system: InterposedSystem, number: int
) -> None:
    data = os.urandom(3 * MIB)
    folder.write("file", data)
    system.before = fails("clone_range", number)
    folder.disk.prepare("c-1", (chunk(data),))
    assert folder.disk.stage_copy("c-1", 0, (chunk(data),), Place(rel("file"), 0, len(data))) == [
        True
    ]
    assert (folder.root / ".p2psync/tmp/c-1").read_bytes() == data


@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize("end", [0, 77])
def test_blocks_are_shared_where_they_can_be_and_then_verified(
    folder: Folder, system: InterposedSystem, end: int
) -> None:
    before, data = os.urandom(10_000), os.urandom(MIB + end)
    folder.write("file", before + data)
    chunks = (chunk(before), *(chunk(piece) for piece in in_pieces(data, 300_001)))
    folder.disk.prepare("c-1", chunks)
    traffic = Traffic(system)

    source = Place(rel("file"), len(before), len(data))
    assert folder.disk.stage_copy("c-1", len(before), chunks[1:], source) == [True] * 4

    staged = (folder.root / ".p2psync/tmp/c-1").read_bytes()
    assert staged == bytes(len(before)) + data
    assert len(data) - 2 * BLOCK < traffic.bytes["clone_range"] < len(data)
    assert traffic.bytes["write"] + traffic.bytes["clone_range"] == len(data)
    assert traffic.bytes["read_into"] == len(data) + traffic.bytes["write"]


@pytest.mark.usefixtures("shares")
def test_blocks_that_lie_otherwise_in_the_new_file_are_copied(
    folder: Folder, system: InterposedSystem
) -> None:
    data = os.urandom(MIB)
    folder.write("file", data)
    folder.disk.prepare("c-1", (chunk(b"x"), chunk(data)))
    traffic = Traffic(system)
    source = Place(rel("file"), 0, len(data))
    assert folder.disk.stage_copy("c-1", 1, (chunk(data),), source) == [True]
    assert traffic.bytes == {"read_into": len(data), "write": len(data), "clone_range": 0}


def test_what_is_shared_is_right_only_if_it_is_so_in_the_new_file(
    folder: Folder, system: InterposedSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = in_pieces(os.urandom(8 * BLOCK), 2 * BLOCK)
    folder.write("file", b"".join(pieces))
    chunks = tuple(map(chunk, pieces))
    folder.disk.prepare("c-1", chunks)

    def clone_of_an_edited_file(*args: object) -> None:
        with (folder.root / "file").open("r+b") as file:
            file.seek(3 * BLOCK)
            file.write(b"an edit")
        clone(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(System, "clone_range", staticmethod(clone_of_an_edited_file))
    source = Place(rel("file"), 0, 8 * BLOCK)
    assert folder.disk.stage_copy("c-1", 0, chunks, source) == [True, False, True, True]
    assert folder.disk.prepare("c-1", chunks) == [True, False, True, True]


def test_what_a_bad_disk_does_not_give_is_not_staged_and_the_rest_is(
    folder: Folder, system: InterposedSystem
) -> None:
    pieces = in_pieces(os.urandom(30_000), 10_000)
    folder.write("file", b"".join(pieces))
    chunks = tuple(map(chunk, pieces))
    folder.disk.prepare("c-1", chunks)
    system.before = fails("read_into", errno.EIO, only=lambda args: args[2] == 10_000)
    source = Place(rel("file"), 0, 30_000)
    assert folder.disk.stage_copy("c-1", 0, chunks, source) == [True, False, True]


def test_the_staging_directory_is_made_anew_when_someone_removed_it(folder: Folder) -> None:
    folder.remove(".p2psync/tmp")
    stage(folder.disk, "s-1", b"1")
    assert folder.disk.staged_names() == ["s-1"]


def test_a_staging_directory_that_is_a_link_leads_nowhere(tmp_path: Path, folder: Folder) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.remove(".p2psync/tmp")
    folder.link(".p2psync/tmp", str(outside))
    with pytest.raises(OSError):
        stage(folder.disk, "s-1", b"1")
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
    stage(folder.disk, "s-1", b"1")

    disk = folder.reopen(max_bytes=1)
    disk.unstage([*disk.staged_names(), *LOOK_LIKE_OURS[:2]])
    disk.prune_trash()

    assert folder.tree() == before
    assert {item.path for item in walked(disk, {}).changed} == set(before)
    assert folder.left_in_staging() == []


@pytest.mark.parametrize("call", ["write", "set_mtime"])
def test_a_small_file_that_could_not_be_staged_whole_is_not_left_behind(
    folder: Folder, system: InterposedSystem, call: str
) -> None:
    system.before = fails(call, errno.ENOSPC)
    for number in range(3):
        with pytest.raises(OSError):
            folder.disk.stage_whole([Whole(f"s-{number}", b"123", file(b"123").entry)])
    assert folder.left_in_staging() == []


def test_a_small_file_takes_the_name_of_one_that_a_crash_left_and_not_its_bytes(
    folder: Folder,
) -> None:
    folder.disk.stage_whole([Whole("s-1", b"123", file(b"123").entry)])
    staged = folder.root / ".p2psync/tmp/s-1"
    os.link(staged, folder.root / "placed")
    folder.disk.stage_whole([Whole("s-1", b"456", file(b"456").entry)])
    assert staged.read_bytes() == b"456"
    assert (folder.root / "placed").read_bytes() == b"123"


@pytest.mark.parametrize("full", [False, True])
def test_a_file_that_a_crash_left_placed_is_not_written_to_when_it_is_prepared_again(
    folder: Folder, system: InterposedSystem, full: bool
) -> None:
    data = bytes_of(1, 3 * MIB)
    folder.write("placed", data)
    os.link(folder.root / "placed", folder.root / ".p2psync/tmp/c-1")
    manifest = chunked(bytes_of(2, 2 * MIB))
    if full:
        calls = itertools.count(1)
        system.before = fails("open_staging", errno.ENOSPC, only=lambda _: next(calls) == 2)
        with pytest.raises(OSError) as caught:
            folder.disk.prepare("c-1", manifest)
        assert caught.value.errno == errno.ENOSPC, "and no descriptor was closed twice"
    else:
        assert not any(folder.disk.prepare("c-1", manifest))
    assert (folder.root / "placed").read_bytes() == data
