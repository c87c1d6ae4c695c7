"""Files are cut alike, whatever is known of how they were cut before."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import blake3
import pytest

from p2psync.core.entry import Chunk, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import FOLLOWED_FROM, ChunkSizes, chunk_sizes, offsets_of
from p2psync.files import chunker
from p2psync.files import manifest as module
from p2psync.files.manifest import manifest_of
from tests.support.contracts.disk import bytes_of
from tests.support.memory_disk import chunked

MIB = 1024 * 1024
LARGE = FOLLOWED_FROM + 5 * MIB


class File:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_into(self, view: memoryview, offset: int) -> None:
        if offset + len(view) > len(self.data):
            raise EOFError
        view[:] = self.data[offset : offset + len(view)]

    def manifest(self, known: Manifest = ()) -> Manifest:
        return manifest_of(self.read_into, len(self.data), known)


class Looked:
    """Where `cut` began, and the bytes it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begins: list[int] = []
        self.bytes = 0
        cut = chunker.cut

        def counted(*arguments: Any, begin: int, **options: Any) -> Any:
            self.begins.append(begin)
            for view in cut(*arguments, begin=begin, **options):
                self.bytes += len(view)
                yield view

        monkeypatch.setattr(module, "cut", counted)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are tried in a moment. What is cut otherwise is smaller, too."""

    def sizes(size: int) -> ChunkSizes:
        return ChunkSizes(64, 256, 1024) if size < 60_000 else ChunkSizes(256, 1024, 4096)

    monkeypatch.setattr(module, "chunk_sizes", sizes)
    monkeypatch.setattr(chunker, "chunk_sizes", sizes)
    monkeypatch.setattr(module, "FOLLOWED_FROM", 8192)
    monkeypatch.setattr(module, "_FIRST_LOOK", 512)
    monkeypatch.setattr(module, "_LONGEST_LOOK", 16_384)
    monkeypatch.setattr(module, "ThreadPoolExecutor", AtOnce)


def _made(chance: random.Random) -> bytes:
    size = chance.choice([8192, 8193, 9000, 20_000, 59_000, 61_000])
    period = chance.randbytes(chance.choice([1, 2, 3, 64, 100, 700, 1500]))
    parts = [chance.randbytes(chance.randrange(50, 900)) for _ in range(4)]
    return chance.choice(
        [
            chance.randbytes(size),
            chance.randbytes(size),
            (period * size)[:size],
            b"".join(chance.choice(parts) for _ in range(size // 300)) + parts[0] * 30,
            b"".join(bytes(chance.randrange(3000)) + chance.randbytes(900) for _ in range(9)),
        ]
    )


def _edited(data: bytes, ends: list[int], chance: random.Random) -> bytes:
    """As files change: anywhere, and most of all around where they are cut."""

    def place() -> int:
        near = chance.choice(ends) + chance.choice([-2, -1, 0, 0, 1, 2, 3])
        return min(len(data), chance.choice([0, len(data), near, near, chance.randrange(60_000)]))

    for _ in range(chance.choice([0, 1, 1, 1, 2, 5, 30])):
        at, size = place(), chance.choice([1, 1, 2, 3, 64, 300, 5000])
        new = chance.choice([b"", chance.randbytes(size), bytes(size), data[at : at + size]])
        gone = chance.choice([0, len(new), size, size // 3])
        data = data[:at] + new + data[at + gone :]
    return data[: place()] if chance.random() < 0.3 else data


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("seed", range(8))
def test_what_is_known_of_a_file_changes_nothing_of_how_it_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    for turn in range(150):
        before = _made(chance)
        known = File(before).manifest()
        ends = [at + chunk.size for at, chunk in zip(offsets_of(known), known, strict=True)]
        for _ in range(3):
            file = File(_edited(before, ends, chance))
            assert file.manifest(known) == file.manifest(), f"seed {seed}, turn {turn}"


@pytest.mark.parametrize("edit", ["flip", "insert", "delete", "cut off"])
def test_the_byte_behind_a_chunk_may_be_what_ends_it(edit: str) -> None:
    before = bytes_of(1, LARGE)
    known = chunked(before)
    for at in offsets_of(known)[-6:]:
        data = {
            "flip": before[:at] + bytes([before[at] ^ 255]) + before[at + 1 :],
            "insert": before[:at] + b"x" + before[at:],
            "delete": before[:at] + before[at + 1 :],
            "cut off": before[: at + 1],
        }[edit]
        assert File(data).manifest(known) == chunked(data)


def test_an_unchanged_file_is_not_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(bytes_of(1, LARGE))
    known = file.manifest()
    looked = Looked(monkeypatch)
    assert file.manifest(known) == known
    assert looked.bytes == 0


@pytest.mark.parametrize("where", ["in front", "in the middle", "at the end"])
def test_a_changed_file_is_cut_again_around_its_change_only(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_of(1, 4 * LARGE)
    at = {"in front": 0, "in the middle": 2 * LARGE, "at the end": len(before)}[where]
    file = File(before[:at] + b"x" * 960 + before[at:])
    looked = Looked(monkeypatch)
    assert file.manifest(chunked(before)) == chunked(file.data)
    assert 0 < looked.bytes < 12 * MIB
    assert at - looked.begins[0] < 4 * MIB


@pytest.mark.parametrize(
    "known",
    [
        (),
        chunked(bytes_of(2, LARGE)),
        chunked(bytes_of(2, FOLLOWED_FROM // 8)),
        (Chunk(Digest(bytes(32)), LARGE),),
        (Chunk(Digest(bytes(32)), 3),) * 100_000,
        (Chunk(Digest(bytes(32)), chunk_sizes(LARGE).maximum),) * 100,
    ],
)
def test_what_is_known_may_have_nothing_to_do_with_the_file(known: Manifest) -> None:
    data = bytes_of(1, LARGE)
    assert File(data).manifest(known) == chunked(data)


def test_a_file_that_was_hardly_larger_than_a_chunk_is_not_followed() -> None:
    before = bytes_of(1, FOLLOWED_FROM // 16)
    half = len(before) // 2
    known = tuple(_chunk_of(part) for part in (before[:half], before[half:]))
    data = before + bytes_of(2, LARGE)
    assert File(data).manifest(known) == chunked(data)


def test_a_file_that_ends_too_early_is_an_error_also_where_it_is_followed() -> None:
    file = File(bytes_of(1, LARGE))
    known = file.manifest()
    file.data = file.data[: LARGE - MIB]
    with pytest.raises(EOFError):
        manifest_of(file.read_into, LARGE, known)


class AtOnce:
    """Stands for a thread that is never behind."""

    def __init__(self, _threads: int) -> None:
        pass

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(work(*arguments))
        return future


class Late(AtOnce):
    """Stands for a thread that comes to its work as late as it may."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.result = lambda timeout=None: work(*arguments)  # type: ignore[method-assign]
        return future


def test_a_large_file_is_cut_and_hashed_in_two_threads_however_late_the_other_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = File(bytes_of(1, LARGE))
    threads = set()
    work = module._chunk

    def chunk(view: memoryview) -> Chunk:
        threads.add(threading.get_ident())
        return work(view)

    monkeypatch.setattr(module, "_chunk", chunk)
    known = file.manifest()
    assert known == chunked(file.data)
    assert len(threads) == 1 and threading.get_ident() not in threads

    threads.clear()
    file.manifest(known)
    assert len(threads) == 2 and threading.get_ident() in threads

    monkeypatch.setattr(module, "ThreadPoolExecutor", Late)
    assert file.manifest() == file.manifest(known) == known


def _chunk_of(data: bytes) -> Chunk:
    return Chunk(Digest(blake3.blake3(data).digest()), len(data))
