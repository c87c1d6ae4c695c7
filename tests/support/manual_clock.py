"""A clock that a test moves."""


class ManualClock:
    """`ports.Clock`. Both its times move together, unless somebody sets the clock."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._seconds = 1000.0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)
        self._seconds += seconds

    def set_by(self, seconds: float) -> None:
        """Set the time of day; the monotonic clock takes no notice."""
        self._now_ns += round(seconds * 1e9)
