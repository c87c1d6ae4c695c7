"""What discovery reports: "device X, or pairing window N, was seen at these addresses"."""

from dataclasses import dataclass
from typing import Literal

from p2psync.core.ids import DeviceID

Source = Literal["mdns", "beacon"]

MAX_NAMEPLATE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Sighting:
    """A hint, never trust: anyone on the network can cause one, with any content.

    Without a nameplate it is a device and `addresses` are those of its sync endpoint. With a
    nameplate it is a pairing window and `addresses` are those of the pairing listener; `device`
    is then None where the source does not tell it. Addresses are never empty; the host is an IP
    address, link-local ones with their zone ("fe80::1%2"), the port is 1-65535.
    """

    device: DeviceID | None
    addresses: tuple[tuple[str, int], ...]
    source: Source
    nameplate: int | None = None
