"""Bytes on a link: frames and encodings, and every limit on them. Nothing else knows the layout.

    frame   = body length (u32 BE) · payload length (u32 BE) · body · payload
    body    = one message, msgpack
    payload = raw bytes that belong to the message (chunks, a manifest, a roster, packed entries)

Limits are checked on the eight bytes of the head, before anything is stored for the rest.
"""

import struct
import zlib
from collections.abc import Iterable

import msgspec

from p2psync.core.entry import MAX_FILE_SIZE, Entry, Kind
from p2psync.core.names import name_fault
from p2psync.core.relpath import RelPath, UnsafePathError, parse_relpath
from p2psync.core.version import MAX_VECTOR, Version, is_kept, is_vector
from p2psync.errors import P2psyncError
from p2psync.protocol.messages import AnyMessage

MAX_BODY = 256 * 1024
MAX_PAYLOAD = 32 * 1024 * 1024
MAX_PACKED_ENTRIES = 1024 * 1024
"""Bytes of a batch's entries once unpacked."""
ENTRIES_IN_BATCH = 2000

_HEAD = struct.Struct(">II")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)
_WireEntries = list[tuple[int, str, Entry]]
_entries_decoder = msgspec.msgpack.Decoder(_WireEntries)

SequencedEntry = tuple[int, RelPath, Entry]


class RemoteProtocolError(P2psyncError):
    """The peer sent what the protocol does not allow; the link is to be closed."""


def encode_frame(message: AnyMessage, payload: bytes | memoryview = b"") -> bytes:
    """The frame's head and body; `payload` follows it on the wire, uncopied."""
    body = _encoder.encode(message)
    if len(body) > MAX_BODY or len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{type(message).__name__} is larger than a frame may be")
    return _HEAD.pack(len(body), len(payload)) + body


class FrameReader:
    """Cuts a byte stream into frames; holds at most one frame and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def clear(self) -> None:
        """Forget what came."""
        self._buffer.clear()

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def next_frame(self) -> tuple[AnyMessage, bytes] | None:
        """The next message and its payload; None when more bytes are needed.

        Raises RemoteProtocolError on anything that is no frame within the limits.
        """
        if len(self._buffer) < _HEAD.size:
            return None
        body_size, payload_size = _HEAD.unpack_from(self._buffer)
        if body_size > MAX_BODY or payload_size > MAX_PAYLOAD:
            raise RemoteProtocolError("The peer sent a frame larger than the protocol allows.")
        end = _HEAD.size + body_size + payload_size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[_HEAD.size : _HEAD.size + body_size])
            payload = bytes(view[_HEAD.size + body_size : end])
        del self._buffer[:end]
        try:
            return _decoder.decode(body), payload
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"The peer sent a malformed message: {error}.") from error


def pack_entries(entries: Iterable[SequencedEntry]) -> bytes:
    """An index batch's payload: the entries in msgpack, deflated."""
    return zlib.compress(_encoder.encode(list(entries)), 1)


def unpack_entries(payload: bytes) -> list[SequencedEntry]:
    """Inverse of `pack_entries`. Raises RemoteProtocolError, and for an entry that could not
    exist at all (a path that leaves the folder, say) too: an honest peer never sends one."""
    try:
        inflater = zlib.decompressobj()
        packed = inflater.decompress(payload, MAX_PACKED_ENTRIES)
        if not inflater.eof or inflater.unused_data:
            raise RemoteProtocolError("The peer sent an index batch over the limit.")
        decoded = _entries_decoder.decode(packed)
        if len(decoded) > ENTRIES_IN_BATCH:
            raise RemoteProtocolError("The peer sent an index batch over the limit.")
        return [
            (sequence, parse_relpath(path), _checked(entry)) for sequence, path, entry in decoded
        ]
    except (zlib.error, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"The peer sent a malformed index batch: {error}.") from error
    except UnsafePathError as error:
        raise RemoteProtocolError(f"The peer sent an unsafe path. {error}") from error


def _checked(entry: Entry) -> Entry:
    if not (_is_version(entry.version) and _has_form_of_kind(entry)):
        raise ValueError("an entry is not well-formed")
    if entry.copy_of:
        parse_relpath(entry.copy_of)
    return entry


def _is_version(version: Version) -> bool:
    return (
        len(version.vector) <= MAX_VECTOR
        and is_vector(version.vector)
        and version.covers(version.dot)
        and version.covers(version.origin)
        and 0 <= version.stamp < 1 << 63
        and version.dot.counter > 0
        and version.origin.counter > 0
        and is_kept(version)
        and name_fault(version.author) is None
    )


def _has_form_of_kind(entry: Entry) -> bool:
    if entry.kind == Kind.FILE:
        return (
            len(entry.content) == 32
            and 0 <= entry.size <= MAX_FILE_SIZE
            and -(1 << 63) <= entry.mtime_ns < 1 << 63
        )
    if entry.size or entry.mtime_ns or entry.executable:
        return False
    if entry.kind == Kind.SYMLINK:
        return 0 < len(entry.content) < 4096 and b"\0" not in entry.content
    return not entry.content
