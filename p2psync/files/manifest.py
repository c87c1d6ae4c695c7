"""The list of chunks of an open file: what is new in it is cut, what was there before is followed.

Where FastCDC cuts depends on the bytes since the last cut, on the one behind, and on where the file
ends. So a chunk that is found again where one begins, with what followed it behind it, would be cut
as before: to hash both is enough, and that can be done for many at a time.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice

import blake3

from p2psync.core.entry import Chunk, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import FOLLOWED_FROM, chunk_sizes, offsets_of
from p2psync.files.chunker import ReadInto, cut

_FIRST_LOOK = 1024 * 1024
_LONGEST_LOOK = 64 * 1024 * 1024
"""Bytes in which chunks are looked for at once: more and more while all of them are there."""


def manifest_of(read_into: ReadInto, size: int, known: Manifest = ()) -> Manifest:
    """`known`: how a file was cut of which this one may still have parts. Where that is how it
    would be cut here, it changes how long this takes and not what comes of it.

    Raises what `read_into` does.
    """
    if size < FOLLOWED_FROM:
        return tuple(_chunk(view) for view in cut(read_into, size))
    with ThreadPoolExecutor(1) as helper:
        return _Reading(read_into, size, known, helper).manifest()


class _Reading:
    """Of a file that is large enough for a second thread."""

    def __init__(self, read_into: ReadInto, size: int, known: Manifest, helper: Executor) -> None:
        self._read_into = read_into
        self._size = size
        self._known = known if _is_cut_alike(known, size) else ()
        self._helper = helper
        self._next: dict[Chunk, int] = {}
        """The number in `known` of what came after each chunk."""
        for number, chunk in enumerate(self._known, 1):
            self._next.setdefault(chunk, number)
        largest = max((chunk.size for chunk in self._known), default=0)
        self._buffers = [memoryview(bytearray(largest)) for _ in range(2)]

    def manifest(self) -> Manifest:
        chunks: list[Chunk] = []
        at = number = 0
        while True:
            found = self._follow(number, at)
            found += self._cut(at + _size(found))
            chunks += found
            at += _size(found)
            if at == self._size:
                return tuple(chunks)
            number = self._next[chunks[-1]]

    def _follow(self, number: int, at: int) -> list[Chunk]:
        """The chunks from that number on that lie here in the same order, and would be cut so."""
        begin = at
        found: list[Chunk] = []
        look = _FIRST_LOOK
        while expected := self._expected(number, at, look):
            lies = self._which_lie(expected, at)
            count = lies.index(False) if False in lies else len(lies)
            found += expected[:count]
            if count < len(expected):
                break
            number += count
            at += _size(expected)
            look = min(2 * look, _LONGEST_LOOK)
        if begin + _size(found) != self._size:
            # What was behind the last one is not there, and could be what ended it.
            del found[-1:]
        return found

    def _expected(self, number: int, at: int, look: int) -> list[Chunk]:
        """What comes next if all is as it was: some of it."""
        expected: list[Chunk] = []
        upto = at
        for chunk in islice(self._known, number, None):
            number += 1
            upto += chunk.size
            # The last one ended where its file did.
            is_elsewhere = number == len(self._known) and upto != self._size
            if upto > self._size or is_elsewhere or (expected and upto > at + look):
                break
            expected.append(chunk)
        return expected

    def _which_lie(self, chunks: Sequence[Chunk], at: int) -> list[bool]:
        """Which of the chunks lie one after the other from `at` on."""
        places = [
            (at + offset, chunk) for offset, chunk in zip(offsets_of(chunks), chunks, strict=True)
        ]
        others = self._helper.submit(self._look, places[1::2], self._buffers[1])
        lie = [False] * len(places)
        lie[::2] = self._look(places[::2], self._buffers[0])
        lie[1::2] = others.result()
        return lie

    def _look(self, places: Sequence[tuple[int, Chunk]], buffer: memoryview) -> list[bool]:
        lie: list[bool] = []
        for at, chunk in places:
            view = buffer[: chunk.size]
            self._read_into(view, at)
            lie.append(_chunk(view) == chunk)
        return lie

    def _cut(self, at: int) -> list[Chunk]:
        """Up to a chunk that was there before, or to the end."""
        chunks: list[Chunk] = []
        hashing: list[Future[Chunk]] = []

        def collect() -> None:
            chunks.extend(each.result() for each in hashing)
            hashing.clear()

        for view in cut(self._read_into, self._size, begin=at, before_reuse=collect):
            if chunks and chunks[-1] in self._next:
                return chunks
            hashing.append(self._helper.submit(_chunk, view))
        collect()
        return chunks


def _is_cut_alike(known: Manifest, size: int) -> bool:
    """Whether the sizes are those that a file of `size` bytes is cut into."""
    before = _size(known)
    sizes = chunk_sizes(size)
    return (
        # One that is hardly larger than a chunk is cut in a way of its own.
        before >= FOLLOWED_FROM
        and chunk_sizes(before) == sizes
        and all(sizes.minimum <= chunk.size <= sizes.maximum for chunk in known[:-1])
    )


def _size(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.size for chunk in chunks)


def _chunk(data: memoryview) -> Chunk:
    return Chunk(Digest(blake3.blake3(data).digest()), len(data))
