"""What two paired devices say to each other. `wire` gives these their bytes.

Every string and list is capped here, where it is decoded. Content is asked for by hash. A reply
carries the number of its request; numbers belong to the asking side and are never reused within
a session.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

PROTOCOL_VERSION = 1
SWARM = "swarm"
"""Feature: `Holding` is understood."""
ZSTD = "zstd"
"""Feature: `ChunkReply.packed` is understood."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]

MAX_CHUNKS_IN_REQUEST = 1024
MAX_ADDRESSES = 512
MISSING = -1
"""In place of a chunk's size: the supplier does not have it (any more)."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag_field="type"):
    """Base of all messages."""


class Hello(Message, frozen=True, tag=1):
    """First on each side. Features that only one side names are not used."""

    version: Count
    features: Annotated[tuple[Name, ...], Meta(max_length=64)]
    software: Name
    roster: Hash
    """Digest of the sender's roster."""
    time_ns: int


class Roster(Message, frozen=True, tag=2):
    """Payload: the sender's roster, encoded."""


class FolderOffer(Message, frozen=True, tag=3):
    """The sender shares `folder` with the receiver. Sent on start and when any of it is renewed."""

    folder: Name
    epoch: Count
    sequence: Count
    """The sender's latest."""
    cursor_epoch: Count
    cursor_sequence: Count
    """How far the sender knows the receiver's index: what comes after is asked for."""


class FolderWithdrawn(Message, frozen=True, tag=4):
    """The sender paused or removed the folder."""

    folder: Name


class IndexBatch(Message, frozen=True, tag=5):
    """Payload: entries of the sender's index, see `wire.pack_entries`; `upto` is the sequence that
    a receiver who has reached `after` has reached with them."""

    folder: Name
    epoch: Count
    after: Count
    upto: Count


class IndexAck(Message, frozen=True, tag=6):
    """The sender has durably stored the receiver's index up to `received`, and settled all of it
    up to `applied`."""

    folder: Name
    epoch: Count
    received: Count
    applied: Count


class ManifestRequest(Message, frozen=True, tag=7):
    request: Count
    folder: Name
    content: Hash


class ManifestReply(Message, frozen=True, tag=8):
    """Payload: the manifest, encoded; empty when it is not held."""

    request: Count


class ChunkRequest(Message, frozen=True, tag=9):
    request: Count
    folder: Name
    digests: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=MAX_CHUNKS_IN_REQUEST)]


class ChunkReply(Message, frozen=True, tag=10):
    """Payload: the chunks' bytes one after the other; `sizes` as many as were asked for."""

    request: Count
    sizes: Annotated[tuple[int, ...], Meta(max_length=MAX_CHUNKS_IN_REQUEST)]
    packed: Annotated[tuple[int, ...], Meta(max_length=MAX_CHUNKS_IN_REQUEST)] = ()
    """How many bytes of the payload each chunk takes: its size where it is sent as it is, fewer
    where they are a zstd frame. Empty where that is so of none, and always for those who did not
    name the feature `ZSTD`."""


class Status(Message, frozen=True, tag=11):
    """What the sender still lacks of a folder; for people."""

    folder: Name
    need_files: Count
    need_bytes: Count


class Addresses(Message, frozen=True, tag=12):
    """Where the sender last reached other members. Hints."""

    known: Annotated[
        tuple[
            tuple[Hash, Annotated[str, Meta(max_length=255)], Annotated[int, Meta(ge=1, le=65535)]],
            ...,
        ],
        Meta(max_length=MAX_ADDRESSES),
    ]


class Ping(Message, frozen=True, tag=13):
    pass


class Pong(Message, frozen=True, tag=14):
    pass


class FolderDigest(Message, frozen=True, tag=16):
    """Sent at rest: the digest of all that the sender holds, at its `sequence`, when it knew the
    receiver's index up to `received`. Another digest at the same sequences means a drift."""

    folder: Name
    sequence: Count
    received: Count
    digest: Hash


class Holding(Message, frozen=True, tag=17):
    """The sender is fetching `content` and has these chunks of it already. Payload: a bit for each
    chunk of the manifest, the first one in the lowest bit of the first byte. Replaces what was said
    before of this folder. Sent to those who named the feature `SWARM`."""

    folder: Name
    content: Hash


class Goodbye(Message, frozen=True, tag=15):
    """The sender is about to close; `reason` is for people."""

    reason: Annotated[str, Meta(max_length=300)]


AnyMessage = (
    Hello
    | Roster
    | FolderOffer
    | FolderWithdrawn
    | IndexBatch
    | IndexAck
    | ManifestRequest
    | ManifestReply
    | ChunkRequest
    | ChunkReply
    | Status
    | Addresses
    | Ping
    | Pong
    | Goodbye
    | FolderDigest
    | Holding
)
