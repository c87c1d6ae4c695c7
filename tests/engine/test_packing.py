"""When a session compresses what it sends of chunks, and that what was packed arrives unchanged."""

import random

import blake3

from p2psync.core.ids import Digest
from p2psync.engine.packing import Packing
from p2psync.engine.supplier import Supplier
from p2psync.protocol.chunks import cut_chunks
from p2psync.protocol.messages import MISSING, ChunkReply, ChunkRequest
from tests.support.devices import Device
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import chunked

MIB = 1024 * 1024
TEXT = b"".join(b"Line %d of what is said and said again.\n" % n for n in range(40_000))
NOISE = random.Random(1).randbytes(MIB)
SLOW, FAST = 12.5e6, 500e6
"""Bytes a second."""


class SlowProcessor(ManualClock):
    """Each look at the clock is so much later than the one before."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def monotonic(self) -> float:
        self.advance(self.step)
        return super().monotonic()


def on_link(rate: float, clock: ManualClock | None = None) -> Packing:
    """Of a session that has sent something over a link of that rate."""
    packing = Packing(clock or ManualClock())
    for _ in range(4):
        packing.sent(MIB, MIB / rate)
    return packing


def pack(packing: Packing, *chunks: bytes | None) -> tuple[int, ...]:
    """What is told of the lengths; the chunks have to arrive as they are."""
    attempt = packing.attempt()
    assert attempt is not None
    packed = attempt.pack(chunks)
    packing.learn(packed)
    sizes = tuple(MISSING if chunk is None else len(chunk) for chunk in chunks)
    reply = ChunkReply(1, sizes, packed.lengths)
    assert cut_chunks(reply, len(chunks), b"".join(packed.payload)) == list(chunks)
    return packed.lengths


def test_on_a_slow_link_text_is_sent_packed() -> None:
    for _ in range(3):
        (length,) = pack(packing := on_link(SLOW), TEXT)
        assert length < len(TEXT) // 4
        assert packing.attempt() is not None


def test_on_a_fast_link_nothing_is_tried() -> None:
    assert on_link(FAST).attempt() is None


def test_on_a_link_of_which_nothing_is_known_nothing_is_tried() -> None:
    packing = Packing(ManualClock())
    assert packing.attempt() is None
    packing.sent(1000, 1.0)
    assert packing.attempt() is None


def test_what_was_known_long_ago_is_not_known_any_more() -> None:
    clock = ManualClock()
    packing = on_link(SLOW, clock)
    assert packing.attempt() is not None
    clock.advance(60)
    assert packing.attempt() is None


def test_what_does_not_shrink_is_sent_as_it_is_and_the_next_replies_too() -> None:
    packing = on_link(SLOW)
    assert pack(packing, NOISE) == ()
    left_alone = 0
    while packing.attempt() is None:
        left_alone += 1
    assert left_alone == 16
    assert pack(packing, TEXT) != ()


def test_after_a_sample_that_does_not_shrink_the_rest_is_not_even_tried() -> None:
    packing = on_link(SLOW)
    attempt = packing.attempt()
    assert attempt is not None
    packed = attempt.pack([NOISE[:50_000], NOISE[:50_000], *[TEXT] * 20])
    assert packed.lengths == ()
    assert packed.speed.size == 100_000


def test_a_slow_processor_sends_everything_as_it_is() -> None:
    packing = on_link(SLOW, SlowProcessor(1.0))
    assert pack(packing, TEXT) == ()
    packing = on_link(SLOW, SlowProcessor(0.01))
    assert pack(packing, TEXT) != ()


def test_a_processor_that_was_busy_for_a_moment_is_tried_again() -> None:
    clock = SlowProcessor(1.0)
    packing = on_link(SLOW, clock)
    assert pack(packing, TEXT) == ()
    clock.step = 0.001
    tries = 0
    packed = False
    while not packed:
        packing.sent(MIB, MIB / SLOW)
        if packing.attempt() is not None:
            packed = pack(packing, TEXT) != ()
            tries += 1
    assert 1 < tries < 30


def test_chunks_of_all_kinds_keep_their_places() -> None:
    mixed = [None, TEXT, b"", NOISE, b"x", None, TEXT[:1000], b""]
    lengths = pack(on_link(SLOW), *mixed)
    assert lengths[0] == lengths[5] == MISSING
    assert lengths[2] == lengths[7] == 0
    assert lengths[3] == len(NOISE) and lengths[4] == 1
    assert lengths[1] < len(TEXT) and lengths[6] < 1000


def test_a_chunk_whose_frame_would_be_as_long_as_itself_is_sent_as_it_is() -> None:
    for length in range(1, 60):
        pack(on_link(SLOW), TEXT, b"a" * length, b"ab" * length)


def test_nothing_but_missing_chunks_stays_that() -> None:
    packing = on_link(SLOW)
    assert pack(packing, None, None) == (MISSING, MISSING)
    assert packing.attempt() is not None


def test_no_frame_depends_on_another_chunk() -> None:
    first = pack(on_link(SLOW), TEXT, TEXT[:5000])
    second = pack(on_link(SLOW), TEXT, TEXT[:5000], TEXT[:5000])
    assert first[1] == second[1] == second[2]


async def supplied(device: Device, packing: Packing | None, data: bytes) -> ChunkReply:
    device.disk.write("file", data)
    await device.scan()
    supplier = Supplier(device.index, device.disk, lambda _: None, lambda _: None)
    digests = tuple(chunk.digest for chunk in chunked(data))
    reply, payload = await supplier.chunks(ChunkRequest(1, "f", digests), packing)
    chunks = cut_chunks(reply, len(digests), b"".join(payload))
    assert [Digest(blake3.blake3(chunk or b"").digest()) for chunk in chunks] == list(digests)
    return reply


async def test_a_supplier_packs_where_that_pays_and_nowhere_else(ada: Device) -> None:
    assert (await supplied(ada, on_link(SLOW), TEXT)).packed
    assert not (await supplied(ada, on_link(FAST), TEXT)).packed
    assert not (await supplied(ada, None, TEXT)).packed
    assert not (await supplied(ada, on_link(SLOW), NOISE)).packed


async def test_a_supplier_learns_from_what_it_packed(ada: Device) -> None:
    packing = on_link(SLOW)
    await supplied(ada, packing, NOISE)
    assert packing.attempt() is None
