"""Pairing over loopback. `PairingHost` is met with real joiners and with sockets that misbehave."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from p2psync.errors import NotFoundError, RefusedError, TimedOutError
from p2psync.net.pairing import (
    MAX_WAITING,
    FailedAttempt,
    PairingEnd,
    PairingHost,
    PairingOutcome,
    join,
    turn_away,
)
from p2psync.protocol.pairing import (
    JoinerPairing,
    PairedPeer,
    PairingProtocolError,
    PairingRefusedError,
)
from p2psync.protocol.pairing_code import FleetKey, PairingCode, PairingSecret

CODE = PairingCode(4, ("acorn", "velvet", "mango"))
WRONG = PairingCode(4, ("acorn", "velvet", "tuna"))
PATIENCE = 5.0


@dataclass
class Window:
    """A started host and all that it told."""

    host: PairingHost
    port: int = 0
    failures: list[FailedAttempt] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: list[PairedPeer] = field(default_factory=list)

    async def join(self, secret: PairingSecret = CODE, **options: Any) -> PairedPeer:
        return await _join(self.port, secret, **options)

    async def result(self) -> PairingOutcome:
        async with asyncio.timeout(PATIENCE):
            return await self.host.result()

    async def failure(self, number: int) -> FailedAttempt:
        """The attempt that failed as the `number`th, when it has."""
        async with asyncio.timeout(PATIENCE):
            while len(self.failures) < number:
                self.failed.clear()
                await self.failed.wait()
        return self.failures[number - 1]


async def _join(port: int, secret: PairingSecret = CODE, **options: Any) -> PairedPeer:
    return await join(
        "127.0.0.1",
        port,
        secret,
        certificate=b"certificate of the joiner",
        payload=b"of the joiner",
        random_bytes=os.urandom,
        **{"timeout": PATIENCE, **options},
    )


@asynccontextmanager
async def _window(
    *,
    accept: Callable[[PairedPeer], Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
    secret: PairingSecret = CODE,
    **options: Any,
) -> AsyncIterator[Window]:
    async def take(peer: PairedPeer) -> None:
        if accept is not None:
            await accept(peer)
        window.accepted.append(peer)

    def failed(attempt: FailedAttempt) -> None:
        window.failures.append(attempt)
        window.failed.set()

    host = PairingHost(
        secret,
        certificate=b"certificate of the host",
        payload=b"of the host",
        clock=clock,
        random_bytes=os.urandom,
        accept=take,
        on_failed_attempt=failed,
        **options,
    )
    window = Window(host)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        window.port = listener.getsockname()[1]
        host.start()
        attending = asyncio.create_task(_attend(listener, host))
        try:
            async with host:
                yield window
        finally:
            attending.cancel()
            await asyncio.wait([attending])


async def _attend(listener: socket.socket, host: PairingHost) -> None:
    """What the endpoint does with those who come to pair."""
    async with asyncio.TaskGroup() as attempts:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            attempts.create_task(host.attend(sock))


@asynccontextmanager
async def _connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110 - what is counted sets no event
            await asyncio.sleep(0.001)


def _hello() -> bytes:
    return JoinerPairing(
        WRONG, certificate=b"of a stranger", payload=b"", random_bytes=os.urandom
    ).data_to_send()


# --- it works -----------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [CODE, FleetKey(bytes(range(16)))])
async def test_two_devices_pair(secret: PairingSecret) -> None:
    async with _window(secret=secret) as window:
        peer = await window.join(secret)
        outcome = await window.result()
    assert peer == PairedPeer(b"certificate of the host", b"of the host")
    joiner = PairedPeer(b"certificate of the joiner", b"of the joiner")
    assert outcome == PairingOutcome(PairingEnd.PAIRED, joiner)
    assert window.accepted == [joiner]
    assert window.failures == []


async def test_big_payloads_go_through() -> None:
    async with _window() as window:
        await join(
            "127.0.0.1",
            window.port,
            CODE,
            certificate=b"c",
            payload=bytes(1 << 20),
            random_bytes=os.urandom,
            timeout=PATIENCE,
        )
        outcome = await window.result()
    assert outcome.peer == PairedPeer(b"c", bytes(1 << 20))


async def test_the_joiner_hears_that_it_is_in_only_when_that_is_stored() -> None:
    asked, stored = asyncio.Event(), asyncio.Event()

    async def accept(_peer: PairedPeer) -> None:
        asked.set()
        await stored.wait()

    async with _window(accept=accept) as window, asyncio.TaskGroup() as tasks:
        joining = tasks.create_task(window.join())
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        assert not joining.done()
        stored.set()
        async with asyncio.timeout(PATIENCE):
            await joining


async def test_a_peer_that_is_not_accepted_is_told_and_the_window_stays_open() -> None:
    verdicts = iter([RefusedError("It was removed from this group.")])

    async def accept(_peer: PairedPeer) -> None:
        for verdict in verdicts:
            raise verdict

    async with _window(accept=accept) as window:
        with pytest.raises(PairingRefusedError, match="did not let this one in"):
            await window.join()
        failure = await window.failure(1)
        assert (str(failure.error), failure.counted) == ("It was removed from this group.", False)
        await window.join()
        assert (await window.result()).end is PairingEnd.PAIRED


async def test_who_comes_after_another_device_paired_is_told() -> None:
    async with _window() as window:
        await window.join()
        await window.result()
        with pytest.raises(PairingRefusedError, match="was used already"):
            await window.join()


async def test_where_no_window_is_open_a_joiner_is_told() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.sendall(_hello())
        await turn_away(ours)
        joiner = JoinerPairing(CODE, certificate=b"c", payload=b"", random_bytes=os.urandom)
        with pytest.raises(PairingRefusedError, match="No pairing window is open"):
            joiner.receive_data(theirs.recv(4096))
        assert theirs.recv(1) == b""


# --- it ends ------------------------------------------------------------------------------------


async def test_a_window_expires() -> None:
    async with _window(ttl=0.01) as window:
        assert (await window.result()).end is PairingEnd.EXPIRED


async def test_who_comes_when_the_clock_is_past_the_end_is_told() -> None:
    """The window's clock jumped, as over a suspended night, and the listener is still there."""
    now = [0.0]
    async with _window(clock=lambda: now[0]) as window:
        now[0] = 299.0
        assert window.host.expires_s == 1.0
        # Heard and turned away: the listener is up, and does not look at the clock for a while.
        async with _connected(window.port) as (reader, writer):
            writer.write(b"noise")
            assert await reader.read() == b""
        now[0] = 300.0
        with pytest.raises(PairingRefusedError, match="expired"):
            await window.join()
        assert (await window.result()).end is PairingEnd.EXPIRED


