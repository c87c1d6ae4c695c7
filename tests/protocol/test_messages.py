"""The limits on what messages hold, and the numbers that name them."""

from typing import get_args

import msgspec
import pytest

from p2psync.protocol.messages import MAX_CHUNKS_IN_REQUEST, MISSING, AnyMessage, ChunkReply
from tests.protocol.messages import EXAMPLES, HASH

decode = msgspec.msgpack.Decoder(AnyMessage).decode
encode = msgspec.msgpack.encode


def test_there_is_an_example_of_every_message() -> None:
    assert {type(message) for message in EXAMPLES} == set(get_args(AnyMessage))


def test_the_numbers_of_messages_are_part_of_the_protocol() -> None:
    tags = {
        type(message).__name__: msgspec.msgpack.decode(encode(message))[0] for message in EXAMPLES
    }
    assert tags == {
        "Hello": 1,
        "Roster": 2,
        "FolderOffer": 3,
        "FolderWithdrawn": 4,
        "IndexBatch": 5,
        "IndexAck": 6,
        "ManifestRequest": 7,
        "ManifestReply": 8,
        "ChunkRequest": 9,
        "ChunkReply": 10,
        "Status": 11,
        "Addresses": 12,
        "Ping": 13,
        "Pong": 14,
        "Goodbye": 15,
        "FolderDigest": 16,
        "Holding": 17,
    }


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_later_version_may_add_fields(message: AnyMessage) -> None:
    longer = [*msgspec.msgpack.decode(encode(message)), "a field of the future"]
    assert decode(encode(longer)) == message


def test_a_reply_of_before_lengths_were_told_packs_nothing() -> None:
    assert decode(encode([10, 1, [5, MISSING]])) == ChunkReply(1, (5, MISSING), ())


# Each as it is on the wire, one step over a limit.
OVER = {
    "a negative count": [3, "docs", -1, 0, 0, 0],
    "a count that no table holds": [5, "docs", 1, 1 << 63],
    "a folder without a name": [4, ""],
    "a long name of a folder": [4, "x" * 65],
    "too many features": [1, 1, ["x"] * 65, "p2psync", HASH, 0],
    "a digest of a roster that is none": [1, 1, [], "p2psync", HASH[1:], 0],
    "no chunk asked for": [9, 1, "docs", []],
    "too many chunks asked for": [9, 1, "docs", [HASH] * (MAX_CHUNKS_IN_REQUEST + 1)],
    "too many chunks given": [10, 1, [1] * (MAX_CHUNKS_IN_REQUEST + 1)],
    "too many lengths given": [10, 1, [1], [1] * (MAX_CHUNKS_IN_REQUEST + 1)],
    "a short hash": [7, 1, "docs", HASH[1:]],
    "a long hash": [7, 1, "docs", HASH + b"x"],
    "a port that is none": [12, [[HASH, "::1", 65536]]],
    "port zero": [12, [[HASH, "::1", 0]]],
    "a long address": [12, [[HASH, "x" * 256, 1]]],
    "too many addresses": [12, [[HASH, "::1", 1]] * 513],
    "a long farewell": [15, "x" * 301],
    "a text for a number": [6, "docs", "1", 1, 1],
    "a fraction for a number": [6, "docs", 1.5, 1, 1],
    "a field missing": [6, "docs", 1, 1],
    "no fields at all": [],
    "an unknown message": [99],
}


@pytest.mark.parametrize("message", OVER.values(), ids=OVER.keys())
def test_over_a_limit(message: list[object]) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(encode(message))
