"""How many requests are under way at a peer: as many as keep it busy, and no more.

In flight divided by the time of an answer is the throughput (Little, 1961). A slow peer with much
under way would hold what fast ones could have sent meanwhile; a fast one far away with little would
stand still between two requests.
"""

from typing import NamedTuple

REQUEST_BYTES = 1024 * 1024
"""Asked for at once, unless a single chunk is larger."""
FIRST = 4
MOST = 8
_AHEAD_S = 0.25
"""What a peer sends within this time is under way."""
_NEW = 0.25
"""What the last answer counts for; those before it are the rest."""


class Window(NamedTuple):
    rate: float = 0.0
    """Bytes a second; 0 until the first answer."""

    @property
    def requests(self) -> int:
        if not self.rate:
            return FIRST
        return max(1, min(MOST, round(self.rate * _AHEAD_S / REQUEST_BYTES)))

    def after(self, size: int, seconds: float, under_way: int) -> "Window":
        """`size` bytes came after so long, when so many requests of about that size were under way,
        this one included."""
        if size <= 0 or seconds <= 0:
            return self
        now = size * under_way / seconds
        return Window(now if not self.rate else self.rate + (now - self.rate) * _NEW)
