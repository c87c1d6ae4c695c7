"""Replies with packed chunks, and what a device may send that is none."""

import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from p2psync.protocol.chunks import Data, cut_chunks, packer
from p2psync.protocol.messages import MISSING, ChunkReply
from p2psync.protocol.wire import MAX_PAYLOAD, RemoteProtocolError

TEXT = b"What is said again and again is soon said. " * 100
FRAME = packer()(TEXT)
SHORT = packer()(b"one")


def _cut(payload: bytes, size: int = len(TEXT), length: int | None = None) -> Data | None:
    packed = (len(payload) if length is None else length,)
    (chunk,) = cut_chunks(ChunkReply(1, (size,), packed), 1, payload)
    return chunk


def _streamed(data: bytes) -> bytes:
    """A frame that does not say how long its content is."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


def _claiming(size: int) -> bytes:
    """FRAME, whose head says that its content has another size."""
    at = FRAME.index((len(TEXT) - 256).to_bytes(2, "little"))
    return FRAME[:at] + (size - 256).to_bytes(2, "little") + FRAME[at + 2 :]


def _skippable(data: bytes) -> bytes:
    return (0x184D2A50).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


@given(st.lists(st.none() | st.binary(max_size=50) | st.sampled_from([TEXT, TEXT[:500]])))
def test_chunks_come_back_as_they_were(chunks: list[bytes | None]) -> None:
    pack = packer()
    pieces = [min(chunk, pack(chunk), key=len) for chunk in chunks if chunk is not None]
    sizes = tuple(MISSING if chunk is None else len(chunk) for chunk in chunks)
    lengths = iter(map(len, pieces))
    packed = tuple(MISSING if chunk is None else next(lengths) for chunk in chunks)
    reply = ChunkReply(1, sizes, packed)
    assert cut_chunks(reply, len(chunks), b"".join(pieces)) == chunks
    whole = b"".join(chunk for chunk in chunks if chunk)
    assert cut_chunks(ChunkReply(1, sizes), len(chunks), whole) == chunks


def test_what_is_packed_is_small_and_says_its_size() -> None:
    assert len(FRAME) < len(TEXT) // 10
    assert zstandard.frame_content_size(FRAME) == len(TEXT)
    assert _cut(FRAME) == TEXT


REFUSED: dict[str, tuple[ChunkReply, bytes]] = {
    "fewer chunks than asked for": (ChunkReply(1, ()), b""),
    "more chunks than asked for": (ChunkReply(1, (1, 1)), b"ab"),
    "fewer bytes than told": (ChunkReply(1, (3,)), b"on"),
    "more bytes than told": (ChunkReply(1, (3,)), b"onee"),
    "a size below nothing": (ChunkReply(1, (-2,)), b""),
    "bytes of a missing chunk": (ChunkReply(1, (MISSING,)), b"one"),
    "too few lengths": (ChunkReply(1, (len(TEXT), 0), (len(FRAME),)), FRAME),
    "too many lengths": (ChunkReply(1, (len(TEXT),), (len(FRAME), 0)), FRAME),
    "a length below nothing": (ChunkReply(1, (3,), (-2,)), b""),
    "no length for a chunk that is there": (ChunkReply(1, (3,), (MISSING,)), b""),
    "a length for a missing chunk": (ChunkReply(1, (MISSING,), (3,)), b"one"),
    "no bytes for a missing chunk": (ChunkReply(1, (MISSING,), (0,)), b""),
    "a frame longer than its chunk": (ChunkReply(1, (3,), (len(SHORT),)), SHORT),
    "fewer bytes than the lengths": (ChunkReply(1, (len(TEXT),), (len(FRAME),)), FRAME[:-1]),
    "more bytes than the lengths": (ChunkReply(1, (len(TEXT),), (len(FRAME),)), FRAME + b"x"),
    "sizes that add up, lengths that do not": (ChunkReply(1, (5,), (4,)), b"fiver"),
}


@pytest.mark.parametrize(("reply", "payload"), REFUSED.values(), ids=REFUSED.keys())
def test_a_reply_that_does_not_add_up_is_refused(reply: ChunkReply, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        cut_chunks(reply, 1, payload)


def test_lengths_below_nothing_do_not_make_up_for_what_lacks() -> None:
    payload = FRAME + b"five."
    more = len(payload) + 5
    with pytest.raises(RemoteProtocolError):
        cut_chunks(ChunkReply(1, (len(TEXT), more), (-5, more)), 2, payload)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "nothing"),
        (b"garbage that is no frame", "garbage"),
        (FRAME[:4], "a head cut short"),
        (FRAME[:-1], "a frame cut short"),
        (FRAME + b"x", "something after the frame"),
        (FRAME + FRAME, "two frames"),
        (_skippable(b"x") + FRAME, "a frame of nothing before it"),
        (_skippable(b"x"), "a frame of nothing"),
        (_skippable(TEXT)[:50], "a frame of nothing that claims to be as long as the chunk"),
        (_streamed(TEXT), "a frame that does not tell its size"),
        (_streamed(b""), "an empty frame"),
        (packer()(TEXT[1:]), "less than was told"),
        (packer()(TEXT + b"x"), "more than was told"),
        (packer()(b""), "nothing, packed"),
        (FRAME[:10] + bytes(20) + FRAME[30:], "a damaged frame"),
    ],
)
def test_a_frame_that_is_not_just_the_chunk_is_refused(frame: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError):
        _cut(frame)
        pytest.fail(why)


@pytest.mark.parametrize("size", [len(TEXT) - 1, len(TEXT) + 1, 300, 60_000])
def test_a_frame_that_lies_about_its_content_is_refused(size: int) -> None:
    frame = _claiming(size)
    assert zstandard.frame_content_size(frame) == size
    with pytest.raises(RemoteProtocolError):
        _cut(frame, size)


def test_a_frame_that_needs_a_dictionary_is_refused() -> None:
    words = zstandard.ZstdCompressionDict(b"What is said again and again" * 20)
    frame = zstandard.ZstdCompressor(dict_data=words).compress(TEXT)
    with pytest.raises(RemoteProtocolError):
        _cut(frame)


BOMB = packer()(bytes(MAX_PAYLOAD))


@pytest.mark.parametrize("size", [len(BOMB) + 1, 100_000])
def test_a_bomb_takes_no_more_memory_than_was_told(size: int) -> None:
    streamed = _streamed(bytes(MAX_PAYLOAD))
    for frame in (BOMB, streamed):
        tracemalloc.start()
        try:
            with pytest.raises(RemoteProtocolError):
                _cut(frame, max(size, len(frame)))
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_many_frames_together_take_no_more_memory_than_a_payload() -> None:
    half = packer()(bytes(MAX_PAYLOAD // 2))
    sizes, lengths = (MAX_PAYLOAD // 2,) * 3, (len(half),) * 3
    chunks = cut_chunks(ChunkReply(1, sizes[:2], lengths[:2]), 2, half * 2)
    assert chunks == [bytes(MAX_PAYLOAD // 2)] * 2
    tracemalloc.start()
    try:
        refused = False
        try:
            cut_chunks(ChunkReply(1, sizes, lengths), 3, half * 3)
        except RemoteProtocolError:
            refused = True
        assert refused
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("window_log", "accepted"), [(25, True), (26, False), (31, False)])
def test_a_frame_may_not_have_its_reader_keep_more_than_a_payload(
    window_log: int, *, accepted: bool
) -> None:
    magic, size, blocks = FRAME[:4], FRAME[5:7], FRAME[7:]
    frame = magic + bytes([0x40, (window_log - 10) << 3]) + size + blocks
    parameters = zstandard.get_frame_parameters(frame)
    assert (parameters.content_size, parameters.window_size) == (len(TEXT), 1 << window_log)
    if accepted:
        assert _cut(frame) == TEXT
    else:
        with pytest.raises(RemoteProtocolError):
            _cut(frame)
