from itertools import accumulate

import blake3
import pytest
from pyfastcdc import FastCDC

from p2psync.core.entry import SINGLE_CHUNK_MAX
from p2psync.core.manifest import ChunkSizes, chunk_sizes
from p2psync.files import chunker
from p2psync.files.chunker import cut, is_native

MIB = 1024 * 1024

# Devices that cut these bytes elsewhere, or give the pieces other digests, have other content ids
# for all large files: they would send each other every one of them again, and call it a conflict.
# So no faster chunker, and no other version of this one, may change these lines.
GOLDEN = [
    (624550, "506ed80b"),
    (1173678, "60303481"),
    (1307184, "242b2c0f"),
    (2457403, "c2fbfb60"),
    (3093963, "7e0b25a6"),
    (3751368, "c3c8122b"),
    (4453742, "6e235aca"),
    (5010549, "07fbfc20"),
    (5696742, "0c15a008"),
    (6291456, "0ba19ce5"),
]
GOLDEN_OF_HUGE = [
    (4949250, "53f8df23"),
    (11413150, "9f48c9d8"),
    (15889168, "7bb95bb2"),
    (22569257, "e0744991"),
    (25165824, "4e406b2c"),
]
"""As a file is cut that is so large that its chunks are larger, too."""


def generated(size: int, seed: bytes = b"p2psync") -> bytes:
    return blake3.blake3(seed).digest(length=size)


def pieces(data: bytes) -> list[bytes]:
    def read_into(view: memoryview, offset: int) -> None:
        view[:] = data[offset : offset + len(view)]

    return [bytes(chunk) for chunk in cut(read_into, len(data))]


def test_views_hold_until_their_bytes_are_to_be_reused() -> None:
    data = generated(12 * MIB)
    views: list[memoryview] = []
    found: list[bytes] = []

    def keep() -> None:
        found.extend(map(bytes, views))
        views.clear()

    def read_into(view: memoryview, offset: int) -> None:
        view[:] = data[offset : offset + len(view)]

    for view in cut(read_into, len(data), before_reuse=keep):
        views.append(view)
    keep()
    assert found == pieces(data)
    assert b"".join(found) == data


def test_the_compiled_chunker_is_installed() -> None:
    assert is_native()


def ends_and_digests(found: list[bytes]) -> list[tuple[int, str]]:
    """Where each piece ends, and the first four bytes of its BLAKE3."""
    digests = [blake3.blake3(piece).hexdigest()[:8] for piece in found]
    return list(zip(accumulate(map(len, found)), digests, strict=True))


def test_the_cut_points_and_digests_are_those_of_all_other_devices() -> None:
    assert ends_and_digests(pieces(generated(6 * MIB))) == GOLDEN


def test_those_of_huge_files_are_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = chunk_sizes(1 << 40)
    monkeypatch.setattr(chunker, "chunk_sizes", lambda size: sizes)
    assert ends_and_digests(pieces(generated(24 * MIB))) == GOLDEN_OF_HUGE


@pytest.mark.parametrize(
    "size", [SINGLE_CHUNK_MAX + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB, 5 * MIB + 3]
)
@pytest.mark.parametrize("zeros", [False, True])
def test_the_chunks_make_up_the_file_and_there_are_two_at_least(size: int, zeros: bool) -> None:
    data = bytes(size) if zeros else generated(size)
    found = pieces(data)
    assert b"".join(found) == data
    assert len(found) >= 2
    assert max(map(len, found)) <= chunk_sizes(size).maximum


def test_the_cuts_do_not_depend_on_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they come from one buffer with all of the file in it."""
    small = ChunkSizes(1024, 4096, 16384)
    data = generated(300_000)
    monkeypatch.setattr(chunker, "chunk_sizes", lambda size: small)
    whole = FastCDC(4096, min_size=1024, max_size=16384, normalized_chunking=2, seed=0)
    assert pieces(data) == [bytes(chunk.data) for chunk in whole.cut_buf(data)]


def test_bytes_put_before_a_file_change_few_of_its_chunks() -> None:
    data = generated(12 * MIB, seed=b"another")
    before, after = set(pieces(data)), set(pieces(b"x" * 1000 + data))
    assert len(after - before) <= 3
