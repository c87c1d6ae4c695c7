"""What mDNS says of a device or a pairing window, and how much of what it hears is believed.

Pure: the network is in `mdns`. Told are the device ID, addresses and a port, or a pairing
window's nameplate, addresses and port: no name of a host, user, folder or device.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.net.sighting import MAX_NAMEPLATE, Sighting

DEVICE_SERVICE = "_p2psync._tcp.local."
PAIRING_SERVICE = "_p2psync-pair._tcp.local."

_VERSION = "1"
_MAX_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class Service:
    """One instance to publish."""

    type: str
    name: str
    server: str
    port: int
    text: tuple[tuple[str, str], ...]
    addresses: tuple[str, ...]


def device_service(device: DeviceID, port: int, addresses: Sequence[str]) -> Service:
    short = short_device_id(device)
    identity = base64.b32encode(device).decode("ascii").rstrip("=").lower()
    return Service(
        type=DEVICE_SERVICE,
        name=f"{short}.{DEVICE_SERVICE}",
        server=_server(device),
        port=port,
        text=(("v", _VERSION), ("id", identity)),
        addresses=tuple(addresses[:_MAX_ADDRESSES]),
    )


def pairing_service(
    device: DeviceID, nameplate: int, port: int, *, instance: str, addresses: Sequence[str]
) -> Service:
    """`instance` is drawn for each window, so that a new one never takes over an old one's."""
    return Service(
        type=PAIRING_SERVICE,
        name=f"{instance}.{PAIRING_SERVICE}",
        server=_server(device),
        port=port,
        text=(("v", _VERSION), ("np", str(nameplate))),
        addresses=tuple(addresses[:_MAX_ADDRESSES]),
    )


def _server(device: DeviceID) -> str:
    return f"p2psync-{short_device_id(device)}.local."


def read_sighting(
    service_type: str,
    text: Mapping[str, str | None],
    addresses: Sequence[str],
    port: int | None,
    *,
    with_loopback: bool,
) -> Sighting | None:
    """What an instance says, or None where it is not well-formed or has no address of use.

    Loopback addresses are passed over unless `with_loopback`: told by another machine they would
    have this device dial its own services.
    """
    hosts = [host for host in addresses[:_MAX_ADDRESSES] if _is_dialable(host, with_loopback)]
    if text.get("v") != _VERSION or not hosts or not port or not 0 < port <= 0xFFFF:
        return None
    device = nameplate = None
    if service_type == PAIRING_SERVICE:
        nameplate = _read_nameplate(text.get("np") or "")
    else:
        device = _read_device(text.get("id") or "")
    if device is None and nameplate is None:
        return None
    return Sighting(device, tuple((host, port) for host in hosts), "mdns", nameplate)


def _read_nameplate(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return None
    return int(text) if 0 < int(text) <= MAX_NAMEPLATE else None


def _read_device(text: str) -> DeviceID | None:
    try:
        device = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError):
        return None
    return DeviceID(device) if len(device) == 32 else None


def _is_dialable(host: str, with_loopback: bool) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if address.is_multicast or address.is_unspecified:
        return False
    return with_loopback or not address.is_loopback
