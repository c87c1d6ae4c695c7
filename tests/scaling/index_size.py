"""The real index with many files: its size on the disk and on the wire, and what it does slowly.

Sizes are functions of the seed. Times and memory are those of one machine at one hour: what they
tell is how they grow.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry, Fingerprint, Kind
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, Version
from p2psync.ports import Row
from p2psync.protocol.wire import ENTRIES_IN_BATCH, pack_entries
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.oracle.gauges import look

T = TypeVar("T")

_NOW_NS = 1_700_000_000_000_000_000
_AUTHORS = 1024
_ROOM_FOR_ENTRIES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes per file."""

    files: int
    vector: int
    """Replicas that have edited each file."""
    on_disk: float
    on_wire: float
    """As packed for a batch."""
    unpacked: float


@dataclass(frozen=True, slots=True)
class Timed:
    seconds: float
    memory: int
    """By how many bytes the process has grown at the end of it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an index of so many files does."""

    files: int
    opened: Timed
    recorded: Timed
    """One change, durably."""
    queried: Timed
    """What has changed since: the one row."""
    digested: Timed
    fingerprints: Timed
    """All of them, as a full scan needs them."""
    sent: Timed
    """All of it packed for a peer that knows nothing."""


def rows(count: int, *, vector: int, seed: int) -> Iterator[Row]:
    """Files of chance, in directories of a hundred, each edited by as many replicas."""
    source = random.Random(seed)
    replicas = sorted(source.getrandbits(63) or 1 for _ in range(_AUTHORS))
    for number in range(count):
        authors = sorted(source.sample(replicas, vector))
        seen = [(author, _NOW_NS // 1000 + source.randrange(10**9)) for author in authors]
        dot = Dot(*source.choice(seen))
        mtime = _NOW_NS - source.randrange(10**17)
        size = source.randrange(SINGLE_CHUNK_MAX)
        version = Version(dot, dot, mtime, tuple(seen), "ada")
        entry = Entry(Kind.FILE, version, source.randbytes(32), size, mtime)
        mark = Fingerprint(Kind.FILE, size, mtime, mtime + 5, number + 100, False, False)
        yield Row(RelPath(_path(number)), entry, mark)


def _path(number: int) -> str:
    return f"projects/{number // 10_000:04}/{number // 100 % 100:02}/document {number % 100:02}.txt"


async def fill(path: Path, count: int, *, vector: int, seed: int) -> None:
    index = await _open(path)
    try:
        batch: list[Row] = []
        for row in rows(count, vector=vector, seed=seed):
            batch.append(row)
            if len(batch) == ENTRIES_IN_BATCH:
                await index.record(batch)
                batch = []
        if batch:
            await index.record(batch)
    finally:
        await index.close()


async def _open(path: Path) -> SqliteFolderIndex:
    return await open_folder_index(path, randomness=random.Random(1).randbytes, now_ns=_NOW_NS)


async def measure_sizes(directory: Path, count: int, *, vector: int, seed: int) -> Sizes:
    path = directory / f"sizes-{count}-{vector}.db"
    await fill(path, count, vector=vector, seed=seed)
    index = await _open(path)
    try:
        packed = unpacked = after = 0
        while entries := await index.entries_after(after, _in_a_batch(vector)):
            packed += len(pack_entries(entries))
            unpacked += len(msgspec.msgpack.encode(entries))
            after = entries[-1][0]
    finally:
        await index.close()
    size = path.stat().st_size
    path.unlink()
    return Sizes(
        count,
        vector,
        on_disk=round(size / count, 1),
        on_wire=round(packed / count, 1),
        unpacked=round(unpacked / count, 1),
    )


def _in_a_batch(vector: int) -> int:
    """About as many entries as an exchange would send at once."""
    return min(ENTRIES_IN_BATCH, _ROOM_FOR_ENTRIES // (600 + 20 * vector))


async def measure_work(path: Path) -> Work:
    """Of an index that was filled, in a process that has done little else."""

    async def opened() -> SqliteFolderIndex:
        return await _open(path)

    index, opening = await _timed(opened)
    try:
        (changed,) = rows(1, vector=1, seed=0)
        before = index.sequence
        _, recording = await _timed(lambda: index.record([changed]))
        found, querying = await _timed(lambda: index.entries_after(before, ENTRIES_IN_BATCH))
        if len(found) != 1:
            raise RuntimeError("the index does not tell what was recorded")
        _, digesting = await _timed(index.digest)
        files, looking = await _timed(lambda: _look_through(index))
        _, sending = await _timed(lambda: _send_all(index))
    finally:
        await index.close()
    return Work(files, opening, recording, querying, digesting, looking, sending)


async def _look_through(index: SqliteFolderIndex) -> int:
    """As a walk of the disk does; how many entries there are."""
    after, found = "", 0
    while known := await index.fingerprints(after=after, limit=4096):
        after = known[-1][0]
        found += len(known)
    return found


async def _send_all(index: SqliteFolderIndex) -> None:
    after = 0
    while entries := await index.entries_after(after, ENTRIES_IN_BATCH):
        await asyncio.to_thread(pack_entries, entries)
        after = entries[-1][0]


async def _timed(work: Callable[[], Awaitable[T]]) -> tuple[T, Timed]:
    before, began = _memory(), time.perf_counter()
    result = await work()
    seconds = time.perf_counter() - began
    return result, Timed(round(seconds, 5), max(0, _memory() - before))


def _memory() -> int:
    found = look(os.getpid())
    if found is None:
        raise RuntimeError("there is no /proc")
    return found[0]
