"""What happened in a simulation, in order, and what must not have."""

from collections import Counter
from collections.abc import Callable

import blake3


class ViolationError(Exception):
    """A promise was broken."""


class Trace:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        """Of operations and faults by kind."""
        self.violations: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(f"{self._now():.6f} {line}")

    def count(self, kind: str, line: str) -> None:
        """An operation or a fault."""
        self.counts[kind] += 1
        self.say(f"{kind} {line}")

    def violation(self, line: str) -> None:
        """Noted where raising would be caught by what is tested."""
        self.violations.append(line)
        self.say(f"VIOLATION {line}")

    def check(self) -> None:
        if self.violations:
            raise ViolationError(self.violations[0])

    def digest(self) -> str:
        return blake3.blake3("\n".join(self.lines).encode()).hexdigest()
