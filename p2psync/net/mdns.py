"""Discovery by multicast DNS, on the chosen interfaces.

What the network tells is bounded: 1024 instances are remembered and 16 looked up at a time.
`zeroconf` itself bounds its cache. It is imported in `run`: that takes 0.16 s.
"""

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.net.interfaces import Interface
from p2psync.net.mdns_records import (
    DEVICE_SERVICE,
    PAIRING_SERVICE,
    Service,
    device_service,
    pairing_service,
    read_sighting,
)
from p2psync.net.sighting import Sighting

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

_MAX_INSTANCES = 1024
_MAX_LOOKUPS = 16
_LOOKUP_MS = 3000
_CLOSE_S = 2.0
_ECHO_S = 10.0
"""Time for what this device announces to come back to it."""

_NO_NETWORK = (
    "No network is up, so mDNS cannot find devices. "
    "Connect this device to a network; it is noticed within seconds."
)
_NO_ECHO = (
    "What this device announces by mDNS does not come back to it, so multicast seems to be "
    "blocked. Let the firewall pass UDP port 5353, or connect by address."
)

_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29  # linux/in.h, linux/in6.h

OpenZeroconf = Callable[[list[str | int]], "AsyncZeroconf"]


class _Window(NamedTuple):
    nameplate: int
    port: int
    instance: str


