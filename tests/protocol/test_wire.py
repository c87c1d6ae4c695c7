"""Frames and packed entries: what was sent arrives, and whatever else arrives does no harm."""

import contextlib
import tracemalloc
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import MAX_FILE_SIZE, Entry, Kind
from p2psync.core.relpath import RelPath
from p2psync.core.version import MAX_KEPT, MAX_STAMP, MAX_VECTOR, Dot, Version
from p2psync.protocol.messages import AnyMessage, Goodbye, Ping, Status
from p2psync.protocol.wire import (
    ENTRIES_IN_BATCH,
    MAX_BODY,
    MAX_PACKED_ENTRIES,
    MAX_PAYLOAD,
    FrameReader,
    RemoteProtocolError,
    SequencedEntry,
    encode_frame,
    pack_entries,
    unpack_entries,
)
from tests.protocol.messages import EXAMPLES
from tests.support.builders import directory, file, symlink, tombstone, version
from tests.support.strategies import entries, examples, relpaths


def _read(data: bytes, *, at_once: int = 1 << 20) -> list[tuple[AnyMessage, bytes]]:
    reader = FrameReader()
    frames = []
    for at in range(0, len(data), at_once):
        reader.feed(data[at : at + at_once])
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    return frames


def _frame(body: bytes, payload: bytes = b"") -> bytes:
    return len(body).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + body + payload


