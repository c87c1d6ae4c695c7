"""Where members may be reached: what worked before, what was seen, what others say. All hints."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from p2psync.core.ids import DeviceID
from p2psync.ports import Address

KEPT = 16
"""Addresses of one device."""


class AddressBook:
    def __init__(self, known: Mapping[DeviceID, Sequence[tuple[str, int, int | None]]]) -> None:
        """`known`: (host, port, when it last worked), the most promising first."""
        self._worked: dict[DeviceID, list[Address]] = {}
        self._hints: dict[DeviceID, list[Address]] = {}
        for device, listed in known.items():
            self._worked[device] = [(host, port) for host, port, at in listed if at is not None]
            self._hints[device] = [(host, port) for host, port, at in listed if at is None]

    def candidates(self, device: DeviceID) -> list[Address]:
        """In the order to be tried: the newest hint, then what worked, then older hints."""
        hints = self._hints.get(device, [])
        ordered = [*hints[:1], *self._worked.get(device, []), *hints[1:]]
        return list(dict.fromkeys(ordered))

    def last_worked(self, device: DeviceID, at_most: int) -> list[Address]:
        return self._worked.get(device, [])[:at_most]

    def worked(self, device: DeviceID, address: Address) -> None:
        self._worked[device] = _first(address, self._worked.get(device, []))

    def hint(self, device: DeviceID, addresses: Iterable[Address]) -> bool:
        """Whether any of them is new."""
        before = set(self.candidates(device))
        listed = list(addresses)
        for address in reversed(listed):
            self._hints[device] = _first(address, self._hints.get(device, []))
        return not before.issuperset(listed)

    def forget(self, device: DeviceID) -> None:
        self._worked.pop(device, None)
        self._hints.pop(device, None)


def is_believable(host: str, *, teller: str) -> bool:
    """Whether an address that a peer at `teller` tells of another device is worth a try.

    A name is not: looking it up would ask servers that the peer chose. A loopback address, in
    whatever spelling, that another machine tells would be a service of this one.
    """
    address = _address(host)
    if address is None or address.is_multicast or address.is_unspecified:
        return False
    if not address.is_loopback:
        return True
    told_from = _address(teller)
    return told_from is not None and told_from.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _first(address: Address, known: list[Address]) -> list[Address]:
    return [address, *(other for other in known if other != address)][:KEPT]
