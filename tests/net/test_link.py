"""Links over real loopback sockets: who gets one, and that the stream is whole or broken, never
something between.
"""

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import struct
from pathlib import Path

import pytest

from p2psync.net import link as link_module
from p2psync.net.link import LinkClosedError, LinkError, LinkRefusedError, TlsLink, handshake
from p2psync.net.tcp import TcpStream
from p2psync.ports import Link
from tests.net.devices import (
    PATIENCE_S,
    Device,
    close_all,
    make_device,
    make_forger,
    mint,
    open_sockets,
    read_exactly,
    roster,
    shake_hands,
    tcp_pair,
)


@pytest.fixture
def alice(tmp_path: Path) -> Device:
    return make_device(tmp_path / "alice")


@pytest.fixture
def bob(tmp_path: Path) -> Device:
    return make_device(tmp_path / "bob")


@pytest.fixture
def carol(tmp_path: Path) -> Device:
    return make_device(tmp_path / "carol")


async def failures(
    client: tuple[Device, list[Device], list[Device]],
    server: tuple[Device, list[Device], list[Device]],
) -> tuple[BaseException, BaseException]:
    """What each side raises: a side is a device, whom its context trusts, and whom it pinned."""
    before = open_sockets()
    client_end, server_end = tcp_pair()
    outcomes = await asyncio.gather(
        handshake(
            client_end,
            client[0].client(*client[1]),
            server_side=False,
            pinned=roster(*client[2]),
            timeout=PATIENCE_S,
        ),
        handshake(
            server_end,
            server[0].server(*server[1]),
            server_side=True,
            pinned=roster(*server[2]),
            timeout=PATIENCE_S,
        ),
        return_exceptions=True,
    )
    first, second = outcomes
    assert isinstance(first, BaseException)
    assert isinstance(second, BaseException)
    assert open_sockets() == before
    return first, second


