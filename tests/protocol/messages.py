"""One message of every type."""

from p2psync.protocol.messages import (
    MISSING,
    Addresses,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    FolderDigest,
    FolderOffer,
    FolderWithdrawn,
    Goodbye,
    Hello,
    Holding,
    IndexAck,
    IndexBatch,
    ManifestReply,
    ManifestRequest,
    Ping,
    Pong,
    Roster,
    Status,
)

HASH = bytes(range(32))

EXAMPLES: list[AnyMessage] = [
    Hello(1, ("swarm",), "p2psync 1", HASH, -1),
    Roster(),
    FolderOffer("docs", 1, 2, 3, 4),
    FolderWithdrawn("docs"),
    IndexBatch("docs", 1, 2, 3),
    IndexAck("docs", 1, 2, 3),
    ManifestRequest(1, "docs", HASH),
    ManifestReply(1),
    ChunkRequest(1, "docs", (HASH, HASH)),
    ChunkReply(1, (5, MISSING), (5, MISSING)),
    Status("docs", 1, (1 << 63) - 1),
    Addresses(((HASH, "::1", 65535),)),
    Ping(),
    Pong(),
    Goodbye("Bye."),
    FolderDigest("docs", 1, 2, HASH),
    Holding("docs", HASH),
]
