"""Endpoints on loopback: who gets in, what a stranger can occupy, a stop that leaves nothing."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from p2psync.errors import ConfigError
from p2psync.net import endpoint as endpoint_module
from p2psync.net.endpoint import Endpoint
from p2psync.net.link import LinkClosedError, LinkError, LinkRefusedError, TlsLink, handshake
from tests.net.devices import (
    PATIENCE_S,
    Device,
    make_device,
    open_sockets,
    read_exactly,
    roster,
    tcp_pair,
)

LOOPBACK = ("127.0.0.1", 0)


class Site:
    """A device with its endpoint, and what the endpoint reported."""

    def __init__(
        self,
        device: Device,
        *listen: tuple[str, int],
        patience: float = 10.0,
        last_port: int = 0,
    ) -> None:
        self.device = device
        self.links: asyncio.Queue[TlsLink] = asyncio.Queue()
        self.refusals: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.pairing: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.endpoint = Endpoint(
            device.identity,
            device.home,
            listen=listen or (LOOPBACK,),
            on_link=self.links.put,
            on_refused=lambda address, reason: self.refusals.put_nowait((address, reason)),
            on_pairing=self.pairing.put,
            last_port=last_port,
            handshake_timeout=patience,
        )

    @property
    def address(self) -> tuple[str, int]:
        return self.endpoint.addresses[0]

    async def link(self) -> TlsLink:
        return await asyncio.wait_for(self.links.get(), PATIENCE_S)

    async def refusal(self) -> str:
        _, reason = await asyncio.wait_for(self.refusals.get(), PATIENCE_S)
        return reason

    async def dial(self, other: "Site", *, expect: Device | None = None) -> TlsLink:
        return await self.endpoint.dial(
            *other.address, expect=expect.id if expect else None, timeout=PATIENCE_S
        )


@contextlib.asynccontextmanager
async def running(*sites: Site) -> AsyncIterator[None]:
    """Start the endpoints, stop them in the end, and see that nothing is left of them."""
    sockets, tasks = open_sockets(), asyncio.all_tasks()
    try:
        for site in sites:
            await site.endpoint.start()
        yield
    finally:
        for site in sites:
            await site.endpoint.stop()
    assert open_sockets() == sockets
    assert asyncio.all_tasks() == tasks


@pytest.fixture
def alice(tmp_path: Path) -> Device:
    return make_device(tmp_path / "alice")


@pytest.fixture
def bob(tmp_path: Path) -> Device:
    return make_device(tmp_path / "bob")


@pytest.fixture
def carol(tmp_path: Path) -> Device:
    return make_device(tmp_path / "carol")


def pair(*sites: Site) -> None:
    everybody = roster(*(site.device for site in sites))
    for site in sites:
        site.endpoint.set_peers(everybody)


async def test_paired_devices_get_a_link_and_stop_leaves_nothing(
    alice: Device, bob: Device
) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        dialled = await a.dial(b, expect=bob)
        accepted = await b.link()
        assert (dialled.peer, accepted.peer) == (bob.id, alice.id)
        await dialled.send([b"hello"])
        assert await read_exactly(accepted, 5) == b"hello"


async def test_a_waiting_receive_ends_when_the_endpoint_stops(alice: Device, bob: Device) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        dialled = await a.dial(b)
        receiving = asyncio.create_task(dialled.receive())
        await b.link()
        await a.endpoint.stop()
        with pytest.raises(LinkClosedError):
            await receiving


async def test_a_stranger_is_refused_and_both_sides_are_told(
    alice: Device, bob: Device, carol: Device
) -> None:
    a, b, c = Site(alice), Site(bob), Site(carol)
    async with running(a, b, c):
        pair(a, b)
        c.endpoint.set_peers(roster(bob))
        with pytest.raises(LinkRefusedError, match="does not accept this one"):
            await c.dial(b)
        assert "is not paired with this one" in await b.refusal()
        assert b.links.empty()


async def test_before_any_pairing_everybody_is_refused(alice: Device, bob: Device) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        with pytest.raises(LinkRefusedError):
            await a.dial(b)
        with pytest.raises(LinkRefusedError, match="is not paired with this one"):
            await a.dial(b, expect=bob)


async def test_a_removed_device_is_refused_from_then_on(alice: Device, bob: Device) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        await (await a.dial(b)).close()
        b.endpoint.set_peers({})
        with pytest.raises(LinkRefusedError, match="does not accept this one"):
            await a.dial(b)


async def test_a_device_removed_during_its_handshake_is_refused(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Site(alice), Site(bob)

    async def slow_handshake(*args: object, **options: object) -> TlsLink:
        link = await handshake(*args, **options)  # type: ignore[arg-type]
        if options["server_side"]:
            b.endpoint.set_peers({})
        return link

    monkeypatch.setattr(endpoint_module, "handshake", slow_handshake)
    async with running(a, b):
        pair(a, b)
        with contextlib.suppress(LinkError):
            await a.dial(b)
        assert "was removed" in await b.refusal()
        assert b.links.empty()


async def test_a_removal_holds_even_when_the_identity_cannot_be_loaded(
    alice: Device, bob: Device
) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        bob.files.key.rename(bob.home / "elsewhere")
        with pytest.raises(ConfigError):
            b.endpoint.set_peers({})
        with pytest.raises(LinkRefusedError):
            await a.dial(b)
        assert "is not paired with this one" in await b.refusal()


async def test_a_certificate_that_is_not_its_devices_is_left_out(
    alice: Device, bob: Device, carol: Device
) -> None:
    a, b, c = Site(alice), Site(bob), Site(carol)
    async with running(a, b, c):
        pair(a, b, c)
        b.endpoint.set_peers(
            {alice.id: alice.certificate, carol.id: b"garbage", bob.id: carol.certificate}
        )
        assert (await a.dial(b)).peer == bob.id
        with pytest.raises(LinkRefusedError):
            await c.dial(b)


async def test_an_unexpected_device_is_refused_even_though_it_is_paired(
    alice: Device, bob: Device, carol: Device
) -> None:
    a, b, c = Site(alice), Site(bob), Site(carol)
    async with running(a, b, c):
        pair(a, b, c)
        with pytest.raises(LinkRefusedError):
            await a.dial(b, expect=carol)
        await b.refusal()
        assert b.links.empty()


async def test_a_device_that_dials_itself_is_refused(alice: Device) -> None:
    a = Site(alice)
    async with running(a):
        pair(a)
        with pytest.raises(LinkRefusedError):
            await a.dial(a)


async def test_garbage_silence_and_hanging_up_do_not_end_the_listener(
    alice: Device, bob: Device
) -> None:
    a, b = Site(alice), Site(bob, patience=0.05)
    async with running(a, b):
        pair(a, b)
        with socket.create_connection(b.address) as garbage:
            garbage.send(b"GET / HTTP/1.1\r\n\r\n")
            assert "does not speak p2psync's protocol" in await b.refusal()
        with socket.create_connection(b.address):
            assert "within 0.05 s" in await b.refusal()
        socket.create_connection(b.address).close()
        assert "ended" in await b.refusal()
        assert (await a.dial(b)).peer == bob.id


async def test_one_address_can_occupy_few_handshakes(alice: Device, bob: Device) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(socket.create_connection(b.address))
            with pytest.raises(LinkError):
                await a.dial(b)
            assert "Too many" in await b.refusal()
        for _ in range(8):
            assert "ended" in await b.refusal()
        assert (await a.dial(b)).peer == bob.id


async def test_all_addresses_together_can_occupy_a_bounded_number_of_handshakes(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_HANDSHAKES", 6)
    b = Site(bob)
    async with running(b):
        with contextlib.ExitStack() as stack:
            for number in range(6):
                source = (f"127.0.0.{10 + number}", 0)
                stack.enter_context(socket.create_connection(b.address, source_address=source))
            last = stack.enter_context(
                socket.create_connection(b.address, source_address=("127.0.0.99", 0))
            )
            assert "Too many" in await b.refusal()
            assert last.recv(1) == b""


async def test_strangers_that_say_nothing_give_way_to_others(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_HANDSHAKES", 6)
    monkeypatch.setattr(endpoint_module, "_UNDISTURBED_S", 0.0)
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        with contextlib.ExitStack() as stack:
            silent = []
            for number in range(6):
                source = (f"127.0.0.{10 + number // 2}", 0)
                sock = socket.create_connection(b.address, source_address=source)
                silent.append(stack.enter_context(sock))
            assert (await a.dial(b)).peer == bob.id
            assert "ended" in await b.refusal()
            assert silent[0].recv(1) == b""


async def test_a_newcomer_takes_the_place_of_one_of_several_of_a_host_at_once(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_HANDSHAKES", 6)
    monkeypatch.setattr(endpoint_module, "_UNDISTURBED_S", 3600.0)
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        with contextlib.ExitStack() as stack:
            for number in (1, 2, 3, 4, 5, 5):
                source = (f"127.0.0.{10 + number}", 0)
                stack.enter_context(socket.create_connection(b.address, source_address=source))
            assert (await a.dial(b)).peer == bob.id
            assert "ended" in await b.refusal()


async def test_more_of_one_address_take_the_places_of_its_own(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_UNDISTURBED_S", 0.0)
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        with contextlib.ExitStack() as stack:
            other = stack.enter_context(
                socket.create_connection(b.address, source_address=("127.0.0.9", 0))
            )
            for _ in range(8):
                stack.enter_context(socket.create_connection(b.address))
            assert (await a.dial(b)).peer == bob.id
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)


async def test_who_came_to_pair_is_not_cut_off_for_others(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_UNDISTURBED_S", 0.0)
    monkeypatch.setattr(endpoint_module, "_HANDSHAKES", 1)
    attended = asyncio.Event()

    async def attend(sock: socket.socket) -> None:
        with sock:
            attended.set()
            await asyncio.Event().wait()

    b = Site(bob)
    b.endpoint._on_pairing = attend
    async with running(b):
        with socket.create_connection(b.address) as joiner:
            joiner.sendall(b"\0")
            await asyncio.wait_for(attended.wait(), PATIENCE_S)
            with socket.create_connection(b.address, source_address=("127.0.0.9", 0)) as other:
                assert "Too many" in await b.refusal()
                assert other.recv(1) == b""


async def test_a_flood_of_refusals_is_told_in_part(
    bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_TOLD_AT_ONCE", 3)
    b = Site(bob)
    async with running(b):
        for _ in range(9):
            with socket.create_connection(b.address) as sock:
                sock.sendall(b"x" * 100)
                await asyncio.to_thread(sock.recv, 100)
        assert b.refusals.qsize() == 3


async def test_links_at_work_do_not_count_as_handshakes(alice: Device, bob: Device) -> None:
    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        links = [await a.dial(b) for _ in range(12)]
        assert {link.peer for link in links} == {bob.id}


async def test_running_out_of_descriptors_pauses_the_listener_only(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_ACCEPT_PAUSE", 0.01)
    failures = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]
    accept = socket.socket.accept

    def failing_accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise OSError(failures.pop(), "no")
        return accept(listener)

    a, b = Site(alice), Site(bob)
    async with running(a, b):
        pair(a, b)
        monkeypatch.setattr(socket.socket, "accept", failing_accept)
        assert (await a.dial(b)).peer == bob.id
        assert not failures


@pytest.mark.parametrize("broken", ["on_link", "on_refused"])
async def test_a_failing_callback_ends_neither_the_listener_nor_leaks_the_link(
    alice: Device, bob: Device, broken: str
) -> None:
    def fail(*_: object) -> Awaitable[None]:
        raise ZeroDivisionError

    calls: dict[str, Callable[..., Awaitable[None]]] = {broken: fail}
    a, b = Site(alice), Site(bob)
    b.endpoint = Endpoint(
        bob.identity,
        bob.home,
        listen=[LOOPBACK],
        on_link=calls.get("on_link", b.links.put),
        on_refused=calls.get("on_refused", lambda *_: None),  # type: ignore[arg-type]
        on_pairing=b.pairing.put,
    )
    async with running(a, b):
        pair(a, b)
        if broken == "on_link":
            assert await asyncio.wait_for((await a.dial(b)).receive(), PATIENCE_S) == b""
        else:
            with socket.create_connection(b.address) as garbage:
                garbage.send(b"garbage")
                garbage.settimeout(PATIENCE_S)
                while await asyncio.to_thread(garbage.recv, 100):
                    pass
        assert (await a.dial(b)).peer == bob.id


async def test_stopping_during_handshakes_and_before_their_tasks_began_leaves_no_socket(
    bob: Device,
) -> None:
    b = Site(bob)
    async with running(b):
        with socket.create_connection(b.address), socket.create_connection(b.address):
            await asyncio.sleep(0)
            await b.endpoint.stop()
    # After one of these numbers of turns the connection is accepted and its task has not begun.
    for turns in range(8):
        async with running(b):
            with socket.create_connection(b.address):
                for _ in range(turns):
                    await asyncio.sleep(0)
                await b.endpoint.stop()


async def test_an_endpoint_can_be_stopped_twice_and_before_it_started(bob: Device) -> None:
    b = Site(bob)
    await b.endpoint.stop()
    async with running(b):
        await b.endpoint.stop()
        assert b.endpoint.addresses == []


async def test_a_port_in_use_is_named(alice: Device) -> None:
    with socket.create_server(LOOPBACK) as other:
        host, port = other.getsockname()
        a = Site(alice, LOOPBACK, (host, port))
        before = open_sockets()
        with pytest.raises(ConfigError, match=rf"cannot listen on {host}:{port}: another program"):
            await a.endpoint.start()
        assert open_sockets() == before


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host.invalid"])
async def test_an_address_that_is_not_ours_cannot_be_listened_on(
    alice: Device, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _no_names, raising=False)
    with pytest.raises(ConfigError, match=f"cannot listen on {host}:0"):
        await Site(alice, (host, 0)).endpoint.start()


async def _no_names(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_all_hosts_get_the_same_free_port_and_both_families_are_served(
    alice: Device, bob: Device
) -> None:
    a, b = Site(alice), Site(bob, ("127.0.0.1", 0), ("::1", 0))
    async with running(a, b):
        pair(a, b)
        (_, four), (host, six) = b.endpoint.addresses
        assert four == six
        link = await a.endpoint.dial(host, six, expect=bob.id, timeout=PATIENCE_S)
        assert link.remote_address == f"[::1]:{six}"
        assert (await b.link()).remote_address.startswith("[::1]:")


async def test_a_listener_for_ipv6_leaves_ipv4_to_others(bob: Device) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        await Site(bob, ("::ffff:127.0.0.1", 0)).endpoint.start()


async def test_a_host_listed_twice_gets_two_ports(bob: Device) -> None:
    b = Site(bob, LOOPBACK, LOOPBACK)
    async with running(b):
        (_, one), (_, other) = b.endpoint.addresses
        assert one != other


async def test_a_machine_without_ipv6_listens_on_ipv4(
    bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *rest: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    b = Site(bob, LOOPBACK, ("::", 0))
    async with running(b):
        assert [host for host, _ in b.endpoint.addresses] == ["127.0.0.1"]
    with pytest.raises(ConfigError, match="Address family not supported"):
        await Site(bob, ("::", 0)).endpoint.start()


async def test_a_dial_that_nobody_answers_is_told(alice: Device) -> None:
    a = Site(alice)
    with socket.create_server(LOOPBACK) as closed:
        host, port = closed.getsockname()
    with pytest.raises(LinkError, match=f"No device answers at {host}:{port}: connection refused"):
        await a.endpoint.dial(host, port, expect=None, timeout=PATIENCE_S)


async def test_a_dial_that_takes_too_long_is_told_and_leaves_no_socket(alice: Device) -> None:
    a = Site(alice)
    with socket.create_server(LOOPBACK) as silent:
        before = open_sockets()
        with pytest.raises(LinkError, match=r"within 0\.02 s"):
            await a.endpoint.dial(*silent.getsockname(), expect=None, timeout=0.02)
        assert open_sockets() == before


@pytest.mark.parametrize(
    ("host", "port"), [("a..b", 1), ("x" * 300, 1), ("nul\0", 1), ("127.0.0.1", 0), ("::1", 70000)]
)
async def test_an_address_that_cannot_be_is_told(alice: Device, host: str, port: int) -> None:
    with pytest.raises(LinkError, match="Check the"):
        await Site(alice).endpoint.dial(host, port, expect=None, timeout=PATIENCE_S)


async def test_the_next_address_of_a_host_is_tried(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Site(alice), Site(bob)
    with socket.create_server(LOOPBACK) as closed:
        dead = closed.getsockname()

    async def two_addresses(*_: object, **__: object) -> list[object]:
        stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        return [(*stream, dead), (*stream, b.address)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
    async with running(a, b):
        pair(a, b)
        link = await a.endpoint.dial("bob.invalid", 1, expect=bob.id, timeout=PATIENCE_S)
        assert link.peer == bob.id


def test_the_helpers_notice_a_socket_left_open() -> None:
    before = open_sockets()
    ours, theirs = tcp_pair()
    assert len(open_sockets() - before) == 2
    ours.close()
    theirs.close()


async def test_who_comes_to_pair_is_handed_over_with_what_it_said(alice: Device) -> None:
    site = Site(alice)
    async with running(site):
        with socket.create_connection(site.address) as joiner:
            joiner.sendall(b"\0\0\0\1x")
            sock = await asyncio.wait_for(site.pairing.get(), PATIENCE_S)
            with sock:
                assert sock.recv(5) == b"\0\0\0\1x"
    assert site.refusals.empty()


async def test_the_port_of_last_time_is_taken_again_unless_another_program_has_it(
    alice: Device,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        site = Site(alice, last_port=port)
        async with running(site):
            assert site.address[1] not in (0, port)
    site = Site(alice, last_port=port)
    async with running(site):
        assert site.address == ("127.0.0.1", port)
