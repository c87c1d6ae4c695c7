"""Lists of chunks and what they are named by."""

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import MAX_FILE_SIZE, SINGLE_CHUNK_MAX, Chunk, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import (
    ManifestError,
    chunk_sizes,
    content_id_of_manifest,
    decode_manifest,
    encode_manifest,
    holes,
    offsets_of,
)

LARGEST = 16 * 1024 * 1024
X, Y = Digest(b"x" * 32), Digest(b"y" * 32)

chunks = st.builds(Chunk, st.binary(min_size=32, max_size=32).map(Digest), st.integers(1, LARGEST))
manifests = st.lists(chunks, min_size=2, max_size=5).map(tuple)


@given(manifests)
def test_what_is_encoded_can_be_decoded(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert len(data) == 36 * len(manifest)
    assert decode_manifest(data) == manifest


@given(st.binary(max_size=120))
def test_any_bytes_are_a_list_of_chunks_or_refused(data: bytes) -> None:
    try:
        manifest = decode_manifest(data)
    except ManifestError:
        return
    assert encode_manifest(manifest) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no chunk"),
        (encode_manifest((Chunk(X, 1),)), "one chunk: small files have no list"),
        (encode_manifest((Chunk(X, 1), Chunk(Y, 1)))[:-1], "cut short"),
        (encode_manifest((Chunk(X, 1), Chunk(Y, 0))), "an empty chunk"),
        (encode_manifest((Chunk(X, 1), Chunk(Y, LARGEST + 1))), "a chunk larger than any"),
    ],
)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(data)
        pytest.fail(why)


@given(manifests, manifests)
def test_different_lists_have_different_ids(one: Manifest, other: Manifest) -> None:
    assert (content_id_of_manifest(one) == content_id_of_manifest(other)) == (one == other)


@given(manifests)
def test_no_list_has_the_id_of_a_small_file(manifest: Manifest) -> None:
    assert content_id_of_manifest(manifest) != blake3.blake3(encode_manifest(manifest)).digest()


def test_the_id_is_part_of_the_protocol() -> None:
    """Changed, it would have everybody's large files sent anew."""
    manifest = (Chunk(X, 1), Chunk(Y, 2))
    assert (
        content_id_of_manifest(manifest).hex()
        == "4447f6b2a10cf2fa4269d5a2bf4f8f64c83fe699bdac25253fc4e30b3aa4c55b"
    )


def test_how_files_are_cut_is_part_of_the_protocol() -> None:
    usual, huge = (131072, 524288, 2097152), (1048576, 4194304, 16777216)
    border = 64 * 1024**3
    assert [chunk_sizes(size) for size in (SINGLE_CHUNK_MAX + 1, border - 1)] == [usual, usual]
    assert [chunk_sizes(size) for size in (border, MAX_FILE_SIZE)] == [huge, huge]


def zeros(size: int) -> Chunk:
    return Chunk(Digest(blake3.blake3(bytes(size)).digest()), size)


def test_the_largest_chunks_of_zeros_are_holes_and_what_is_left_of_them_at_the_end() -> None:
    largest = chunk_sizes(1).maximum
    assert holes((zeros(largest), Chunk(X, largest), zeros(5), zeros(largest), zeros(7))) == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert holes((zeros(largest), Chunk(X, 5))) == [True, False]
    assert holes(()) == []


def test_each_chunk_begins_where_the_one_before_ends() -> None:
    assert offsets_of((Chunk(X, 3), Chunk(Y, 4), Chunk(X, 5))) == [0, 3, 7]
    assert offsets_of(()) == []
