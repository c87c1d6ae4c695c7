"""When compressing what is sent makes it arrive earlier.

Over a link that takes R bytes a second, n bytes arrive after n/R. Compressed at S bytes a second to
a share q of their size, they arrive after n/S + q·n/R. It pays where

    1/R > MARGIN · (1/S + q/R)

so never where R is near S or above, and never where q is 1/MARGIN or more. Compressing and sending
do overlap in truth; the sum errs on the side of leaving things as they are.
"""

from collections import deque
from typing import NamedTuple

MARGIN = 1.25
"""Compressing takes a processor from somebody, here and there."""
HOPED_SPEED = 150e6
"""Bytes a second: what a common processor reaches with common text."""
LEAST_SEND = 64 * 1024
"""Bytes: less is lost in the system's buffers, and tells nothing of the link."""
LEAST_KNOWN = 1024 * 1024
"""Bytes that make a rate."""
WINDOW_S = 10.0
WINDOW_BYTES = 16 * 1024 * 1024
_REMEMBERED = 0.9


def pays(rate: float, speed: float, ratio: float) -> bool:
    """Whether compressing shortens the time. `rate` and `speed` are bytes a second above 0."""
    return 1 / rate > MARGIN * (1 / speed + ratio / rate)


def may_pay(rate: float) -> bool:
    """Whether it is worth a sample: at such a rate it pays for something that shrinks well."""
    return pays(rate, HOPED_SPEED, 0.0)


class LinkRate:
    """How many bytes a second a link takes, over the last of what was sent. `now` is any clock in
    seconds that does not go back."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, int, float]] = deque()

    def add(self, size: int, seconds: float, now: float) -> None:
        """`size` bytes were taken within `seconds`."""
        if size >= LEAST_SEND:
            self._sent.append((now, size, seconds))
            while sum(size for _, size, _ in self._sent) - self._sent[0][1] >= WINDOW_BYTES:
                self._sent.popleft()

    def value(self, now: float) -> float | None:
        """None while too little was sent of late, and where it took no time at all."""
        while self._sent and self._sent[0][0] <= now - WINDOW_S:
            self._sent.popleft()
        size = sum(size for _, size, _ in self._sent)
        seconds = sum(seconds for _, _, seconds in self._sent)
        return size / seconds if size >= LEAST_KNOWN and seconds > 0 else None


class Speed(NamedTuple):
    """How fast something compresses, as far as was measured; what is long ago counts little."""

    size: float = 0.0
    seconds: float = 0.0

    def after(self, size: int, seconds: float) -> "Speed":
        """`size` more bytes were compressed within `seconds`."""
        return Speed(self.size * _REMEMBERED + size, self.seconds * _REMEMBERED + seconds)

    @property
    def value(self) -> float:
        """Bytes a second; what is hoped for while nothing is known."""
        return self.size / self.seconds if self.size and self.seconds > 0 else HOPED_SPEED
