"""What is counted of what a link is given."""

import pytest

from p2psync.protocol.messages import ChunkReply, IndexAck, Ping
from p2psync.protocol.wire import encode_frame
from tests.protocol.messages import EXAMPLES
from tests.scaling.meter import Meter, by_type, of_device

ADA, BOB = b"ada", b"bob"


def test_every_message_is_counted_by_its_name_with_all_its_bytes() -> None:
    meter = Meter()
    for message in EXAMPLES:
        meter.sent(ADA, encode_frame(message), now_s=1.0)
    assert by_type(meter.messages) == dict.fromkeys(
        sorted({type(message).__name__ for message in EXAMPLES}), 1
    )
    assert of_device(meter.bytes, ADA) == sum(len(encode_frame(each)) for each in EXAMPLES)


def test_several_frames_and_their_payloads_may_come_at_once() -> None:
    meter = Meter()
    reply = encode_frame(ChunkReply(1, (3,)), b"abc") + b"abc"
    meter.sent(ADA, reply + encode_frame(Ping()), now_s=1.0)
    meter.sent(BOB, reply, now_s=2.0)
    assert by_type(meter.messages) == {"ChunkReply": 2, "Ping": 1}
    assert of_device(meter.bytes, BOB) == len(reply)
    assert of_device(meter.messages, ADA, without=["Ping"]) == 1


def test_only_work_keeps_a_group_from_rest() -> None:
    meter = Meter()
    meter.sent(ADA, encode_frame(IndexAck("docs", 1, 2, 3)), now_s=5.0)
    meter.sent(ADA, encode_frame(Ping()), now_s=9.0)
    assert meter.last_work_s == 5.0


def test_a_frame_in_parts_is_an_error_and_not_counted_wrong() -> None:
    with pytest.raises(ValueError, match="in parts"):
        Meter().sent(ADA, encode_frame(Ping())[:-1], now_s=1.0)