async def test_an_attempt_that_began_in_time_may_end_well() -> None:
    now = [0.0]

    async def accept(_peer: PairedPeer) -> None:
        now[0] = 1e6

    async with _window(accept=accept, clock=lambda: now[0]) as window:
        await window.join()
        assert (await window.result()).end is PairingEnd.PAIRED


async def test_three_wrong_codes_burn_the_window() -> None:
    async with _window() as window:
        for number in (1, 2, 3):
            with pytest.raises(PairingRefusedError, match="The code or key is wrong"):
                await window.join(WRONG)
            failure = await window.failure(number)
            assert (failure.counted, failure.failures_left) == (True, 3 - number)
            assert failure.address.startswith("127.0.0.1:")
            assert "wrong code" in str(failure.error)
        assert (await window.result()).end is PairingEnd.BURNED
        assert window.accepted == []


async def test_who_waited_while_it_burned_is_told() -> None:
    async with _window(max_failures=1) as window, _connected(window.port) as (reader, writer):
        writer.write(_hello())
        await reader.readexactly(4)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_outcome_of(window.join()))
            await _until(lambda: window.host._waiting == 2)
            writer.close()
        assert "void after too many wrong tries" in str(waiting.result())
        assert (await window.result()).end is PairingEnd.BURNED


async def _outcome_of(joining: Any) -> Exception | None:
    try:
        await joining
    except PairingRefusedError as error:
        return error
    return None


async def test_hanging_up_on_the_hosts_element_counts_as_a_failure() -> None:
    async with _window() as window:
        for number in (1, 2, 3):
            async with _connected(window.port) as (reader, writer):
                writer.write(_hello())
                await reader.readexactly(4)
            assert (await window.failure(number)).counted
        assert (await window.result()).end is PairingEnd.BURNED


