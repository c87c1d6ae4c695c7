"""Whether a process takes more and more: what its readings at rest say of its memory and counts.

Pure. Memory has noise, so a line is fitted to it; counts are whole and have to come back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WARM_UP: Final = 0.2
"""This part of a life, at its beginning, says nothing about the rest of it."""

ALLOWED_BYTES: Final = 3 << 20
"""Growth of memory over the time looked at that is never called a leak: how pages happen to be
shared out makes about as much."""

LEAST_READINGS: Final = 8
"""With fewer a line means nothing."""

LEAST_SECONDS: Final = 600.0
"""Over less the line of memory means nothing: in its first minutes a process still grows into what
it needs at most."""

COUNTS: Final = ("descriptors", "threads", "tasks")

_ENDS = 10
"""So many readings at each end, or a third of all, are looked at for a count. What leaks changes
both the lowest and the middle one of them: the lowest, for what is open for a moment comes and
goes; the middle one, for one reading alone may lack what is mostly there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process took at one moment at rest."""

    at: float
    """Seconds since the run began."""
    memory: int
    """Bytes, resident."""
    descriptors: int
    threads: int
    """Beside those of the pool, which grows up to a bound and never shrinks."""
    tasks: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a line through points, by least squares, with its standard error."""

    per_second: float
    error: float


@dataclass(frozen=True, slots=True)
class Verdict:
    seconds: float
    """How long the part after the warm-up was."""
    slope: Slope | None
    """None over too short a time, or with too few readings."""
    faults: tuple[str, ...]
    """What grows, a sentence each."""

    @property
    def is_flat(self) -> bool:
        return self.slope is not None and not self.faults

    def __str__(self) -> str:
        if self.faults:
            return "; ".join(self.faults)
        return "flat" if self.is_flat else "too short to tell"


def fit(points: Sequence[tuple[float, float]]) -> Slope:
    """The slope of y over x. It takes three points, not all at the same x."""
    count = len(points)
    middle_x = math.fsum(x for x, _ in points) / count
    middle_y = math.fsum(y for _, y in points) / count
    spread = math.fsum((x - middle_x) ** 2 for x, _ in points)
    slope = math.fsum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    residues = math.fsum((y - middle_y - slope * (x - middle_x)) ** 2 for x, y in points)
    return Slope(slope, math.sqrt(residues / (count - 2) / spread))


def warm(readings: Sequence[Reading]) -> list[Reading]:
    """Those after the warm-up, in order of time."""
    if not readings:
        return []
    begin, end = readings[0].at, readings[-1].at
    return [one for one in readings if one.at >= begin + WARM_UP * (end - begin)]


def judge(readings: Sequence[Reading]) -> Verdict:
    """`readings` of one process, in order of time.

    Memory is flat when the line through it rises, over the time looked at, by less than
    `ALLOWED_BYTES`, or by less than two standard errors. Counts are when the end equals the
    beginning.
    """
    kept = warm(readings)
    seconds = kept[-1].at - kept[0].at if kept else 0.0
    if len(kept) < LEAST_READINGS or not seconds:
        return Verdict(seconds, None, ())
    slope = None
    if seconds >= LEAST_SECONDS:
        slope = fit([(one.at, float(one.memory)) for one in kept])
    faults = []
    if slope is not None:
        grown, noise = slope.per_second * seconds, 2 * slope.error * seconds
        if grown >= max(ALLOWED_BYTES, noise):
            faults.append(f"memory grew by {grown / (1 << 20):.1f} MiB in {seconds:.0f} s")
    ends = min(_ENDS, len(kept) // 3)
    for name in COUNTS:
        first = sorted(getattr(one, name) for one in kept[:ends])
        last = sorted(getattr(one, name) for one in kept[-ends:])
        if first[0] != last[0] and first[ends // 2] != last[ends // 2]:
            faults.append(f"{name} went from {first[0]} to {last[0]}")
    return Verdict(seconds, slope, tuple(faults))