def _peak(call: Callable[[], object]) -> int:
    """Bytes that a refused call had allocated at most."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_arrives_as_it_was_sent(message: AnyMessage) -> None:
    for payload in (b"", b"payload"):
        assert _read(encode_frame(message, payload) + payload) == [(message, payload)]


@examples(0.5)
@given(
    st.lists(st.tuples(st.sampled_from(EXAMPLES), st.binary(max_size=40)), max_size=4),
    st.integers(1, 50),
)
def test_how_the_bytes_are_cut_does_not_matter(
    sent: list[tuple[AnyMessage, bytes]], at_once: int
) -> None:
    data = b"".join(encode_frame(message, payload) + payload for message, payload in sent)
    assert _read(data) == _read(data, at_once=1) == _read(data, at_once=at_once) == sent


def test_an_unfinished_frame_is_none_yet() -> None:
    data = encode_frame(Ping(), b"abc") + b"abc"
    reader = FrameReader()
    for byte in data[:-1]:
        reader.feed(bytes([byte]))
        assert reader.next_frame() is None
    reader.feed(data[-1:])
    assert reader.next_frame() == (Ping(), b"abc")


@given(st.lists(st.binary(max_size=40_000), max_size=6), st.data())
def test_frames_are_cut_alike_however_their_bytes_come(
    payloads: list[bytes], data: st.DataObject
) -> None:
    sent = b"".join(encode_frame(Ping(), payload) + payload for payload in payloads)
    reader = FrameReader()
    frames = []
    at = 0
    while at < len(sent):
        size = data.draw(st.sampled_from([1, 7, 100, 16_000, 17_000, 300_000]))
        piece = sent[at : at + size]
        reader.feed(bytearray(piece) if data.draw(st.booleans()) else piece)
        at += size
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    assert frames == [(Ping(), payload) for payload in payloads]


def test_a_payload_that_comes_byte_by_byte_takes_no_more_memory_than_it_has_bytes() -> None:
    reader = FrameReader()
    reader.feed(_frame(b"", b"x" * 400_000)[:8])
    tracemalloc.start()
    try:
        for _ in range(300_000):
            reader.feed(bytearray(b"x"))
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        for message, _ in _read(data) + _read(_frame(data)):
            assert encode_frame(message)
    except RemoteProtocolError:
        pass


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_damaged_message_is_a_message_or_refused(
    message: AnyMessage, data: st.DataObject
) -> None:
    body = bytearray(encode_frame(message)[8:])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RemoteProtocolError):
        assert len(_read(_frame(bytes(body)))) == 1


@pytest.mark.parametrize(
    "head",
    [
        (MAX_BODY + 1).to_bytes(4, "big") + bytes(4),
        bytes(4) + (MAX_PAYLOAD + 1).to_bytes(4, "big"),
        b"\xff" * 8,
        b"GET / HT",
        b"SSH-2.0-",
    ],
    ids=["a long body", "a long payload", "ones", "a web browser", "a secure shell"],
)
def test_a_frame_over_the_limits_is_refused_at_its_head(head: bytes) -> None:
    reader = FrameReader()
    reader.feed(head)
    with pytest.raises(RemoteProtocolError, match="larger"):
        reader.next_frame()


# Bodies that claim more than they hold, and how they begin.
LIARS = {
    "a list of four thousand million sizes": b"\x93\x0a\x01\xdd\xff\xff\xff\xff",
    "as many lengths": b"\x94\x0a\x01\x90\xdd\xff\xff\xff\xff",
    "a list of features": b"\x96\x01\x01\xdd\xff\xff\xff\xff",
    "a list of addresses": b"\x92\x0c\xdd\xff\xff\xff\xff",
    "a message of many fields": b"\xdd\xff\xff\xff\xff\x0d",
    "many fields that are not known": b"\xdc\x00\x09\x0d\xdd\xff\xff\xff\xff",
    "a long string": b"\x92\x04\xdb\xff\xff\xff\xff",
    "a map of many": b"\x92\x0d\xdf\xff\xff\xff\xff",
    "many bytes": b"\x95\x07\x01\xa1a\xc6\xff\xff\xff\xff",
}


@pytest.mark.parametrize("body", LIARS.values(), ids=LIARS.keys())
def test_a_claim_of_much_takes_no_memory(body: bytes) -> None:
    assert _peak(lambda: _read(_frame(body))) < 100_000


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01"], ids=["lists", "maps"])
def test_nesting_without_end_is_refused(opening: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        _read(_frame(b"\x92\x0d" + opening * (MAX_BODY // len(opening) - 2)))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "nothing"),
        (b"\x91\x0d\x91\x0d", "two messages in one frame"),
        (b"\x91\x7f", "a message that nobody knows"),
        (b"\x92\x04\xa2\xff\xff", "a name that is no text"),
        (b"\x92\x0f\xcf" + b"\xff" * 8, "a number for a text"),
        (b"\x81\x01\x02", "a map"),
    ],
)
def test_a_malformed_message_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        _read(_frame(body))
        pytest.fail(why)


def test_a_frame_over_the_limits_is_not_sent() -> None:
    with pytest.raises(ValueError, match="larger"):
        encode_frame(Ping(), memoryview(bytearray(MAX_PAYLOAD + 1)))
    with pytest.raises(ValueError, match="larger"):
        encode_frame(Goodbye("x" * MAX_BODY))


def test_frames_that_were_read_are_let_go() -> None:
    frame = encode_frame(Status("docs", 1, 2), bytes(10_000)) + bytes(10_000)
    reader = FrameReader()
    tracemalloc.start()
    try:
        for _ in range(200):
            reader.feed(frame)
            assert reader.next_frame() is not None
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


# --- packed entries -----------------------------------------------------------------------------

A = RelPath("a")


def _packed(*items: object) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(items))


@examples(0.3)
@given(st.lists(st.tuples(st.integers(0, (1 << 63) - 1), relpaths, entries()), max_size=3))
def test_entries_arrive_as_they_were_sent(batch: list[SequencedEntry]) -> None:
    assert unpack_entries(pack_entries(batch)) == batch


@given(st.binary(max_size=60))
def test_any_bytes_are_entries_or_refused(data: bytes) -> None:
    for payload in (data, zlib.compress(data)):
        with contextlib.suppress(RemoteProtocolError):
            assert pack_entries(unpack_entries(payload))


@examples(0.5)
@given(relpaths, entries(), st.data())
def test_a_damaged_batch_is_a_batch_or_refused(
    path: RelPath, entry: Entry, data: st.DataObject
) -> None:
    packed = bytearray(zlib.decompress(pack_entries([(1, path, entry)])))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        batch = unpack_entries(zlib.compress(packed))
    except RemoteProtocolError:
        return
    assert unpack_entries(pack_entries(batch)) == batch, "what is decoded stays encodable"


def _with(entry: Entry, **changes: object) -> Entry:
    return msgspec.structs.replace(entry, **changes)


def _with_version(**changes: object) -> Entry:
    return _with(file("a1"), version=msgspec.structs.replace(version("a1"), **changes))


FILE = file("a1")
_CROWD = tuple((number, 1) for number in range(1, MAX_KEPT + 3))

# Entries that no honest peer has, and what is wrong with them.
WRONG: dict[str, Entry] = {
    "a file without content": _with(FILE, content=b""),
    "a content id that is too short": _with(FILE, content=bytes(31)),
    "a negative size": _with(FILE, size=-1),
    "a size that no disk has": _with(FILE, size=MAX_FILE_SIZE + 1),
    "a time that no table holds": _with(FILE, mtime_ns=1 << 63),
    "a directory with a size": _with(directory("a1"), size=1),
    "a directory with content": _with(directory("a1"), content=b"x"),
    "a tombstone with content": _with(tombstone("a1"), content=bytes(32)),
    "a link to nowhere": _with(symlink("a1"), content=b""),
    "a link over all limits": _with(symlink("a1"), content=b"x" * 4096),
    "a link with a NUL": _with(symlink("a1"), content=b"a\0b"),
    "an executable link": _with(symlink("a1"), executable=True),
    "a copy of what is outside": _with(FILE, copy_of="../a"),
    "a version that has not seen itself": _with_version(vector=((2, 1),)),
    "a version that has not seen its origin": _with_version(origin=(2, 1)),
    "a negative stamp": _with_version(stamp=-1),
    "a stamp after the end of time": _with_version(stamp=MAX_STAMP + 1),
    "a vector out of order": _with_version(vector=((2, 1), (1, 1))),
    "a vector that is too long": _with_version(
        vector=tuple((number, 1) for number in range(1, MAX_VECTOR + 2))
    ),
    "a counter that no table holds": _with_version(vector=((1, 1 << 63),)),
    "a write before the first": _with_version(dot=(1, 0)),
    "an origin before the first": _with_version(origin=(1, 0)),
    "kept origins out of order": _with_version(vector=_CROWD, kept=((3, 1), (2, 1))),
    "an origin kept twice": _with_version(vector=_CROWD, kept=((2, 1), (2, 1))),
    "more kept origins than anybody tells of": _with_version(
        vector=_CROWD, kept=tuple((number, 1) for number in range(2, MAX_KEPT + 3))
    ),
    "a kept origin that was not seen": _with_version(kept=((2, 1),)),
    "a kept origin before the first": _with_version(vector=_CROWD, kept=((2, 0),)),
    "nobody's work": _with_version(author=""),
    "an author with a slash": _with_version(author="../anna"),
    "an author who moves the cursor": _with_version(author="\x1b[2J"),
    "an author with a long name": _with_version(author="x" * 65),
}


@pytest.mark.parametrize("entry", WRONG.values(), ids=WRONG.keys())
def test_an_entry_that_cannot_be_is_refused(entry: Entry) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_entries(_packed((1, "a", entry)))


@pytest.mark.parametrize(
    "entry",
    [
        _with(FILE, size=MAX_FILE_SIZE, mtime_ns=(1 << 63) - 1),
        _with(FILE, mtime_ns=-(1 << 63)),
        _with_version(stamp=MAX_STAMP, author="ü" * 64),
        _with_version(vector=tuple((number, (1 << 63) - 1) for number in range(1, MAX_VECTOR + 1))),
        _with(symlink("a1"), content=b"\xff/.." * 1000),
        tombstone("b1", origin="a1"),
        _with_version(
            vector=_CROWD, kept=tuple(Dot(number, 1) for number in range(2, MAX_KEPT + 2))
        ),
    ],
)
def test_the_largest_values_are_taken(entry: Entry) -> None:
    assert unpack_entries(pack_entries([(1, A, entry)])) == [(1, A, entry)]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", ".p2psync/x", "a\0"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(RemoteProtocolError, match="unsafe path"):
        unpack_entries(_packed((1, path, FILE)))


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        unpack_entries(_packed((1, "a", (max(Kind) + 1, version("a1")))))


def test_a_batch_may_be_full_but_no_fuller() -> None:
    batch = [(number, A, directory("a1")) for number in range(ENTRIES_IN_BATCH + 1)]
    assert unpack_entries(pack_entries(batch[1:])) == batch[1:]
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        unpack_entries(pack_entries(batch))


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


BOMBS = {
    "a batch that unpacks to much more": _bomb(64 << 20),
    "one byte too much": zlib.compress(bytes(MAX_PACKED_ENTRIES + 1)),
    "many entries of nothing": zlib.compress(b"\xdd\x00\x0f\xff\xf0" + b"\xc0" * 0xFFFF0),
    "many lists in each other": zlib.compress(b"\x91" * 500_000),
    "a claim of many entries": zlib.compress(b"\xdd\xff\xff\xff\xff"),
    "a claim of a long vector": zlib.compress(
        b"\x91\x93\x01\xa1a\x97\x02\x95\x92\x01\x01\x92\x01\x01\x01\xdd\xff\xff\xff\xff"
    ),
    "a claim of many kept origins": zlib.compress(
        b"\x91\x93\x01\xa1a\x97\x02\x96\x92\x01\x01\x92\x01\x01\x01\x91\x92\x01\x01\xa1a"
        b"\xdd\xff\xff\xff\xff"
    ),
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_takes_little_memory(payload: bytes) -> None:
    assert _peak(lambda: unpack_entries(payload)) < 4 * MAX_PACKED_ENTRIES


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "nothing"),
        (pack_entries([])[:-1], "a batch cut short"),
        (pack_entries([]) + b"x", "something after the batch"),
        (pack_entries([]) * 2, "two batches"),
        (zlib.compress(b""), "an empty batch that is none"),
        (zlib.compress(b"\x90\x90"), "two lists"),
    ],
)
def test_a_batch_that_does_not_end_where_it_should_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_entries(payload)
        pytest.fail(why)


def test_versions_come_back_as_values_that_equal_those_made_here() -> None:
    (_, _, entry), *_ = unpack_entries(pack_entries([(1, A, FILE)]))
    assert isinstance(entry.version, Version)
    assert {entry: 1}[FILE] == 1


def test_an_entry_that_tells_of_nothing_kept_is_taken() -> None:
    """Of a version's fields the last may be missing."""
    old = msgspec.to_builtins(FILE, builtin_types=(bytes,))
    assert old[1].pop() == ()
    assert unpack_entries(_packed((1, A, old))) == [(1, A, FILE)]
