"""Which network interfaces discovery may use, and their addresses."""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, ip_address

import ifaddr

_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_RUNNING = 0x1, 0x8, 0x10, 0x40
_SIOCGIFFLAGS = 0x8913


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface that is up, with those of its addresses that were chosen."""

    name: str
    index: int
    is_loopback: bool
    is_point_to_point: bool
    ipv4: tuple[IPv4Interface, ...]
    ipv6: tuple[IPv6Address, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """IPv4 first, without zones."""
        return (*(str(one.ip) for one in self.ipv4), *(str(one) for one in self.ipv6))

    @property
    def broadcasts(self) -> tuple[str, ...]:
        """The IPv4 broadcast address of each subnet that has one (/31 and /32 have none)."""
        if self.is_point_to_point:
            return ()
        nets = (one.network for one in self.ipv4 if one.network.prefixlen < 31)
        return tuple(dict.fromkeys(str(net.broadcast_address) for net in nets))


def choose_interfaces(
    found: Iterable[Interface], wanted: Sequence[str] | None
) -> tuple[Interface, ...]:
    """Those of `found` that `wanted` names.

    None means all but point-to-point ones, and loopback only where there is nothing else. A name
    takes the whole interface; an address takes the interface with that address alone; any
    loopback address ("127.0.0.1", "::1") takes the whole loopback interface, so that what is
    confined to one of its addresses is still found. Names and addresses that are not there are
    passed over: they may come later.
    """
    found = tuple(found)
    if wanted is None:
        shared = tuple(one for one in found if not one.is_point_to_point and not one.is_loopback)
        return shared or tuple(one for one in found if one.is_loopback)
    chosen = (_narrow(one, wanted) for one in found)
    return tuple(one for one in chosen if one is not None)


def list_interfaces() -> tuple[Interface, ...]:
    """Every interface that is up and running and has an address, sorted by index."""
    interfaces = []
    for adapter in ifaddr.get_adapters():
        flags = _flags_of(adapter.name)
        ipv4 = [IPv4Interface((ip.ip, ip.network_prefix)) for ip in adapter.ips if ip.is_IPv4]
        ipv6 = [IPv6Address(ip.ip[0]) for ip in adapter.ips if isinstance(ip.ip, tuple)]
        if not flags & _IFF_UP or not flags & _IFF_RUNNING or not (ipv4 or ipv6):
            continue
        interfaces.append(
            Interface(
                name=adapter.name,
                index=adapter.index or 0,
                is_loopback=bool(flags & _IFF_LOOPBACK)
                or any(one.ip.is_loopback for one in ipv4)
                or any(one.is_loopback for one in ipv6),
                is_point_to_point=bool(flags & _IFF_POINTOPOINT),
                ipv4=tuple(sorted(ipv4)),
                ipv6=tuple(sorted(ipv6)),
            )
        )
    return tuple(sorted(interfaces, key=lambda one: (one.index, one.name)))


def _narrow(interface: Interface, wanted: Sequence[str]) -> Interface | None:
    if interface.name in wanted:
        return interface
    chosen = set()
    for text in wanted:
        with contextlib.suppress(ValueError):  # the name of another interface
            chosen.add(ip_address(text))
    if interface.is_loopback:
        return interface if any(one.is_loopback for one in chosen) else None
    ipv4 = tuple(one for one in interface.ipv4 if one.ip in chosen)
    ipv6 = tuple(one for one in interface.ipv6 if one in chosen)
    if not ipv4 and not ipv6:
        return None
    return Interface(
        name=interface.name,
        index=interface.index,
        is_loopback=False,
        is_point_to_point=interface.is_point_to_point,
        ipv4=ipv4,
        ipv6=ipv6,
    )


def _flags_of(name: str) -> int:
    """The kernel's flags; where they cannot be asked for, those of a plain interface that is up.

    Not from /sys: in a network namespace it may still show the interfaces of another one.
    """
    if sys.platform != "linux":
        return _IFF_UP | _IFF_RUNNING
    import fcntl

    request = struct.pack("16s24x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        except OSError:  # it went away between listing and asking
            return 0
    flags: int = struct.unpack_from("=H", answer, 16)[0]
    return flags
