"""Damaged and random bytes for everything that decodes what another device sent.

A target takes bytes and returns whether they were accepted. It may raise nothing: what a decoder is
allowed to raise is caught here, and anything else is a find. What was accepted has to come out the
same when it is encoded and read again.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from p2psync.core.entry import Chunk
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.manifest import ManifestError, decode_manifest, encode_manifest
from p2psync.core.relpath import RelPath
from p2psync.core.statements import (
    Add,
    Remove,
    Rename,
    Signed,
    decode_statements,
    encode_statement,
    encode_statements,
    read_statement,
)
from p2psync.core.version import MAX_STAMP
from p2psync.protocol import pairing_wire
from p2psync.protocol.chunks import cut_chunks, packer
from p2psync.protocol.connection import PeerConnection
from p2psync.protocol.messages import AnyMessage, ChunkReply, Hello
from p2psync.protocol.pairing import PairingProtocolError
from p2psync.protocol.pairing_wire import Refusal, Stream
from p2psync.protocol.wire import (
    FrameReader,
    RemoteProtocolError,
    encode_frame,
    pack_entries,
    unpack_entries,
)
from tests.protocol.messages import EXAMPLES
from tests.support.builders import directory, file, symlink, tombstone

HASH = bytes(range(32))
_HELLO = Hello(1, (), "p2psync 1", HASH, 0)
_LARGEST_INPUT = 1 << 20


class Target(NamedTuple):
    name: str
    seeds: Sequence[bytes]
    take: Callable[[bytes], bool]


# --- targets --------------------------------------------------------------------------------------


def _take_frames(data: bytes) -> bool:
    reader = FrameReader()
    reader.feed(data)
    try:
        while (frame := reader.next_frame()) is not None:
            _assert_reads_back(*frame)
    except RemoteProtocolError:
        return False
    return True


def _assert_reads_back(message: AnyMessage, payload: bytes) -> None:
    again = FrameReader()
    again.feed(encode_frame(message, payload) + payload)
    assert again.next_frame() == (message, payload)


def _take_conversation(data: bytes) -> bool:
    """The first byte says how the rest is cut, so that frames come in pieces of every size."""
    connection = PeerConnection(_HELLO, 0.0)
    step = max(1, data[0] if data else 1)
    try:
        for at in range(1, len(data), step):
            connection.receive_data(data[at : at + step], 1.0)
            while (event := connection.next_event()) is not None:
                assert connection.peer_hello is not None
                assert 0 <= connection.version <= 1
                connection.reply_to(event[0])
        connection.handle_timeout(connection.next_timeout())
    except RemoteProtocolError:
        return False
    return True


def _take_batch(data: bytes) -> bool:
    try:
        batch = unpack_entries(data)
    except RemoteProtocolError:
        return False
    assert unpack_entries(pack_entries(batch)) == batch
    return True


def _take_inflated_batch(data: bytes) -> bool:
    return _take_batch(zlib.compress(data, 1))


def _take_packed_chunk(data: bytes) -> bool:
    """The first two bytes are the size that the peer tells."""
    size, payload = int.from_bytes(data[:2], "big"), data[2:]
    try:
        (chunk,) = cut_chunks(ChunkReply(1, (size,), (len(payload),)), 1, payload)
    except RemoteProtocolError:
        return False
    assert chunk is not None and len(chunk) == size
    again = packer()(bytes(chunk))
    if len(again) < size:
        assert cut_chunks(ChunkReply(1, (size,), (len(again),)), 1, again) == [chunk]
    return True


def _take_manifest(data: bytes) -> bool:
    try:
        manifest = decode_manifest(data)
    except ManifestError:
        return False
    assert encode_manifest(manifest) == data
    return True


def _take_roster(data: bytes) -> bool:
    try:
        statements = decode_statements(data)
    except ValueError:
        return False
    for signed in statements:
        statement = read_statement(signed)
        assert statement is None or encode_statement(statement) == signed.statement
    return True


def _take_statement(data: bytes) -> bool:
    return read_statement(Signed(data, bytes(64))) is not None


def _take_pairing(data: bytes) -> bool:
    stream = Stream()
    stream.receive(data)
    taken = True
    try:
        while (frame := stream.next_frame()) is not None:
            for decoder in (pairing_wire.FROM_JOINER, pairing_wire.FROM_HOST):
                try:
                    pairing_wire.decode(frame, decoder)
                except PairingProtocolError:
                    taken = False
    except PairingProtocolError:
        return False
    return taken


# --- what is damaged ------------------------------------------------------------------------------


def _frames() -> list[bytes]:
    payloads = (b"", b"payload", bytes(300))
    return [encode_frame(each, payload) + payload for each in EXAMPLES for payload in payloads]


def _conversations() -> list[bytes]:
    frames = _frames()
    hello = encode_frame(_HELLO)
    # The first one is again a Hello.
    return [b"\x40" + hello + b"".join(frames[3 * at : 3 * at + 9]) for at in range(1, 16)]


def _batches() -> list[bytes]:
    path = RelPath("a/b/ü.txt")
    late = msgspec.structs.replace(file("b9").version, stamp=MAX_STAMP)
    entries = [
        file("a1"),
        file("b2", saw="a1", stamp=7, mtime_ns=-5, executable=True, copy_of="a/b"),
        msgspec.structs.replace(file("b9"), version=late, size=1 << 50),
        directory("c3", saw="a1 b2"),
        symlink("d4", "../x"),
        tombstone("e5", origin="a1"),
    ]
    return [
        pack_entries([]),
        *(pack_entries([(1, path, entry)]) for entry in entries),
        pack_entries([(number + 1, path, entry) for number, entry in enumerate(entries)]),
    ]


def _packed_chunks() -> list[bytes]:
    pack = packer()
    chunks = [b"again and " * 30, bytes(5000), bytes(range(256)) * 100, b"as it is"]
    return [len(chunk).to_bytes(2, "big") + min(chunk, pack(chunk), key=len) for chunk in chunks]


def _manifests() -> list[bytes]:
    chunks = [Chunk(Digest(bytes([number]) * 32), 1 << number) for number in range(25)]
    return [encode_manifest(tuple(chunks[:count])) for count in (2, 3, 25)]


def _statements() -> list[bytes]:
    device, other = DeviceID(bytes([1]) * 32), DeviceID(bytes([2]) * 32)
    said = [
        Add(device, other, b"certificate", "anna"),
        Add(device, device, bytes(600), "ü" * 64, 5),
        Remove(device, other, ((device, 0), (other, 3)), 1),
        Rename(device, other, "berta", MAX_STAMP),
    ]
    return [encode_statement(each) for each in said]


def _rosters() -> list[bytes]:
    signed = [Signed(statement, bytes(64)) for statement in _statements()]
    return [encode_statements(frozenset(signed[:count])) for count in range(len(signed) + 1)]


def _pairings() -> list[bytes]:
    said = [
        pairing_wire.JoinerHello(1, b"certificate"),
        pairing_wire.HostHello(1, bytes(600), bytes(33)),
        pairing_wire.JoinerConfirm(bytes(33), bytes(32)),
        pairing_wire.HostConfirm(bytes(32), bytes(100)),
        pairing_wire.JoinerPayload(bytes(200)),
        pairing_wire.HostDone(bytes(32)),
        pairing_wire.HostRefusal(Refusal.WRONG),
    ]
    frames = []
    for message in said:
        stream = Stream()
        stream.send(message)
        frames.append(stream.take_outgoing())
    return [*frames, b"".join(frames)]


def targets() -> list[Target]:
    batches = _batches()
    return [
        Target("frames", _frames(), _take_frames),
        Target("conversation", _conversations(), _take_conversation),
        Target("entries", [zlib.decompress(batch) for batch in batches], _take_inflated_batch),
        Target("deflated entries", batches, _take_batch),
        Target("packed chunk", _packed_chunks(), _take_packed_chunk),
        Target("manifest", _manifests(), _take_manifest),
        Target("roster", _rosters(), _take_roster),
        Target("statement", _statements(), _take_statement),
        Target("pairing", _pairings(), _take_pairing),
    ]


# --- damage ---------------------------------------------------------------------------------------

_EDGES = (0, 1, 0x7F, 0x80, 0x8F, 0x9F, 0xA0, 0xC0, 0xC4, 0xC6, 0xCF, 0xD3, 0xDB, 0xDD, 0xDF, 0xFF)
"""Bytes at which msgpack changes its mind, and those at the ends of numbers."""
_LENGTHS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x40000, 0x40001, 0x100000, 0x2000000, 0x7FFFFFFF, 0xFFFFFFFF)


def damaged(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to eight faults; one in sixteen is nothing but chance."""
    if chance.randrange(16) == 0:
        return chance.randbytes(chance.choice((1, 4, 8, 9, 40, 300)))
    data = bytearray(chance.choice(seeds))
    for _ in range(1 + min(chance.getrandbits(3) for _ in range(3))):
        _damage(chance, data, seeds)
    return bytes(data[:_LARGEST_INPUT])


def _damage(chance: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + 1 + chance.getrandbits(chance.choice((2, 3, 6))))
    match chance.randrange(10):
        case 0:
            data[at:end] = b""
        case 1:
            data[at:at] = data[at:end]
        case 2:
            data[at:at] = chance.randbytes(end - at)
        case 3:
            del data[at:]
        case 4:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        case 5:
            data[at : at + 4] = chance.choice(_LENGTHS).to_bytes(4, "big")
        case 6:
            data[at : at + 9] = bytes([chance.choice((0xCF, 0xD3))]) + chance.choice(
                (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
            ).to_bytes(8, "big")
        case 7:
            data[at:at] = bytes([chance.choice(_EDGES)]) * (1 << chance.randrange(12))
        case 8 if at < len(data):
            data[at] = chance.choice(_EDGES)
        case _ if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
