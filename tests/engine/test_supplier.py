import errno
import random

import blake3
import pytest

from p2psync.core.ids import Digest
from p2psync.core.manifest import encode_manifest
from p2psync.core.relpath import RelPath
from p2psync.engine import supplier as module
from p2psync.engine.supplier import Supplier
from p2psync.ports import StagedPlace
from p2psync.protocol.messages import MISSING, ChunkRequest, ManifestRequest
from tests.support.devices import Device
from tests.support.memory_disk import chunked

NONE = Digest(bytes(32))
BIG = random.Random(1).randbytes(2 * 1024 * 1024)


def digest_of(data: bytes) -> Digest:
    return Digest(blake3.blake3(data).digest())


class Supply:
    def __init__(self, device: Device) -> None:
        self.suspected: list[RelPath] = []
        self.staged: dict[Digest, StagedPlace] = {}
        self._supplier = Supplier(
            device.index, device.disk, self.suspected.extend, lambda digest: self.staged.get(digest)
        )

    async def chunks(self, *digests: Digest) -> tuple[tuple[int, ...], bytes]:
        reply, payload = await self._supplier.chunks(ChunkRequest(5, "f", digests))
        assert reply.request == 5
        return reply.sizes, b"".join(payload)

    async def manifest(self, content: bytes) -> bytes:
        reply, payload = await self._supplier.manifest(ManifestRequest(6, "f", content))
        assert reply.request == 6
        return b"".join(payload)


@pytest.fixture
async def supply(ada: Device) -> Supply:
    ada.disk.write("one", b"1")
    ada.disk.write("empty", b"")
    ada.disk.write("big", BIG)
    await ada.scan()
    return Supply(ada)


async def test_chunks_are_told_in_the_order_asked_for(supply: Supply) -> None:
    second = chunked(BIG)[1]
    at = chunked(BIG)[0].size
    sizes, payload = await supply.chunks(NONE, second.digest, digest_of(b""), digest_of(b"1"))
    assert sizes == (MISSING, second.size, 0, 1)
    assert payload == BIG[at : at + second.size] + b"1"
    assert supply.suspected == []


@pytest.mark.parametrize("change", ["edited", "gone", "unreadable"])
async def test_what_is_not_as_the_index_says_is_not_sent_but_looked_at(
    ada: Device, supply: Supply, change: str
) -> None:
    if change == "edited":
        ada.disk.write("one", b"2")
    elif change == "gone":
        ada.disk.remove("one")
    else:
        ada.disk.fail("read", "one", errno.EIO)
    assert await supply.chunks(digest_of(b"1")) == ((MISSING,), b"")
    assert supply.suspected == ["one"]


async def test_another_place_serves_too(ada: Device, supply: Supply) -> None:
    ada.disk.write("copy", b"1")
    await ada.scan()
    ada.disk.write("one", b"2")
    ada.disk.write("big", bytes(len(BIG)))
    assert await supply.chunks(digest_of(b"1")) == ((1,), b"1")


async def test_without_the_root_nothing_is_suspected(ada: Device, supply: Supply) -> None:
    ada.disk.lose_root()
    assert await supply.chunks(digest_of(b"1")) == ((MISSING,), b"")
    assert supply.suspected == []


async def test_a_reply_stays_within_what_a_frame_may_hold(
    supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chunked(BIG)[0]
    monkeypatch.setattr(module, "MAX_PAYLOAD", first.size)
    sizes, payload = await supply.chunks(first.digest, first.digest, digest_of(b""))
    assert sizes == (first.size, MISSING, 0)
    assert len(payload) == first.size


async def test_manifests_are_told_of_large_files_alone(supply: Supply, ada: Device) -> None:
    held = (await ada.index.held([RelPath("big")]))[RelPath("big")]
    assert await supply.manifest(held.entry.content) == encode_manifest(chunked(BIG))
    assert await supply.manifest(digest_of(b"1")) == b""