async def test_not_confirming_in_time_counts_as_a_failure() -> None:
    async with _window(attempt_s=0.2) as window, _connected(window.port) as (reader, writer):
        writer.write(_hello())
        await reader.readexactly(4)
        failure = await window.failure(1)
        assert failure.counted
        assert isinstance(failure.error, TimedOutError)
        await reader.read()


async def test_noise_costs_nothing() -> None:
    async with _window() as window:
        for number, noise in enumerate([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01"], 1):
            async with _connected(window.port) as (reader, writer):
                writer.write(noise)
                assert await reader.read() == b""
            failure = await window.failure(number)
            assert not failure.counted
            assert isinstance(failure.error, PairingProtocolError)
        await window.join()


async def test_silent_connections_keep_nobody_waiting() -> None:
    async with _window() as window, _connected(window.port), _connected(window.port):
        await window.join(timeout=2.0)


async def test_half_a_first_message_keeps_nobody_waiting() -> None:
    async with _window() as window:
        async with AsyncExitStack() as stack:
            for _ in range(4):
                _, writer = await stack.enter_async_context(_connected(window.port))
                writer.write(_hello()[:-1])
            await window.join(timeout=2.0)
        assert window.failures == []


async def test_a_crowd_that_says_nothing_keeps_nobody_out() -> None:
    async with _window() as window:
        with ExitStack() as stack:
            for _ in range(3 * MAX_WAITING):
                stack.enter_context(socket.create_connection(("127.0.0.1", window.port)))
            await _until(lambda: window.host._waiting > MAX_WAITING)
            await window.join(timeout=2.0)
        await _until(lambda: window.host._waiting == 0)
        assert window.failures == []


async def test_more_than_a_few_that_wait_for_their_turn_are_hung_up_on() -> None:
    async with _window() as window:
        with ExitStack() as stack:
            for _ in range(MAX_WAITING + 4):
                sock = socket.create_connection(("127.0.0.1", window.port))
                stack.enter_context(sock).sendall(_hello())
            await _until(lambda: window.host._waiting > MAX_WAITING and not window.host._silent)
            with pytest.raises(PairingProtocolError):
                await window.join()


async def test_closing_cancels_what_has_not_ended() -> None:
    async with _window() as window, _connected(window.port) as (reader, writer):
        writer.write(_hello())
        await reader.readexactly(4)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(window.result())
            await window.host.close()
        assert waiting.result().end is PairingEnd.CANCELLED
        await window.host.close()
        with pytest.raises(PairingRefusedError, match="No pairing window is open"):
            await window.join()


async def test_closing_at_once_closes_all() -> None:
    async with _window() as window:
        await window.host.close()
        assert (await window.result()).end is PairingEnd.CANCELLED


async def test_stopping_to_wait_for_the_result_does_not_end_the_window() -> None:
    async with _window() as window:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await window.host.result()
        await window.join()
        assert (await window.result()).end is PairingEnd.PAIRED


# --- the joiner ---------------------------------------------------------------------------------


async def test_an_address_where_nobody_listens_is_explained() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NotFoundError, match="cannot be reached"):
            await _join(unused.getsockname()[1])


@pytest.mark.parametrize("host", ["two..dots", "255.255.255.255"])
async def test_an_address_that_cannot_be_reached_is_explained(host: str) -> None:
    with pytest.raises(NotFoundError, match="cannot be reached"):
        await join(
            host,
            1,
            CODE,
            certificate=b"c",
            payload=b"",
            random_bytes=os.urandom,
            timeout=PATIENCE,
        )


@asynccontextmanager
async def _false_host(says: bytes | None) -> AsyncIterator[int]:
    """Answers anything with `says` and hangs up; None: never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        if says is None:
            await reader.read()
        else:
            writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_host_that_never_answers_is_given_up() -> None:
    async with _false_host(None) as port:
        with pytest.raises(TimedOutError, match="did not finish pairing"):
            await _join(port, timeout=0.05)


async def test_a_host_that_is_something_else_is_explained() -> None:
    async with _false_host(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        with pytest.raises(PairingProtocolError, match="not p2psync's pairing"):
            await _join(port)


async def test_a_host_that_hangs_up_is_explained() -> None:
    async with _false_host(b"") as port:
        with pytest.raises(PairingProtocolError, match="hung up"):
            await _join(port)
