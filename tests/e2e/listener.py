"""Record every UDP datagram that passes in this network namespace. Run as a process of its own."""

import socket
import sys
from pathlib import Path

_ANY_PROTOCOL = 0x0003
_UDP = 17
_NEXT_PROTOCOL_V4, _NEXT_PROTOCOL_V6 = 9, 6


def is_datagram(packet: bytes) -> bool:
    """Whether an IP packet carries UDP (IPv6 only without extension headers)."""
    if len(packet) < 20:
        return False
    version = packet[0] >> 4
    place = _NEXT_PROTOCOL_V4 if version == 4 else _NEXT_PROTOCOL_V6
    return version in (4, 6) and packet[place] == _UDP


def main(record: Path) -> None:
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ANY_PROTOCOL)) as heard,
        record.open("ab", buffering=0) as file,
    ):
        print("listening", flush=True)
        while True:
            packet = heard.recv(65_536)
            if is_datagram(packet):
                file.write(packet)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
