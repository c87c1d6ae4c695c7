"""What one schedule consists of, drawn from its seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

T = TypeVar("T")

_S = 1_000_000_000
_SLOW_S = 0.06


@dataclass
class Mix:
    """Rates are events a second, of all devices together."""

    devices: int = 2
    topology: str = "mesh"
    seconds: float = 8.0
    operations: float = 1.5
    large: float = 0.0
    equal_start: bool = False
    latency_s: float = 0.002
    slowness_s: float = 0.001
    timer_jitter_s: float = 0.0
    scan_interval_s: float = 40.0
    granularity_ns: int = 1
    skew_ns: int = 0
    brakes: int = 0
    """So many deletions may pass; 0: as many as usual."""
    events_lost: float = 0.0
    interference: float = 0.0
    """The share of a commit's steps between whose calls a user acts."""
    steps: float = 0.0
    """Of a clock."""
    partitions: float = 0.0
    half_open: float = 0.0
    cuts: float = 0.0
    reoffers: float = 0.0
    crashes: float = 0.0
    crash_points: float = 0.0
    stops: float = 0.0
    absences: float = 0.0
    index_losses: float = 0.0
    index_rollbacks: float = 0.0
    disk_rollbacks: float = 0.0
    full_disks: float = 0.0
    failing_calls: float = 0.0
    database_troubles: float = 0.0
    lost_roots: float = 0.0
    pauses: float = 0.0
    removals: float = 0.0
    unreadable: float = 0.0
    rot: float = 0.0

    def rates(self) -> dict[str, float]:
        """Of the faults that come at random times."""
        names = [field.name for field in fields(self)]
        after = names[names.index("steps") :]
        return {name: getattr(self, name) for name in after if getattr(self, name) > 0}


_RATES = {
    "partitions": 0.15,
    "half_open": 0.1,
    "cuts": 0.3,
    "reoffers": 0.3,
    "crashes": 0.15,
    "crash_points": 0.25,
    "stops": 0.1,
    "index_losses": 0.06,
    "index_rollbacks": 0.08,
    "disk_rollbacks": 0.08,
    "full_disks": 0.1,
    "failing_calls": 0.4,
    "database_troubles": 0.1,
    "lost_roots": 0.1,
    "pauses": 0.15,
    "removals": 0.08,
    "unreadable": 0.1,
    "rot": 0.2,
}
_RARE = ("index_losses", "index_rollbacks", "disk_rollbacks", "removals")


def draw_mix(source: random.Random, *, devices: int | None) -> Mix:
    mix = Mix()
    mix.devices = devices or _choose(source, [(2, 10), (3, 9), (4, 3), (5, 1), (8, 0.3)])
    if mix.devices > 2:
        mix.topology = _choose(source, [("mesh", 6), ("line", 1), ("ring", 1), ("star", 1)])
    mix.seconds = source.choice((3.0, 6.0, 10.0, 15.0))
    mix.operations = source.choice((0.7, 1.5, 3.0, 8.0))
    if mix.devices > 3:
        # What one does costs each of the others.
        mix.operations *= 4.0 / mix.devices**2
    mix.large = source.choice((0.0, 0.0, 0.0, 0.1))
    mix.equal_start = source.random() < 0.5
    mix.latency_s = source.choice((0.0003, 0.002, 0.03, 0.2))
    mix.slowness_s = source.choice((0.0002, 0.001, 0.01, _SLOW_S))
    mix.timer_jitter_s = source.choice((0.0, 0.0, 0.005))
    mix.scan_interval_s = source.choice((17.0, 31.0, 53.0))
    if mix.slowness_s >= _SLOW_S:
        # Or some device of many would be scanning at any time.
        mix.scan_interval_s *= 5.0
    if source.random() < 0.3:
        mix.granularity_ns = source.choice((10_000_000, _S, 2 * _S))
    if source.random() < 0.3:
        mix.skew_ns = source.choice((100 * _S // 1000, 5 * _S, 3600 * _S, 86_400 * _S))
    if source.random() < 0.2:
        mix.events_lost = source.choice((0.3, 1.0))
    if source.random() < 0.3:
        mix.interference = source.choice((0.05, 0.3))
    if source.random() < 0.1:
        mix.brakes = source.choice((1, 3))
    for name, rate in _RATES.items():
        if source.random() < (0.08 if name in _RARE else 0.2):
            setattr(mix, name, rate * source.choice((0.5, 1.0, 3.0)))
    if source.random() < 0.06:
        mix.absences, mix.seconds, mix.operations = 0.03, 150.0, 0.15
        for name in mix.rates().keys() - {"absences", "cuts", "stops"}:
            setattr(mix, name, 0.0)
    # A second that comes twice may have two contents of one size in it, which nothing could tell
    # apart; and a sequence that is handed out by the clock is handed out again.
    if (
        source.random() < 0.15
        and mix.granularity_ns == 1
        and not (mix.index_rollbacks or mix.disk_rollbacks)
    ):
        mix.steps = 0.2
    return mix


def edges(mix: Mix) -> set[frozenset[int]]:
    """Who can reach whom."""
    count = mix.devices
    line = {frozenset((number, number + 1)) for number in range(count - 1)}
    if mix.topology == "line":
        return line
    if mix.topology == "ring":
        return line | {frozenset((0, count - 1))}
    if mix.topology == "star":
        return {frozenset((0, number)) for number in range(1, count)}
    return {frozenset((one, other)) for one in range(count) for other in range(one)}


def _choose(source: random.Random, weighted: Sequence[tuple[T, float]]) -> T:
    values, weights = zip(*weighted, strict=True)
    chosen: T = source.choices(values, weights)[0]
    return chosen
