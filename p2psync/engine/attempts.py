"""Which wanted paths are not to be tried for now, and when they are again.

A path is tried at once when what is offered for it changes, whatever came before.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from p2psync.core.relpath import RelPath
from p2psync.engine.problems import Problems
from p2psync.ports import Clock, Problem, Wanted

SOON_S = 0.1
"""First pause where another look at the disk most likely settles it."""
LATER_S = 2.0
NEVER_S = math.inf
"""Not before something else happens."""
_LONGEST_S = 300.0


class _Attempt(NamedTuple):
    stamp: int
    """Of the offers that were tried."""
    tries: int
    due: float
    is_problem: bool


class Attempts:
    def __init__(self, clock: Clock, problems: Problems) -> None:
        self._clock = clock
        self._problems = problems
        self._failed: dict[RelPath, _Attempt] = {}

    def put_off(self, wanted: Wanted, first_s: float, problem: Problem | None = None) -> None:
        """Try again after `first_s` seconds, twice as long after each further failure."""
        count = self.count(wanted) + 1
        pause = first_s if count == 1 else max(first_s, min(first_s * 2.0**count, _LONGEST_S))
        due = self._clock.monotonic() + pause
        self._failed[wanted.path] = _Attempt(wanted.stamp, count, due, problem is not None)
        if problem is not None:
            self._problems.set("pull", problem._replace(path=wanted.path))
        else:
            self._problems.clear("pull", wanted.path)

    def count(self, wanted: Wanted) -> int:
        """How often it was put off since its offers changed."""
        before = self._failed.get(wanted.path)
        return before.tries if before is not None and before.stamp == wanted.stamp else 0

    def succeeded(self, path: RelPath) -> None:
        attempt = self._failed.pop(path, None)
        if attempt is not None and attempt.is_problem:
            self._problems.clear("pull", path)

    def skipped(self) -> dict[RelPath, int]:
        """Paths not to be tried now, with the stamps of the offers for which that is so."""
        now = self._clock.monotonic()
        return {path: each.stamp for path, each in self._failed.items() if each.due > now}

    def due(self) -> list[RelPath]:
        now = self._clock.monotonic()
        return [path for path, each in self._failed.items() if each.due <= now]

    def keep_only(self, paths: Iterable[RelPath], *, of: Iterable[RelPath]) -> None:
        """Forget those `of` these paths that are not among `paths`: they are wanted no more."""
        for path in set(of).difference(paths):
            self.succeeded(path)

    def forgive(self) -> None:
        """Try at once what no problem stood against: another peer may have it."""
        now = self._clock.monotonic()
        for path, each in self._failed.items():
            if not each.is_problem:
                self._failed[path] = each._replace(due=now)

    def next_due(self, *, after: float) -> float:
        """Seconds until the first is due that was not yet so at `after`; infinite for none."""
        nearest = min(
            (each.due for each in self._failed.values() if each.due > after), default=NEVER_S
        )
        return max(0.0, nearest - self._clock.monotonic())
