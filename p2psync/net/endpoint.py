"""The endpoint: listens and dials for this device, and hands out links to paired devices only.

Pairing comes in at the same port, so that a firewall needs one opening: its first byte is zero,
that of TLS never is.
"""

import asyncio
import collections
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.errors import ConfigError
from p2psync.net.identity import Identity, IdentityFiles, device_of_certificate
from p2psync.net.link import LinkError, LinkRefusedError, TlsLink, handshake
from p2psync.net.tcp import format_address, wait_readable
from p2psync.net.tls import client_context, server_context

_HANDSHAKES = 64
"""Handshakes under way at once: strangers can hold no more descriptors than this."""
_HANDSHAKES_PER_ADDRESS = 8
_UNDISTURBED_S = 1.0
"""A handshake on a LAN takes some milliseconds. One that took so long gives way where there are too
many, or strangers that say nothing would keep out all others."""
_TOLD_AT_ONCE = 100
"""Refusals told in a row; then one a second, or a stranger could fill the log."""
_BACKLOG = 128
_ACCEPT_PAUSE = 0.2
"""Seconds without accepting when the process has run out of descriptors or memory."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}

_log = logging.getLogger(__name__)


class _Opening:
    """An accepted socket whose handshake is under way."""

    def __init__(self, host: str, began: float) -> None:
        self.host = host
        self.began = began
        self.pairs = False
        """It came to pair. It keeps its place, since to be cut off may cost the window a guess; the
        window bounds how many there are."""
        self.gives_way = False


_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class Endpoint:
    """Where this device meets its peers. `start`, then `set_peers` as the roster changes, `stop`.

    `on_link` is awaited for every accepted link, in a task of its own, and owns the link from then
    on; if it raises, the link is closed. `on_refused` is told the address of every connection that
    was turned away, and a sentence why. `on_pairing` is awaited with the socket of everyone who
    comes to pair, owns it, and bounds the time it takes. `listen` holds (host, port) pairs; port 0
    takes a free port, the same one for all hosts where possible, and `last_port` if that is free:
    others know it. "::" means IPv6 alone, and is passed over where the machine has none, unless it
    is the only one.
    """

    def __init__(
        self,
        identity: Identity,
        home: Path,
        *,
        listen: Sequence[tuple[str, int]],
        on_link: Callable[[TlsLink], Awaitable[None]],
        on_refused: Callable[[str, str], None],
        on_pairing: Callable[[socket.socket], Awaitable[None]],
        last_port: int = 0,
        handshake_timeout: float = 10.0,
    ) -> None:
        self._device = identity.device
        self._files = IdentityFiles.in_home(home)
        self._listen = listen
        self._on_link = on_link
        self._on_refused = on_refused
        self._on_pairing = on_pairing
        self._last_port = last_port
        self._handshake_timeout = handshake_timeout
        self._peers: Mapping[DeviceID, bytes] = {}
        self._server_context = server_context(self._files, ())
        self._client_context = client_context(self._files, ())
        self._listeners: list[socket.socket] = []
        self._runner: asyncio.Task[None] | None = None
        self._opening: dict[socket.socket, _Opening] = {}
        self._may_tell = float(_TOLD_AT_ONCE)
        self._told_at = 0.0
        self._links: set[TlsLink] = set()
        """Every link made here that may still be open."""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of every listening socket, with the ports really bound."""
        names = (listener.getsockname() for listener in self._listeners)
        return [(name[0], name[1]) for name in names]

    def set_peers(self, peers: Mapping[DeviceID, bytes]) -> None:
        """Accept exactly these devices, by certificate (DER), in every handshake that ends later.

        Links that exist are left alone. A certificate that does not name its device is left out
        and logged. Raises ConfigError when the identity cannot be loaded from the home.
        """
        # First of all: whatever fails below, who is no longer a peer is refused from here on.
        self._peers = {
            device: certificate
            for device, certificate in peers.items()
            if device != self._device and _names(certificate, device)
        }
        server = server_context(self._files, self._peers.values())
        client = client_context(self._files, self._peers.values())
        self._server_context, self._client_context = server, client

    async def start(self) -> None:
        """Bind, and accept from now on. Raises ConfigError when an address cannot be bound."""
        try:
            for host, port in self._listen:
                await self._bind(host, port)
        except BaseException:
            self._close_listeners()
            raise
        self._runner = asyncio.create_task(self._run(), name="endpoint")

    async def stop(self) -> None:
        """Stop listening, end every task and close every link that came from here. Idempotent."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
            self._runner = None
        self._close_listeners()
        for sock in self._opening:
            # Its task was ended before it began.
            sock.close()
        self._opening.clear()
        async with asyncio.TaskGroup() as closing:
            for link in self._links:
                closing.create_task(link.close())
        self._links = set()

    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID | None,
        timeout: float,  # noqa: ASYNC109 - one bound for look-up, connection and handshake
    ) -> TlsLink:
        """A link to the paired device at this address, owned by the caller, within `timeout` s.

        `expect` names the one device that will do; to any other this one does not show itself.
        Raises LinkRefusedError when a side does not accept the other, and LinkError for the rest.
        """
        if expect is not None and expect not in self._peers:
            raise LinkRefusedError(
                f"Device {short_device_id(expect)} is not paired with this one. "
                "Pair them: `p2psync pair new` on one, `p2psync pair join` on the other."
            )
        address = format_address((host, port))
        try:
            async with asyncio.timeout(timeout):
                sock = await _connect(host, port)
                link = await handshake(
                    sock,
                    self._client_context,
                    server_side=False,
                    pinned=self._peers if expect is None else {expect: self._peers[expect]},
                    timeout=timeout,
                )
        except TimeoutError as error:
            raise LinkError(
                f"No device answered at {address} within {timeout:g} s. "
                "Check the address, and that the device is on and can be reached."
            ) from error
        await self._admit(link)
        return link

    async def _admit(self, link: TlsLink) -> None:
        """Judge a finished handshake by the peers of now: they may have changed under way."""
        self._links = {link} | {known for known in self._links if not known.closed}
        if self._peers.get(link.peer) != link.peer_certificate:
            await link.close()
            raise LinkRefusedError(
                f"Device {short_device_id(link.peer)} at {link.remote_address} was removed."
            )

    async def _bind(self, host: str, port: int) -> None:
        try:
            found = await _look_up(host, port, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in found:
                self._listeners.append(self._listener(family, kind, protocol, address))
        except OSError as error:
            if host == "::" and len(self._listen) > 1 and error.errno in _NO_SUCH_FAMILY:
                return
            taken = error.errno == errno.EADDRINUSE
            reason = "another program already does" if taken else error.strerror
            raise ConfigError(
                f"This device cannot listen on {format_address((host, port))}: {reason}. "
                "Choose another listen address, or free this one, and start again."
            ) from error

    def _listener(
        self, family: int, kind: int, protocol: int, address: tuple[Any, ...]
    ) -> socket.socket:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Leaves the same port of IPv4 to a listener of its own.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            host, port, *scope = address
            # Sightings carry one port for all addresses of a device.
            known = next((bound for _, bound in self.addresses), self._last_port)
            shared = known if port == 0 else port
            try:
                listener.bind((host, shared, *scope))
            except OSError as error:
                if shared == port or error.errno != errno.EADDRINUSE:
                    raise
                listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for listener in self._listeners:
                tasks.create_task(self._accept(listener, tasks), name="endpoint accept")

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        while True:
            await wait_readable(listener)
            try:
                sock, name = listener.accept()
            except OSError as error:
                # Anything else concerns the one connection, which is gone.
                if error.errno in _EXHAUSTED:
                    _log.warning("Cannot accept a connection: %s.", error.strerror)
                    await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if not self._has_room(name[0]):
                sock.close()
                self._tell_refused(name, "Too many connections were being opened at once.")
                continue
            self._opening[sock] = _Opening(name[0], asyncio.get_running_loop().time())
            tasks.create_task(self._serve(sock, name), name="endpoint link")

    def _has_room(self, host: str) -> bool:
        """Whether one more from this host may begin, if need be in place of one that dawdles, or of
        one whose host holds more places."""
        opening = {sock: one for sock, one in self._opening.items() if not one.gives_way}
        hosts = collections.Counter(one.host for one in opening.values())
        if hosts[host] >= _HANDSHAKES_PER_ADDRESS:
            own = (sock for sock in opening if opening[sock].host == host)
            return self._makes_way(own, _UNDISTURBED_S)
        if len(opening) >= _HANDSHAKES:
            most = max(hosts.values())
            # A stranger that always opens new ones would else keep out those who come once.
            undisturbed_s = 0.0 if hosts[host] + 1 < most else _UNDISTURBED_S
            busiest = (sock for sock in opening if hosts[opening[sock].host] == most)
            return self._makes_way(busiest, undisturbed_s)
        return True

    def _makes_way(self, candidates: Iterable[socket.socket], undisturbed_s: float) -> bool:
        latest = asyncio.get_running_loop().time() - undisturbed_s
        for sock in candidates:  # the oldest first
            one = self._opening[sock]
            if one.began <= latest and not one.pairs:
                one.gives_way = True
                with contextlib.suppress(OSError):
                    # Its task, begun or not, finds that the other side is gone.
                    sock.shutdown(socket.SHUT_RDWR)
                return True
        return False

    async def _serve(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        """One accepted connection, from handshake to hand-over. Raises nothing."""
        try:
            try:
                if await _comes_to_pair(sock, self._handshake_timeout):
                    self._opening[sock].pairs = True
                    await self._on_pairing(sock)
                    return
                link = await handshake(
                    sock,
                    self._server_context,
                    server_side=True,
                    pinned=self._peers,
                    timeout=self._handshake_timeout,
                )
            finally:
                del self._opening[sock]
            await self._admit(link)
        except LinkError as error:
            self._tell_refused(name, str(error))
            return
        except Exception:
            _log.exception("A connection from %s failed.", format_address(name))
            return
        try:
            await self._on_link(link)
        except Exception:
            _log.exception("A link from %s failed.", link.remote_address)
            await link.close()

    def _tell_refused(self, name: tuple[Any, ...], reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._may_tell = min(float(_TOLD_AT_ONCE), self._may_tell + now - self._told_at)
        self._told_at = now
        if self._may_tell < 1:
            return
        self._may_tell -= 1
        try:
            self._on_refused(format_address(name), reason)
        except Exception:
            _log.exception("Nobody could be told that %s was refused.", format_address(name))

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


async def _comes_to_pair(sock: socket.socket, timeout: float) -> bool:  # noqa: ASYNC109
    """What the first byte says, which stays unread. Raises LinkError, with the socket closed."""
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            await wait_readable(sock)
        first = sock.recv(1, socket.MSG_PEEK)
    except TimeoutError as error:
        sock.close()
        raise LinkError(f"Whoever connected said nothing within {timeout:g} s.") from error
    except OSError as error:
        sock.close()
        raise LinkError("Whoever connected hung up at once.") from error
    except BaseException:
        sock.close()
        raise
    return first == b"\0"


def _names(certificate: bytes, device: DeviceID) -> bool:
    try:
        if device_of_certificate(certificate) == device:
            return True
    except ValueError:
        pass
    _log.warning("The certificate kept for device %s is not its own.", short_device_id(device))
    return False


async def _look_up(host: str, port: int, *, flags: int = 0) -> Sequence[_Found]:
    """Socket addresses of a host; one that is an address already needs no thread."""
    stream = socket.SOCK_STREAM
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=stream, flags=flags | socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=stream, flags=flags)


async def _connect(host: str, port: int) -> socket.socket:
    """A connection to the first of the host's addresses that answers. Raises LinkError."""
    address = format_address((host, port))
    if not 0 < port < 65536:
        raise LinkError(f"{address} is no address: ports go from 1 to 65535. Check the address.")
    try:
        found = await _look_up(host, port)
    except (OSError, ValueError) as error:  # ValueError: no name of a host can look like this
        raise LinkError(
            f"No address is known for the host in {address}. Check the spelling."
        ) from error
    reason = "it has no address"
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, target)
        except OSError as error:
            sock.close()
            # asyncio puts words of its own into `strerror`.
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise LinkError(
        f"No device answers at {address}: {reason}. Check the address, and that p2psync runs there."
    )
