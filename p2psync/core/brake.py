"""When deletions are too many to pass without a person's word."""

from collections import deque

WINDOW_S = 60.0
"""Deletions within this time are counted together: a slow `rm -r` is found in several portions."""


def brake_holds(deletions: int, files: int, *, least: int, percent: int) -> bool:
    """Whether so many deletions (moves not counted) of so many files wait for approval."""
    return deletions > max(least, files * percent // 100)


class PassedDeletions:
    """How many passed of late. `now` is any clock in seconds that does not go back."""

    def __init__(self) -> None:
        self._passed: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> None:
        if count:
            self._passed.append((now, count))

    def count(self, now: float) -> int:
        while self._passed and self._passed[0][0] <= now - WINDOW_S:
            self._passed.popleft()
        return sum(count for _, count in self._passed)
