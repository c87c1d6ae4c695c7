"""Counts what devices put on their links, where the network takes it over."""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from p2psync.protocol.messages import AnyMessage

_NAMES = {kind.__struct_config__.tag: kind.__name__ for kind in get_args(AnyMessage)}
_HEAD = 8

KEEP_ALIVE = frozenset({"Ping", "Pong"})
NOW_AND_THEN = KEEP_ALIVE | {"FolderDigest"}
"""What goes on when nothing else does."""


class Meter:
    def __init__(self) -> None:
        self.messages: Counter[tuple[bytes, str]] = Counter()
        """By sender and type."""
        self.bytes: Counter[tuple[bytes, str]] = Counter()
        """Frames as a link is given them: without TLS, TCP and IP."""
        self.last_work_s = 0.0
        """When there was last something that is not only said now and then."""

    def sent(self, sender: bytes, data: bytes, *, now_s: float) -> None:
        """`data` is whole frames."""
        at = 0
        while at < len(data):
            body = int.from_bytes(data[at : at + 4])
            size = _HEAD + body + int.from_bytes(data[at + 4 : at + _HEAD])
            if at + size > len(data):
                raise ValueError("a frame was sent in parts")
            # A message is a short msgpack array, whose first item is a small number.
            name = _NAMES[data[at + _HEAD + 1]]
            self.messages[sender, name] += 1
            self.bytes[sender, name] += size
            if name not in NOW_AND_THEN:
                self.last_work_s = now_s
            at += size

    def clear(self) -> None:
        self.messages.clear()
        self.bytes.clear()


def by_type(counted: Counter[tuple[bytes, str]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, name), count in counted.items():
        found[name] += count
    return dict(sorted(found.items()))


def of_device(
    counted: Counter[tuple[bytes, str]], device: bytes, *, without: Iterable[str] = ()
) -> int:
    left_out = set(without)
    return sum(
        count
        for (sender, name), count in counted.items()
        if sender == device and name not in left_out
    )
