"""How much is under way at a peer: as much as keeps it busy, and no more.

In flight divided by the time of an answer is the throughput (Little, 1961). A slow peer with much
under way would hold what fast ones could have sent meanwhile; a fast one far away with little would
stand still between two requests.
"""

from typing import NamedTuple

REQUEST_BYTES = 1024 * 1024
"""Asked for at once, unless a single chunk is larger."""
LARGE_REQUEST_BYTES = 2 * REQUEST_BYTES
"""They cost both sides less, but an answer is a frame that nothing can overtake: for peers that
send it within `_LONGEST_FRAME_S`."""
FIRST = 4 * REQUEST_BYTES
MOST = 8 * REQUEST_BYTES
"""Bytes of one fetch. All that are under way at a peer have REQUESTS_AT_ONCE requests together."""
_LONGEST_FRAME_S = 0.05
_AHEAD_S = 0.25
"""What a peer sends within this time is under way."""
_NEW = 0.25
"""What the last answer counts for; those before it are the rest."""


class Window(NamedTuple):
    rate: float = 0.0
    """Bytes a second; 0 until the first answer."""

    @property
    def request_bytes(self) -> int:
        """The size of one request."""
        is_soon_sent = self.rate * _LONGEST_FRAME_S >= LARGE_REQUEST_BYTES
        return LARGE_REQUEST_BYTES if is_soon_sent else REQUEST_BYTES

    def requests(self, most: int = MOST) -> int:
        """So many of that size, one at least; `most`: bytes of all of them."""
        under_way = self.rate * _AHEAD_S if self.rate else FIRST
        return max(1, round(min(under_way, most, MOST) / self.request_bytes))

    def after(self, size: int, seconds: float, under_way: int) -> "Window":
        """`size` bytes came after so long, when so many requests of about that size were under way,
        this one included."""
        if size <= 0 or seconds <= 0:
            return self
        now = size * under_way / seconds
        return Window(now if not self.rate else self.rate + (now - self.rate) * _NEW)
