"""The machine's own clock."""

import time


class SystemClock:
    """`ports.Clock`."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()
