"""Bytes on a link: frames and encodings, and every limit on them. Nothing else knows the layout.

    frame   = body length (u32 BE) · payload length (u32 BE) · body · payload
    body    = one message, msgpack
    payload = raw bytes that belong to the message (chunks, a manifest, a roster, packed entries)

Limits are checked on the eight bytes of the head, before anything is stored for the rest.
"""

import struct
import zlib
from collections import deque
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
_SHORT = 16 * 1024
_JOINED = 256 * 1024

_HEAD = struct.Struct(">II")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)
_WireEntries = list[tuple[int, str, Entry]]
_entries_decoder = msgspec.msgpack.Decoder(_WireEntries)

SequencedEntry = tuple[int, RelPath, Entry]


class RemoteProtocolError(P2psyncError):
    """The peer sent what the protocol does not allow; the link is to be closed."""


def encode_frame(message: AnyMessage, *payload: bytes | memoryview) -> bytes:
    """The frame's head and body; the pieces of `payload` follow it on the wire, uncopied."""
    body = _encoder.encode(message)
    size = sum(map(len, payload))
    if len(body) > MAX_BODY or size > MAX_PAYLOAD:
        raise ValueError(f"{type(message).__name__} is larger than a frame may be")
    return _HEAD.pack(len(body), size) + body


class FrameReader:
    """Cuts a byte stream into frames; holds at most one frame and what came with it."""

    def __init__(self) -> None:
        self._came: deque[bytearray] = deque()
        self._at = 0
        """How much of the first is taken."""
        self._size = 0
        self._head: tuple[int, int] | None = None
        """Of the frame that is coming: the sizes of its body and its payload."""

    def clear(self) -> None:
        """Forget what came."""
        self._came.clear()
        self._at = self._size = 0
        self._head = None

    def feed(self, data: bytes | bytearray) -> None:
        """Takes a `bytearray` over, uncopied unless it is short: a peer that sends many short ones
        must not make them cost more than what is in them."""
        if self._came and len(data) < _SHORT and len(self._came[-1]) < _JOINED:
            self._came[-1] += data
        elif data:
            self._came.append(data if isinstance(data, bytearray) else bytearray(data))
        self._size += len(data)

    def next_frame(self) -> tuple[AnyMessage, bytes] | None:
        """The next message and its payload; None when more bytes are needed.

        Raises RemoteProtocolError on anything that is no frame within the limits.
        """
        if self._head is None:
            if self._size < _HEAD.size:
                return None
            body_size, payload_size = _HEAD.unpack(self._take(_HEAD.size))
            if body_size > MAX_BODY or payload_size > MAX_PAYLOAD:
                raise RemoteProtocolError("The peer sent a frame larger than the protocol allows.")
            self._head = body_size, payload_size
        body_size, payload_size = self._head
        if self._size < body_size + payload_size:
            return None
        body, payload = self._take(body_size), self._take(payload_size)
        self._head = None
        try:
            return _decoder.decode(body), payload
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"The peer sent a malformed message: {error}.") from error

    def _take(self, size: int) -> bytes:
        """So many of the first bytes, which have come."""
        self._size -= size
        pieces = []
        while size:
            first = self._came[0]
            pieces.append(memoryview(first)[self._at : self._at + size])
            size -= len(pieces[-1])
            self._at += len(pieces[-1])
            if self._at == len(first):
                self._came.popleft()
                self._at = 0
        taken = b"".join(pieces)
        for piece in pieces:
            # What is viewed could not be added to.
            piece.release()
        return taken


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