async def test_bytes_go_both_ways_and_each_side_knows_the_other(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    as_the_engine_sees_it: Link = from_alice
    assert as_the_engine_sees_it.peer == bob.id
    assert from_alice.peer_certificate == bob.certificate
    assert from_bob.peer == alice.id
    assert from_alice.remote_address == from_bob.local_address
    assert from_alice.local_address == from_bob.remote_address
    await from_alice.send([b"to ", memoryview(b"bob")])
    await from_bob.send([b"to alice"])
    assert await read_exactly(from_bob, 6) == b"to bob"
    assert await read_exactly(from_alice, 8) == b"to alice"
    await close_all([from_alice, from_bob])


async def test_traffic_is_counted_with_its_encryption(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    before = from_alice.bytes_sent
    assert before > 0
    await from_alice.send([bytes(1000)])
    await read_exactly(from_bob, 1000)
    assert 1000 < from_alice.bytes_sent - before < 1100
    assert from_bob.bytes_received == from_alice.bytes_sent
    await close_all([from_alice, from_bob])


async def test_a_clean_end_is_told_apart_and_stays(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    await from_alice.send([b"last words"])
    await from_alice.close()
    assert await read_exactly(from_bob, 10) == b"last words"
    assert await from_bob.receive() == b""
    assert await from_bob.receive() == b""
    await from_bob.close()


async def test_last_words_arrive_even_when_the_sender_left_bytes_unread(
    alice: Device, bob: Device
) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    await from_bob.send([bytes(50_000)])
    await from_alice.send([b"last words"])
    await from_alice.close()
    assert await read_exactly(from_bob, 10) == b"last words"
    assert await from_bob.receive() == b""
    await from_bob.close()


async def test_sixteen_megabytes_each_way_at_once_arrive_whole(alice: Device, bob: Device) -> None:
    randomness = random.Random(1)
    sizes = [0, 1, 4, 16_383, 16_384, 16_385, 262_144, 262_145, 5_000_000]
    buffers = [randomness.randbytes(size) for size in sizes]
    while sum(map(len, buffers)) < 16 << 20:
        buffers.append(randomness.randbytes(randomness.choice([9, 4_096, 1_000_000])))
    total = sum(map(len, buffers))
    expected = hashlib.sha256(b"".join(buffers)).digest()

    async def take(link: TlsLink) -> bytes:
        digest = hashlib.sha256()
        size = 0
        while size < total:
            piece = await link.receive()
            assert piece
            size += len(piece)
            digest.update(piece)
        return digest.digest()

    links = await shake_hands(alice, bob)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        taken = [tasks.create_task(take(link)) for link in links]
        for link in links:
            tasks.create_task(link.send(buffers))
    assert [task.result() for task in taken] == [expected, expected]
    await close_all(links)


async def test_messages_of_many_senders_do_not_mix(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    size = 300_000
    async with asyncio.TaskGroup() as tasks:
        for letter in b"abcdef":
            tasks.create_task(from_alice.send([bytes([letter]) * 100_000] * 3))
        received = await read_exactly(from_bob, 6 * size)
    messages = {received[at : at + size] for at in range(0, len(received), size)}
    assert messages == {bytes([letter]) * size for letter in b"abcdef"}
    await close_all([from_alice, from_bob])


async def test_a_slow_reader_holds_the_sender_back(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    size = 64 << 20
    sending = asyncio.create_task(from_alice.send([bytes(size)]))
    done, _ = await asyncio.wait([sending], timeout=0.1)
    assert not done
    assert from_alice.bytes_sent < size
    await from_bob.close()
    with pytest.raises(LinkClosedError):
        await asyncio.wait_for(sending, PATIENCE_S)
    await from_alice.close()


async def test_the_loop_stays_free_while_the_network_takes_all_at_once(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)

    async def take_at_once(_: TcpStream, data: bytes) -> None:
        pass

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with monkeypatch.context() as patch:
        patch.setattr(TcpStream, "send_all", take_at_once)
        counting = asyncio.create_task(count_turns())
        await from_alice.send([bytes(16 << 20)])
        counting.cancel()
    assert turns >= 60
    await close_all([from_alice, from_bob])


async def test_a_stream_cut_without_goodbye_is_no_clean_end(alice: Device, bob: Device) -> None:
    client_end, server_end = tcp_pair()
    from_alice, from_bob = await shake_hands(alice, bob, ends=(client_end, server_end))
    await from_alice.send([b"half a message"])
    client_end.shutdown(socket.SHUT_WR)
    assert await read_exactly(from_bob, 14) == b"half a message"
    with pytest.raises(LinkClosedError, match="cut off"):
        await from_bob.receive()
    await close_all([from_alice, from_bob])


async def test_a_reset_connection_ends_the_link(alice: Device, bob: Device) -> None:
    client_end, server_end = tcp_pair()
    from_alice, from_bob = await shake_hands(alice, bob, ends=(client_end, server_end))
    linger = struct.pack("ii", 1, 0)
    client_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await from_alice.close()
    # The goodbye may still be read before the reset shows.
    with pytest.raises(LinkClosedError):
        while True:
            assert not await from_bob.receive()
            await from_bob.send([bytes(100)])
    await from_bob.close()


async def test_bytes_changed_on_the_way_end_the_link(alice: Device, bob: Device) -> None:
    client_end, server_end = tcp_pair()
    from_alice, from_bob = await shake_hands(alice, bob, ends=(client_end, server_end))
    client_end.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(LinkClosedError, match="not what the peer encrypted"):
        await from_bob.receive()
    await close_all([from_alice, from_bob])


async def test_a_cancelled_receive_loses_nothing(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    received = bytearray()
    for number in range(50):
        receiving = asyncio.create_task(from_bob.receive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await from_alice.send([bytes([number])])
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            received += await receiving
    while len(received) < 50:
        received += await asyncio.wait_for(from_bob.receive(), PATIENCE_S)
    assert received == bytes(range(50))
    await close_all([from_alice, from_bob])


async def test_a_cancelled_send_breaks_the_link_on_both_sides(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    sending = asyncio.create_task(from_alice.send([bytes(64 << 20)]))
    await asyncio.wait([sending], timeout=0.05)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    with pytest.raises(LinkClosedError, match="cut short"):
        await from_alice.send([b"more"])
    with pytest.raises(LinkClosedError):
        while await asyncio.wait_for(from_bob.receive(), PATIENCE_S):
            pass
    await close_all([from_alice, from_bob])


async def test_closing_ends_a_waiting_receive_and_later_calls(alice: Device, bob: Device) -> None:
    before = open_sockets()
    from_alice, from_bob = await shake_hands(alice, bob)
    receiving = asyncio.create_task(from_alice.receive())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(from_alice.close(), from_alice.close())
    await from_alice.close()
    with pytest.raises(LinkClosedError, match="closed on this side"):
        await receiving
    with pytest.raises(LinkClosedError, match="closed on this side"):
        await from_alice.receive()
    with pytest.raises(LinkClosedError, match="closed on this side"):
        await from_alice.send([b"late"])
    await from_bob.close()
    assert open_sockets() == before


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_CLOSE_SECONDS", 0.05)
    before = open_sockets()
    from_alice, from_bob = await shake_hands(alice, bob)
    sending = asyncio.create_task(from_alice.send([bytes(64 << 20)]))
    await asyncio.wait([sending], timeout=0.05)
    await asyncio.wait_for(from_alice.close(), PATIENCE_S)
    with pytest.raises(LinkClosedError, match="closed on this side"):
        await sending
    await from_bob.close()
    assert open_sockets() == before


async def test_a_cancelled_close_still_closes_the_socket(alice: Device, bob: Device) -> None:
    before = open_sockets()
    from_alice, from_bob = await shake_hands(alice, bob)
    sending = asyncio.create_task(from_alice.send([bytes(64 << 20)]))
    await asyncio.wait([sending], timeout=0.05)
    closing = asyncio.create_task(from_alice.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(LinkClosedError):
        await sending
    await from_bob.close()
    assert open_sockets() == before


async def test_two_receivers_at_once_are_a_mistake(alice: Device, bob: Device) -> None:
    from_alice, from_bob = await shake_hands(alice, bob)
    receiving = asyncio.create_task(from_alice.receive())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await from_alice.receive()
    await close_all([from_alice, from_bob])
    with pytest.raises(LinkClosedError):
        await receiving


async def test_a_stranger_is_refused_and_both_sides_are_told(
    alice: Device, bob: Device, carol: Device
) -> None:
    client, server = await failures((carol, [bob], [bob]), (bob, [alice], [alice]))
    assert isinstance(client, LinkRefusedError)
    assert "does not accept this one" in str(client)
    assert isinstance(server, LinkRefusedError)
    assert "is not paired with this one" in str(server)


async def test_a_server_that_is_a_stranger_is_refused_and_both_sides_are_told(
    alice: Device, bob: Device, carol: Device
) -> None:
    client, server = await failures((alice, [bob], [bob]), (carol, [alice], [alice]))
    assert isinstance(client, LinkRefusedError)
    assert "is not paired with this one" in str(client)
    assert isinstance(server, LinkRefusedError)
    assert "does not accept this one" in str(server)


async def test_without_peers_everybody_is_refused(alice: Device, bob: Device) -> None:
    client, server = await failures((alice, [bob], [bob]), (bob, [], []))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkRefusedError)
    client, server = await failures((alice, [], []), (bob, [alice], [alice]))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkRefusedError)


async def test_who_was_removed_while_shaking_hands_is_refused(alice: Device, bob: Device) -> None:
    client, server = await failures((alice, [bob], [bob]), (bob, [alice], []))
    assert isinstance(client, LinkRefusedError)
    assert "does not accept this one" in str(client)
    assert isinstance(server, LinkRefusedError)


async def test_another_paired_device_than_expected_does_not_learn_who_called(
    alice: Device, bob: Device, carol: Device
) -> None:
    client, server = await failures((alice, [bob, carol], [carol]), (bob, [alice], [alice]))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkClosedError)


async def test_a_forger_that_is_paired_is_accepted_but_the_certificates_it_mints_are_not(
    tmp_path: Path, alice: Device
) -> None:
    forger = make_forger(tmp_path / "forger")
    child = mint(tmp_path / "child", by=forger)
    await close_all(await shake_hands(forger, alice))
    client, server = await failures((child, [alice], [alice]), (alice, [forger], [forger]))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkRefusedError)
    client, server = await failures((alice, [forger], [forger]), (child, [alice], [alice]))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkError)


async def test_an_ordinary_device_cannot_mint_certificates(
    tmp_path: Path, alice: Device, bob: Device
) -> None:
    child = mint(tmp_path / "child", by=bob)
    client, server = await failures((child, [alice], [alice]), (alice, [bob], [bob]))
    assert isinstance(client, LinkRefusedError)
    assert isinstance(server, LinkRefusedError)


async def test_one_of_many_peers_that_all_have_the_same_name_is_found(
    tmp_path: Path, alice: Device, bob: Device
) -> None:
    others = [make_device(tmp_path / str(number)) for number in range(20)]
    client_end, server_end = tcp_pair()
    links = await asyncio.gather(
        handshake(
            client_end,
            alice.client(*others, bob),
            server_side=False,
            pinned=roster(*others, bob),
            timeout=PATIENCE_S,
        ),
        handshake(
            server_end,
            bob.server(*others, alice),
            server_side=True,
            pinned=roster(*others, alice),
            timeout=PATIENCE_S,
        ),
    )
    assert [link.peer for link in links] == [bob.id, alice.id]
    await close_all(links)


def _plain(version: ssl.TLSVersion, *, protocol: int, device: Device) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.load_cert_chain(device.files.certificate, device.files.key)
    return context


async def test_tls_below_1_3_is_refused_in_both_roles(alice: Device, bob: Device) -> None:
    for server_side in (True, False):
        ours, theirs = tcp_pair()
        theirs.settimeout(PATIENCE_S)
        old = _plain(
            ssl.TLSVersion.TLSv1_2,
            protocol=ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER,
            device=alice,
        )

        def speak(sock: socket.socket, context: ssl.SSLContext, *, as_server: bool) -> str:
            with sock, pytest.raises((ssl.SSLError, ConnectionError)) as failure:
                context.wrap_socket(sock, server_side=as_server)
            return str(failure.value)

        speaking = asyncio.create_task(
            asyncio.to_thread(speak, theirs, old, as_server=not server_side)
        )
        with pytest.raises(LinkRefusedError, match=r"does not offer TLS 1\.3"):
            await handshake(
                ours,
                bob.server(alice) if server_side else bob.client(alice),
                server_side=server_side,
                pinned=roster(alice),
                timeout=PATIENCE_S,
            )
        await speaking


async def test_tls_for_another_protocol_is_refused(alice: Device, bob: Device) -> None:
    ours, theirs = tcp_pair()
    theirs.settimeout(PATIENCE_S)
    other = _plain(ssl.TLSVersion.TLSv1_3, protocol=ssl.PROTOCOL_TLS_CLIENT, device=alice)
    other.set_alpn_protocols(["http/1.1"])

    def speak() -> bytes:
        with theirs, other.wrap_socket(theirs, suppress_ragged_eofs=True) as stream:
            return stream.recv(1)

    speaking = asyncio.create_task(asyncio.to_thread(speak))
    with pytest.raises(LinkRefusedError, match="does not speak p2psync's protocol"):
        await handshake(
            ours, bob.server(alice), server_side=True, pinned=roster(alice), timeout=PATIENCE_S
        )
    assert await speaking == b""


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"SSH-2.0-x\r\n"])
@pytest.mark.parametrize("server_side", [True, False])
async def test_plain_text_is_refused(
    alice: Device, bob: Device, greeting: bytes, *, server_side: bool
) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        theirs.send(greeting)
        with pytest.raises(LinkRefusedError, match="does not speak p2psync's protocol"):
            await handshake(
                ours,
                bob.server(alice) if server_side else bob.client(alice),
                server_side=server_side,
                pinned=roster(alice),
                timeout=PATIENCE_S,
            )


@pytest.mark.parametrize("server_side", [True, False])
async def test_silence_times_out(alice: Device, bob: Device, *, server_side: bool) -> None:
    before = open_sockets()
    ours, theirs = tcp_pair()
    with theirs, pytest.raises(LinkError, match=r"within 0\.02 s"):
        await handshake(
            ours,
            bob.server(alice) if server_side else bob.client(alice),
            server_side=server_side,
            pinned=roster(alice),
            timeout=0.02,
        )
    assert open_sockets() == before


@pytest.mark.parametrize("server_side", [True, False])
async def test_a_connection_lost_during_the_handshake_is_told(
    alice: Device, bob: Device, *, server_side: bool
) -> None:
    ours, theirs = tcp_pair()
    theirs.close()
    with pytest.raises(LinkClosedError, match="ended"):
        await handshake(
            ours,
            bob.server(alice) if server_side else bob.client(alice),
            server_side=server_side,
            pinned=roster(alice),
            timeout=PATIENCE_S,
        )


async def test_a_cancelled_handshake_closes_the_socket(alice: Device, bob: Device) -> None:
    before = open_sockets()
    ours, theirs = tcp_pair()
    shaking = asyncio.create_task(
        handshake(
            ours, bob.server(alice), server_side=True, pinned=roster(alice), timeout=PATIENCE_S
        )
    )
    await asyncio.sleep(0)
    shaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await shaking
    theirs.close()
    assert open_sockets() == before
