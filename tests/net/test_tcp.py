"""The raw connection: waits that can be cancelled, and an end that reaches everybody."""

import asyncio

import pytest

from p2psync.net.tcp import TcpStream, format_address, wait_readable
from tests.net.devices import PATIENCE_S, open_sockets, tcp_pair


def test_addresses_are_written_as_people_write_them() -> None:
    assert format_address(("192.0.2.1", 4711)) == "192.0.2.1:4711"
    assert format_address(("2001:db8::1", 4711, 0, 0)) == "[2001:db8::1]:4711"


async def test_closing_ends_a_reader_and_a_writer_at_once() -> None:
    before = open_sockets()
    ours, theirs = tcp_pair()
    stream = TcpStream(ours)
    reading = asyncio.create_task(stream.receive_into(memoryview(bytearray(10))))
    writing = asyncio.create_task(stream.send_all(bytes(64 << 20)))
    done, _ = await asyncio.wait([reading, writing], timeout=0.02)
    assert not done
    stream.close()
    stream.close()
    for task in (reading, writing):
        with pytest.raises(ConnectionAbortedError):
            await asyncio.wait_for(task, PATIENCE_S)
    theirs.close()
    assert open_sockets() == before


async def test_closing_with_unread_bytes_does_not_reset_the_connection() -> None:
    ours, theirs = tcp_pair()
    theirs.send(bytes(100_000))
    TcpStream(ours).close()
    assert theirs.recv(1) == b""
    theirs.close()


async def test_an_end_of_receiving_leaves_sending_alone() -> None:
    ours, theirs = tcp_pair()
    stream = TcpStream(ours)
    reading = asyncio.create_task(stream.receive_into(memoryview(bytearray(10))))
    await asyncio.sleep(0)
    stream.end_receiving()
    with pytest.raises(ConnectionAbortedError):
        await reading
    await stream.send_all(b"still")
    assert theirs.recv(10) == b"still"
    stream.close()
    theirs.close()


async def test_a_descriptor_that_is_used_again_is_not_disturbed() -> None:
    """The reader of a closed socket must not unregister the reader of its successor."""
    ours, theirs = tcp_pair()
    stream = TcpStream(ours)
    number = ours.fileno()
    reading = asyncio.create_task(stream.receive_into(memoryview(bytearray(10))))
    await asyncio.sleep(0)
    stream.close()
    next_ours, next_theirs = tcp_pair()
    successor, other = (
        (next_ours, next_theirs) if next_ours.fileno() == number else (next_theirs, next_ours)
    )
    assert successor.fileno() == number
    successor.setblocking(False)
    waiting = asyncio.create_task(wait_readable(successor))
    with pytest.raises(ConnectionAbortedError):
        await reading
    await asyncio.sleep(0)
    other.send(b"x")
    await asyncio.wait_for(waiting, PATIENCE_S)
    for sock in (theirs, next_ours, next_theirs):
        sock.close()
