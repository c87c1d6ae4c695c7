"""Answers one peer's requests for chunks and manifests of one folder it shares.

A chunk is read from wherever the index believes it lies and hashed again before it is sent, so a
file that changed since its scan is never served: it is looked at again instead.
"""

import asyncio
from collections.abc import Callable, Sequence

import blake3

from p2psync.core.ids import Digest
from p2psync.core.manifest import encode_manifest
from p2psync.core.relpath import RelPath
from p2psync.engine.packing import Packing
from p2psync.ports import (
    Disk,
    FileChangedError,
    FolderIndex,
    Place,
    RootUnavailableError,
    StagedPlace,
)
from p2psync.protocol.messages import (
    MISSING,
    ChunkReply,
    ChunkRequest,
    ManifestReply,
    ManifestRequest,
)
from p2psync.protocol.wire import MAX_PAYLOAD


def lacking(request: ChunkRequest | ManifestRequest) -> ChunkReply | ManifestReply:
    """The answer where the folder is not at work for the asker, perhaps since a moment ago: without
    one it would wait for a minute and more, and everything else in its folder with it."""
    if isinstance(request, ChunkRequest):
        return ChunkReply(request.request, (MISSING,) * len(request.digests))
    return ManifestReply(request.request)


class Supplier:
    def __init__(
        self,
        index: FolderIndex,
        disk: Disk,
        suspect: Callable[[set[RelPath]], None],
        staged: Callable[[Digest], StagedPlace | None],
    ) -> None:
        """`suspect` is told of paths whose bytes are not what the index says. `staged`: where a
        chunk lies of a file that is being fetched."""
        self._index = index
        self._disk = disk
        self._suspect = suspect
        self._staged = staged

    async def chunks(
        self, request: ChunkRequest, packing: Packing | None = None
    ) -> tuple[ChunkReply, Sequence[bytes]]:
        """Compressed where `packing` expects that to pay."""
        digests = [Digest(digest) for digest in request.digests]
        places = await self._index.find_chunks(digests)
        wanted = [(digest, places.get(digest, [])) for digest in digests]
        found, wrong = await asyncio.to_thread(self._read, wanted)
        if wrong:
            self._suspect(wrong)
        sizes = tuple(MISSING if data is None else len(data) for data in found)
        if packing is not None and (attempt := packing.attempt()) is not None:
            packed = await asyncio.to_thread(attempt.pack, found)
            packing.learn(packed)
            return ChunkReply(request.request, sizes, packed.lengths), packed.payload
        return ChunkReply(request.request, sizes), [data for data in found if data]

    def _read(
        self, wanted: Sequence[tuple[Digest, Sequence[Place]]]
    ) -> tuple[list[bytes | None], set[RelPath]]:
        """Runs in a worker thread."""
        try:
            with self._disk.at_once():
                return self._read_each(wanted)
        except RootUnavailableError:
            return [None] * len(wanted), set()

    def _read_each(
        self, wanted: Sequence[tuple[Digest, Sequence[Place]]]
    ) -> tuple[list[bytes | None], set[RelPath]]:
        found: list[bytes | None] = []
        wrong: set[RelPath] = set()
        total = 0
        for digest, places in wanted:
            good: bytes | None = None
            for place in places:
                if total + place.size > MAX_PAYLOAD:
                    break
                try:
                    data = self._disk.read(place)
                except (OSError, FileChangedError):
                    wrong.add(place.path)
                    continue
                if blake3.blake3(data).digest() == digest:
                    good = data
                    total += len(data)
                    break
                wrong.add(place.path)
            if good is None and (staged := self._staged(digest)) is not None:
                good = self._read_staged(digest, staged, MAX_PAYLOAD - total)
                total += len(good or b"")
            found.append(good)
        return found, wrong

    def _read_staged(self, digest: Digest, place: StagedPlace, room: int) -> bytes | None:
        if place.size > room:
            return None
        try:
            data = self._disk.read_staged(place)
        except OSError:
            return None
        return data if blake3.blake3(data).digest() == digest else None

    async def manifest(self, request: ManifestRequest) -> tuple[ManifestReply, Sequence[bytes]]:
        """An empty reply where it is not held, or too long to be sent."""
        manifest = await self._index.manifest(request.content)
        encoded = encode_manifest(manifest) if manifest else b""
        return ManifestReply(request.request), [encoded] if len(encoded) <= MAX_PAYLOAD else []
