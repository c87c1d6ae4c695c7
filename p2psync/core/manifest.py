"""A file's list of chunks: how it is cut, the list's bytes, and the content id that names it."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import blake3

from p2psync.core.entry import MAX_FILE_SIZE, Chunk, Manifest
from p2psync.core.ids import Digest
from p2psync.errors import P2psyncError

_CONTEXT = "p2psync 2026 content id of a manifest 1"
"""BLAKE3's key derivation context: no list of chunks has the id of a small file's bytes."""

_DIGEST_SIZE = 32
_CHUNK_SIZE = _DIGEST_SIZE + 4


class ChunkSizes(NamedTuple):
    """What FastCDC (Xia et al., 2016) is told, in bytes. Part of the protocol: another cut of the
    same bytes is another content id."""

    minimum: int
    average: int
    maximum: int


_USUAL = ChunkSizes(128 * 1024, 512 * 1024, 2 * 1024 * 1024)
_HUGE = ChunkSizes(1024 * 1024, 4 * 1024 * 1024, 16 * 1024 * 1024)
_HUGE_FROM = 64 * 1024**3
FOLLOWED_FROM = 16 * 1024 * 1024
"""From this size on it is worth knowing how a file was cut before."""


class ManifestError(P2psyncError):
    """The bytes are not a list of chunks that a file could have."""


def chunk_sizes(file_size: int) -> ChunkSizes:
    """How a file of that many bytes is cut. A function of the size alone, so that equal files have
    equal content ids whatever they were before."""
    return _USUAL if file_size < _HUGE_FROM else _HUGE


def offsets_of(manifest: Sequence[Chunk]) -> list[int]:
    """Where each chunk begins."""
    return list(accumulate((chunk.size for chunk in manifest[:-1]), initial=0))[: len(manifest)]


def holes(manifest: Manifest) -> list[bool]:
    """Which of the chunks lie in a hole of their file, or in zeros that may become one: a run of
    zeros is cut into the largest chunks, and what is left of it at the file's end."""
    if not manifest:
        return []
    largest = chunk_sizes(sum(chunk.size for chunk in manifest)).maximum
    found = [chunk.size == largest and chunk == _zeros(largest) for chunk in manifest]
    last = manifest[-1]
    found[-1] = last.size <= largest and last == _zeros(last.size)
    return found


@lru_cache(maxsize=4)
def _zeros(size: int) -> Chunk:
    return Chunk(Digest(blake3.blake3(bytes(size)).digest()), size)


def content_id_of_manifest(manifest: Manifest) -> Digest:
    return Digest(blake3.blake3(encode_manifest(manifest), derive_key_context=_CONTEXT).digest())


def encode_manifest(manifest: Manifest) -> bytes:
    """For disk and wire: of each chunk its digest (32 bytes) and size (u32 BE)."""
    return b"".join(digest + size.to_bytes(4, "big") for digest, size in manifest)


def decode_manifest(data: bytes) -> Manifest:
    """Inverse of `encode_manifest`. Raises ManifestError."""
    if len(data) % _CHUNK_SIZE or len(data) < 2 * _CHUNK_SIZE:
        raise ManifestError("A list of chunks is cut short.")
    manifest = tuple(
        Chunk(
            Digest(data[at : at + _DIGEST_SIZE]),
            int.from_bytes(data[at + _DIGEST_SIZE : at + _CHUNK_SIZE], "big"),
        )
        for at in range(0, len(data), _CHUNK_SIZE)
    )
    largest = chunk_sizes(MAX_FILE_SIZE).maximum
    if not all(0 < chunk.size <= largest for chunk in manifest):
        raise ManifestError("A list of chunks has a chunk of a size that no file is cut into.")
    return manifest
