"""One session's protocol: introductions, and noticing that the peer is gone. Time is a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.protocol.connection import DEAD_AFTER, PING_AFTER, PeerConnection, PeerSilentError
from p2psync.protocol.messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Status,
)
from p2psync.protocol.wire import RemoteProtocolError, encode_frame
from tests.protocol.messages import EXAMPLES

HELLO = Hello(PROTOCOL_VERSION, (), "p2psync", bytes(32), 0)


def _connection(*received: AnyMessage, now: float = 0.0) -> PeerConnection:
    connection = PeerConnection(HELLO, now)
    connection.receive_data(b"".join(encode_frame(message) for message in received), now)
    return connection


def test_each_side_opens_with_its_hello() -> None:
    left, right = _connection(), _connection()
    right.receive_data(left.opening(), 0.0)
    assert right.next_event() == (HELLO, b"")
    assert right.peer_hello == HELLO
    assert right.version == PROTOCOL_VERSION
    assert right.next_event() is None


@pytest.mark.parametrize(
    "message",
    [message for message in EXAMPLES if not isinstance(message, Hello)],
    ids=lambda message: type(message).__name__,
)
def test_nothing_may_come_before_the_hello(message: AnyMessage) -> None:
    with pytest.raises(RemoteProtocolError, match="before it introduced itself"):
        _connection(message).next_event()


def test_a_second_hello_is_refused() -> None:
    connection = _connection(HELLO, HELLO)
    connection.next_event()
    with pytest.raises(RemoteProtocolError, match="twice"):
        connection.next_event()


def test_a_peer_of_no_version_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="no version"):
        _connection(Hello(0, (), "p2psync", bytes(32), 0)).next_event()


@pytest.mark.parametrize(
    ("theirs", "spoken"), [(PROTOCOL_VERSION, PROTOCOL_VERSION), (99, PROTOCOL_VERSION)]
)
def test_both_speak_the_older_of_their_versions(theirs: int, spoken: int) -> None:
    connection = _connection(Hello(theirs, (), "p2psync", bytes(32), 0))
    assert connection.version == 0
    connection.next_event()
    assert connection.version == spoken


def test_messages_come_in_order_with_their_payloads() -> None:
    connection = _connection(HELLO)
    connection.receive_data(encode_frame(Status("a", 1, 2), b"xy") + b"xy", 0.0)
    connection.receive_data(encode_frame(Goodbye("Bye.")), 0.0)
    assert [connection.next_event() for _ in range(4)] == [
        (HELLO, b""),
        (Status("a", 1, 2), b"xy"),
        (Goodbye("Bye."), b""),
        None,
    ]


def test_a_ping_is_answered_and_nothing_else_is() -> None:
    assert PeerConnection.reply_to(Ping()) == Pong()
    assert [PeerConnection.reply_to(each) for each in EXAMPLES if not isinstance(each, Ping)] == [
        None
    ] * (len(EXAMPLES) - 1)


def test_a_silent_peer_is_asked_now_and_then_and_given_up_in_time() -> None:
    connection = _connection(HELLO)
    times = []
    while (now := connection.next_timeout()) < DEAD_AFTER:
        times.append(now)
        assert connection.handle_timeout(now) == (Ping(),)
    assert times == [PING_AFTER, 2 * PING_AFTER]
    with pytest.raises(PeerSilentError, match="silent for 15 seconds"):
        connection.handle_timeout(now)


def test_whatever_comes_is_a_sign_of_life() -> None:
    connection = _connection(HELLO)
    connection.receive_data(b"\0", 14.0)
    assert connection.handle_timeout(15.0) == ()
    assert connection.next_timeout() == 14.0 + PING_AFTER


def test_a_timeout_that_comes_early_asks_for_nothing() -> None:
    connection = _connection(HELLO)
    assert connection.handle_timeout(PING_AFTER - 0.1) == ()
    assert connection.next_timeout() == PING_AFTER


@given(st.lists(st.floats(0.0, 10.0), max_size=20))
def test_a_peer_that_is_heard_of_is_never_given_up(pauses: list[float]) -> None:
    now = 0.0
    connection = _connection(HELLO)
    for pause in pauses:
        now += pause
        while connection.next_timeout() <= now:
            connection.handle_timeout(connection.next_timeout())
        connection.receive_data(b"", now)
        assert now < connection.next_timeout() <= now + PING_AFTER


@given(st.lists(st.sampled_from(EXAMPLES), max_size=4), st.binary(max_size=40))
def test_whatever_comes_gives_messages_or_a_protocol_error(
    messages: list[AnyMessage], junk: bytes
) -> None:
    connection = _connection(*messages)
    connection.receive_data(junk, 0.0)
    try:
        first = connection.next_event()
        while connection.next_event() is not None:
            assert first == (connection.peer_hello, b"")
    except RemoteProtocolError:
        pass