class Mdns:
    """Announces this device and its pairing window, and tells of those of others.

    `on_sighting` is called for every other device or window that appears or changes,
    `on_withdrawn` with the last sighting of one that says goodbye or expires, `on_problem` with a
    sentence when mDNS does not work and with None when it does (again). All are called on the
    event loop and must not block. What is announced may change at any time.
    """

    def __init__(
        self,
        device: DeviceID,
        *,
        interfaces: Callable[[], Sequence[Interface]],
        on_sighting: Callable[[Sighting], None],
        on_withdrawn: Callable[[Sighting], None],
        on_problem: Callable[[str | None], None],
        rescan_s: float = 15.0,
        retry_s: float = 30.0,
        randomness: Callable[[int], bytes] = os.urandom,
        open_zeroconf: OpenZeroconf | None = None,
    ) -> None:
        self._device = device
        self._interfaces = interfaces
        self._on_sighting = on_sighting
        self._on_withdrawn = on_withdrawn
        self._on_problem = on_problem
        self._rescan_s = rescan_s
        self._retry_s = retry_s
        self._randomness = randomness
        self._open_zeroconf = open_zeroconf or _open_zeroconf
        self._port = 0
        self._window: _Window | None = None
        # Both cannot begin another device's name: the one by its hash, the other by 64 random bits.
        self._windows_prefix = randomness(8).hex()
        self._own_instances = (f"{short_device_id(device)}.", f"{self._windows_prefix}-")
        self._changed = asyncio.Event()
        self._echoed = False
        self._seen: OrderedDict[str, Sighting] = OrderedDict()
        self._lookups = 0

    def announce(self, port: int) -> None:
        self._port = port
        self._changed.set()

    def announce_pairing(self, nameplate: int, port: int) -> None:
        instance = f"{self._windows_prefix}-{self._randomness(4).hex()}"
        self._window = _Window(nameplate, port, instance)
        self._changed.set()

    def withdraw_pairing(self) -> None:
        self._window = None
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; then says goodbye, which takes a quarter of a second."""
        await asyncio.to_thread(importlib.import_module, "zeroconf.asyncio")
        # Its warnings are of single packets and interfaces; what matters comes by `on_problem`.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        async with asyncio.TaskGroup() as lookups:
            while True:
                interfaces = self._interfaces()
                if not interfaces:
                    self._on_problem(_NO_NETWORK)
                    await asyncio.sleep(self._rescan_s)
                    continue
                try:
                    await self._serve(interfaces, lookups)
                except _zeroconf_errors() as error:
                    self._on_problem(
                        f"mDNS does not work on this device ({_reason(error)}), so it does not "
                        "find devices. It is tried again; until then the beacon and typed "
                        "addresses are used."
                    )
                    await asyncio.sleep(self._retry_s)

    async def _serve(self, interfaces: Sequence[Interface], lookups: asyncio.TaskGroup) -> None:
        """Announce and browse until the interfaces are gone or turn from loopback to others."""
        loopback = _are_loopback(interfaces)
        self._echoed = False
        async with self._opened(interfaces, lookups) as zeroconf:
            published: dict[str, tuple[Service, ServiceInfo]] = {}
            while True:
                self._changed.clear()
                await _publish(zeroconf, self._services(interfaces), published)
                await self._wait(is_announced=bool(published))
                interfaces = self._interfaces()
                if not interfaces or _are_loopback(interfaces) != loopback:
                    return
                await zeroconf.async_update_interfaces(_targets(interfaces))
                _confine(zeroconf.zeroconf, interfaces)

    @contextlib.asynccontextmanager
    async def _opened(
        self, interfaces: Sequence[Interface], lookups: asyncio.TaskGroup
    ) -> AsyncIterator["AsyncZeroconf"]:
        """A zeroconf that browses; it says goodbye for what is published when it is left."""
        from zeroconf.asyncio import AsyncServiceBrowser

        zeroconf = self._open_zeroconf(_targets(interfaces))
        browser: AsyncServiceBrowser | None = None
        try:
            await zeroconf.zeroconf.async_wait_for_start()
            _confine(zeroconf.zeroconf, interfaces)
            on_change = functools.partial(
                self._on_change, lookups, with_loopback=any(one.is_loopback for one in interfaces)
            )
            browser = AsyncServiceBrowser(
                zeroconf.zeroconf, [DEVICE_SERVICE, PAIRING_SERVICE], handlers=[on_change]
            )
            yield zeroconf
        finally:
            self._seen.clear()
            if browser is not None:
                await browser.async_cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await zeroconf.async_close()

    async def _wait(self, *, is_announced: bool) -> None:
        """Until there is something else to announce or it is time to look at the interfaces."""
        if not is_announced:
            self._on_problem(None)
        awaits_echo = is_announced and not self._echoed
        try:
            async with asyncio.timeout(_ECHO_S if awaits_echo else self._rescan_s):
                await self._changed.wait()
        except TimeoutError:
            if is_announced and not self._echoed:
                self._on_problem(_NO_ECHO)

    def _services(self, interfaces: Sequence[Interface]) -> list[Service]:
        addresses = tuple(address for one in interfaces for address in one.addresses)
        services = []
        if self._port:
            services.append(device_service(self._device, self._port, addresses))
        if self._window is not None:
            services.append(
                pairing_service(
                    self._device,
                    self._window.nameplate,
                    self._window.port,
                    instance=self._window.instance,
                    addresses=addresses,
                )
            )
        return services

    def _on_change(
        self,
        lookups: asyncio.TaskGroup,
        zeroconf: "Zeroconf",
        service_type: str,
        name: str,
        state_change: "ServiceStateChange",
        *,
        with_loopback: bool,
    ) -> None:
        from zeroconf import BadTypeInNameException
        from zeroconf.asyncio import AsyncServiceInfo

        if name.startswith(self._own_instances):
            if not self._echoed:
                self._echoed = True
                self._on_problem(None)
            return
        if state_change.name == "Removed":
            withdrawn = self._seen.pop(name, None)
            if withdrawn is not None:
                self._on_withdrawn(withdrawn)
            return
        try:
            info = AsyncServiceInfo(service_type, name)
        except BadTypeInNameException:
            return
        if info.load_from_cache(zeroconf):
            self._report(info, with_loopback=with_loopback)
        elif self._lookups < _MAX_LOOKUPS:
            self._lookups += 1
            # Ends after `_LOOKUP_MS` at the latest.
            lookups.create_task(self._look_up(zeroconf, info, with_loopback=with_loopback))

    async def _look_up(
        self, zeroconf: "Zeroconf", info: "AsyncServiceInfo", *, with_loopback: bool
    ) -> None:
        try:
            if await info.async_request(zeroconf, _LOOKUP_MS):
                self._report(info, with_loopback=with_loopback)
        except _zeroconf_errors():
            return  # closed meanwhile: the next one asks again
        finally:
            self._lookups -= 1

    def _report(self, info: "ServiceInfo", *, with_loopback: bool) -> None:
        sighting = read_sighting(
            info.type,
            info.decoded_properties,
            info.parsed_scoped_addresses(),
            info.port,
            with_loopback=with_loopback,
        )
        before = self._seen.get(info.name)
        if sighting is None or sighting == before or sighting.device == self._device:
            return
        if before is not None:
            self._on_withdrawn(before)
        self._seen[info.name] = sighting
        self._seen.move_to_end(info.name)
        if len(self._seen) > _MAX_INSTANCES:
            self._seen.popitem(last=False)
        self._on_sighting(sighting)


async def _publish(
    zeroconf: "AsyncZeroconf",
    wanted: Sequence[Service],
    published: dict[str, "tuple[Service, ServiceInfo]"],
) -> None:
    """Make `published` (by instance name) what is `wanted`; all announcements run side by side."""
    sent: list[Awaitable[object]] = []
    names = {service.name for service in wanted}
    for name in published.keys() - names:
        sent.append(await zeroconf.async_unregister_service(published.pop(name)[1]))
    for service in wanted:
        before = published.get(service.name)
        if before is not None and before[0] == service:
            continue
        info = _service_info(service)
        if before is None:
            # The name is unique by what it is made of: to probe for it would only cost a second.
            registered = zeroconf.async_register_service(info, cooperating_responders=True)
            sent.append(await registered)
        else:
            sent.append(await zeroconf.async_update_service(info))
        published[service.name] = (service, info)
    await asyncio.gather(*sent)


def _service_info(service: Service) -> "ServiceInfo":
    from zeroconf import ServiceInfo

    return ServiceInfo(
        service.type,
        service.name,
        port=service.port,
        properties=dict(service.text),
        server=service.server,
        parsed_addresses=list(service.addresses),
    )


def _open_zeroconf(targets: list[str | int]) -> "AsyncZeroconf":
    from zeroconf.asyncio import AsyncZeroconf

    return AsyncZeroconf(interfaces=targets)


def _zeroconf_errors() -> tuple[type[Exception], ...]:
    """RuntimeError: an interface went away between listing and use."""
    from zeroconf import Error

    return (OSError, RuntimeError, Error)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _are_loopback(interfaces: Sequence[Interface]) -> bool:
    return all(one.is_loopback for one in interfaces)


def _targets(interfaces: Sequence[Interface]) -> list[str | int]:
    """As zeroconf wants them: IPv4 addresses, and the index of an interface with IPv6.

    Loopback has IPv4 alone where it can: IPv6 multicast needs a route there that few have.
    """
    targets: list[str | int] = []
    for one in interfaces:
        targets.extend(str(address.ip) for address in one.ipv4)
        if one.ipv6 and one.index and not (one.is_loopback and one.ipv4):
            targets.append(one.index)
    return targets


def _confine(zeroconf: "Zeroconf", interfaces: Sequence[Interface]) -> None:
    """Have the sockets hear nothing but the chosen interfaces, and so answer nothing else.

    zeroconf listens on the wildcard address. There Linux also delivers what other programs joined
    on other interfaces, and what is sent to this machine's own address; an answer would go out
    there. Raises OSError where loopback cannot be kept to itself (Linux before 5.7, not as root).
    """
    if sys.platform != "linux":
        return
    for reader in zeroconf.engine.readers:
        reader.sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        if reader.is_ipv6:
            reader.sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        if _are_loopback(interfaces):
            name = interfaces[0].name.encode()
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
